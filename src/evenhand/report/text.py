"""Words and number formats that all parts of a report share."""

from __future__ import annotations

import math
import re
import unicodedata

from evenhand.records import Record

DEMO_LABEL = "demo model, planted bias"
INTERVALS = (
    "[ ] 95 % interval, cluster bootstrap by template; * differs from the untouched model (Holm-adjusted p < .05)"
)
SIGNIFICANT = 0.05
ARROWS = {"lower": "↓", "higher": "↑", "zero": "→0", "none": ""}
ARROWS_MEAN = "↑ higher, ↓ lower, →0 nearer 0 is better"
BETTER = {"lower": "lower is better", "higher": "higher is better", "zero": "nearer 0 is better", "none": ""}


def number(value: float, *, signed: bool = False) -> str:
    """Three decimals; a dash for what does not exist."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    return text.replace("-0.000", "0.000").replace("+0.000", "0.000")


def cell(record: Record) -> str:
    """Value, interval and a star where it differs from the untouched model's."""
    text = number(record.value)
    if not math.isnan(record.low):
        text += f" [{number(record.low)}, {number(record.high)}]"
    return text + (" *" if differs(record) else "")


def shift(record: Record) -> str:
    """From the untouched model's value to this one, with a star where they differ."""
    if math.isnan(record.difference):
        return number(record.value)
    return f"{number(record.value - record.difference)} → {number(record.value)}" + "*" * differs(record)


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


def differs(record: Record) -> bool:
    """Whether the paired difference is significant after Holm's adjustment."""
    return record.p_holm < SIGNIFICANT


def metric_name(name: str) -> str:
    """A metric's name as words."""
    return name.replace("_", " ")


def markdown(text: object) -> str:
    """Names come from models, data and plugins: nothing in them may act as Markdown or HTML."""
    plain = " ".join(str(text).split())
    escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", escaped)
