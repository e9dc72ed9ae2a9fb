"""The little language of the command line: `none,pcgu(k=0.3,preset=paper)+self_debias`.

A comma separates, a plus stacks, brackets contain settings. Values are Python literals. A bare word is a string, and so
is a path, hub name or source such as `texts/mine.txt`, `Qwen/Qwen2.5-7B` and `demo:texts`, as long as it has no comma,
bracket, quote or blank.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import Any, NamedTuple

from evenhand.core.nesting import DEEPEST, deeper
from evenhand.core.text_output import without_user_info
from evenhand.errors import SHOWN, SettingsError, short

BARE = re.compile(r"""[^\s,'"()\[\]{}\0]+""")
"""Text that can be a value without quotes; `_is_bare` also asks for a sign that it is a path or a name."""
ARITHMETIC = re.compile(r"[\d.eE_+*/%-]+")
LONGEST = 200
"""Maximum number of characters of a specification in an error."""
ENDINGS = (".txt", ".jsonl", ".json", ".gz", ".yaml", ".yml", ".csv", ".md", ".parquet")
"""Endings by which a file name without a folder differs from a misspelt expression."""


class Part(NamedTuple):
    """A name and its settings."""

    name: str
    settings: dict[str, Any]


def split(text: str, separator: str) -> list[str]:
    """Split at `separator` outside brackets and quotes; empty parts are dropped."""
    return [p.strip() for p in _pieces(text, separator) if p.strip()]


def _pieces(text: str, separator: str) -> list[str]:
    """Split a text without stripping its parts or dropping empty ones."""
    parts, depth, quote, start, escaped = [], 0, "", 0, False
    for i, c in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = c == "\\"
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if depth or quote:
        raise SettingsError(f"{shown(text)}: a bracket or quote is not closed")
    return [*parts, text[start:]]


def parse(text: str) -> Part:
    """Read `name` or `name(key=value, ...)`.

    Raises:
        SettingsError: The text is neither, or a value is not a literal.
    """
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return Part(name, {})
    try:
        call = ast.parse(f"f({_with_quotes(rest)}", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # the last two: very many brackets
        raise SettingsError(f"the settings of {shown(name)} cannot be read; write name(key=value, other=2)") from error
    one = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)  # f(a=1)(b=2) is a call of a call
    if not isinstance(call, ast.Call) or not one or call.args or any(k.arg is None for k in call.keywords):
        raise SettingsError(f"{shown(text)} cannot be read; settings are key=value, such as {name}(seed=1)")
    keys = [str(k.arg) for k in call.keywords]
    if twice := next((key for key, count in Counter(keys).items() if count > 1), None):
        raise SettingsError(f"{shown(text)}: {short(twice, SHOWN)} is given twice")
    return Part(name.strip(), {key: _value(k.value, text) for key, k in zip(keys, call.keywords, strict=True)})


def stack(text: str) -> list[Part]:
    """Read a stack, `a+b(key=value)`: its parts in their order, or the only one.

    Raises:
        SettingsError: A part is not a name with settings.
    """
    return [parse(part) for part in split(text, "+")]


def _with_quotes(rest: str) -> str:
    """Quote paths and names in what follows the opening bracket; unchanged if it cannot be split."""
    inner, bracket, after = rest.rpartition(")")
    try:
        pieces = _pieces(inner, ",")
    except SettingsError:
        return rest
    return ",".join(map(_with_quoted_value, pieces)) + bracket + after


def _with_quoted_value(piece: str) -> str:
    key, sign, value = piece.partition("=")
    return f"{key}={value.strip()!r}" if sign and _is_bare(value.strip()) else piece


def _is_bare(value: str) -> bool:
    """Whether a value is a path, a hub name or a source, and neither a literal nor arithmetic."""
    if not BARE.fullmatch(value) or ARITHMETIC.fullmatch(value) or value.startswith("="):
        return False
    named = "-" in value.strip("-") or value.endswith(ENDINGS)
    return named or any(sign in value for sign in "/\\:~")


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    try:
        found = ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        written = short(ast.unparse(node), SHOWN) if isinstance(error, ValueError | TypeError) else "a nested value"
        raise SettingsError(f"{shown(text)}: {written!r} is not a plain value; put text in quotes") from error
    if deeper(found, DEEPEST):
        raise SettingsError(f"{shown(text)}: a value is nested more than {DEEPEST} deep")
    return found


def shown(text: str) -> str:
    """Quote a specification for an error, without passwords in URLs."""
    return repr(short(without_user_info(text), LONGEST))
