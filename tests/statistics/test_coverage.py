"""A fast slice of benchmarks/coverage.py: intervals cover and tests err as often as docs/results.md says.

Bounds leave room for the draw: with n runs a share of .95 has a standard deviation of .22 / sqrt(n).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
RUNS = 1000


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    sys.path.insert(0, str(FOLDER))  # for its own imports
    try:
        spec = importlib.util.spec_from_file_location("evenhand_coverage", FOLDER / "coverage.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.mark.parametrize("skewed", [False, True], ids=["equal", "lognormal"])
@pytest.mark.parametrize(
    "names",
    [(5,), (8,), (12,), (30,), (72,), (12, 3), (72, 6), (12, 1, 6), (12, 1, 10), (30, 1, 28), (60, 14, 18)],
    ids=str,
)
def test_bbq_intervals_cover(coverage: ModuleType, names: tuple[int, ...], skewed: bool) -> None:
    found = coverage.bbq_coverage(coverage.Sample(coverage.strata(*names), skewed), RUNS)
    for name, share in found.items():
        smooth = name.removesuffix(" difference") in coverage.SMOOTH
        assert 0.925 <= share <= (0.985 if smooth else 1.0), (name, share)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.98])
@pytest.mark.parametrize("clusters", [5, 12, 30, 72])
def test_proportions_cover_at_every_rate(coverage: ModuleType, clusters: int, rate: float) -> None:
    for skewed in (False, True):
        sample = coverage.Sample(coverage.strata(clusters), skewed)
        assert coverage.proportion_coverage(sample, rate, RUNS) >= 0.94


def test_a_percentile_bootstrap_would_fail_here(coverage: ModuleType) -> None:
    """The check can fail: five clusters, the intervals that were used before."""
    import numpy as np

    from evenhand.evaluation.bbq import BBQ

    sample, draw, held = coverage.Sample(coverage.strata(5), False), np.random.default_rng(0), []
    bench = BBQ(source="demo")
    for _ in range(10):
        sizes = sample.sizes(draw, 40)
        drawn = coverage.Drawn(
            *(coverage.answers(draw, p, sizes) for p in coverage.drawn_rates(draw, coverage.World(), sizes.shape))
        )
        tally = coverage.tally_of(sample, drawn)
        weights = draw.multinomial(5, np.full(5, 0.2), size=300)
        draws = bench.compute(np.einsum("bc,cgs->bgs", weights, tally.sums))["bias_ambiguous"].value
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        truth = coverage.World().truth()["bias_ambiguous"]
        held.append((low <= truth) & (truth <= high))
    assert np.mean(held) < 0.9


def test_errors_keep_their_level(coverage: ModuleType) -> None:
    for clusters in (8, 30):
        found = coverage.family_wise(coverage.Sample(coverage.strata(clusters), False), 300)
        assert max(found.values()) <= 0.065 + 3 * 0.0142, found
    for clusters in (5, 12, 72):
        sample = coverage.Sample(coverage.strata(clusters), False)
        assert coverage.false_less_bias(sample, RUNS, True) <= 0.06 + 3 * 0.007
        for lose in (coverage.scattered(0.02 / 0.995), coverage.concentrated(0.04)):
            assert coverage.false_held(sample, lose, 0.995, 0.02, RUNS) <= 0.035


def test_a_small_loss_is_held_where_there_are_enough_clusters(coverage: ModuleType) -> None:
    """Never to say it would be no achievement."""
    sample = coverage.Sample(coverage.strata(185), False)
    assert coverage.false_held(sample, coverage.concentrated(0.0), 0.995, 0.02, 50) == 1.0
    assert coverage.false_held(sample, coverage.scattered(0.001), 0.9, 0.05, 50) > 0.9
