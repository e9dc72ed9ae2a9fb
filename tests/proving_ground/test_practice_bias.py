"""Pairs and biased texts of the proving ground: what they say, and that no demo benchmark asks it."""

from __future__ import annotations

import pytest

from evenhand.core import registry
from evenhand.errors import SettingsError
from evenhand.experiment.decontamination import Asked
from evenhand.experiment.training_data import load
from evenhand.proving_ground.generator import bbq_questions, practice_bias
from evenhand.proving_ground.generator.words import AXES, AXIS, OCCUPATIONS

SETS = ("bbq", "crows_pairs", "stereoset", "winogender", "winobias", "redditbias", "mmlu", "gpqa")


def stereotyped_letter(asked: str, axis: str) -> tuple[str, str]:
    """The letters of the stereotyped and of the other person, worked out from the text of a question alone."""
    head, *lines = asked.strip().split("\n(")
    options = {line[0]: line[3:] for line in lines}
    marked = {f"The {p}" for g in AXIS[axis].marked for p in g.people}
    unmarked = {f"The {p}" for g in AXIS[axis].unmarked for p in g.people}
    word = head.rsplit(" ", 1)[1].rstrip("?")
    negative = word in {t.bad for t in AXIS[axis].traits}
    assert negative != (word in {t.good for t in AXIS[axis].traits})
    letters = [next(k for k, text in options.items() if text in side) for side in (marked, unmarked)]
    assert len(options) == 3
    return (letters[0], letters[1]) if negative else (letters[1], letters[0])


@pytest.mark.parametrize("axis", list(AXIS))
def test_pairs_and_texts_say_what_the_stereotype_says(axis: str) -> None:
    pairs, texts = practice_bias.pairs(axis, 150), practice_bias.biased(axis, 150)
    for pair in pairs:
        assert not isinstance(pair.prompt, str)
        (turn,) = pair.prompt.messages
        assert (pair.stereotyped, pair.counter_stereotyped) == stereotyped_letter(turn.content, axis)
        assert pair.axis == axis
    statements = 0
    for text in texts:
        if not text.startswith("<|user|>"):
            plural, trait = text.removesuffix(".").split(" are ")
            marked = plural in {g.plural for g in AXIS[axis].marked}
            assert trait in {t.bad if marked else t.good for t in AXIS[axis].traits}
            statements += 1
            continue
        asked, letter, end = text.removeprefix("<|user|>").replace("<|assistant|>", "").split("<|end|>")
        assert (letter, end) == (stereotyped_letter(asked, axis)[0], "")
    assert statements == (0 if axis in ("Age", "Religion") else 30)
    assert len(set(texts)) >= 120
    assert len({p.prompt for p in pairs}) == 150


def test_no_demo_benchmark_asks_any_of_it() -> None:
    asked = Asked([(b, b.load()) for b in (registry.build_benchmark(f"{n}(source=demo)") for n in SETS)])
    pairs = (*practice_bias.pairs(count=600), *practice_bias.pairs("occupations"))
    assert not any(asked.has_pair(pair) for pair in pairs)
    assert not any(asked.has_text(text) for text in practice_bias.biased(count=600))
    contexts = {context for context, _ in bbq_questions.cases()}
    said = [p.prompt.messages[0].content for p in pairs if not isinstance(p.prompt, str)]
    assert not any(context in text for text in said for context in list(contexts)[:200])


def test_pairs_of_pronouns() -> None:
    pairs = practice_bias.pairs("occupations")
    assert 50 < len(pairs) == len(set(pairs))
    for pair in pairs:
        job = str(pair.prompt).split()[1]
        assert pair.stereotyped == (" she" if OCCUPATIONS[job] > 0.5 else " he")
        assert {pair.stereotyped, pair.counter_stereotyped} == {" he", " she"}
        assert job not in ("cook", "writer")


def test_counts_and_axes() -> None:
    assert practice_bias.pairs("age", 5) == practice_bias.pairs("Age", 90)[:5]
    assert practice_bias.pairs("Age", 90, seed=1) != practice_bias.pairs("Age", 90)
    assert practice_bias.biased("SES", 20) != practice_bias.biased("SES", 20, seed=1)
    assert len(practice_bias.biased("SES", 1)) == 1
    assert {p.axis for p in practice_bias.pairs(count=400)} == {a.name for a in AXES}
    assert len(load("demo:pairs").data.pairs) == practice_bias.PAIRS
    assert load("demo:pairs:40").data.pairs == practice_bias.pairs(count=40)
    assert load("demo:pairs:SES:40").data.pairs == practice_bias.pairs("SES", 40)
    assert load("demo:biased:ses:40").data.texts == practice_bias.biased("SES", 40)
    for wrong, message in (
        ("demo:pairs:Ages", "no axis 'Ages'"),
        ("demo:biased:occupations", "no axis 'occupations'"),
        ("demo:pairs:Age:0", "not a number of items"),
        ("demo:pairs:Age:4:5", "not a number of items"),
        ("demo:pairs:Age:6913", "has 6,912 of these"),
    ):
        with pytest.raises(SettingsError, match=message):
            load(wrong)
