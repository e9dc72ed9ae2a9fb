"""How a text from outside is written into each kind of output, so that it is read there and nothing in it acts.

Names of models, methods, groups and items, notes and errors come from folders, data, plugins and servers. There is one
function per output, and every place that writes to an output uses it. For a terminal it is
`evenhand.core.text_output.visible`, which keeps line breaks, or `one_line` for a name; for HTML it is `html.escape`
after `one_line`.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

from evenhand.core.text_output import visible

FIGURE_TEXT: dict[str, Any] = {"parse_math": False, "usetex": False}
"""For every text of matplotlib's with a name in it: no "$" begins a formula, and no LaTeX is run on it, whatever the
user's settings. Names go through `one_line`."""
_MARKDOWN = re.compile(r"([\\`*_\[\]|~!]|(?<!&)#)")
_BLANKS = re.compile(r"[\x00-\x20\x7f-\x9f]+")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    "*": r"{*}",
    "–": "--",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\leq$",
    "µ": r"$\mu$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
"""Brackets are wrapped since one that opens a row would be read as an argument of the line break above it."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What begins a formula in a spreadsheet."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", re.A)
"""What begins alike and is none, such as a setting of -0.5."""
_LINK = re.compile(r"https://[A-Za-z0-9.-]+(/[\w./~%+@:=&?,-]*)?|[\w.-]+(/[\w.-]*)*", re.A)
"""Links that reports have: to the web over TLS, and to files next to the report."""


def one_line(text: object) -> str:
    """A name on one line: control characters, directions of writing and line breaks are spelled out."""
    return visible(str(text)).replace("\n", "\\n").replace("\t", "\\t")


def markdown(text: object) -> str:
    """A text on one line in which nothing is Markdown, a formula, HTML, or an order to a terminal."""
    plain = visible(" ".join(str(text).split()))
    escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")
    return _MARKDOWN.sub(r"\\\1", escaped)


def link(text: str) -> str:
    """The target of a link in Markdown or HTML; "" where it is none that a report may have."""
    return text if _LINK.fullmatch(text) and ".." not in text.split("/") else ""


def in_html(text: object) -> str:
    """A text in HTML, also in quoted attributes; signs that are not seen or turn the direction are spelled out."""
    return html.escape(visible(str(text)))


def latex(text: str) -> str:
    """A text that LaTeX prints as it is: control characters are blanks, and what is not seen is spelled out."""
    plain = visible(_BLANKS.sub(" ", text))
    return "".join(_LATEX.get(sign, sign) for sign in plain)


def csv_field(value: Any, *, settings: bool = False) -> Any:
    """A value for a field of CSV: a text that a spreadsheet would take for a formula gets an apostrophe in front.

    Control characters are spelled out as well, since a terminal shows CSV, too. Numbers stay as they are.

    Args:
        value: A text, or anything else, which is left alone.
        settings: Whether a text that is a number with a sign stays as it is, too, such as the setting "-0.5".
    """
    if not isinstance(value, str):
        return value
    plain = visible(value)
    formula = value.lstrip(" ").startswith(_FORMULA) and not (settings and _NUMBER.fullmatch(value))
    return f"'{plain}" if formula else plain


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON with letters of all scripts as they are, and what could act on a terminal as its escapes.

    Args:
        content: Plain values; others are written as their texts.
        indent: Blanks per level; None writes one line.
    """
    text = json.dumps(content, indent=indent, default=str, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_json_sign, text))


def _json_sign(sign: str) -> str:
    """Signs that are not seen occur within the strings of JSON only, but for line breaks between values."""
    return sign if sign == "\n" or visible(sign) == sign else json.dumps(sign)[1:-1]
