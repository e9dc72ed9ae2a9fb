"""Statistics: HolisticBias-sized Mann-Whitney tests beside a loop over scipy, and a BBQ-sized bootstrap.

make bench        or        python benchmarks/bench_statistics.py
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations, islice

import numpy as np
from scipy.stats import mannwhitneyu
from tables import put

from evenhand.evaluation.bbq import BBQ, COLUMNS, POSITIONS
from evenhand.interfaces import Tally
from evenhand.ranks import pairwise_mann_whitney
from evenhand.statistics import bootstrap

DESCRIPTORS, NOUNS, CELLS = 125, 13, 26
"""About the size of one axis, and the number of templates."""
LOOPED = 5_000
"""Tests that the loop is timed on; it takes the same time for each."""


def mann_whitney() -> dict[str, object]:
    """All pairs of descriptors in all cells."""
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
        "what": f"{tests:,} Mann-Whitney tests", "scipy loop, s": f"{theirs:.1f} (from {LOOPED:,})",
        "evenhand, s": f"{ours:.2f}", "ratio": f"{theirs / ours:.0f}", "largest difference": f"{difference:.0e}",
    }  # fmt: skip


def bbq_bootstrap() -> dict[str, object]:
    """A tally of the size of BBQ's: 325 templates, 12 groups."""
    columns = 2 * (len(COLUMNS) + POSITIONS.width)
    sums = np.random.default_rng(0).integers(0, 40, (325, 12, columns)).astype(np.float64)
    names = tuple(f"template {n}" for n in range(325))
    tally = Tally(names, tuple(f"axis {n % 11}" for n in range(325)), tuple("abcdefghijkl"), sums)
    begun = time.perf_counter()
    found = bootstrap(tally, BBQ(source="demo").metrics, replicates=10_000)
    seconds = time.perf_counter() - begun
    return {
        "what": f"10,000 bootstrap replicates of {len(found)} BBQ metrics in 12 groups", "scipy loop, s": "",
        "evenhand, s": f"{seconds:.2f}", "ratio": "", "largest difference": "",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    rows = [mann_whitney(), bbq_bootstrap()]
    put("statistics", rows, write=parser.parse_args().write)


if __name__ == "__main__":
    main()
