"""`Record`: one number of a comparison with everything that qualifies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "no effect", "not applicable", "failed"]
NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One (model, method, benchmark, metric, group).

    A cell without numbers (not applicable, failed) is a single record with an empty metric and a `note` that says why.
    """

    model: str
    method: str
    """Spec of the method, such as "self_debias(variant=explanation)"; "none" is the untouched model."""
    benchmark: str
    """Spec of the benchmark."""
    metric: str = ""
    group: str = "overall"
    value: float = NAN
    low: float = NAN
    """Lower end of the 95 % interval (cluster bootstrap)."""
    high: float = NAN
    n: float = 0
    """Answers behind the value."""
    clusters: int = 0
    """Independent clusters (templates) behind the interval; below 2, or one per stratum, there is none."""
    difference: float = NAN
    """Value minus the untouched model's, on the same items."""
    difference_low: float = NAN
    difference_high: float = NAN
    gain: float = NAN
    """Improvement in the metric's own direction; positive is better."""
    gain_low: float = NAN
    gain_high: float = NAN
    p: float = NAN
    """Two-sided, paired cluster bootstrap."""
    p_holm: float = NAN
    """The same after Holm's adjustment across the methods of this model, benchmark, metric and group."""
    direction: str = "none"
    kind: str = "validity"
    main: bool = False
    """Shown in the short table."""
    status: Status = "ok"
    note: str = ""
