"""Requirements for rows of data: one validating and normalising step that every reader of files goes through.

A cell that is null, NaN, a list or empty is never turned into words such as "None": the row is refused with the name of
the field, the reader counts it (`evenhand.data.io.locate.Problems`), and its neighbours are kept. Texts are stripped,
since options are distinguished by their words (lm-evaluation-harness strips GPQA's cells for the same reason,
lm_eval/tasks/gpqa/*/utils.py), and all line ends become one.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from math import isfinite, isnan
from numbers import Integral, Real
from typing import Any

from evenhand.core.nesting import DEEPEST, deeper
from evenhand.errors import REASON, short

_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
UNREADABLE = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
"""Errors of `json.loads` and `ast.literal_eval`; TypeError is for a list as a key."""
SHOWN = 3
"""Number of refused rows in a warning; a report has all of them."""
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0+)?")
_LINE_END = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Refused(ValueError):
    """A row that cannot be used; the message names the field and what is wrong with it."""

    def __init__(self, reason: str, line: int = 1) -> None:
        """Keep the reason, and the line if the text that was read has several."""
        self.line = line
        super().__init__(reason)


# ------------------------------------------------------------------------------------------------------ text


def decoded(content: bytes) -> str:
    """Decode UTF-8, without a byte order mark and with every line end as a line feed.

    Raises:
        UnicodeDecodeError: It is not UTF-8.
    """
    return one_line_end(content.decode("utf-8-sig"))


def one_line_end(text: str) -> str:
    """Replace the line ends of Windows (CR LF) and old Macs (CR) by line feeds."""
    return _LINE_END.sub("\n", text)


def lines(text: str) -> list[str]:
    """Split a text into lines, which LF, CR LF and CR end. U+2028, U+0085 and the like are characters of a line."""
    return _LINE_END.split(text)


def byte_lines(content: bytes) -> list[bytes]:
    """Split bytes, which may be invalid UTF-8, into lines, without a byte order mark."""
    return re.split(rb"\r\n|\r|\n", content.removeprefix(b"\xef\xbb\xbf"))


def paragraphs(text: str) -> list[str]:
    """Split a text at empty lines; a line of blanks counts as empty."""
    found: list[list[str]] = [[]]
    for line in lines(text):
        if line.strip():
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ["\n".join(part).strip() for part in found if part]


def oddities(text: str) -> list[str]:
    """Describe characters that look like others but are tokenised differently; for a note, as they may be intended."""
    said = []
    if blanks := sum(text.count(c) for c in "\u00a0\u202f\u2007"):
        said.append(f"{blanks:,} no-break blanks (U+00A0 and the like), which tokenizers read otherwise than blanks")
    if not unicodedata.is_normalized("NFC", text):
        said.append("letters with their accents apart (not Unicode NFC), which tokenizers read as other tokens")
    return said


# ------------------------------------------------------------------------------------------------------ JSON


def from_json(text: str) -> Any:
    """Parse JSON, refusing objects with a duplicate key, of which Python would silently take the last.

    Raises:
        Refused: It is not JSON, or has a key twice.
    """
    if not text:
        raise Refused("not JSON: it is empty (0 bytes)")
    try:
        found = json.loads(text, object_pairs_hook=_once)
        if text.count("[") + text.count("{") > DEEPEST and deeper(found, DEEPEST):
            raise RecursionError
        return found
    except json.JSONDecodeError as error:
        raise Refused(f"not JSON: {error.msg} at column {error.colno}", error.lineno) from error
    except RecursionError as error:
        raise Refused("not JSON that can be read: nested too deeply") from error
    except Refused:
        raise
    except ValueError as error:  # such as a number of more than 4,300 digits
        raise Refused(f"not JSON that can be read: {str(error).partition(';')[0]}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Refused(f"field {short(next(n for n in names if names.count(n) > 1), REASON)!r} occurs twice")
    return found


# ----------------------------------------------------------------------------------------------------- cells


def text(row: Mapping[str, Any], name: str, *, where: str = "") -> str:
    """Return a cell that must contain words, stripped and with one kind of line end.

    Args:
        row: The row.
        name: The field.
        where: Its full name for messages, if it is inside another field.

    Raises:
        Refused: It is missing, null, NaN, empty or not a text.
    """
    where = where or name
    if name not in row:
        raise Refused(f"field {where!r} is missing")
    return words(row[name], where)


def words(value: Any, where: str) -> str:
    """Return a value that must be words, as `text` does for a cell.

    Raises:
        Refused: It is null, NaN, empty or not a text.
    """
    if not isinstance(value, str):
        raise Refused(f"field {where!r} is {kind(value)}, not a text")
    if _SURROGATE.search(value):
        raise Refused(f"field {where!r} has half a character (a lone surrogate), which no tokenizer reads")
    found = one_line_end(value).strip()
    if not found:
        raise Refused(f"field {where!r} is empty")
    return found


def identifier(row: Mapping[str, Any], name: str) -> str:
    """Return a name or number that identifies a row; 6, 6.0 and "6" are equal.

    Raises:
        Refused: It is missing or neither a text nor a whole number.
    """
    value = row.get(name)
    number = None if isinstance(value, str) else whole(value)
    return text(row, name) if number is None else str(number)


def whole(value: Any) -> int | None:
    """Return the whole number in a cell: 6, 6.0, those of NumPy, and "6" or "6.0"; None for anything else."""
    if isinstance(value, str):
        return int(value.strip().partition(".")[0]) if _WHOLE.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return int(number) if isfinite(number) and number.is_integer() else None


def index(row: Mapping[str, Any], name: str, count: int) -> int:
    """Return the index of one of `count` options, from 0, also if it is written as text (`whole`).

    Raises:
        Refused: It is missing or none of them.
    """
    if name not in row:
        raise Refused(f"field {name!r} is missing")
    value = row[name]
    number = whole(value)
    if number is None or number not in range(count):
        shown = repr(value) if isinstance(value, int | float | str) else kind(value)
        raise Refused(f"{name} {shown} is none of {', '.join(map(str, range(count)))}")
    return number


def texts(value: Any, where: str, at_least: int = 1) -> list[str]:
    """Return a list of texts; a list written as text, "['old']", is read as a list.

    Raises:
        Refused: It is not a list of texts, or has too few.
    """
    value = unwritten(value)
    if not isinstance(value, list | tuple):
        shown = f"the text {value[:40]!r}" if isinstance(value, str) else kind(value)
        raise Refused(f"field {where!r} is {shown}, not a list")
    if len(value) < at_least:
        raise Refused(f"field {where!r} has {len(value)} entries; at least {at_least} are needed")
    return [words(entry, f"{where}[{n}]") for n, entry in enumerate(value)]


def unwritten(value: Any) -> Any:
    """Return a list or object, also if written as text, in JSON or as Python prints it; an array as a list.

    A csv file has lists and objects as such texts, and pandas reads the lists of a parquet file as arrays. Any other
    value is returned unchanged.
    """
    if isinstance(value, str) and value.strip()[:1] in tuple("[{"):
        for read in (json.loads, ast.literal_eval):
            with suppress(*UNREADABLE):
                found = read(value.strip())
                return value if deeper(found, DEEPEST) else found
        return value
    plain = isinstance(value, str | bytes | Mapping | set | frozenset) or not isinstance(value, Iterable)
    return value if plain else list(value)


def different(values: Mapping[str, str], *, case: bool = False) -> None:
    """Refuse options that a reader cannot tell apart.

    Args:
        values: The options by field.
        case: Whether options that differ in case alone are different, such as the genotypes "Aa" and "aa".

    Raises:
        Refused: Two are the same.
    """
    seen: dict[str, str] = {}
    for name, value in values.items():
        plain = unicodedata.normalize("NFC", value)
        first = seen.setdefault(plain if case else plain.casefold(), name)
        if first != name:
            raise Refused(f"fields {first!r} and {name!r} are both {value!r}: the options cannot be told apart")


def kind(value: Any) -> str:
    """Describe the kind of a value in words."""
    if value is None:
        return "null"
    if isinstance(value, float) and isnan(value):
        return "NaN"
    return _KINDS.get(type(value), type(value).__name__)


def unusable_pattern(text: str) -> str:
    """Return why a text cannot be used as a regular expression; "" if it can."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return ""


# --------------------------------------------------------------------------------------------------- spelling


def spelling(name: str) -> str:
    """Reduce a name to its letters and digits in lower case, which different spellings share."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def known(name: str, names: Collection[str]) -> str:
    """Return the known name that is meant, whatever its case, blanks, hyphens and underscores; else `name` itself."""
    if name in names:
        return name
    spelled = _spelled(names if isinstance(names, tuple | frozenset) else tuple(names))
    return spelled.get(spelling(name), name)


@lru_cache(maxsize=256)
def _spelled(names: tuple[str, ...] | frozenset[str]) -> dict[str, str]:
    """Return names by their spelling; of several with the same spelling, the alphabetically first."""
    return {key: name for name in sorted(names, reverse=True) if (key := spelling(name))}


def one_of(row: Mapping[str, Any], name: str, names: Sequence[str]) -> str:
    """Return one of a few words, whatever its case and spelling.

    Raises:
        Refused: It is missing or none of them.
    """
    given = text(row, name)
    found = known(given, names)
    if found not in names:
        instead = f"neither {names[0]!r} nor {names[1]!r}" if len(names) == 2 else f"none of {', '.join(names)}"
        raise Refused(f"{name} {given!r} is {instead}")
    return found


# --------------------------------------------------------------------------------------------------- warnings


def summary(problems: Sequence[str]) -> str:
    """Summarise what was left out in one line: the number, and the first three."""
    if not problems:
        return ""
    more = len(problems) - SHOWN
    rest = f"; and {more:,} more" if more > 0 else ""
    count = "1 row or entry" if len(problems) == 1 else f"{len(problems):,} rows or entries"
    return f"left out {count}: {'; '.join(problems[:SHOWN])}{rest}"
