"""`Rival`: the paired difference of two methods on one metric, which shows whether one of them dominates the other.

A comparison tests every method against its baseline. Which of two methods is better is another question: their
difference is smaller, and their answers are more alike. So each pair is tested separately, on the same items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from evenhand.core.records import NAN
from evenhand.core.text_output import for_json
from evenhand.statistics.families import holm

FIELD = "between_methods"
"""Entry of the manifest that contains the comparisons."""


class Rival(NamedTuple):
    """Comparison of `method` with `against`, neither of them a baseline, over all items of a benchmark."""

    model: str
    benchmark: str
    metric: str
    method: str
    against: str
    difference: float
    """Value of `method` minus that of `against`."""
    difference_low: float
    difference_high: float
    gain: float
    """Improvement in the metric's own direction; positive where `method` is better."""
    gain_low: float
    gain_high: float
    p: float
    """Two-sided p for the hypothesis of no difference, not adjusted."""
    clusters: int

    @property
    def turned(self) -> Rival:
        """Return the comparison with the two methods exchanged."""
        return self._replace(
            method=self.against,
            against=self.method,
            difference=-self.difference,
            difference_low=-self.difference_high,
            difference_high=-self.difference_low,
            gain=-self.gain,
            gain_low=-self.gain_high,
            gain_high=-self.gain_low,
        )


def facts(rivals: Iterable[Rival]) -> list[dict[str, Any]]:
    """Return the comparisons as entries of the manifest; unknown values are None, since JSON has no nan."""
    return [{k: for_json(v) for k, v in r._asdict().items()} for r in rivals]


def rivals_in(manifest: Mapping[str, Any]) -> list[Rival]:
    """Return the comparisons in a manifest; none in runs of earlier versions."""
    return [_read(entry) for entry in manifest.get(FIELD, [])]


def adjusted(rivals: Sequence[Rival]) -> list[Rival]:
    """Apply Holm's adjustment to these tests, which are one family."""
    return [r._replace(p=p) for r, p in zip(rivals, holm([r.p for r in rivals]), strict=True)]


def _read(entry: Mapping[str, Any]) -> Rival:
    def text(name: str) -> str:
        return str(entry.get(name, ""))

    def number(name: str) -> float:
        return NAN if entry.get(name) is None else float(entry[name])

    return Rival(
        model=text("model"),
        benchmark=text("benchmark"),
        metric=text("metric"),
        method=text("method"),
        against=text("against"),
        difference=number("difference"),
        difference_low=number("difference_low"),
        difference_high=number("difference_high"),
        gain=number("gain"),
        gain_low=number("gain_low"),
        gain_high=number("gain_high"),
        p=number("p"),
        clusters=int(entry.get("clusters") or 0),
    )
