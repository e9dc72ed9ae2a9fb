"""What a method cost beside the untouched model, per item: calls, tokens and time.

Calls and tokens are those of the answers (`Usage`). Time is that of the wall clock for asking all items of a benchmark
at once, divided by their number: throughput at this batch size on this machine, not the wait for one question asked
alone. Answers that came from the cache count with the time that they took when they were computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evenhand.records import NAN

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
    """More than the untouched model, as all that follow."""
    extra_prompt_tokens: float = NAN
    extra_new_tokens: float = NAN
    extra_seconds: float = NAN
    note: str = ""
    """Why the time is not known."""


def costs(manifest: Mapping[str, Any]) -> list[Cost]:
    """Costs of all finished cells of a run, in the order of the run."""
    found = [_of(usage) for usage in manifest.get("usage", []) if usage.get("items")]
    base = {(c.model, c.benchmark): c for c in found if c.method == "none"}
    return [c if c.method == "none" else _beside(c, base.get((c.model, c.benchmark))) for c in found]


def _of(usage: Mapping[str, Any]) -> Cost:
    saved, items = usage.get("seconds_saved"), usage["items"]
    calls, prompt_tokens, new_tokens = (usage[name] / items if usage["calls"] else NAN for name in COUNTED)
    seconds = NAN if saved is None else usage["seconds"] + saved
    note = UNTIMED if saved is None else SHORT if seconds < LEAST_SECONDS else ""
    return Cost(
        usage["model"], usage["method"], usage["benchmark"], items,
        calls, prompt_tokens, new_tokens, NAN if note else seconds / items, note=note,
    )  # fmt: skip


def _beside(cost: Cost, base: Cost | None) -> Cost:
    if base is None:
        return cost
    more = {f"extra_{n}": getattr(cost, n) - getattr(base, n) for n in (*COUNTED, "seconds")}
    return cost._replace(**more)
