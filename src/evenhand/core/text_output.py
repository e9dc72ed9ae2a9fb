"""Formatting of numbers, and of texts of models, in tables, pages and messages."""

from __future__ import annotations

import math
import re
from typing import Any

from evenhand.errors import visible as visible

UNKNOWN = "–"
_USER_INFO = re.compile(r"//[^/@\s]*@")
"""User and password in a URL."""
_QUERY = re.compile(r"((?:endpoint|vllm):[^?#\s]*\?)[^#\s]*")
"""The query string of a server's URL, where some servers take their key."""


def number(value: float | None, *, signed: bool = False, decimals: int = 3) -> str:
    """Format a number with fixed decimals, never as "-0.000"; a dash for nan and None."""
    if value is None or math.isnan(value):
        return UNKNOWN
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text if any(digit in text for digit in "123456789") or math.isinf(value) else text.lstrip("+-")


def for_json(value: Any) -> Any:
    """Convert a value for JSON: None for a number that is not finite, as JSON has neither nan nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval(low: float, high: float, *, signed: bool = False) -> str:
    """Format both bounds in brackets; empty if the lower one is nan."""
    return "" if math.isnan(low) else f"[{number(low, signed=signed)}, {number(high, signed=signed)}]"


def percent(share: float) -> str:
    """Format a share in per cent, with one decimal."""
    return f"{100 * share:.1f} %"


def count(value: float) -> str:
    """Format a whole number with commas between thousands."""
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Format seconds with three digits in a suitable unit; a dash for nan."""
    if math.isnan(seconds):
        return UNKNOWN
    if seconds >= 99.95:
        return f"{count(seconds)} s"
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 0.9995:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def size(count_of_bytes: int) -> str:
    """Format a number of bytes in MB, or in GB from 0.1 GB."""
    return f"{count_of_bytes / 1e9:.2f} GB" if count_of_bytes >= 1e8 else f"{count_of_bytes / 1e6:.1f} MB"


def without_user_info(text: str) -> str:
    """Replace user and password in URLs, and the query string of a server's URL, with "..."."""
    return _QUERY.sub(r"\1...", _USER_INFO.sub("//...@", text))
