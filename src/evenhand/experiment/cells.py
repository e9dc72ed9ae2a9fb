"""`Cell`: one model, method and benchmark of a comparison, from answers to numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from evenhand.core.records import BASELINE, is_baseline
from evenhand.errors import SettingsError
from evenhand.evaluation.metrics.unanswered import Gap, gap
from evenhand.interfaces import Benchmark, Grade, Method, Tally


class Variant(NamedTuple):
    """Which repetition of a row a cell is; the cells of one row differ in nothing else."""

    seed: int = 0
    """Number of the seed, or of the independent sample."""
    wording: int = 0


@dataclass
class Cell:
    """One model, method and benchmark, from answers to numbers."""

    model: str
    method: Method
    benchmark: Benchmark
    row: str = ""
    """Row of the tables; the method's spec unless given. Cells of one model, benchmark and row are repetitions of one
    another (`variant`) and become one mean."""
    baseline: str = BASELINE
    """Row that the cell is compared with: the baseline, read as this method's answers are."""
    variant: Variant = field(default_factory=Variant)
    no_effect: str = ""
    """Why the answers are the baseline's, if that is known before they are compared."""
    status: Literal["running", "ok", "not applicable", "failed"] = "running"
    note: str = ""
    remark: str = ""
    """Findings during asking that cast doubt on its numbers; they go into the notes of these."""
    answers: Sequence[Any] = ()
    clusters: Sequence[str] = ()
    """Clusters of the items."""
    tally: Tally | None = None
    grades: Sequence[Grade] | None = None
    """Which answers are right, if the benchmark knows."""
    gap: Gap | None = None
    """Items that were never answered, if there are any."""

    def __post_init__(self) -> None:
        """Name the row."""
        self.row = self.row or self.method.spec

    @property
    def is_baseline(self) -> bool:
        """Whether this is the baseline, however it is read."""
        return is_baseline(self.row)

    @property
    def label(self) -> str:
        """Readable name of the cell, for messages."""
        return f"{self.model} x {self.method.spec} x {self.benchmark.spec}"

    def finish(self, items: Sequence[Any], answers: Sequence[Any]) -> None:
        """Take the answers; if nothing at all was answered, there are no numbers, and the cell fails.

        Raises:
            SettingsError: The benchmark's grades do not fit its items or its tally.
        """
        self.answers, self.clusters = answers, [item.cluster for item in items]
        self.gap = gap(items, answers)
        if self.gap is not None and self.gap.total:
            self.fail(str(self.gap))
            return
        tally, self.grades = self.benchmark.tally(items, answers), self.benchmark.grades(items, answers)
        if self.grades is not None:
            if len(self.grades) != len(items):
                raise SettingsError(f"{self.benchmark.name}: {len(self.grades)} grades for {len(items)} items")
            unknown = {group for grade in self.grades for group in grade.groups} - {*tally.groups}
            if unknown:
                raise SettingsError(f"{self.benchmark.name}: grades name {sorted(unknown)[0]!r}, which is not a group")
        self.status, self.tally = "ok", tally

    def refuse(self, reason: str) -> None:
        """Mark the cell as not applicable: the method or benchmark does not fit the model."""
        self.status, self.note, self.tally = "not applicable", reason, None

    def fail(self, reason: str) -> None:
        """Mark the cell as failed; the other cells continue."""
        self.status, self.note, self.tally = "failed", reason, None
