"""Every instruction type with a response that follows it and one that does not; the eight readings; determinism."""

from __future__ import annotations

import random
from typing import Any

import pytest

from evenhand.data.ifeval import ARGUMENTS
from evenhand.errors import SettingsError
from evenhand.evaluation.metrics import ifeval_checkers as checkers

pytestmark = pytest.mark.skipif(not checkers.available(), reason="the extra ifeval is not installed")

ENGLISH = "The weather is nice today and we are going to walk in the park with the children."
GERMAN = "Das Wetter ist heute schön und wir gehen mit den Kindern im Park spazieren."
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "It is VERY, VERY good.",
        "It is VERY good.",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        "It is VERY good.",
        "It is VERY, VERY good.",
    ),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), GERMAN.lower()),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Tell me a joke."},
        "tell me a joke. Fine.",
        "Fine. Tell me a joke.",
    ),
    ("combination:two_responses", {}, "One.\n******\nTwo.", "One.\n******\nOne."),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name] at home"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Hello.", "Bye. PS Hello."),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S Hello.", "Bye.\nP.S. Hello."),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:json_format", {}, '```json\n{"a": [1, 2]}\n```', "{'a': 1}"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1 a\nPart 2 b",
        "Part 1 a",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and *two*", "*one* and two"),
    ("detectable_format:title", {}, "<<A title>>\nText", "<<  >>\nText"),
    ("keywords:existence", {"keywords": ["moon", "sun"]}, "Sun and MOON.", "Sun."),
    ("keywords:forbidden_words", {"forbidden_words": ["moon", "sun"]}, "A sunny day.", "A sun."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "at least"}, "Sea, sea.", "Sea."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": "less than"}, "Sea.", "Sea, sea."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "at least"}, "Zz", "z"),
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "One.\n\nThen, two.",
        "One.\n\nAnd then.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        "One. Two.",
        "No. Yes! Two. 3?",
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        "Dr. No came. He left.",
        "Dr. No came.",
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("punctuation:no_comma", {}, "No such sign", "One, two"),
    ("startend:end_checker", {"end_phrase": "That is all."}, "Yes. That is ALL.", "That is all. Yes."),
    ("startend:quotation", {}, '"Yes"', '"Yes'),
]


def test_every_type_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(ARGUMENTS) and len(ARGUMENTS) == 25


@pytest.mark.parametrize(("name", "arguments", "good", "bad"), CASES)
def test_a_response_that_follows_and_one_that_does_not(
    name: str, arguments: dict[str, Any], good: str, bad: str
) -> None:
    assert checkers.strict(name, arguments, good) == (True, "")
    assert checkers.strict(name, arguments, bad) == (False, "")
    assert checkers.follows(name, arguments, good) and not checkers.follows(name, arguments, bad)
    assert not checkers.loose(name, arguments, " \n ").followed, "a blank response follows nothing"


def test_the_arguments_are_those_the_checkers_take() -> None:
    for name, arguments, *_ in CASES:
        assert set(arguments) == set(ARGUMENTS[name])
        checker = checkers._registry()[name](name)
        checker.build_description(**arguments)
        assert set(checker.get_instruction_args_keys()) == set(arguments)
    assert set(checkers._registry()) == set(ARGUMENTS)


def test_the_eight_readings() -> None:
    assert checkers.variants("a*\nb\n*c") == ("a*\nb\n*c", "b\n*c", "a*\nb", "b", "a\nb\nc", "b\nc", "a\nb", "b")
    assert checkers.variants("only") == ("only", "", "", "", "only", "", "", "")


def test_the_readings_are_those_of_the_maintained_evaluation() -> None:
    from lm_eval.tasks.ifeval.utils import (
        InputExample,
        test_instruction_following_loose,
        test_instruction_following_strict,
    )

    texts = ["Sure!\nNo such sign\nBye, you", "*\n***\n* a, b\n", "one, two", "Hi,\n* a *\nthree", "x\n\n,\n"]
    ids = [
        "punctuation:no_comma",
        "detectable_format:number_bullet_lists",
        "detectable_format:number_highlighted_sections",
    ]
    given: list[dict[str, Any]] = [{}, {"num_bullets": 1}, {"num_highlights": 1}]
    seen = set()
    for text in texts:
        example = InputExample(1, ids, "p", given)
        strict = [checkers.strict(i, a, text).followed for i, a in zip(ids, given, strict=True)]
        loose = [checkers.loose(i, a, text).followed for i, a in zip(ids, given, strict=True)]
        assert strict == test_instruction_following_strict(example, text).follow_instruction_list
        assert loose == test_instruction_following_loose(example, text).follow_instruction_list
        seen |= set(zip(strict, loose, strict=True))
    assert seen == {(True, True), (False, True), (False, False)}


def test_loose_forgives_a_first_line_and_asterisks() -> None:
    assert not checkers.strict("startend:quotation", {}, 'Sure:\n"Yes"').followed
    assert checkers.loose("startend:quotation", {}, 'Sure:\n"Yes"').followed
    assert checkers.loose("startend:quotation", {}, '*"Yes"*').followed
    assert not checkers.loose("startend:quotation", {}, 'Sure:\nyes\n"Yes"\nno').followed


def test_a_language_that_cannot_be_told_counts_as_followed(caplog: pytest.LogCaptureFixture) -> None:
    assert checkers.strict("language:response_language", {"language": "de"}, "12345") == (True, "undetected language")
    assert not caplog.records, "the response stays out of the log"


def test_an_error_inside_a_checker_is_no_success() -> None:
    assert checkers.strict("detectable_format:json_format", {}, "[" * 200_000) == (False, "checker error")


def test_a_letter_that_cannot_be_used_is_drawn_from_the_key() -> None:
    told = {"letter": "#", "let_frequency": 1, "let_relation": "at least"}
    random.seed(1)
    before = random.getstate()
    verdicts = {}
    for key in range(40):
        found = [
            c for c in "abcdefghijklmnopqrstuvwxyz" if checkers.strict("keywords:letter_frequency", told, c, key=key)[0]
        ]
        assert len(found) == 1, "one letter per key, and never the symbol"
        verdicts[key] = found[0]
    assert random.getstate() == before, "the caller's random state is left alone"
    assert len(set(verdicts.values())) > 5
    assert not checkers.strict("keywords:letter_frequency", told, "####", key=0).followed


def test_detection_is_the_same_every_time() -> None:
    text = "ok no la"
    checkers._strict.cache_clear()
    first = [
        checkers.strict("language:response_language", {"language": c}, text).followed for c in ("en", "es", "it", "pt")
    ]
    for _ in range(5):
        checkers._strict.cache_clear()
        again = [
            checkers.strict("language:response_language", {"language": c}, text).followed
            for c in ("en", "es", "it", "pt")
        ]
        assert again == first


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three? Four.", 4),
        ("Dr. Smith met Mrs. Jones at 5 p.m. today. They talked, e.g. about the U.S. economy.", 2),
        ("He said no. She left.", 2),
        ("No full stop at all", 1),
        ("Version 3.5 is out. It works.\n\nReally", 3),
    ],
)
def test_sentences_of_the_built_in_way(text: str, count: int) -> None:
    assert checkers.count_sentences(text) == count


def test_splitters() -> None:
    assert checkers.splitter("built_in") == "built_in"
    if checkers._has_punkt():
        assert checkers.splitter("auto") == checkers.splitter("nltk") == "nltk"
    else:
        assert checkers.splitter("auto") == "built_in"
        with pytest.raises(SettingsError, match="punkt_tab"):
            checkers.splitter("nltk")


def test_an_unknown_instruction_is_named() -> None:
    with pytest.raises(SettingsError, match="'keywords:none' is not one"):
        checkers.strict("keywords:none", {}, "text")


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkers, "available", lambda: False)
    checkers._registry.cache_clear()
    with pytest.raises(SettingsError, match=r"evenhand\[ifeval\]"):
        checkers.strict("punctuation:no_comma", {}, "never asked before, so not cached")
    checkers._registry.cache_clear()


def test_an_unknown_instruction_is_refused_for_a_blank_response_too() -> None:
    with pytest.raises(SettingsError, match="not one of IFEval's"):
        checkers.strict("punctuation:no_coma", {}, " ")
    assert not checkers.strict("punctuation:no_comma", {}, " ").followed
