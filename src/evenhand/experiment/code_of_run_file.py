"""Code that a run file would execute: that of its plugins, and what comes with models.

To find it, nothing is run, imported or opened as a model; a plugin file is only parsed, for the names in it.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from codecs import decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evenhand.core.nesting import deeper
from evenhand.errors import SHOWN, SettingsError, short
from evenhand.experiment.config import RunConfig

OPTIONS = ("trust_remote_code", "trust_folder")
"""Options of `evenhand.load` that let code that comes with a model run."""
LARGEST = 2**20
"""Maximum bytes of a plugin file that is parsed for its names."""
DEEPEST = 50
"""Maximum levels of settings within settings that are searched."""
_ESCAPE = re.compile(r"\\(?:\\|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U000[0-9A-Fa-f]{5}|[0-7]{1,3}|N\{[A-Z0-9 -]+\}|\n)")
_JOINED = re.compile(r"""(['"])\s*[rRuU]?['"]""")


def code_of(config: RunConfig) -> list[str]:
    """Describe what would run, each in a few words; empty if the file executes no code.

    Args:
        config: The content of a run file.

    Raises:
        SettingsError: A setting is nested too deeply to be looked through.
    """
    plugins = [f"the plugin file {str(Path(file).resolve())!r}{_names_in(Path(file))}" for file in config.plugins]
    return [*plugins, *dict.fromkeys(_options(config))]


def _names_in(file: Path) -> str:
    """List the classes and functions of a plugin file in words; "" if it cannot be parsed or is too large."""
    try:
        if file.stat().st_size > LARGEST:
            return ""
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return ""  # loading it gives the reason
    kinds = {ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "function"}
    found = [
        f"{kinds[type(node)]} {short(node.name, SHOWN)}"
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return f" (all of its statements; it defines {', '.join(found)})" if found else " (all of its statements)"


def _options(config: RunConfig) -> Iterator[str]:
    """Yield the options in a run file that allow code: as keys, or within a specification."""
    for place in ("models", "methods", "benchmarks", "train", "load"):
        value = vars(config)[place]
        if deeper(value, DEEPEST):
            raise SettingsError(f"{place} of the run file is nested more than {DEEPEST} deep; write it flat")
        for option in OPTIONS:
            if any(option in _spelt_out(text) for text in _allowing(value)):
                yield f"code that comes with a model ({option} in {place})"


def _allowing(value: Any) -> Iterator[str]:
    """Yield texts that may contain an option: every text, and keys with a value other than false."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from [str(key)] * bool(inner)
            yield from _allowing(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _allowing(inner)


def _spelt_out(text: str) -> str:
    """Replace escapes and join adjacent strings, as a specification in the text is understood in the end."""
    for _ in range(DEEPEST):  # a specification within a specification has its escapes escaped
        plain = _JOINED.sub("", _ESCAPE.sub(_sign, unicodedata.normalize("NFKC", text)))
        if plain == text:
            break
        text = plain
    return text


def _sign(escape: re.Match[str]) -> str:
    try:
        return decode(escape[0], "unicode_escape")
    except UnicodeDecodeError:  # the name of a character that does not exist
        return ""
