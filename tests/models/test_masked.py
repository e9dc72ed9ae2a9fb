"""Masked language models: pseudo-log-likelihood against a plain loop, filling, loading and saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import evenhand
from evenhand.errors import MissingAbilityError, SettingsError
from evenhand.interfaces import Dialogue, Passage, Question
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_tokenizer

TEXTS = ("the dog saw a cat", "a cat", "the little dog and the cat saw the dog there")


@pytest.fixture
def masked() -> MaskedModel:
    tokenizer = tiny_tokenizer(["the dog saw a little cat and there"], chat=False)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    module = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return MaskedModel(module, tokenizer, name="bert")


def by_hand(model: MaskedModel, text: str, start: int) -> float:
    module, tokenizer = model.weights
    module.eval()
    ids = tokenizer(text)["input_ids"]
    total = 0.0
    for at in range(start, len(ids)):
        hidden = list(ids)
        hidden[at] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = module(input_ids=torch.tensor([hidden])).logits[0, at]
        total += float(torch.log_softmax(logits, -1)[ids[at]])
    return total


def test_scores_equal_a_plain_loop_whatever_the_batch(masked: MaskedModel) -> None:
    passages = [*(Passage(t) for t in TEXTS), Passage(" saw a cat", "the dog")]
    got = masked.score(passages)
    want = [by_hand(masked, t, 1) for t in TEXTS] + [by_hand(masked, "the dog saw a cat", 3)]
    assert [s.logprob for s in got] == pytest.approx(want, abs=1e-4)
    assert [s.tokens for s in got] == [5, 2, 10, 3]
    masked.engine.budget = 1
    assert [s.logprob for s in masked.score(passages)] == pytest.approx(want, abs=1e-4)


def test_scoring_leaves_the_mode_as_it_was(masked: MaskedModel) -> None:
    module = masked.weights.module
    for training in (True, False):
        module.train(training)
        masked.score([Passage("a cat")])
        assert module.training is training


def test_fill_is_the_distribution_at_the_mask(masked: MaskedModel) -> None:
    words = ["dog", "cat", "little"]
    got = masked.fill(["the <mask> saw a cat", "a <mask>"], [words, words[:2]])
    module, tokenizer = masked.weights
    ids = tokenizer("the <mask> saw a cat")["input_ids"]
    with torch.no_grad():
        logits = module.eval()(input_ids=torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)]
    want = torch.log_softmax(logits, -1)[[tokenizer.get_vocab()[w] for w in words]]
    assert np.allclose(got[0], want, atol=1e-4) and got[1].shape == (2,)


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("no mask", ["cat"], "exactly once"),
        ("<mask> <mask>", ["cat"], "exactly once"),
        ("<mask>", ["dog cat"], "2 tokens"),
    ],
)
def test_fill_refuses_what_it_cannot_read(masked: MaskedModel, text: str, words: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        masked.fill([text], [words])


def test_it_neither_chooses_nor_reads_dialogues(masked: MaskedModel) -> None:
    with pytest.raises(MissingAbilityError, match="cannot 'choose'"):
        masked.choose([Question("q", "?", ("a", "b"))])
    with pytest.raises(SettingsError, match="plain texts, not dialogues"):
        masked.score([Passage("x", Dialogue(()).user("hello"))])
    with pytest.raises(SettingsError, match="empty text"):
        masked.score([Passage("", "the dog")])
    with pytest.raises(SettingsError, match="no mask token"):
        MaskedModel(masked.weights.module, tiny_tokenizer(), name="x")


def test_saving_loading_and_fingerprints(masked: MaskedModel, tmp_path: Path) -> None:
    loaded = evenhand.load(masked.save(tmp_path / "bert"))
    assert isinstance(loaded, MaskedModel) and loaded.abilities == {"score", "weights"}
    assert loaded.score([Passage(TEXTS[0])])[0].logprob == pytest.approx(masked.score([Passage(TEXTS[0])])[0].logprob)
    before = loaded.fingerprint
    assert before == evenhand.load(tmp_path / "bert").fingerprint
    with torch.no_grad():
        loaded.weights.module.get_input_embeddings().weight.add_(0.1)
    assert loaded.fingerprint != before
    with pytest.raises(SettingsError, match="unknown option 'answer_by'"):
        evenhand.load(tmp_path / "bert", answer_by="text")
