"""Words and cells that all parts of a report share; `evenhand.core.text_output` writes their numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from evenhand.core import moved
from evenhand.core.records import WORST_GROUP, Record
from evenhand.core.text_output import count, interval, number
from evenhand.statistics.criteria import CRITERIA, FAMILIES, FEW_CLUSTERS, MIN_CLUSTERS, Criteria, fewest_clusters

DEMO_LABEL = "demo model, planted bias"
FEW = "few clusters"
ARROWS = {"lower": "↓", "higher": "↑", "zero": "→0", "none": ""}
ARROWS_MEAN = "↑ higher, ↓ lower, →0 nearer 0 is better"
BETTER = {"lower": "lower is better", "higher": "higher is better", "zero": "nearer 0 is better", "none": ""}


def intervals_mean(criteria: Criteria) -> str:
    """Explain brackets and stars."""
    return (
        f"[ ] {criteria.level:g} % interval over clusters (templates); * differs from its baseline "
        f"(p < {criteria.alpha:g}, Holm-adjusted over {FAMILIES[criteria.family]}; never below {MIN_CLUSTERS} clusters)"
    )


def cell(record: Record, criteria: Criteria = CRITERIA) -> str:
    """Format value and interval, with a star if the value differs from the baseline's."""
    text = f"{number(record.value)} {interval(record.low, record.high)}".rstrip()
    return text + (" *" if criteria.significant(record) else "")


def shift(record: Record, criteria: Criteria = CRITERIA) -> str:
    """Show the baseline's value and this one with its interval, and a star if they differ."""
    if record.group == WORST_GROUP:
        return f"{cell(record, criteria)} ({worst_group(record.note)})"
    before = "" if math.isnan(record.difference) else f"{number(record.value - record.difference)} → "
    return before + cell(record, criteria)


def worst_group(note: str) -> str:
    """Return the group that the note of a worst group names; a group's name may contain any text."""
    return note.rpartition("; the worst of ")[0] or note


def counted(record: Record) -> str:
    """Show the answers of a value and, in brackets, independent clusters; a dash if nothing was answered."""
    if record.status == "failed":
        return "–"
    few = f", {FEW}" if fewest_clusters(record) < FEW_CLUSTERS else ""
    return f"{count(record.n)} ({count(record.clusters)}{few})"


def metric_name(name: str) -> str:
    """Return a metric's name as words."""
    return name.replace("_", " ")


def headed(title: str, direction: str) -> str:
    """Return the head of a column: its title, and an arrow that shows which direction is better."""
    return f"{title} {ARROWS.get(direction, '')}".rstrip()


if not TYPE_CHECKING:
    __getattr__ = moved.moved_names(
        __name__,
        {
            **dict.fromkeys(("duration", "visible"), "evenhand.core.text_output"),
            "markdown": "evenhand.core.sinks",
        },
    )
