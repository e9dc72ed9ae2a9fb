"""`Criteria`: the level, margin and family of a run's tests, and what follows from them for records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan
from typing import Any, Literal

from evenhand.core.records import Record
from evenhand.errors import SettingsError, suggest
from evenhand.statistics import families

Family = Literal["metric", "benchmark", "run"]
FAMILIES: Mapping[Family, str] = {
    "metric": "the methods compared on one model, benchmark, metric and group",
    "benchmark": "all methods and main metrics of one model and benchmark, in one group",
    "run": "all methods, models, benchmarks and main metrics of the run, in one group",
}
FEW_CLUSTERS = 12
"""Below this many clusters a table warns: intervals are wide, and the distribution of clusters matters."""
MIN_CLUSTERS = 5
"""Below this many clusters there is no star and no verdict."""


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """Rules by which differences are judged."""

    alpha: float = 0.05
    """Level of the family of tests; intervals have level 1 - alpha."""
    margin: float = 0.02
    """A loss of capability below this is accepted (non-inferiority), in the metric's own unit."""
    family: Family = "metric"
    """Which tests are adjusted together: those of one metric, of one benchmark's main metrics, or of the whole run."""

    def __post_init__(self) -> None:
        """Refuse values under which nothing could be judged.

        Raises:
            SettingsError: A value cannot be used; the message gives it and the remedy.
        """
        if not 0 < self.alpha <= 0.5:
            raise SettingsError(
                f"alpha={self.alpha}: give the level of the tests, above 0 and at most 0.5; 0.05 is usual"
            )
        if not 0 < self.margin < inf:
            raise SettingsError(f"margin={self.margin}: give the loss that is still accepted, above 0, such as 0.02")
        if self.family not in FAMILIES:
            raise SettingsError(f"family={self.family!r} is not known. {suggest(str(self.family), FAMILIES)}")

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Criteria:
        """Return the criteria in a run's manifest; the defaults for runs made before there were settings."""
        return cls(**{k: v for k, v in manifest.get("statistics", {}).items() if k in ("alpha", "margin", "family")})

    @property
    def facts(self) -> dict[str, Any]:
        """Return the criteria for the manifest."""
        return {
            "alpha": self.alpha,
            "margin": self.margin,
            "family": self.family,
            "tests adjusted together": FAMILIES[self.family],
            "intervals": "delete-one-cluster jackknife with t, exact bounds for proportions, bootstrap for the rest",
        }

    @property
    def level(self) -> float:
        """Level of the intervals, in per cent."""
        return 100 * (1 - self.alpha)

    def significant(self, record: Record) -> bool:
        """Whether a row differs from its baseline: the only rule for stars and verdicts alike."""
        return fewest_clusters(record) >= MIN_CLUSTERS and record.p_holm < self.alpha

    def adjusted(self, records: Sequence[Record]) -> list[Record]:
        """Adjust p over each family (Holm), and state what each family could have detected."""
        families_: dict[tuple[str, ...], list[int]] = {}
        for i, r in enumerate(records):
            if not isnan(r.p):
                families_.setdefault(self._family(r), []).append(i)
        out = list(records)
        for rows in families_.values():
            for i, p in zip(rows, families.holm([records[i].p for i in rows]), strict=True):
                r = records[i]
                least = families.detectable(r.difference_error, r.degrees, self.alpha, len(rows))
                out[i] = replace(r, p_holm=p, detectable=least)
        return out

    def _family(self, r: Record) -> tuple[str, ...]:
        """Return what identifies the family of a record's test; metrics beyond the main ones are their own families."""
        if self.family == "metric" or not r.main:
            return r.model, r.benchmark, r.metric, r.group
        return (r.model, r.benchmark, r.group) if self.family == "benchmark" else (r.group,)


def fewest_clusters(record: Record) -> int:
    """Return the number of clusters of a value, or of its baseline if that has fewer."""
    return record.clusters if record.baseline_clusters is None else min(record.clusters, record.baseline_clusters)


CRITERIA = Criteria()
