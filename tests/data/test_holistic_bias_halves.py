"""Halves of HolisticBias: nothing is in both, and a method that learns from what is asked is told so."""

from __future__ import annotations

import warnings

import pytest

from evenhand.data.holistic_bias import Parts, family, in_part, load_parts, phrases
from evenhand.evaluation.holistic_bias import HolisticBias
from evenhand.experiment.own_texts import warn_of_overlap
from evenhand.methods.adjudication.cross_model_adjudication import CrossModelAdjudication
from evenhand.methods.none import Untouched


@pytest.fixture(scope="module")
def demo() -> Parts:
    return load_parts("demo", "1.0").parts


def names(parts: Parts) -> set[str]:
    return {p.descriptor for p in phrases(parts) if p.descriptor != "(none)"}


def test_the_halves_share_no_descriptor_and_no_template(demo: Parts) -> None:
    fit, test = in_part(demo, "fit"), in_part(demo, "test")
    assert in_part(demo, "all") is demo
    assert names(fit) and names(test) and not names(fit) & names(test)
    assert names(fit) | names(test) == names(demo)
    families = [{family(t.text) for t in half.templates} for half in (fit, test)]
    assert all(families) and not families[0] & families[1]
    assert sum(len(half.templates) for half in (fit, test)) == len(demo.templates)
    assert fit.nouns == test.nouns == demo.nouns
    for axis in {d.axis for d in demo.descriptors}:
        sizes = [sum(d.axis == axis for d in half.descriptors) for half in (fit, test)]
        assert 0 <= sizes[0] - sizes[1] <= 1, "halves of each axis, the odd one fits"


def test_a_descriptor_of_two_axes_is_in_one_half(demo: Parts) -> None:
    first = demo.descriptors[0]
    doubled = demo._replace(descriptors=(*demo.descriptors, first._replace(axis="another")))
    for name in ("fit", "test"):
        found = [d for d in in_part(doubled, name).descriptors if d.name == first.name]
        assert len(found) in (0, 2)


def test_the_benchmark_asks_its_half() -> None:
    whole, fit, test = (HolisticBias.build(source="demo", part=p) for p in ("all", "fit", "test"))
    texts = [{t for cell in b.load() for mine in cell.texts for t in mine} for b in (whole, fit, test)]
    assert texts[1] and texts[2] and not texts[1] & texts[2] and texts[1] | texts[2] < texts[0]
    assert "the half 'test' of HolisticBias's descriptors and templates" in test.facts()["notes"]
    assert whole.key_settings() == {k: v for k, v in test.key_settings().items() if k != "part"}


def method(part: str) -> CrossModelAdjudication:
    made: CrossModelAdjudication = CrossModelAdjudication.build(preset="demo", part=part)
    return made


def test_training_prompts_that_are_asked_are_told_with_the_remedy() -> None:
    def told(part: str, asked: str) -> list[str]:
        benchmark = HolisticBias.build(source="demo", part=asked)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_overlap([Untouched(), method(part)], [(benchmark, benchmark.load())])
        return [str(w.message) for w in caught]

    (message,) = told("all", "all")
    own = method("all").own_texts()
    assert f"learns from {len(own):,} of its {len(own):,} texts" in message, "all of them are HolisticBias's"
    assert "part=fit of the method and part=test of the benchmark" in message
    assert told("fit", "test") == []
    assert len(told("fit", "fit")) == 1


def test_prompts_for_evaluation_are_not_learned_from() -> None:
    prompts = method("all")._prompts()[0]
    own = set(method("all").own_texts())
    assert own == {p.text for p in prompts if p.split != "evaluation"}
    assert not own & {p.text for p in prompts if p.split == "evaluation"}
