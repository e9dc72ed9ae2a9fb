"""Finding the words of a pack in tokenizers whose ids are known."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evenhand.errors import SettingsError
from evenhand.methods.distillation.rules import Rule, RulePack, TokenRules, project, resolve, rule_pack
from evenhand.models.demo import MODELS

Maker = Callable[..., PreTrainedTokenizerBase]
FIRST = 3
"""Id of the first word of a hand-made tokenizer; three special tokens stand before it."""


def pack(*rules: Rule) -> RulePack:
    return RulePack(name="test", language="en", axis="gender", rules=rules)


def rule(name: str, male: str, female: str, **more: object) -> Rule:
    return Rule(name=name, groups={"male": tuple(male.split()), "female": tuple(female.split())}, **more)  # type: ignore[arg-type]


def ids(rules: TokenRules) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    return [(c.name, c.ids) for c in rules.classes]


SUBJECT = pack(rule("subject", "he", "she"))
MERGED = pack(
    rule("object", "him", "her", capitalise=False),
    rule("possessive", "his", "her", capitalise=False),
    rule("alone", "his", "hers", capitalise=False, optional=True),
)


def test_byte_level_tells_blank_case_and_start_apart(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("Ġhe", "Ġshe", "he", "she", "ĠHe", "ĠShe", "He", "She")  # ids 3 .. 10
    low, low_bare, high, high_bare = ((3,), (4,)), ((5,), (6,)), ((7,), (8,)), ((9,), (10,))
    by_default = resolve(SUBJECT, tokenizer, masked=False)
    assert [found for _, found in ids(by_default)] == [low, high, high_bare]
    everywhere = resolve(SUBJECT, tokenizer, masked=False, unspaced="all")
    assert [found for _, found in ids(everywhere)] == [low, low_bare, high, high_bare]
    spaced = resolve(SUBJECT, tokenizer, masked=False, unspaced="none")
    assert [found for _, found in ids(spaced)] == [low, high]


def test_wordpiece_has_one_token_for_all_places(make_cased: Maker, make_uncased: Maker) -> None:
    cased = make_cased("x", '"', "he", "she", "He", "She")  # he is 5
    assert ids(resolve(SUBJECT, cased, masked=True, unspaced="all")) == [
        ("subject", ((5,), (6,))),
        ("subject", ((7,), (8,))),
    ]
    uncased = make_uncased("x", '"', "he", "she")
    assert ids(resolve(SUBJECT, uncased, masked=True, unspaced="all")) == [("subject", ((5,), (6,)))]


def test_metaspace_start_is_the_token_with_blank(make_metaspace: Maker) -> None:
    tokenizer = make_metaspace("x", "▁x", "▁he", "▁she", "▁He", "▁She", "He", "She")  # ▁he is 5
    assert [found for _, found in ids(resolve(SUBJECT, tokenizer, masked=False))] == [
        ((5,), (6,)),
        ((7,), (8,)),
        ((9,), (10,)),
    ]


def test_places_that_share_one_token_merge(make_metaspace: Maker) -> None:
    """Blank {▁He | ▁She} and start hold the same tokens, and a line break none: one class, no token twice."""
    tokenizer = make_metaspace("x", "▁x", "▁He", "▁She")
    held = resolve(pack(rule("r", "He", "She")), tokenizer, masked=False)
    assert ids(held) == [("r", ((5,), (6,)))]
    left = [(h.place, h.word, h.left_out) for h in held.hits if h.left_out]
    assert left == [(place, word, "several tokens") for place in ("new line", "quote") for word in ("He", "She")]


def test_a_blank_of_its_own_is_the_first_of_several_tokens(make_byte_level: Maker) -> None:
    """ "x he" is Ġhe and "x she" is Ġ, she: where the one is due the other is not, so no rule may move both."""
    tokenizer = make_byte_level("Ġhe", "ĠHe", "ĠShe")
    tokenizer.add_tokens(["she"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("x she")["input_ids"]) == ["x", "Ġ", "she"]
    assert ids(resolve(SUBJECT, tokenizer, masked=False, multi="skip")) == [("subject", ((4,), (5,)))]


def test_merged_rules_make_one_class_of_unequal_groups(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("Ġhim", "Ġhis", "Ġher", "Ġhers")
    assert ids(resolve(MERGED, tokenizer, masked=False)) == [("object+possessive+alone", ((3, 4), (5, 6)))]


def test_a_word_of_several_tokens_is_refused_with_its_tokens_and_the_fix(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("Ġhe", "ĠShe", "ĠHe", "Ġs")
    with pytest.raises(SettingsError) as error:
        resolve(SUBJECT, tokenizer, masked=False)
    for said in ("'she' (rule subject, group female", "'Ġ' 's' 'h' 'e'", "multi=skip", "multi=sequence"):
        assert said in str(error.value)
    assert "'She'" not in str(error.value)


def test_an_unknown_word_is_refused_and_never_moved(make_cased: Maker) -> None:
    tokenizer = make_cased("x", "he", "He", "She", '"')
    with pytest.raises(SettingsError, match=r"'she' .*unknown to the tokenizer"):
        resolve(SUBJECT, tokenizer, masked=True)
    for multi in ("skip", "sequence"):
        held = resolve(SUBJECT, tokenizer, masked=True, multi=multi)  # type: ignore[arg-type]
        assert held.ids == (FIRST + 2, FIRST + 3) and not held.sequences


def test_skip_drops_a_class_with_one_group_left(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("Ġhe", "Ġshe", "ĠHe")
    held = resolve(SUBJECT, tokenizer, masked=False, multi="skip")
    assert ids(held) == [("subject", ((3,), (4,)))]
    assert {(h.word, h.left_out) for h in held.hits if h.place == "after a blank" and h.left_out} == {
        ("He", "no other group left"),
        ("She", "several tokens"),
    }


def test_skip_keeps_the_other_groups_of_an_unmerged_rule(make_byte_level: Maker) -> None:
    three = Rule(
        name="r",
        groups={"a": ("ant",), "b": ("bee",), "c": ("cow",)},
        prior={"a": 0.5, "b": 0.3, "c": 0.2},
        capitalise=False,
    )
    held = resolve(pack(three), make_byte_level("Ġant", "Ġcow"), masked=False, multi="skip")
    assert [(c.groups, c.ids) for c in held.classes] == [(("a", "c"), ((3,), (4,)))]
    assert held.classes[0].prior == pytest.approx((5 / 7, 2 / 7))


def test_skip_drops_a_merged_class_that_lost_a_needed_word_but_not_an_optional_one(make_byte_level: Maker) -> None:
    """Without him the object "her" would flow to "his"; without hers next to nothing goes wrong."""
    without_hers = resolve(MERGED, make_byte_level("Ġhim", "Ġhis", "Ġher"), masked=False, multi="skip")
    assert ids(without_hers) == [("object+possessive+alone", ((3, 4), (5,)))]
    both = pack(rule("subject", "he", "she", capitalise=False), *MERGED.rules)
    without_him = resolve(both, make_byte_level("Ġhe", "Ġshe", "Ġhis", "Ġher", "Ġhers"), masked=False, multi="skip")
    assert ids(without_him) == [("subject", ((3,), (4,)))]
    assert "merged with a rule that lacks him" in without_him.report()


def test_sequences_keep_the_whole_class(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("Ġhe", "Ġshe", "Ġhim", "Ġher", "self")
    both = pack(
        rule("subject", "he", "she", capitalise=False), rule("reflexive", "himself", "herself", capitalise=False)
    )
    held = resolve(both, tokenizer, masked=False, multi="sequence")
    assert ids(held) == [("subject", ((3,), (4,)))]
    (kept,) = held.sequences
    him, her, self = [tokenizer.convert_tokens_to_ids(list(text)) for text in ("Ġhim", "Ġher", "self")]
    assert kept.sequences == ((tuple(him + self),), (tuple(her + self),))
    assert kept.groups == ("male", "female")


def test_a_masked_model_cannot_compare_unequal_lengths(make_byte_level: Maker) -> None:
    both = pack(rule("subject", "he", "she", capitalise=False), rule("possessive", "his", "her", capitalise=False))
    tokenizer = make_byte_level("Ġhe", "Ġshe", "Ġhis")
    assert len(resolve(both, tokenizer, masked=False, multi="sequence").sequences) == 1
    masked = resolve(both, tokenizer, masked=True, multi="sequence")
    assert not masked.sequences and "unequal length" in masked.report()


def test_one_token_for_two_groups_is_refused(make_uncased: Maker) -> None:
    mixed = pack(rule("a", "us", "them", capitalise=False), rule("b", "They", "Us", capitalise=False))
    tokenizer = make_uncased("x", '"', "us", "them", "they")
    with pytest.raises(SettingsError, match="stands for group male and for group female"):
        resolve(mixed, tokenizer, masked=True)


def test_nothing_left_is_refused(make_byte_level: Maker) -> None:
    with pytest.raises(SettingsError, match="no rule is left"):
        resolve(SUBJECT, make_byte_level("Ġhe", "ĠHe"), masked=False, multi="skip")


def test_tensors_by_hand(make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("Ġhim", "Ġhis", "Ġher", "Ġhe", "Ġshe")
    both = pack(*MERGED.rules, rule("subject", "he", "she", capitalise=False))
    known = resolve(both, tokenizer, masked=False, multi="skip").tensors()
    assert known.ids.tolist() == [3, 4, 5, 6, 7]
    assert known.group.tolist() == [0, 0, 1, 2, 3]
    assert known.members.tolist() == [[0, 1], [2, 5], [3, 5], [4, 5]]
    assert known.sizes.tolist() == [2, 1, 1, 1]
    assert known.owner.tolist() == [0, 0, 1, 1]
    assert known.groups.tolist() == [[0, 1], [2, 3]]


def test_report_shows_every_word_with_id_piece_and_reason(make_byte_level: Maker) -> None:
    held = resolve(SUBJECT, make_byte_level("Ġhe", "Ġshe", "ĠHe"), masked=False, multi="skip")
    lines = held.report().splitlines()
    assert lines[0] == "test for a causal model: 1 classes, 2 tokens"
    assert any(line.split() == ["subject", "lower", "male", "he", "after", "a", "blank", "3", "Ġhe"] for line in lines)
    assert any("She" in line and line.endswith("several tokens") for line in lines)


# --------------------------------------------------------------------------------- tokenizers that are shipped or real


def test_the_demo_tokenizer() -> None:
    """It has " he", " she", " He" and "He", but no "She", no him and no her in one piece."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "demo-mlm")
    with pytest.raises(SettingsError, match="'She'"):
        resolve(rule_pack("en_subject"), tokenizer, masked=True)
    held = resolve(rule_pack("en_pronouns"), tokenizer, masked=True, multi="skip")
    he, she = (tokenizer.convert_tokens_to_ids(piece) for piece in (" he", " she"))
    assert ids(held) == [("subject", ((he,), (she,)))]
    logs = torch.zeros(1, len(tokenizer)).log_softmax(-1)
    logs[0, he] += 2
    out = project(logs.log_softmax(-1), held)
    assert float(out[0, he]) == pytest.approx(float(out[0, she]))


def _real(name: str) -> PreTrainedTokenizerBase:
    folder = Path(os.environ.get("EVENHAND_MODELS", "")) / name
    if not os.environ.get("EVENHAND_MODELS") or not folder.exists():
        pytest.skip(f"EVENHAND_MODELS holds no {name}")
    made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return made


@pytest.mark.parametrize(
    ("name", "pieces"),
    [
        ("stories260k", [(("▁he",), ("▁she",)), (("▁He",), ("▁She",))]),
        (
            "tinystories-656k",  # here the blank stands behind a word
            [(("he▁",), ("she▁",)), (("He▁",), ("She▁",)), (("▁him▁", "▁his▁"), ("▁her▁",))],
        ),
    ],
)
def test_real_tokenizers(name: str, pieces: list[tuple[tuple[str, ...], ...]]) -> None:
    tokenizer = _real(name)
    held = resolve(rule_pack("en_pronouns"), tokenizer, masked=False, multi="skip")
    found = [tuple(tuple(tokenizer.convert_ids_to_tokens(list(g))) for g in c.ids) for c in held.classes]
    assert found == pieces
