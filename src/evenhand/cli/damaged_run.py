"""`evenhand show` of a run folder in which something is damaged: what that is, how to continue, and what is left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.cli.output import fail, write, write_records
from evenhand.core.text_output import number, visible
from evenhand.errors import RunError, reason

if TYPE_CHECKING:
    from evenhand.core.records import Record
    from evenhand.report import Report


def opened(folder: Path, *, item: str, as_json: bool, thorough: bool) -> Report:
    """The report of a run folder, after a line on standard error for everything that is damaged.

    Where the report cannot be read, what can be is printed, and the command ends with status 1.

    Args:
        folder: Of the run.
        item: Id of an item whose dialogues are wanted, which need no numbers; "" if none are.
        as_json: Whether JSON is printed.
        thorough: Whether the answer cache and what was trained are read as well.

    Raises:
        RunError: It is not a run folder, or the run was stopped before it had numbers.
    """
    from evenhand.core.stored_damage import command_of, damages
    from evenhand.report import Report

    found = damages(folder, thorough=thorough)
    for damage in found:
        sys.stderr.write(f"warning: {visible(str(damage))}\n")
    try:
        report = Report.load(folder)
    except RunError:
        if not found:
            raise
    else:
        if thorough and not found:
            sys.stderr.write(f"{folder}: nothing is damaged\n")
        return report
    records, manifest = _left(folder)
    if item and manifest:
        return Report([], manifest, folder)
    _show(records, manifest, as_json)
    fail(f"the report of {folder} cannot be shown as a whole; {command_of(manifest)}", 1)


@contextmanager
def in_words(folder: Path) -> Iterator[None]:
    """Say so where a manifest without a checksum, of an earlier version, is not what this version can show.

    Raises:
        RunError: Instead of what its content led to.
    """
    from evenhand.core.run_folder import RunFolder

    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        run = RunFolder(folder)
        if run.manifest().verified:
            raise
        raise RunError(
            f"{folder}: manifest.json or scores.parquet is not as evenhand writes it ({reason(error)}); run the "
            "command of this run again"
        ) from error


def _left(folder: Path) -> tuple[list[Record], dict[str, Any]]:
    """The numbers and the facts of a run, each where it can be read."""
    from evenhand.core.run_folder import RunFolder

    run = RunFolder(folder)
    records: list[Record] = []
    manifest: dict[str, Any] = {}
    with suppress(RunError):
        manifest = run.manifest().content
    with suppress(RunError):
        records = run.read_scores()
    return records, manifest


def _show(records: list[Record], manifest: dict[str, Any], as_json: bool) -> None:
    """Print the numbers without what qualifies them, or what was asked."""
    if as_json:
        write_records(records)
        return
    for r in records:
        if r.main and r.group == "overall" and r.has_numbers:
            write(visible(f"{r.model}  {r.method}  {r.benchmark}  {r.metric}  {number(r.value)}"))
    if not records:
        for usage in manifest.get("usage", []):
            named = (usage[part] for part in ("model", "method", "benchmark"))
            write(visible(f"{'  '.join(named)}  {usage['items']} answers"))
