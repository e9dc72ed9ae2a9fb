"""What a method cost next to its baseline, per item: calls, tokens and time.

The baseline is the untouched model, read as the method's answers are. Of repetitions (seeds, samples, wordings) the
mean is shown.

Calls and tokens are those of the answers (`Usage`). Time is that of the wall clock for asking all items of a benchmark
at once, divided by their number: throughput at this batch size on this machine, not the wait for one question asked
alone. Answers that came from the cache count with the time that they took when they were computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evenhand.core.records import BASELINE, NAN, is_baseline

UNTIMED = "unknown: answers were cached by a version that kept no times"
SHORT = "too short to time"
LEAST_SECONDS = 1.0
"""A benchmark that took less is not timed: its seconds are mostly those of the first batches and of other programs."""
COUNTED = ("calls", "prompt_tokens", "new_tokens")


class Cost(NamedTuple):
    """One (model, method, benchmark); every number is per item, nan where it is not known."""

    model: str
    method: str
    benchmark: str
    items: int
    calls: float
    prompt_tokens: float
    new_tokens: float
    seconds: float
    extra_calls: float = NAN
    """More than the baseline, as all that follow."""
    extra_prompt_tokens: float = NAN
    extra_new_tokens: float = NAN
    extra_seconds: float = NAN
    note: str = ""
    """Why the time is not known."""


def costs(manifest: Mapping[str, Any]) -> list[Cost]:
    """Costs of all finished rows of a run, in the order of the run."""
    cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for usage in manifest.get("usage", []):
        if usage.get("items"):
            cells.setdefault((usage["model"], usage["method"], usage["benchmark"]), []).append(usage)
    found = {key: _of(repetitions) for key, repetitions in cells.items()}
    out = []
    for (model, method, benchmark), cost in found.items():
        baseline = cells[model, method, benchmark][0].get("baseline") or BASELINE
        out.append(cost if is_baseline(method) else _beside(cost, found.get((model, baseline, benchmark))))
    return out


def _of(repetitions: Sequence[Mapping[str, Any]]) -> Cost:
    """The mean over cells that repeat one another."""
    first, asked = repetitions[0], sum(usage["items"] for usage in repetitions)
    saved = [usage.get("seconds_saved") for usage in repetitions]
    seconds = NAN if None in saved else sum(u["seconds"] + u["seconds_saved"] for u in repetitions)
    counted = all(usage["calls"] for usage in repetitions)
    calls, prompt_tokens, new_tokens = (
        sum(usage[name] for usage in repetitions) / asked if counted else NAN for name in COUNTED
    )
    note = UNTIMED if None in saved else SHORT if seconds < LEAST_SECONDS else ""
    return Cost(
        first["model"], first["method"], first["benchmark"], first["items"],
        calls, prompt_tokens, new_tokens, NAN if note else seconds / asked, note=note,
    )  # fmt: skip


def _beside(cost: Cost, base: Cost | None) -> Cost:
    if base is None:
        return cost
    more = {f"extra_{n}": getattr(cost, n) - getattr(base, n) for n in (*COUNTED, "seconds")}
    return cost._replace(**more)
