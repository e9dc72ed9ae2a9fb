"""`Record`: one number of a comparison with everything that qualifies it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "no effect", "not applicable", "failed"]
NAN = float("nan")
BASELINE = "none"
WORST_GROUP = "worst group"
"""Name of the group whose value is that of the worst of a benchmark's groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One number, of one model, method, benchmark, metric and group.

    A cell without numbers (not applicable, failed) is a single record with an empty metric and a `note` that says why.
    If nothing was answered, there is one such record per main metric, without a value and with the status "failed".
    """

    model: str
    method: str
    """Row of the tables: the method's spec, such as "self_debias(variant=explanation)". A baseline is "none", followed
    by how it was read if that is not the model's own way: "none (generation, T=1)"."""
    benchmark: str
    """Spec of the benchmark."""
    metric: str = ""
    group: str = "overall"
    value: float = NAN
    low: float = NAN
    """Lower end of the interval of the value (level 1 - alpha, alpha as in the manifest)."""
    high: float = NAN
    standard_error: float = NAN
    """Standard error of the value; nan if there is no interval."""
    n: float = 0
    """Number of answers that the value is computed from."""
    clusters: int = 0
    """Number of independent clusters (templates) that the interval is computed from."""
    degrees: float = NAN
    """Degrees of freedom of the standard error."""
    baseline: str = ""
    """Row that the differences refer to; "" for a baseline itself, and if there is none."""
    difference: float = NAN
    """Value minus the baseline's, on the same items."""
    difference_low: float = NAN
    difference_high: float = NAN
    difference_error: float = NAN
    """Standard error of the difference; if its interval is wider than a t interval, what that width stands for."""
    gain: float = NAN
    """Improvement in the metric's own direction; positive is better."""
    gain_low: float = NAN
    gain_high: float = NAN
    p: float = NAN
    """Two-sided p of a difference of zero, paired by cluster; from the statistic that gave the interval."""
    p_holm: float = NAN
    """The same after Holm's adjustment over the family of tests that the manifest names."""
    detectable: float = NAN
    """Smallest difference that this run would have found with 80 % power at the first step of Holm's procedure."""
    baseline_low: float = NAN
    """Interval of the baseline's value; with it a verdict needs no other record."""
    baseline_high: float = NAN
    baseline_clusters: int | None = None
    """Number of clusters of the baseline's value; a comparison is worth no more than the smaller of both numbers."""
    loss_high: float = NAN
    """Upper bound of the loss in the metric's own direction that non-inferiority is judged by."""
    clusters_needed: float = NAN
    """Approximate number of clusters needed to exclude a loss above the margin; nan if that is settled."""
    between_seeds: float = NAN
    """Standard deviation between seeds or samples, if a row is the mean of several; part of the interval."""
    between_wordings: float = NAN
    """Standard deviation between wordings, if a row is the mean of several; part of the interval."""
    direction: str = "none"
    kind: str = "validity"
    """bias, capability, validity, cost, or change (of answers). A record of cost belongs to the row, not to a group:
    it has no interval and is never tested."""
    main: bool = False
    """Whether it is shown in the short table."""
    status: Status = "ok"
    note: str = ""
    """Why there are no numbers, no interval or no effect; for "worst group", which group it is."""

    @property
    def has_numbers(self) -> bool:
        """Whether the row has numbers: its method could be applied, and did not fail."""
        return self.status in ("ok", "no effect")


def is_baseline(method: str) -> bool:
    """Whether a row of the tables is the baseline, however it is read."""
    return method == BASELINE or method.startswith(f"{BASELINE} (")
