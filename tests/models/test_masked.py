"""Masked language models: pseudo-log-likelihood against a plain loop, filling, loading and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import evenhand
from evenhand.core import registry
from evenhand.errors import ContextTooLongError, EvenhandError, MissingAbilityError, SettingsError
from evenhand.inference.requests import NOT_FINITE
from evenhand.interfaces import Dialogue, Method, Model, Passage, Question, Score, TrainData, settings
from evenhand.methods.unlearning._pcgu.delta import Delta, Vectors
from evenhand.methods.unlearning._pcgu.edited import DELTA, edited
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel, masked_inside
from evenhand.models.mitigated import Mitigated
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


@settings
class _Halved(Method):
    """Edits a copy of the weights, as `pcgu` does."""

    name = "halved"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return edited(model, self, self._delta(model))

    def restore(self, model: Model, folder: Path) -> Model:
        return edited(model, self, Delta.load(folder / DELTA))

    def _delta(self, model: Model) -> Delta:
        name, rows = "cls.predictions.transform.dense.weight", torch.tensor([1, 3])
        before = model.weights.module.get_parameter(name).detach()[rows]
        return Delta({name: Vectors((1,), rows, before, before.float() * -2)}, {})


@settings
class _Plain(Method):
    name = "plain"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self)


@pytest.mark.parametrize("from_memory", [True, False])
@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16", "too_long": "skip", "batch_tokens": 300}])
def test_an_edited_one_is_saved_and_loaded(
    masked: MaskedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_memory: bool, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(registry.methods._objects, "halved", _Halved)
    base: Any = evenhand.load(masked.save(tmp_path / "bert"), **options)
    if from_memory:
        base = MaskedModel(*base.weights, name="bert", **{k: v for k, v in options.items() if k != "dtype"})
    base.weights  # noqa: B018  # as a check of what a method needs does
    made = _Halved().apply(base)
    passages = [Passage(t) for t in TEXTS]
    assert made.fingerprint != base.fingerprint and made.score(passages) != base.score(passages)
    again: Any = evenhand.load(made.save(tmp_path / "made"), trust_folder=True)
    assert again.score(passages) == made.score(passages)
    assert again.fingerprint == made.fingerprint
    assert (again.base.asking, again.base.precision) == (base.asking, base.precision)


def test_a_method_around_one_is_saved_with_its_options(
    masked: MaskedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.methods._objects, "plain", _Plain)
    given: dict[str, Any] = {"too_long": "skip", "batch_tokens": 99, "dtype": "bfloat16", "name": "b"}
    base = evenhand.load(masked.save(tmp_path / "bert"), **given)
    base.weights  # noqa: B018
    again: Any = evenhand.load(_Plain().apply(base).save(tmp_path / "made"), trust_folder=True)
    assert again.base.asking == {"too_long": "skip", "batch_tokens": 99, "name": "b"}
    assert again.base.precision == {"dtype": "bfloat16"} and again.base.engine.budget == 99
    assert again.base.fingerprint == base.fingerprint


def test_an_untouched_one_keeps_its_fingerprint(masked: MaskedModel, tmp_path: Path) -> None:
    folder = masked.save(tmp_path / "bert")
    model: Any = evenhand.load(folder)
    before = model.fingerprint
    model.weights  # noqa: B018
    assert (model.fingerprint, model.edited) == (before, False)
    model.score([Passage(t) for t in TEXTS])
    model.weights.tokenizer(list(TEXTS), padding=True, truncation=True, max_length=4)
    model.rehash()
    assert (model.fingerprint, model.edited) == (before, False)
    with model.editing() as weights:
        weights.module.cls.predictions.bias.data[3] += 1
    assert model.fingerprint != before and model.edited
    with model.editing() as weights:
        weights.module.cls.predictions.bias.data[3] -= 1
    assert model.fingerprint == before == evenhand.load(folder).fingerprint


def test_a_comparison_leaves_its_fingerprint_alone(tmp_path: Path) -> None:
    model: Any = evenhand.load("demo-mlm")
    before = model.fingerprint
    model.weights  # noqa: B018
    report = evenhand.compare(
        model, "none", "crows_pairs(source=demo)", limit=6, replicates=200, out=tmp_path / "run", show_progress=False
    )
    assert model.fingerprint == before and report.manifest["models"][model.name]["fingerprint"] == before


def test_its_precision_is_part_of_the_fingerprint(masked: MaskedModel, tmp_path: Path) -> None:
    folder = masked.save(tmp_path / "bert")
    one, other = evenhand.load(folder), evenhand.load(folder, dtype="bfloat16")
    assert one.fingerprint != other.fingerprint
    other.weights  # noqa: B018
    assert other.fingerprint == evenhand.load(folder, dtype="bfloat16").fingerprint != one.fingerprint


# ------------------------------------------------------------------------------------- text behind, priors, blanks


def logprobs_at(model: MaskedModel, ids: list[int], at: int) -> torch.Tensor:
    with torch.no_grad():
        logits = model.weights.module.eval()(input_ids=torch.tensor([ids])).logits[0, at]
    return torch.log_softmax(logits, -1)


def test_the_text_behind_is_seen_and_not_scored(masked: MaskedModel) -> None:
    ids = masked.weights.tokenizer("the dog saw a little cat")["input_ids"]
    want = 0.0
    for at in (2, 3):
        want += float(logprobs_at(masked, [*ids[:at], masked._mask, *ids[at + 1 :]], at)[ids[at]])
    got = masked.score([Passage(" dog saw", "the", suffix=" a little cat"), Passage(" dog saw", "the ", suffix="")])
    assert got[0].tokens == 2 and got[0].logprob == pytest.approx(want, abs=1e-4)
    assert got[1].tokens == 2 and got[1].logprob != pytest.approx(want, abs=1e-3), (
        "else the text behind changed nothing"
    )
    assert masked.score([Passage("the", "", suffix=" dog")])[0].tokens == 1


def test_a_blank_before_the_continuation_may_stand_in_the_prompt() -> None:
    model = evenhand.load("demo-mlm")
    one, other = model.score(
        [
            Passage(" she", "The nurse said that", suffix=" was late."),
            Passage("she", "The nurse said that ", suffix=" was late."),
        ]
    )
    assert one == other and one.tokens == 1


def test_unknown_words_at_an_end_are_words_too(masked: MaskedModel) -> None:
    text = "zebra the dog zebra"
    assert masked.score([Passage(text)])[0].tokens == 4
    assert masked.score([Passage(text)])[0].logprob == pytest.approx(by_hand(masked, text, 1), abs=1e-4)
    assert masked.score([Passage(" the dog", "zebra", suffix=" zebra")])[0].tokens == 2


def test_a_causal_model_scores_the_text_behind_with_it(tiny: LocalModel) -> None:
    both, whole = tiny.score([Passage(" dog", "the", suffix=" was there"), Passage(" dog was there", "the")])
    assert both == whole and both.tokens == 3


def test_priors_hide_a_stretch_on_either_side(masked: MaskedModel) -> None:
    ids, mask = masked.weights.tokenizer("the little dog saw a cat")["input_ids"], masked._mask
    hidden = [*ids[:2], mask, mask, ids[4], mask, ids[6]]
    want = float(logprobs_at(masked, hidden, 5)[ids[5]])
    passage = Passage(" a", "the little dog saw", suffix=" cat")
    assert masked.score([passage], ["little dog"])[0].logprob == pytest.approx(want, abs=1e-4)
    behind = [*ids[:4], mask, ids[5], mask]
    want = float(logprobs_at(masked, behind, 4)[ids[4]])
    passage = Passage(" saw", "the little dog", suffix=" a cat")
    assert masked.score([passage], ["cat"])[0].logprob == pytest.approx(want, abs=1e-4)
    assert masked.score([passage], [""]) == masked.score([passage])


@pytest.mark.parametrize(("prompt", "hidden"), [("the dog", "cat"), ("the dog the", "the"), ("a", "saw")])
def test_what_is_hidden_stands_once_beside_the_continuation(masked: MaskedModel, prompt: str, hidden: str) -> None:
    with pytest.raises(SettingsError, match="exactly once outside ' saw'"):
        masked.score([Passage(" saw", prompt)], [hidden])


def test_a_boundary_within_a_token_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"x: ' he' shares a token with 'lpless\.'"):
        evenhand.load("demo-mlm").score([Passage(" he", "Women are", "x", "lpless.")])


def test_top_fills_are_the_best_of_the_distribution(masked: MaskedModel) -> None:
    tokenizer = masked.weights.tokenizer
    got = masked.top_fills([("the ", " saw a cat"), ("", " dog"), ("the little dog saw a", "")], 4)
    for (before, after), fills in zip(
        [("the", "saw a cat"), ("", "dog"), ("the little dog saw a", "")], got, strict=True
    ):
        ids = tokenizer(f"{before} <mask> {after}")["input_ids"]
        logprobs = logprobs_at(masked, ids, ids.index(masked._mask))
        special = {*tokenizer.all_special_ids}
        best = sorted((i for i in range(len(tokenizer)) if i not in special), key=lambda i: -float(logprobs[i]))[:4]
        assert [f.text for f in fills] == [tokenizer.decode([i]).strip() for i in best]
        assert [f.logprob for f in fills] == pytest.approx([float(logprobs[i]) for i in best], abs=1e-4)
    assert masked.top_fills([], 1) == []
    words = len(tokenizer) - len(tokenizer.all_special_ids)
    every = masked.top_fills([("the", " saw")], words)[0]
    assert len(every) == words and not {f.text for f in every} & {*tokenizer.all_special_tokens}
    for k in (0, len(tokenizer)):
        with pytest.raises(SettingsError, match="vocabulary allows 1 to"):
            masked.top_fills([("a", "")], k)


def test_a_text_beyond_the_context_is_an_error_or_skipped(masked: MaskedModel) -> None:
    module, tokenizer = masked.weights
    assert masked.context_length == 512
    long = Passage(" dog" * 511, id="long")
    assert masked.score([long])[0].tokens == 511
    with pytest.raises(ContextTooLongError, match=r"longer needs 513 tokens, but the context of bert has 512; 1 of 2"):
        masked.score([Passage("a cat"), Passage(" dog" * 512, id="longer")])
    with pytest.raises(ContextTooLongError, match="needs 601 tokens"):
        masked.top_fills([("the " * 599, "")], 1)
    skipping = MaskedModel(module, tokenizer, too_long="skip")
    first, second = skipping.score([Passage(" dog" * 512), Passage("a cat")])
    assert np.isnan(first.logprob) and first.tokens == 0 and second == skipping.score([Passage("a cat")])[0]
    assert np.isnan(skipping.score([Passage(" dog" * 512)])[0].logprob)


def test_roberta_has_fewer_positions_than_it_states() -> None:
    from transformers import RobertaConfig, RobertaForMaskedLM

    tokenizer = tiny_tokenizer(chat=False)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=20, pad_token_id=1, **sizes)
    model = MaskedModel(RobertaForMaskedLM(config), tokenizer, too_long="skip")
    assert model.context_length == 18
    assert [s.tokens for s in model.score([Passage(" dog" * 17), Passage(" dog" * 18)])] == [17, 0]


@settings
class _Around(Method):
    name = "around"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self)


def test_a_masked_model_is_found_within_methods_that_leave_scores_alone(masked: MaskedModel, tiny: LocalModel) -> None:
    method = _Around()
    assert masked_inside(masked) is masked
    assert masked_inside(Mitigated(Mitigated(masked, method), method)) is masked
    assert masked_inside(Mitigated(masked, method, score=lambda ps: [Score(0.0, 1) for _ in ps])) is None
    assert masked_inside(tiny) is None


@pytest.mark.parametrize("padding", [False, True])
def test_a_token_that_is_nan_spoils_only_the_texts_that_hold_it(masked: MaskedModel, padding: bool) -> None:
    module, tokenizer = masked.weights
    passages = [Passage(t) for t in TEXTS]
    want = masked.score(passages)
    with torch.no_grad():
        module.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("little")] = torch.nan
        module.cls.predictions.decoder.weight = torch.nn.Parameter(module.cls.predictions.decoder.weight.nan_to_num())
    if padding:
        masked.engine.pad_id = tokenizer.convert_tokens_to_ids("little")
    with pytest.warns(UserWarning, match="float32: logits are not finite"):
        got = masked.score(passages)
    assert [s.note for s in got] == ["", "", NOT_FINITE] and got[2].tokens == 0 and np.isnan(got[2].logprob)
    assert [s.logprob for s in got[:2]] != [] and all(np.isfinite(s.logprob) for s in got[:2])
    for one, other in zip(got[:2], want[:2], strict=True):
        assert one.tokens == other.tokens
    with pytest.raises(EvenhandError, match="not finite"):
        masked.fill(["the little <mask>"], [["dog"]])
    with pytest.raises(EvenhandError, match="not finite"):
        masked.top_fills([("the little", " saw")], 2)
    assert masked.fill(["the <mask>"], [["dog"]])


def test_a_text_that_is_too_long_says_so(masked: MaskedModel) -> None:
    masked.too_long = "skip"
    (score,) = masked.score([Passage("the " * 600)])
    assert (score.tokens, np.isnan(score.logprob)) == (0, True) and "the context of bert has 512" in score.note
