"""Words and number formats that all parts of a report share."""

from __future__ import annotations

import math
import re
import unicodedata

from evenhand.core.records import WORST_GROUP, Record
from evenhand.statistics.criteria import CRITERIA, FAMILIES, FEW_CLUSTERS, MIN_CLUSTERS, Criteria, fewest_clusters

DEMO_LABEL = "demo model, planted bias"
FEW = "few clusters"
ARROWS = {"lower": "↓", "higher": "↑", "zero": "→0", "none": ""}
ARROWS_MEAN = "↑ higher, ↓ lower, →0 nearer 0 is better"
BETTER = {"lower": "lower is better", "higher": "higher is better", "zero": "nearer 0 is better", "none": ""}


def number(value: float, *, signed: bool = False) -> str:
    """Three decimals; a dash for what does not exist."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-0.000", "0.000").replace("+0.000", "0.000")


def intervals_mean(criteria: Criteria) -> str:
    """What brackets and stars say."""
    return (
        f"[ ] {100 * (1 - criteria.alpha):g} % interval over clusters (templates); * differs from its baseline "
        f"(p < {criteria.alpha:g}, Holm-adjusted over {FAMILIES[criteria.family]}; never below {MIN_CLUSTERS} clusters)"
    )


def cell(record: Record, criteria: Criteria = CRITERIA) -> str:
    """Value, interval and a star where it differs from the baseline's."""
    text = number(record.value)
    if not math.isnan(record.low):
        text += f" [{number(record.low)}, {number(record.high)}]"
    return text + (" *" if criteria.significant(record) else "")


def shift(record: Record, criteria: Criteria = CRITERIA) -> str:
    """From the baseline's value to this one with its interval, and a star where they differ."""
    if record.group == WORST_GROUP:
        return f"{cell(record, criteria)} ({record.note.partition(';')[0]})"
    before = "" if math.isnan(record.difference) else f"{number(record.value - record.difference)} → "
    return before + cell(record, criteria)


def counted(record: Record) -> str:
    """Answers behind a value and, in brackets, independent clusters; a dash where nothing was answered."""
    if record.status == "failed":
        return "–"
    few = f", {FEW}" if fewest_clusters(record) < FEW_CLUSTERS else ""
    return f"{record.n:,.0f} ({record.clusters:,}{few})"


def duration(seconds: float) -> str:
    """Three digits with a unit that suits; a dash for what does not exist."""
    if math.isnan(seconds):
        return "–"
    if seconds >= 99.95:
        return f"{seconds:,.0f} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def visible(text: str) -> str:
    """Text from a model with its control characters spelled out: they could act on a terminal."""
    acts = [c not in "\n\t" and unicodedata.category(c).startswith("C") for c in text]
    return "".join(c.encode("unicode_escape").decode() if a else c for c, a in zip(text, acts, strict=True))


def metric_name(name: str) -> str:
    """A metric's name as words."""
    return name.replace("_", " ")


def markdown(text: object) -> str:
    """Names come from models, data and plugins: nothing in them may act as Markdown or HTML."""
    plain = " ".join(str(text).split())
    escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", escaped)
