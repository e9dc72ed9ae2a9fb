"""`Rival`: the paired difference of two methods on one metric, which says whether one of them dominates the other.

A comparison tests every method against its baseline. Which of two methods is better is another question: their
difference is smaller, and their answers are more alike. So each pair is tested by itself, on the same items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from evenhand.core.records import NAN
from evenhand.core.text_output import for_json
from evenhand.statistics.families import holm

FIELD = "between_methods"
"""Entry of the manifest that holds them."""


class Rival(NamedTuple):
    """`method` compared with `against`, neither of them a baseline, over all items of a benchmark."""

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
    """Two-sided p of a difference of zero, not adjusted."""
    clusters: int

    @property
    def turned(self) -> Rival:
        """The same with the two methods in each other's place."""
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
    """For the manifest; what is not known is None, since JSON has no nan."""
    return [{k: for_json(v) for k, v in r._asdict().items()} for r in rivals]


def rivals_in(manifest: Mapping[str, Any]) -> list[Rival]:
    """Those that a manifest has; none in runs of earlier versions."""
    return [_read(entry) for entry in manifest.get(FIELD, [])]


def adjusted(rivals: Sequence[Rival]) -> list[Rival]:
    """Holm's adjustment over these tests, which are one family."""
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
