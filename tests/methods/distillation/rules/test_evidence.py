"""Which positions are open, on sentences written for it; tokenizers with words in one and in several tokens."""

from collections.abc import Callable

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from evenhand.methods.distillation.rules import EvidenceGate, Rule, RulePack, open_positions, rule_pack
from evenhand.models.demo import MODELS

Maker = Callable[..., PreTrainedTokenizerBase]


@pytest.fixture(params=["bytes", "words", "metaspace", "cased", "demo"])
def tokenizer(
    request: pytest.FixtureRequest, make_byte_level: Maker, make_metaspace: Maker, make_cased: Maker
) -> PreTrainedTokenizerBase:
    """The same sentences must come out alike, in whatever pieces a tokenizer writes them."""
    if request.param == "bytes":  # every word is several tokens
        return make_byte_level()
    if request.param == "words":
        return make_byte_level("Ġhe", "Ġshe", "The", "Ġthe", "Ġman", "man", "Ġwoman", "Ġwo", "kind", "Ġdoctor", "Ġsaid")
    if request.param == "metaspace":
        return make_metaspace("▁he", "▁she", "▁The", "▁man", "▁wo", "man", "kind", "▁doctor")
    if request.param == "cased":
        letters = [*"abcdefghijklmnopqrstuvwxyzTHMSDWE.,'\"“”é"]
        return make_cased("he", "she", "man", "wo", "doctor", *letters, *(f"##{c}" for c in letters), "##man", "##kind")
    made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(MODELS / "demo-mlm")
    return made


@pytest.fixture
def english() -> RulePack:
    return rule_pack("en_pronouns")


def closed_after(tokenizer: PreTrainedTokenizerBase, pack: RulePack, text: str) -> str | None:
    """The text up to the end of the first closed token; None where all is open. Asserts that the rest is closed."""
    (mask,) = open_positions([text], tokenizer, pack, masked=False)
    spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert len(mask) == len(spans)
    shut = np.flatnonzero(~mask)
    if not len(shut):
        return None
    assert shut.tolist() == list(range(shut[0], len(mask)))
    return text[: spans[shut[0]][1]]


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("The doctor said the test was done.", None),
        ("The doctor said he was done.", "The doctor said he"),
        ("The woman said she was a doctor.", "The woman"),
        ("The mankind of the woman", "The mankind of the woman"),  # not at "man"
        ("The womanly, manful, shed, heed, Theman", None),
        ("Some “she” and some", "Some “she"),
        ("The doctor, Mr Smith, said", "The doctor, Mr"),
        ("The doctor was a dream", None),
        ("SHE said", "SHE"),
        ("Woman", "Woman"),
        ("The hé shé", None),  # a letter beyond ASCII continues a word
        ("Well, ma'am, said", "Well, ma'am"),
    ],
)
def test_causal_sentences(tokenizer: PreTrainedTokenizerBase, english: RulePack, text: str, until: str | None) -> None:
    found = closed_after(tokenizer, english, text)
    assert found == until


def test_only_the_case_that_was_written_where_it_has_a_capital(english: RulePack, make_byte_level: Maker) -> None:
    tokenizer = make_byte_level()
    assert closed_after(tokenizer, english, "they miss the bus") is None
    assert closed_after(tokenizer, english, "then Miss Lee came") == "then Miss"


def test_an_uncased_tokenizer_finds_all(english: RulePack, make_uncased: Maker) -> None:
    tokenizer = make_uncased("the", "doctor", "mr", "smith", "she", "said")
    assert closed_after(tokenizer, english, "The doctor Mr Smith said") == "The doctor Mr"
    assert closed_after(tokenizer, english, "THE DOCTOR SHE SAID") == "THE DOCTOR SHE"


def test_a_prefix_has_the_prefix_of_the_mask(tokenizer: PreTrainedTokenizerBase, english: RulePack) -> None:
    """Causal: what comes later changes nothing, but for the end of a word that is still being written."""
    ids = tokenizer("The doctor saw mankind. The woman, said he, and she said")["input_ids"]
    gate = EvidenceGate(tokenizer, english, masked=False)
    (whole,) = gate([ids])
    for length in range(1, len(ids)):
        (part,) = gate([ids[:length]])
        assert part[:-1].tolist() == whole[: length - 1].tolist()


def test_masked_sees_both_sides_but_not_itself(tokenizer: PreTrainedTokenizerBase, english: RulePack) -> None:
    def spelled(text: str) -> tuple[list[tuple[int, int]], list[bool]]:
        (mask,) = open_positions([text], tokenizer, english, masked=True)
        return tokenizer(text, return_offsets_mapping=True)["offset_mapping"], mask.tolist()

    spans, mask = spelled("The doctor said she was done")
    start = "The doctor said she was done".index("she")
    own = [a < start + 3 and b > start for a, b in spans]
    assert mask == own and any(own)
    assert not any(spelled("The doctor said she saw him")[1])
    assert all(spelled("The doctor said that was done")[1])


def test_a_mask_token_hides_the_word(english: RulePack, make_cased: Maker) -> None:
    tokenizer = make_cased("the", "doctor", "said", "she", "was")
    ids = tokenizer("the doctor said she was")["input_ids"]
    hidden = [tokenizer.mask_token_id if i == tokenizer.convert_tokens_to_ids("she") else i for i in ids]
    shown, covered = open_positions([ids, hidden], tokenizer, english, masked=True)
    assert shown.tolist() == [False, False, False, True, False]
    assert covered.all()


def test_texts_in_one_row_are_apart(english: RulePack, make_byte_level: Maker) -> None:
    tokenizer = make_byte_level("Ġhe", "Ġsaid", "so")
    so, he, said, end = (tokenizer.convert_tokens_to_ids(t) for t in ("so", "Ġhe", "Ġsaid", "<end>"))
    row = [so, said, he, said, end, so, said, end, so, he]
    (mask,) = open_positions([row], tokenizer, english, masked=False, ends=[end])
    assert mask.tolist() == [True, True, False, False, False, True, True, True, True, False]
    (one,) = open_positions([row], tokenizer, english, masked=False)
    assert one.tolist() == [True, True] + [False] * 8


def test_special_tokens_part_words(english: RulePack, make_byte_level: Maker) -> None:
    """ "s" and " he" at the seam of two texts spell no word, and neither do "s", <end>, "he"."""
    tokenizer = make_byte_level("he", "so")
    s, he, end = (tokenizer.convert_tokens_to_ids(t) for t in ("s", "he", "<end>"))
    (joined,) = open_positions([[s, he]], tokenizer, english, masked=False)
    assert joined.tolist() == [True, False]  # "she"
    (apart,) = open_positions([[s, end]], tokenizer, english, masked=False)
    assert apart.all()
    (he_alone,) = open_positions([[s, end, he]], tokenizer, english, masked=False)
    assert he_alone.tolist() == [True, True, False]  # "he"


def test_ambiguous_words_of_the_pack_are_no_evidence(make_byte_level: Maker) -> None:
    dutch = rule_pack("nl_pronouns")
    tokenizer = make_byte_level()
    assert closed_after(tokenizer, dutch, "zij komen als zij willen") is None
    assert closed_after(tokenizer, dutch, "zij zei dat hij kwam") == "zij zei dat hij"


def test_a_pack_without_evidence_leaves_all_open(make_byte_level: Maker) -> None:
    bare = RulePack(
        name="bare",
        language="en",
        axis="gender",
        not_evidence=("he", "she"),
        rules=(Rule(name="r", groups={"m": ("he",), "f": ("she",)}),),
    )
    (mask,) = open_positions(["he said She said"], make_byte_level(), bare, masked=False)
    assert len(mask) > 0 and mask.all()


def test_empty_rows(english: RulePack, make_byte_level: Maker) -> None:
    assert [m.tolist() for m in open_positions([[], [1]], make_byte_level(), english, masked=True)] == [[], [True]]


def test_ids_beyond_the_tokenizer_part_words(english: RulePack, make_byte_level: Maker) -> None:
    """Models pad their vocabulary; such an id spells nothing."""
    tokenizer = make_byte_level("Ġhe")
    (mask,) = open_positions(
        [[len(tokenizer) + 5, tokenizer.convert_tokens_to_ids("Ġhe")]], tokenizer, english, masked=False
    )
    assert mask.tolist() == [True, False]
