"""Texts as batches: what is predicted where, what is hidden, and that the batch does not matter."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from evenhand.methods.distillation._batches import Masking, Rows, Text, batches, hiding, predicting, stretches
from evenhand.methods.distillation._fair import FairRule, gate
from evenhand.methods.distillation._learning import Lesson, _Run
from evenhand.methods.distillation._losses import Shares
from evenhand.methods.distillation.rules import resolve, rule_pack
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.training.packing import IGNORED, KINDS, Layout

SENTENCES = [
    "the nurse said that she was late .",
    "he was here",
    "the woman said that she was late and he was not",
    "the doctor left because he was tired of it all and went home .",
    "a dog",
]
MASKED_WORDS = " ".join([*SENTENCES, "mask"])


def tokenizer(masked: bool = False) -> Any:
    made = tiny_tokenizer(SENTENCES, chat=False)
    if masked:
        made.add_special_tokens({"mask_token": "<mask>"})
    return made


def encoded(texts: list[str], words: Any, length: int, *, causal: bool) -> list[list[int]]:
    return [ids for _, ids in stretches(texts, words, length, causal=causal)]


def names(found: Text, words: Any) -> list[str]:
    return [words.convert_ids_to_tokens(i) if i != IGNORED else "-" for i in found.labels]


def test_long_texts_are_cut_into_stretches_that_lose_nothing() -> None:
    words = tokenizer()
    whole = encoded([SENTENCES[3]], words, 100, causal=True)[0]
    parts = encoded([SENTENCES[3]], words, 6, causal=True)
    assert [len(p) for p in parts] == [6, 6, 5]
    assert all(p[0] == whole[0] for p in parts)
    assert [t for p in parts for t in p[1:]] == whole[1:]


def test_a_text_without_anything_to_learn_from_is_left_out() -> None:
    assert encoded(["", "a dog"], tokenizer(), 10, causal=False) == [
        encoded(["a dog"], tokenizer(), 10, causal=True)[0]
    ]


def test_a_causal_place_predicts_the_next_token_and_is_closed_once_the_group_is_told() -> None:
    words = tokenizer()
    opens = gate("evidence", rule_pack("en_pronouns"), words, causal=True)
    (found,) = predicting(encoded([SENTENCES[2]], words, 50, causal=True), opens)
    assert names(found, words) == ["the", "woman", "said", "that", "she", "was", "late", "and", "he", "was", "not", "-"]
    assert found.open == [True, True, *[False] * 10]


def test_packing_moves_labels_and_gates_with_their_tokens() -> None:
    words = tokenizer()
    opens = gate("evidence", rule_pack("en_pronouns"), words, causal=True)
    texts = predicting(encoded(SENTENCES, words, 50, causal=True), opens)
    wanted = sorted((t.ids[n], t.labels[n], t.open[n]) for t in texts for n in range(len(t.ids) - 1))
    for kind in KINDS:
        for tokens in (1, 20, 1000):
            made = batches(texts, Layout(kind), tokens, 2, Random(0))
            found = sorted(
                (int(b.inputs["input_ids"][r, c]), int(b.labels[r, c]), bool(b.open[r, c]))
                for b in made
                for r, c in torch.nonzero(b.read).tolist()
            )
            assert found == wanted


def test_hidden_tokens_are_drawn_per_text_in_the_published_shares_and_never_special_ones() -> None:
    words = tokenizer(masked=True)
    ids = encoded([SENTENCES[3]], words, 50, causal=False)[0]
    she = int(words.convert_tokens_to_ids("he"))
    masking = Masking(0.15, 0.6, frozenset({she}))
    opens = gate("masked", rule_pack("en_pronouns"), words, causal=False)
    many = hiding([ids] * 4000, opens, masking, words, "0/0")
    found = [
        (t.ids[n], t.labels[n], t.open[n], ids[n]) for t in many for n in range(len(ids)) if t.labels[n] != IGNORED
    ]
    assert all(label == true for _, label, _, true in found)
    assert all(t.ids[0] == ids[0] and t.labels[0] == IGNORED for t in many)
    others = [f for f in found if f[3] != she]
    assert len(others) / (4000 * (len(ids) - 2)) == pytest.approx(0.15, abs=0.01)
    assert (len(found) - len(others)) / 4000 == pytest.approx(0.6, abs=0.03)
    masks = sum(f[0] == words.mask_token_id for f in found)
    kept = sum(f[0] == f[3] for f in found)
    assert masks / len(found) == pytest.approx(0.8, abs=0.02)
    assert kept / len(found) == pytest.approx(0.1, abs=0.02)
    assert all(open == (shown != true) for shown, _, open, true in found)  # hidden or replaced
    again = hiding([ids] * 10, opens, masking, words, "0/0")
    assert again == many[:10]
    assert hiding([ids] * 10, opens, masking, words, "0/1") != again


def test_evidence_closes_hidden_places_of_a_masked_model() -> None:
    words = tokenizer(masked=True)
    opens = gate("evidence", rule_pack("en_pronouns"), words, causal=False)
    mask = int(words.mask_token_id)
    rows = [
        [mask if words.convert_ids_to_tokens(t) in ("she", "he") else t for t in ids]
        for ids in encoded([SENTENCES[0], SENTENCES[2]], words, 50, causal=False)
    ]
    found = opens(rows, [[t == mask for t in ids] for ids in rows])
    assert sum(found[0]) == 1 and found[0][rows[0].index(mask)]
    assert not any(found[1])


def masked_module(count: int) -> Any:
    config = BertConfig(
        vocab_size=count,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    module = BertForMaskedLM(config).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(8 if p.dim() == 2 else 1)
    return module


@pytest.mark.parametrize("causal", [True, False])
def test_neither_padding_nor_the_size_of_batches_changes_what_is_judged(causal: bool) -> None:
    words = tokenizer(masked=not causal)
    pack = rule_pack("en_subject")
    opens = gate("evidence" if causal else "masked", pack, words, causal=causal)
    ids = encoded(SENTENCES, words, 50, causal=causal)
    masking = Masking(0.5, 0.5, frozenset())
    texts = predicting(ids, opens) if causal else hiding(ids, opens, masking, words, "0")
    if causal:
        student, teacher = (tiny_module(len(words), seed=s) for s in (0, 1))
    else:
        student, teacher = masked_module(len(words)), masked_module(len(words))
        with torch.no_grad():
            teacher.cls.predictions.transform.dense.weight.neg_()
    rule = FairRule(
        resolve(pack, words, masked=not causal, multi="skip"), mode="arithmetic", strength=1.0, emphasis=3.0
    )
    shares = Shares(kl=5, hard=2, cosine=1, locality=1, temperature=2)
    found = []
    for kind in KINDS if causal else ("one a row",):
        layout = Layout(kind) if causal else None  # type: ignore[arg-type]
        for tokens in (1, 25, 1000):
            lesson = Lesson(lambda _: texts, texts, layout, 2, tokens, False)
            run = _Run(student, teacher, rule, shares, lesson)
            found.append(run.judged(lesson.batches(texts, Random(tokens))))
    for one in found[1:]:
        assert one == pytest.approx(found[0], rel=1e-4, abs=1e-6)
    assert found[0]["kl"] > 0.01


def test_only_hidden_tokens_are_compared_where_that_is_asked_for() -> None:
    text = Text([1, 4, 5, 6], [IGNORED, 7, IGNORED, 6], [False, True, False, False])
    whole: list[Rows] = batches([text], None, 100, 2, Random(0))
    some = batches([text], None, 100, 2, Random(0), hidden=True)
    assert whole[0].read.tolist() == [[True] * 4]
    assert some[0].read.tolist() == [[False, True, False, True]]


def test_stretches_of_a_text_say_which_it_is() -> None:
    words = tiny_tokenizer(["a b c d e f g h"], chat=False)
    made = stretches(["a b c d e", "f", "g h"], words, 3, causal=True)
    wholes = [tuple(ids) for ids in words(["a b c d e", "f", "g h"], add_special_tokens=False).input_ids]
    assert [whole for whole, _ in made] == [*[wholes[0]] * 3, *wholes[1:]] and [len(ids) for _, ids in made] == [
        3,
        3,
        2,
        2,
        3,
    ]
    parts = [wholes[0][:2], wholes[0][2:4], wholes[0][4:], *wholes[1:]]
    assert [tuple(ids[1:]) for _, ids in made] == parts


@pytest.mark.parametrize("kind", [None, "positions", "padding"])
def test_a_batch_has_as_many_texts_as_are_asked_for(kind: Any) -> None:
    """Fourteen texts of 2 to 15 tokens, six a batch: of a causal model every token but the first of each is read."""
    texts = [Text(list(range(n)), [*range(1, n), IGNORED], [True] * n) for n in range(2, 16)]
    found = batches(texts, None if kind is None else Layout(kind), 1, 0, Random(0), size=6)
    assert len(found) == 3
    if kind is None:
        assert [len(rows.labels) for rows in found] == [6, 6, 2]
        assert sum(int(rows.read.sum()) for rows in found) == sum(range(2, 16))
    else:
        assert sum(int(rows.read.sum()) for rows in found) == sum(range(1, 15))
        sizes = sorted(int((rows.labels == 1).sum()) for rows in found)  # the first prediction of every text
        assert sizes == [2, 6, 6]
