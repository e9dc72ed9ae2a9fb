"""`evenhand show` for a damaged run folder: report the damage and how to continue, and print what is left."""

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
    """Open the report of a run folder, after a line on standard error for each damaged file or folder.

    If the report cannot be read, the readable part is printed, and the command exits with status 1.

    Args:
        folder: Run folder.
        item: Id of an item whose dialogues are wanted, which need no numbers; "" if none are.
        as_json: Whether JSON is printed.
        thorough: Whether to read the answer cache and trained artefacts as well.

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
    """Turn errors that come from a manifest without a checksum, of an earlier version, into a `RunError`.

    Raises:
        RunError: The manifest has no checksum, and its content cannot be shown.
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
    """Read the numbers and the manifest of a run; empty if unreadable."""
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
    """Print the bare main numbers or, if there are none, the number of answers per cell."""
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
