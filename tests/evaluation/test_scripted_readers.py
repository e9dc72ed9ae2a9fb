"""Readers whose scores are known without a model, on every set of questions about people: one table.

A set joins with a spec of its demo (and, where it has files, of the real data), the names of its own scores, and what
each reader must have there. An oracle is right everywhere, a reader that always abstains is right in ambiguous contexts
alone, one that always gives the stereotype has a bias of 1, and one that takes the first option shown has none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evenhand.core import registry
from evenhand.core.draws import generator
from evenhand.evaluation._bias_qa import BiasItem, BiasQA
from evenhand.interfaces import Choice

Reader = Callable[[BiasItem, int], int | None]


def _option(item: BiasItem, of_row: int | None) -> int | None:
    return None if of_row is None else item.means.index(of_row)


def _target(item: BiasItem, _: int) -> int | None:
    return _option(item, item.row.target)


def _unknown(item: BiasItem, _: int) -> int | None:
    return _option(item, item.row.unknown)


def _uniform(item: BiasItem, number: int) -> int:
    return int(generator(7, number).integers(len(item.question.options)))


READERS: dict[str, Reader] = {
    "oracle": lambda item, _: item.right,
    "always unknown": _unknown,
    "always target": _target,
    "always counter": lambda item, _: _option(item, item.row.counter),
    "silent": lambda item, _: None,
}
NAN = math.nan
BBQ_SCORES: Mapping[str, Mapping[str, float]] = {
    "oracle": {
        "accuracy_ambiguous": 1,
        "accuracy_disambiguated": 1,
        "abstention_ambiguous": 1,
        "abstention_disambiguated": 0,
        "bias_ambiguous": 0,
        "unparsed": 0,
    },
    "always unknown": {
        "accuracy_ambiguous": 1,
        "accuracy_disambiguated": 0,
        "abstention_ambiguous": 1,
        "abstention_disambiguated": 1,
        "bias_ambiguous": 0,
        "bias_disambiguated": 0,
    },
    "always target": {
        "accuracy_ambiguous": 0,
        "abstention_disambiguated": 0,
        "bias_ambiguous": 1,
        "bias_disambiguated": 1,
        "stereotyped_ambiguous": 1,
    },
    "always counter": {"bias_ambiguous": -1, "bias_disambiguated": -1, "stereotyped_disambiguated": 0},
    "silent": {"unparsed": 1, "accuracy_ambiguous": NAN, "bias_ambiguous": NAN, "bias_min_ambiguous": -1},
}
"""BBQ's scores, the same on every set."""
DIFFERENCES: Mapping[str, Mapping[str, float]] = {
    "oracle": {"diff_bias_ambiguous": 0, "diff_bias_disambiguated": 0, "diff_bias_bound_ambiguous": 0},
    "always unknown": {"diff_bias_ambiguous": 0, "diff_bias_disambiguated": 0, "diff_bias_bound_disambiguated": 0},
    "always target": {"diff_bias_ambiguous": 1, "diff_bias_disambiguated": 1, "diff_bias_bound_ambiguous": 1},
    "always counter": {"diff_bias_ambiguous": -1, "diff_bias_disambiguated": -1},
    "silent": {"diff_bias_ambiguous": NAN, "diff_bias_disambiguated": NAN},
}
"""Of sets whose own score is the difference score."""
SETS: dict[str, Mapping[str, Mapping[str, float]]] = {
    "kobbq": DIFFERENCES,
    "kobbq(orders=3)": DIFFERENCES,
    "kobbq(prompt=0)": DIFFERENCES,
    "esbbq": DIFFERENCES,
    "esbbq(convention='lm-eval-like')": DIFFERENCES,
    "cabbq": DIFFERENCES,
    "gg_bbq": DIFFERENCES,
    "mbbq": {
        # the demo has no place of the stereotyped group, which the official script takes as "against it" throughout
        "oracle": {"mbbq_score_ambiguous": 0, "mbbq_score_disambiguated": -1, "bias_contrast_ambiguous": NAN},
        "always unknown": {"mbbq_score_ambiguous": 0, "mbbq_score_disambiguated": 0},
        "always target": {"mbbq_score_ambiguous": -1, "mbbq_score_disambiguated": -1},
        "always counter": {"mbbq_score_ambiguous": -1},
        "silent": {"mbbq_score_ambiguous": NAN},
    },
    "cbbq": {
        "oracle": {"s_ambiguous": 0},
        "always unknown": {"s_ambiguous": 0, "s_disambiguated": NAN, "s_total": NAN},
        "always target": {"s_ambiguous": 1, "s_disambiguated": 1, "s_total": 1},
        "always counter": {"s_ambiguous": 0, "s_disambiguated": 0, "s_total": 0},
        "silent": {"s_ambiguous": 0, "s_disambiguated": NAN},
    },
}
"""Specs, without the source, and what their own scores are."""
ABSENT = {"cbbq": frozenset({"bias_disambiguated"})}
"""BBQ's scores that a set does not have."""
FOLDERS = {"kobbq": "kobbq", "esbbq": "esbbq_cabbq", "cabbq": "esbbq_cabbq", "gg_bbq": "gg_bbq"}
"""Folder of the real data in $EVENHAND_DATA, of sets that can be read there."""


@cache
def built(spec: str, source: str) -> Any:
    """The benchmark of a spec of `SETS`, from a source."""
    name, _, rest = spec.partition("(")
    return registry.build_benchmark(f"{name}(source={source}{',' + rest if rest else ')'}")


def scores(benchmark: BiasQA, reader: Reader) -> dict[str, float]:
    """The metrics of a reader's answers to all items."""
    items = benchmark.load()
    decisions = [reader(item, number) for number, item in enumerate(items)]
    answers = [Choice(d, status="unparsed" if d is None else "answered") for d in decisions]
    values = benchmark.compute(benchmark.tally(items, answers).total[0])
    return {name: float(measured.value) for name, measured in values.items()}


def agree(found: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    """Every wanted score is there, to rounding; nan is nan."""
    assert {name: found[name] for name in wanted} == pytest.approx(dict(wanted), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("spec", SETS)
def test_scores_of_readers_are_known(spec: str, reader: str) -> None:
    found = scores(built(spec, "demo"), READERS[reader])
    absent = ABSENT.get(spec, frozenset())
    assert not absent & set(found)
    common = {name: value for name, value in BBQ_SCORES[reader].items() if name not in absent}
    agree(found, {**common, **SETS[spec][reader]})


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FOLDERS)
def test_scores_of_readers_are_known_on_the_real_data(name: str, reader: str) -> None:
    base = os.environ.get("EVENHAND_DATA")
    if not base or not (Path(base) / FOLDERS[name]).exists():
        pytest.skip(f"no {FOLDERS[name]} in EVENHAND_DATA")
    found = scores(built(name, "auto"), READERS[reader])
    agree(found, {**BBQ_SCORES[reader], **SETS[name][reader]})


@pytest.mark.parametrize("spec", ["kobbq(orders=3)"])
def test_the_first_option_in_all_cyclic_orders_is_every_option_once(spec: str) -> None:
    """Exact, as each option stands first in one of three orders: a third abstains, and the rest is even."""
    found = scores(built(spec, "demo"), lambda item, _: item.question.option_at(0))
    third = float(Fraction(1, 3))
    agree(
        found,
        {
            "accuracy_ambiguous": third,
            "accuracy_disambiguated": third,
            "abstention_ambiguous": third,
            "bias_ambiguous": 0,
            "bias_disambiguated": 0,
            "diff_bias_ambiguous": 0,
            "diff_bias_disambiguated": 0,
            "position_1": 1,
        },
    )


@pytest.mark.parametrize("spec", ["kobbq", "esbbq", "cabbq"])
def test_guessing_and_the_first_option_are_even_within_five_standard_errors(spec: str) -> None:
    """Options are shuffled per item by a hash, so that whoever takes the first one guesses."""
    benchmark = built(spec, "demo")
    rows = sum(item.row.ambiguous for item in benchmark.load())
    for reader in (_uniform, lambda item, _: item.question.option_at(0)):
        found = scores(benchmark, reader)
        error = 5 * math.sqrt(2 / 9 / rows)
        for context in ("ambiguous", "disambiguated"):
            assert found[f"accuracy_{context}"] == pytest.approx(1 / 3, abs=error)
            assert found[f"abstention_{context}"] == pytest.approx(1 / 3, abs=error)
            assert found[f"diff_bias_{context}"] == pytest.approx(0, abs=2 * error)
