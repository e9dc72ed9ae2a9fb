"""Processor seconds of a whole `evenhand compare` on the demo, and the part of each step.

make bench        or        python benchmarks/bench_compare.py [--baseline CHECKOUT] [--limit 300] [--runs 2]

Each run is a process of its own with one thread and an empty run folder. With a baseline, both checkouts run in turns,
their records must agree, and the ratio of the best runs is shown; without one, the share of each part.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tables import put

HERE = Path(__file__).parents[1]
METHODS = (
    *("none", "permutation", "pride", "self_debias", "instruction"),
    *("contextual_calibration", "prior_matching", "batch_calibration"),
)
BENCHMARKS = ("bbq(source=demo)", "mmlu(source=demo)")
EXACT = ("value", "difference", "gain")
TOLERANCE = 1e-6
"""Tolerance of numbers in records: checkouts may add the same float32 numbers in different order."""
SPREAD = 1e-3
"""Tolerance of other columns than values and differences: dividing by a variance magnifies rounding."""
NEARLY_ONE = "letter_mass"
"""Metric of which only values are compared: a mass of .9999 varies by rounding, and intervals and tests with it."""
COSTS = "cost"
"""Kind of the records of seconds, which differ from run to run."""
PARTS = {
    "imports": "before the comparison begins, and the model's first question",
    "forward": "the model's own arithmetic",
    "choose": "everything else below `Model.choose` of the loaded model: texts, tokens, trie, cache, letters",
    "methods": "above it: orders, dialogues, combined answers, checks",
    "items": "reading and hashing the benchmarks' items",
    "scores": "sums, intervals and tests",
    "report": "page, summary and picture",
    "rest": "storing answers, and what no part names",
}


class Run(NamedTuple):
    """Result of one process."""

    seconds: float
    """Processor seconds, imports included."""
    records: list[dict[str, Any]]
    parts: Mapping[str, float]


def main() -> None:
    """Measure, or run as the measured process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", type=Path, help="another checkout, whose records must be the same")
    parser.add_argument("--limit", type=int, help="maximum number of items per benchmark; default: all")
    parser.add_argument("--runs", type=int, default=2, help="processes per checkout; the best counts")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--measured", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--parts", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measured:
        measured(given.measured, given.limit, parts=given.parts)
        return
    checkouts = [HERE] if given.baseline is None else [given.baseline.resolve(), HERE]
    runs: dict[Path, list[Run]] = {checkout: [] for checkout in checkouts}
    for _ in range(given.runs):
        for checkout in checkouts:
            runs[checkout].append(process(checkout, given.limit, parts=given.baseline is None))
    best = [min(runs[checkout], key=lambda run: run.seconds) for checkout in checkouts]
    if given.baseline is None:
        put("compare", shares(best[0]), write=given.write)
        return
    agree(best[0].records, best[1].records)
    rows: list[dict[str, object]] = [
        {"checkout": name, "processor, s": f"{run.seconds:.1f}", "ratio": f"{best[0].seconds / run.seconds:.2f}"}
        for name, run in zip(("baseline", "this one"), best, strict=True)
    ]
    put("compare-ratio", rows, write=False)


def process(checkout: Path, limit: int | None, *, parts: bool) -> Run:
    """Run one comparison with the code of a checkout; parts are measured by functions of this checkout only."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--measured", folder]
        command += ["--parts"] * parts
        if limit is not None:
            command += ["--limit", str(limit)]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
        found = json.loads((Path(folder) / "measured.json").read_text())
    return Run(found["seconds"], found["records"], found["parts"])


def measured(folder: Path, limit: int | None, *, parts: bool) -> None:
    """Compare in this process, and record the processor seconds since its start."""
    import evenhand
    from evenhand.experiment import comparison

    clock = Clock()
    if parts:
        clock.watch(comparison)
    clock.add("imports", time.process_time())
    out = folder / "run"
    report = evenhand.compare("demo", METHODS, BENCHMARKS, out=out, limit=limit, show_progress=False)
    seconds = time.process_time()
    records = [asdict(record) for record in report.records]
    shared = {**clock.parts, "rest": seconds - sum(clock.parts.values())}
    (folder / "measured.json").write_text(json.dumps({"seconds": seconds, "records": records, "parts": shared}))


class Clock:
    """Processor seconds by part; time in a nested part counts only for that part."""

    def __init__(self) -> None:
        """Start with zero seconds."""
        self.parts = dict.fromkeys(PARTS, 0.0)
        del self.parts["rest"]
        self._inner: list[float] = []

    def add(self, part: str, seconds: float) -> None:
        """Add seconds to a part."""
        self.parts[part] += seconds

    def watch(self, comparison: Any) -> None:
        """Measure the functions with which the parts begin."""
        from evenhand.inference import tree_forward
        from evenhand.models.token_model import TokenModel
        from evenhand.report import Report

        self._around(comparison, "scored", "scores")
        self._around(comparison, "_items", "items")
        self._around(comparison, "contents", "items")
        self._around(comparison, "_start", "imports")
        self._around(comparison._Session, "_answers", "methods")
        self._around(comparison.RunFolder, "write_answers", "rest")
        self._around(TokenModel, "choose", "choose")
        self._around(tree_forward, "hidden_states", "forward")
        self._around(Report, "save", "report")

    def _around(self, owner: Any, name: str, part: str) -> None:
        inside = vars(owner)[name]

        def timed(*given: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            begun = time.process_time()
            try:
                return inside(*given, **named)
            finally:
                took = time.process_time() - begun
                own = took - self._inner.pop()
                if part in self.parts:
                    self.add(part, own)
                if self._inner:
                    self._inner[-1] += took

        setattr(owner, name, timed)


def shares(run: Run) -> list[dict[str, object]]:
    """Return the parts of a run as a table."""
    whole = [{"part": "all", "processor, s": f"{run.seconds:.1f}", "share": "100 %", "what it is": "the whole process"}]
    parts = [
        {
            "part": part,
            "processor, s": f"{run.parts[part]:.1f}",
            "share": f"{run.parts[part] / run.seconds:.0%}",
            "what it is": about,
        }
        for part, about in PARTS.items()
    ]
    return [dict[str, object](row) for row in (*parts, *whole)]


def agree(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> None:
    """Require equal records in every column, except costs.

    Raises:
        SystemExit: The records differ; the message names the first difference.
    """
    rows = [[record for record in records if record["kind"] != COSTS] for records in (before, after)]
    if len(rows[0]) != len(rows[1]):
        raise SystemExit(f"the baseline has {len(rows[0])} records, but this checkout {len(rows[1])}")
    for one, other in zip(*rows, strict=True):
        columns = (
            ("method", "benchmark", "metric", "group", "value") if other["metric"] == NEARLY_ONE else {**one, **other}
        )
        for column in columns:
            if not same(one.get(column), other.get(column), TOLERANCE if column in EXACT else SPREAD):
                place = f"{other['method']} on {other['benchmark']}, {other['metric']} of {other['group']}"
                raise SystemExit(f"{place}: {column} was {one.get(column)!r} and is {other.get(column)!r}")


def same(one: Any, other: Any, tolerance: float = TOLERANCE) -> bool:
    """Return whether two values are equal, numbers up to the tolerance, which is relative above 1."""
    if not (isinstance(one, float) and isinstance(other, float)) or math.isinf(one) or math.isinf(other):
        return bool(one == other)
    return (math.isnan(one) and math.isnan(other)) or abs(one - other) <= tolerance * max(1.0, abs(one))


if __name__ == "__main__":
    main()
