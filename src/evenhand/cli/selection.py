"""Selection of the part of a report that `evenhand show` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core.records import is_baseline
from evenhand.errors import SettingsError, suggest

if TYPE_CHECKING:
    from evenhand.report import Report


def only_method(report: Report, method: str) -> Report:
    """Restrict a report to one method and the baselines.

    Args:
        report: Report of a run.
        method: A row of the report, or the name of a method without its settings.

    Raises:
        SettingsError: The run has no such row.
    """
    rows = list(dict.fromkeys(r.method for r in report.records))
    found = [row for row in rows if row == method] or [row for row in rows if row.partition("(")[0] == method]
    if not found:
        raise SettingsError(f"no method {method!r} in this run. {suggest(method, rows)}")
    kept = [r for r in report.records if r.method in found or is_baseline(r.method)]
    usage = [u for u in report.manifest.get("usage", []) if u["method"] in found or is_baseline(u["method"])]
    methods = [m for m in report.manifest.get("methods", []) if m in found or is_baseline(m)]
    return type(report)(kept, {**report.manifest, "usage": usage, "methods": methods}, report.folder)
