"""A limit: every stratum gets its share, whatever the order, and a larger limit keeps what a smaller one took."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest

from evenhand.core import registry
from evenhand.experiment.subsampling import subsample
from evenhand.interfaces import Benchmark

MMLU = {
    "professional_law": 1534,
    "moral_scenarios": 895,
    "miscellaneous": 783,
    "professional_psychology": 612,
    "high_school_psychology": 545,
    "high_school_macroeconomics": 390,
    "elementary_mathematics": 378,
    "moral_disputes": 346,
    "prehistory": 324,
    "philosophy": 311,
    "high_school_biology": 310,
    "nutrition": 306,
    "professional_accounting": 282,
    "professional_medicine": 272,
    "high_school_mathematics": 270,
    "clinical_knowledge": 265,
    "security_studies": 245,
    "high_school_microeconomics": 238,
    "high_school_world_history": 237,
    "conceptual_physics": 235,
    "marketing": 234,
    "human_aging": 223,
    "high_school_statistics": 216,
    "high_school_us_history": 204,
    "high_school_chemistry": 203,
    "sociology": 201,
    "high_school_geography": 198,
    "high_school_government_and_politics": 193,
    "college_medicine": 173,
    "world_religions": 171,
    "virology": 166,
    "high_school_european_history": 165,
    "logical_fallacies": 163,
    "astronomy": 152,
    "high_school_physics": 151,
    "electrical_engineering": 145,
    "college_biology": 144,
    "anatomy": 135,
    "human_sexuality": 131,
    "formal_logic": 126,
    "international_law": 121,
    "econometrics": 114,
    "machine_learning": 112,
    "public_relations": 110,
    "jurisprudence": 108,
    "management": 103,
    "college_physics": 102,
    "abstract_algebra": 100,
    "business_ethics": 100,
    "college_chemistry": 100,
    "college_computer_science": 100,
    "college_mathematics": 100,
    "computer_security": 100,
    "global_facts": 100,
    "high_school_computer_science": 100,
    "medical_genetics": 100,
    "us_foreign_policy": 100,
}
"""Rows of the test split of each subject: 14,042."""
SHAPES = {
    "mmlu": MMLU,
    "equal": {f"s{n}": 100 for n in range(57)},
    "one large, many of one": {"large": 100, **{f"s{n}": 1 for n in range(100)}},
    "skewed": dict(zip("abcdefghij", (30, 20, 12, 8, 5, 4, 3, 2, 1, 1), strict=True)),
    "two": {"a": 7, "b": 3},
}


@dataclass(frozen=True)
class Thing:
    id: str
    kind: str = ""

    @property
    def cluster(self) -> str:
        return self.id


def things(sizes: dict[str, int]) -> list[Thing]:
    return [Thing(f"{kind}/{n}", kind) for kind, size in sizes.items() for n in range(size)]


def kind(thing: Thing) -> str:
    return thing.kind


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_stratum_is_within_one_item_of_a_common_fraction(shape: str, seed: int) -> None:
    sizes = SHAPES[shape]
    items = things(sizes)
    for limit in {1, 5, len(items) // 3, len(sizes), 60, len(items) - 1}:
        if limit >= len(items):
            continue
        taken = Counter(t.kind for t in subsample(items, limit, seed, kind))
        assert taken.total() == limit
        low = max((taken[k] - 1) / n for k, n in sizes.items())
        high = min((taken[k] + 1) / n for k, n in sizes.items())
        assert low < high, f"no fraction is within one item of the count of every stratum, of {limit}"
        # the fraction is limit / items but for what rounding the strata leaves: never two items, here
        assert all(abs(taken[k] - limit * n / len(items)) < 2 for k, n in sizes.items())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_larger_limit_contains_a_smaller_one_and_the_order_of_items_does_not_matter(shape: str) -> None:
    items = things(SHAPES[shape])
    chosen = [subsample(items, limit, 3, kind) for limit in (1, 2, 9, 10)]
    for few, many in pairwise(chosen):
        assert set(few) < set(many)
    turned = subsample(items[::-1], 9, 3, kind)
    assert turned == list(chosen[2])[::-1], "in the order of the items"
    assert subsample(items, 9, 4, kind) != chosen[2]


def test_mmlu_with_few_items_reaches_most_subjects_and_others_under_other_seeds() -> None:
    items, quota = things(MMLU), {k: 60 * n / 14042 for k, n in MMLU.items()}
    assert len(items) == 14042
    seen: set[str] = set()
    for seed in range(8):
        taken = Counter(t.kind for t in subsample(items, 60, seed, kind))
        seen |= set(taken)
        assert len(taken) > 37, "a draw without strata reaches about 33 of 57"
        # a subject of average size or less (246 rows, of which 1.05 are due) has at most two, law six or seven
        assert all(taken[k] <= 2 for k in MMLU if quota[k] <= 1.1)
        assert all(taken[k] >= 1 for k in MMLU if quota[k] >= 1.3)
        assert taken["professional_law"] in (5, 6, 7, 8)
    assert len(seen) > 54, "no subject is left out for good"


def test_57_equal_subjects_have_one_or_two_of_60() -> None:
    taken = Counter(t.kind for t in subsample(things(SHAPES["equal"]), 60, 0, kind))
    assert len(taken) == 57 and Counter(taken.values()) == {1: 54, 2: 3}


def test_every_item_has_the_same_chance() -> None:
    sizes = {"a": 40, "b": 8, "c": 4, "d": 1, "e": 1}
    items, runs, limit = things(sizes), 3000, 9
    times = Counter(t.kind for seed in range(runs) for t in subsample(items, limit, seed, kind))
    for name, n in sizes.items():  # about three standard errors, were the draws independent
        share = limit / len(items)
        assert times[name] / runs / n == pytest.approx(share, abs=3 * (share * (1 - share) / runs / n) ** 0.5)


def test_one_stratum_is_the_seeded_hash_alone() -> None:
    items = things({"a": 200})
    hashes = {t: hashlib.sha256(f"5:{t.id}".encode()).digest() for t in items}
    smallest = sorted(items, key=hashes.__getitem__)[:17]
    for given in (subsample(items, 17, 5), subsample(items, 17, 5, kind)):
        assert set(given) == set(smallest) and list(given) == [t for t in items if t in smallest]


def test_no_limit_or_a_large_one_takes_all() -> None:
    items = things({"a": 3, "b": 1})
    for limit in (None, 4, 5):
        assert subsample(items, limit, 0, kind) is items
    assert len(subsample(items, 3, 0, kind)) == 3 and not subsample([], 3, 0, kind)


def test_ids_that_occur_twice_count_as_two_items() -> None:
    items = [Thing("x", "a"), Thing("x", "a"), Thing("y", "a"), Thing("x", "b"), Thing("x", "b")]
    for limit in range(1, 5):
        here, turned = (subsample(given, limit, 0, kind) for given in (items, items[::-1]))
        assert len(here) == limit and Counter(here) == Counter(turned)


# ------------------------------------------------------------------------------------------- the benchmarks' own strata

OF_SEVERAL = {
    "bbq": 12,
    "mmlu": 2,
    "gpqa": 2,
    "crows_pairs": 6,
    "stereoset": 4,
    "winobias": 2,
    "winogender": 2,
    "redditbias": 4,
    "b_score": 4,
    "holistic_bias": 2,
    "pronoun_skew": 4,
    "disco": 2,
    "option_order": 12,
}
"""Strata of the demo, at least; the rest have one."""


@pytest.mark.parametrize("name", registry.BUILT_IN["benchmarks"])
def test_benchmarks_name_strata(name: str) -> None:
    bench: Benchmark = registry.build_benchmark(f"{name}(source=demo)")
    items = bench.load()
    strata = Counter(bench.stratum(i) for i in items)
    assert all(isinstance(s, str) for s in strata)
    assert len(strata) >= OF_SEVERAL.get(name, 1)
    if name == "ifeval":
        assert set(strata) == {""}
    few = Counter(bench.stratum(i) for i in subsample(items, max(1, len(items) // 2), 0, bench.stratum))
    assert all(abs(few[s] - n / 2) < 2 for s, n in strata.items())


def test_strata_of_bbq_are_those_of_its_questions_in_other_orders() -> None:
    bbq, turned = (registry.build_benchmark(f"{n}(source=demo)") for n in ("bbq", "option_order"))
    item = bbq.load()[0]
    assert bbq.stratum(item) == f"{item.category}/{'disambiguated' if item.disambiguated else 'ambiguous'}"
    assert [turned.stratum(i) for i in turned.load()] == [bbq.stratum(i) for i in bbq.load()]
