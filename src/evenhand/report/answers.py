"""The stored answers of a report: one `StoredCell` per finished cell, and all of them as one table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core.answer_table import COLUMNS
from evenhand.core.run_folder import RunFolder
from evenhand.errors import RunError, suggest

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = re.compile(r"[0-9A-Za-z_-]+")
"""Pattern of the names of answer files; a manifest is not trusted to name any other place."""
NOT_KEPT = "answers are kept in a run folder only; give compare(..., out=FOLDER)"


class Source(NamedTuple):
    """A run that a report shows: the only one, or one of several joined runs."""

    name: str
    """Label of the run; "" if it is the only one."""
    folder: Path | None
    manifest: Mapping[str, Any]
    labels: Mapping[str, str]
    """Names of its models in the report, by their own names, if these differ."""

    @property
    def usage(self) -> list[Mapping[str, Any]]:
        """The manifest's facts of every finished cell, with the names used in the report."""
        return [{**u, "model": self.labels.get(u["model"], u["model"])} for u in self.manifest.get("usage", [])]


def answers_file(folder: Path, usage: Mapping[str, Any]) -> str:
    """Return the name of a finished cell's answer file, without its ending.

    Args:
        folder: Folder of the run.
        usage: The manifest's facts of the cell.

    Raises:
        RunError: The manifest gives something other than a file name.
    """
    name = str(usage.get("answers", ""))
    if not FILE_NAME.fullmatch(name):
        raise RunError(f"{folder / 'manifest.json'} names {name!r} as a file of answers; run the command again")
    return name


@dataclass(frozen=True)
class StoredCell:
    """One finished (model, method, benchmark), whose answers are in a run folder."""

    run: str
    """Label of the run; "" if the report shows only one."""
    model: str
    """Name of the model in the report."""
    method: str
    """Row of the report."""
    benchmark: str
    """Spec of the benchmark."""
    folder: Path
    usage: Mapping[str, Any] = field(repr=False)
    """The manifest's facts of the cell, with the names used in its own run."""
    contents: str = field(default="", repr=False)
    """Digest of the items that were asked; "" in runs of earlier versions."""

    def named(self, part: str) -> str:
        """Return the name of its run, model, method or benchmark in the report.

        Args:
            part: "run", "model", "method" or "benchmark".
        """
        return {"run": self.run, "model": self.model, "method": self.method, "benchmark": self.benchmark}[part]

    @property
    def variant(self) -> tuple[int, int]:
        """Numbers of the seed and of the wording, if the row is a mean of several."""
        seed, wording = self.usage.get("variant") or (0, 0)
        return int(seed), int(wording)

    @property
    def key(self) -> str:
        """Name of the file of answers, without its ending.

        Raises:
            RunError: The manifest gives something else than the name of a file.
        """
        return answers_file(self.folder, self.usage)

    def answers(self) -> dict[str, dict[str, Any]]:
        """Read the answers by item, each in the form of `dataclasses.asdict`.

        Raises:
            RunError: The file is damaged or not there.
        """
        stored = RunFolder(self.folder).stored(self.key)
        if not stored:
            raise RunError(f"{self.folder} has no answers of {self.method}; run the same command again to have them")
        return stored

    def frame(self) -> pd.DataFrame:
        """Read the answers as a table with the columns of `COLUMNS` and one row per item.

        Raises:
            RunError: The file is damaged or not there.
        """
        import pandas as pd

        table = RunFolder(self.folder).table(self.key)
        if table is None:
            raise RunError(f"{self.folder} has no answers of {self.method}; run the same command again to have them")
        kinds = {"integer": pd.Int64Dtype(), "flag": pd.BooleanDtype(), "text": pd.StringDtype()}
        made = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
        columns = {
            name: made[name].astype(kinds[holds]) if name in made and holds in kinds else made.get(name)
            for name, holds in COLUMNS.items()
        }
        named = {"model": self.model, "method": self.method, "benchmark": self.benchmark}
        return pd.DataFrame({**columns, **named}, index=made.index)


def stored_cells(sources: Iterable[Source]) -> list[StoredCell]:
    """Return all finished cells of some runs, in order; none of a run without a folder."""
    found: list[StoredCell] = []
    for source in sources:
        if source.folder is None:
            continue
        facts = source.manifest.get("benchmarks", {})
        for usage in source.manifest.get("usage", []):
            own = usage["model"], usage["method"], usage["benchmark"]
            contents = str(facts.get(own[2], {}).get("contents", ""))
            label = source.labels.get(own[0], own[0])
            found.append(StoredCell(source.name, label, own[1], own[2], source.folder, usage, contents))
    return found


def chosen(cells: Sequence[StoredCell], **wanted: str) -> list[StoredCell]:
    """Select the cells with these names; "" takes all.

    Args:
        cells: Cells of the report.
        **wanted: Any of model, method and benchmark, as they stand in the report.

    Raises:
        RunError: No answers are kept, or there is no such name; the message suggests similar ones.
    """
    if not cells:
        raise RunError(NOT_KEPT)
    found = list(cells)
    for name, value in wanted.items():
        known = dict.fromkeys(c.named(name) for c in found)
        if value and value not in known:
            raise RunError(f"no answers of the {name} {value!r} in this run. {suggest(value, known)}")
        found = [c for c in found if not value or c.named(name) == value]
    once = {(c.model, c.method, c.benchmark, c.variant, c.key): c for c in reversed(found)}  # runs may share a row
    return [c for c in found if c in once.values()]


def answer_frame(cells: Sequence[StoredCell]) -> pd.DataFrame:
    """Read all answers of some cells, one row per item; `run`, `seed` and `wording` tell which cell a row is from."""
    import pandas as pd

    read: dict[tuple[Path, str], pd.DataFrame] = {}
    frames = []
    for cell in cells:
        place = cell.folder, cell.key
        if place not in read:
            read[place] = cell.frame()
        seed, wording = cell.variant
        names = {"model": cell.model, "method": cell.method, "benchmark": cell.benchmark}
        frames.append(read[place].assign(**names, run=cell.run, seed=seed, wording=wording))
    empty = pd.DataFrame(columns=[*COLUMNS, "run", "seed", "wording"])
    return pd.concat(frames, ignore_index=True) if frames else empty
