"""Statistics: HolisticBias-sized Mann-Whitney tests compared with a loop over scipy, and a BBQ-sized tally scored.

make bench        or        python benchmarks/bench_statistics.py
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations, islice

import numpy as np
from scipy.stats import mannwhitneyu
from tables import put

from evenhand.evaluation.bbq import BBQ
from evenhand.interfaces import Tally
from evenhand.statistics import Design, estimates, paired
from evenhand.statistics.design import takes_part
from evenhand.statistics.mann_whitney import pairwise_mann_whitney

DESCRIPTORS, NOUNS, CELLS = 125, 13, 26
"""Approximate size of one axis, and the number of templates."""
LOOPED = 5_000
"""Number of tests on which the loop is timed; it takes the same time for each."""


def mann_whitney() -> dict[str, object]:
    """Test all pairs of descriptors in all cells."""
    rng = np.random.default_rng(0)
    cells = [np.round(rng.normal(size=(DESCRIPTORS, NOUNS)), 2) for _ in range(CELLS)]
    begun = time.perf_counter()
    found = [pairwise_mann_whitney(cell) for cell in cells]
    ours = time.perf_counter() - begun
    tests = sum(len(f.p) for f in found)
    begun = time.perf_counter()
    pairs = islice(combinations(range(DESCRIPTORS), 2), LOOPED)
    looped = np.array([mannwhitneyu(cells[0][i], cells[0][j]).pvalue for i, j in pairs])
    theirs = (time.perf_counter() - begun) / len(looped) * tests
    difference = np.abs(looped - found[0].p[: len(looped)]).max()
    return {
        "what": f"{tests:,} Mann-Whitney tests",
        "scipy loop, s": f"{theirs:.1f} (from {LOOPED:,})",
        "evenhand, s": f"{ours:.2f}",
        "ratio": f"{theirs / ours:.0f}",
        "largest difference": f"{difference:.0e}",
    }


def bbq_tally(seed: int) -> Tally:
    """Make a tally of BBQ's size: 325 templates in 11 axes, which are groups in addition to "overall"."""
    columns = len(BBQ.parts) * len(BBQ.statistics)
    axes = [f"axis {n % 11:02d}" for n in range(325)]
    groups = ("overall", *sorted(set(axes)))
    sums = np.zeros((325, 12, columns))
    drawn = np.random.default_rng(seed).integers(1, 40, (325, columns)).astype(np.float64)
    sums[:, 0] = drawn
    sums[np.arange(325), [groups.index(axis) for axis in axes]] = drawn
    return Tally(tuple(f"template {n:03d}" for n in range(325)), tuple(axes), groups, sums)


def bbq_scored() -> dict[str, object]:
    """Compute intervals of all metrics and groups of a baseline and a method, and their paired differences."""
    bench = BBQ(source="demo")
    tallies = [bbq_tally(seed) for seed in (0, 1)]
    begun = time.perf_counter()
    design = Design.of(tallies[0].clusters, tallies[0].strata, takes_part([t.sums for t in tallies]))
    old, new = (estimates({(0, 0): t}, design, bench.compute, bench.metrics) for t in tallies)
    for name, estimate in new.items():
        pair = paired(design, old[name], estimate)
        for found in (estimate.interval(0.05), pair.interval(0.05), pair.gain_interval(0.05), pair.p):
            assert found is not None
    seconds = time.perf_counter() - begun
    return {
        "what": f"{len(new)} BBQ metrics in 12 groups, of two models: intervals, differences, p",
        "scipy loop, s": "",
        "evenhand, s": f"{seconds:.2f}",
        "ratio": "",
        "largest difference": "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    rows = [mann_whitney(), bbq_scored()]
    put("statistics", rows, write=parser.parse_args().write)


if __name__ == "__main__":
    main()
