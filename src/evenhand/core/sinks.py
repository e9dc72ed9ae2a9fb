"""Writing of text from outside to each kind of output, so that it is shown there and never interpreted.

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
"""Arguments for every matplotlib text with a name in it: no "$" begins a formula, and no LaTeX is run on it, whatever
the user's settings. Names go through `one_line`."""
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
"""What begins like a formula but is a number, such as a setting of -0.5."""
_LINK = re.compile(r"https://[A-Za-z0-9.-]+(/[\w./~%+@:=&?,-]*)?|[\w.-]+(/[\w.-]*)*", re.A)
"""Links that reports may have: to the web over TLS, and to files next to the report."""


def one_line(text: object) -> str:
    """Write a name on one line: control characters, directions of writing and line breaks are spelled out."""
    return visible(str(text)).replace("\n", "\\n").replace("\t", "\\t")


def markdown(text: object) -> str:
    """Escape a text, on one line, so that nothing in it is Markdown, a formula, HTML or a control sequence."""
    plain = visible(" ".join(str(text).split()))
    escaped = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")
    return _MARKDOWN.sub(r"\\\1", escaped)


def link(text: str) -> str:
    """Return the target of a link in Markdown or HTML; "" if reports may not have such a link."""
    return text if _LINK.fullmatch(text) and ".." not in text.split("/") else ""


def in_html(text: object) -> str:
    """Escape a text for HTML, also in quoted attributes; invisible and direction-changing characters too."""
    return html.escape(visible(str(text)))


def latex(text: str) -> str:
    """Escape a text for LaTeX: control characters become blanks, and invisible ones are spelled out."""
    plain = visible(_BLANKS.sub(" ", text))
    return "".join(_LATEX.get(sign, sign) for sign in plain)


def csv_field(value: Any, *, settings: bool = False) -> Any:
    """Prepare a value for a CSV field: a text that a spreadsheet would take for a formula gets a leading apostrophe.

    Control characters are spelled out, since CSV is also shown in terminals. Numbers stay as they are.

    Args:
        value: A text, or anything else, which is left alone.
        settings: Whether to keep a text that is a number with a sign as it is, such as the setting "-0.5".
    """
    if not isinstance(value, str):
        return value
    plain = visible(value)
    formula = value.lstrip(" ").startswith(_FORMULA) and not (settings and _NUMBER.fullmatch(value))
    return f"'{plain}" if formula else plain


def json_text(content: Any, indent: int | None = None) -> str:
    """Write JSON with letters of all scripts as they are, and what could act on a terminal as escapes.

    Args:
        content: Plain values; for others their `str` is written.
        indent: Blanks per level; None writes one line.
    """
    text = json.dumps(content, indent=indent, default=str, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_json_sign, text))


def _json_sign(sign: str) -> str:
    """Escape an invisible character; except for line breaks between values, these occur only in strings."""
    return sign if sign == "\n" or visible(sign) == sign else json.dumps(sign)[1:-1]
