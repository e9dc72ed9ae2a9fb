"""Small changes to valid files, such as those that disks, browsers, spreadsheets and hasty hands make."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

DEEP = 3_000
"""Levels of nesting, more than Python's readers follow."""
DIGITS = 5_000
"""Digits of a number, more than Python turns into an integer."""
ODD_JSON = (
    *("null", "true", "0", "-1", "2", "99", "0.5", "1e999", "NaN", "-Infinity", "9" * DIGITS, "1" + "0" * 30, "-0.0"),
    *('""', '" "', '"\\ud800"', '"\\u0000"', '"\\u2028"', '"²"', '"١"', '"None"', '"nan"', '"inf"', '"2.0"', '"A"'),
    *("[]", "[[]]", "{}", '{"a": 1}', '{"": {"": null}}', '[1, "a", null]', '["a", "a"]', '[{"label": []}]'),
    *("[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, f'"{"[" * DEEP}"', f'"{"-" * DEEP}1"'),
    *('"[1, 2"', "\"{0: ['a', 'b'], 1: 3}\"", "\"['a', None]\"", f'"{"x" * 70_000}"', '{"a": 1, "a": 2}'),
    *('"{x}"', '"{0.x}"', '"{"', '"(["', '"\\\\1"', '"(a+)+$"', '"\\t"', '"\\r\\n"', '"%s"', f'"[{"9" * DIGITS}]"'),
)
"""Values as JSON source."""
ODD_BYTES = (
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"\xff", b"\x80", b'"', b"'", b"\n", b"\r", b"\r\n", b"\t"),
    *(b",", b";", b":", b"{", b"}", b"[", b"]", b"|", b"\x85", "\u2028".encode(), "e\u0301".encode(), b"\x1b[2J"),
    *(b"&a ", b"*a", b"!!int ", b"!!timestamp ", b"<<: ", b"? ", b"- ", b"%YAML 9.9\n", b"---\n", b"2001-99-99"),
    *(b"[" * DEEP, b"{a: " * DEEP, b"9" * DIGITS, b"x" * 140_000, b"\x1f\x8b", b"PK\x03\x04", b"<html>", b"[-1e99]"),
    *(b"version https://git-lfs.github.com/spec/v1\nsize " + b"9" * DIGITS, b'"\\ud800"', b'"\\UFFFFFFFF"', b"`", b"@"),
)
"""Pieces of files."""
_MARK = "\ue123odd\ue123"


class Mutation(NamedTuple):
    """One change: which kind, where, and what with; both numbers are taken modulo what is there."""

    kind: str
    where: int
    what: int


def strategy(most: int = 3) -> st.SearchStrategy[list[Mutation]]:
    """Lists of changes to make one after the other; hypothesis makes those of a failure fewer and smaller."""
    number = st.integers(0, 2**20)
    return st.lists(st.builds(Mutation, st.sampled_from(KINDS), number, number), min_size=1, max_size=most)


def mutated(name: str, content: bytes, mutation: Mutation) -> bytes:
    """The content of a file after a change; of a packed file either layer is changed.

    A change that does not fit the file, such as one of fields where there are none, changes bytes.
    """
    if name.endswith(".gz") and mutation.where % 4:
        with suppress(OSError, EOFError, zlib.error):
            return gzip.compress(mutated(name.removesuffix(".gz"), gzip.decompress(content), mutation), mtime=0)
    change = _BY_BYTES.get(mutation.kind)
    if change is not None:
        return change(content, mutation)
    with suppress(
        ValueError, LookupError, TypeError, RecursionError, ArithmeticError, csv.Error, pa.ArrowException, OSError
    ):
        return _of_fields(name, content, mutation)
    return _flipped(content, mutation)


# ----------------------------------------------------------------------------------------------------- by bytes


def _flipped(content: bytes, m: Mutation) -> bytes:
    if not content:
        return bytes([m.what % 256])
    at, changed = m.where % len(content), bytearray(content)
    changed[at] ^= 1 << (m.what % 8)
    return bytes(changed)


def _span(content: bytes, m: Mutation) -> tuple[int, int]:
    begin = m.where % (len(content) + 1)
    return begin, min(len(content), begin + 1 + m.what % 60)


def _without(content: bytes, m: Mutation) -> bytes:
    begin, end = _span(content, m)
    return content[:begin] + content[end:]


def _repeated(content: bytes, m: Mutation) -> bytes:
    begin, end = _span(content, m)
    return content[:end] + content[begin:]


def _inserted(content: bytes, m: Mutation) -> bytes:
    at = m.where % (len(content) + 1)
    return content[:at] + ODD_BYTES[m.what % len(ODD_BYTES)] + content[at:]


def _lines_changed(content: bytes, m: Mutation) -> bytes:
    """A line gone, twice, or in another place."""
    lines = content.split(b"\n")
    at = m.where % len(lines)
    line = lines.pop(at)
    if m.what % 3:
        lines[at:at] = [line, line] if m.what % 3 == 1 else []
    if m.what % 3 == 2:
        lines.insert(m.what % (len(lines) + 1), line)
    return b"\n".join(lines)


_BY_BYTES: dict[str, Callable[[bytes, Mutation], bytes]] = {
    "flip": _flipped,
    "truncate": lambda content, m: content[: m.where % (len(content) + 1)],
    "leave out": _without,
    "repeat": _repeated,
    "insert": _inserted,
    "begin with": lambda content, m: ODD_BYTES[m.what % len(ODD_BYTES)] + content,
    "line": _lines_changed,
    "recode": lambda content, m: content.decode("utf-8", "replace").encode(
        ("utf-16", "utf-8-sig", "utf-32")[m.what % 3]
    ),
}


# ---------------------------------------------------------------------------------------------------- by fields


def _of_fields(name: str, content: bytes, m: Mutation) -> bytes:
    ending = PurePosixPath(name).suffix.lower()
    if ending in (".parquet", ".arrow"):
        return _of_columns(content, m, ending)
    text = content.decode("utf-8")
    if ending in (".csv", ".tsv"):
        return _of_cells(text, m, "\t" if ending == ".tsv" else ",")
    if ending == ".jsonl" and "\n" in text.strip():
        lines = text.strip().split("\n")
        at = m.where % len(lines)
        lines[at] = _of_json(json.loads(lines[at]), m._replace(where=m.where // len(lines)))
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    if ending in (".json", ".jsonl"):
        return _of_json(json.loads(text), m).encode("utf-8", "surrogatepass")
    if ending in (".yaml", ".yml"):
        return _of_yaml_lines(text, m)
    raise ValueError(ending)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with a key of it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _of_json(value: Any, m: Mutation) -> str:
    odd = ODD_JSON[m.what % len(ODD_JSON)]
    places = _places(value)
    if not places:
        return odd
    inside, key = places[m.where % len(places)]
    if m.kind == "retype":
        inside[key] = _MARK
    elif m.kind == "delete" or not isinstance(inside, dict):
        del inside[key]
    elif m.kind == "rename":
        inside[f"{key}_"] = inside.pop(key)
    else:
        inside[_MARK] = inside[key]  # the same key twice
        return json.dumps(value, ensure_ascii=False).replace(json.dumps(_MARK, ensure_ascii=False), json.dumps(key))
    return json.dumps(value, ensure_ascii=False).replace(json.dumps(_MARK, ensure_ascii=False), odd)


def _of_yaml_lines(text: str, m: Mutation) -> bytes:
    """Changes one "key: value" line, as that keeps the rest of the file readable."""
    lines = text.split("\n")
    keyed = [n for n, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
    at = keyed[m.where % len(keyed)]
    key, _, value = lines[at].partition(":")
    if m.kind == "retype":
        lines[at] = f"{key}: {ODD_JSON[m.what % len(ODD_JSON)]}"
    elif m.kind == "delete":
        del lines[at]
    else:
        lines[at:at] = [lines[at]] if m.kind == "twice" else [f"{key}_:{value}"]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _of_cells(text: str, m: Mutation, mark: str) -> bytes:
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark))
    at = m.where % len(rows)
    column = (m.where // len(rows)) % max(1, len(rows[at]))
    if m.kind == "retype":
        odd = json.loads(ODD_JSON[m.what % len(ODD_JSON)])
        rows[at][column] = odd if isinstance(odd, str) else str(odd)
    elif m.kind == "delete":
        del rows[at][column]
    elif m.kind == "twice":
        rows[at].insert(column, rows[at][column])
    else:
        rows[0][column % len(rows[0])] += "_"
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=mark, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


# --------------------------------------------------------------------------------------------------- by columns


def table_bytes(table: pa.Table, ending: str) -> bytes:
    """A table as a parquet file or an arrow stream."""
    sink = io.BytesIO()
    if ending == ".parquet":
        pq.write_table(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


def table_of(content: bytes, ending: str) -> pa.Table:
    """The table that a file holds."""
    buffer = pa.BufferReader(content)
    table = pq.read_table(buffer) if ending == ".parquet" else pa.ipc.open_stream(buffer).read_all()
    table.validate(full=True)  # after another change it may be broken, and writing it would crash
    return table


_WHEN = datetime.datetime(2020, 1, 1)
_COLUMNS: Sequence[Callable[[], pa.Array]] = (
    lambda: pa.array([None]),
    lambda: pa.array([7]),
    lambda: pa.array([float("nan")]),
    lambda: pa.array([b"\xff\xfe"]),
    lambda: pa.array([["a", None]]),
    lambda: pa.array([[]], pa.list_(pa.string())),
    lambda: pa.array([{"a": 1}]),
    lambda: pa.array([True]),
    lambda: pa.array([decimal.Decimal("1.5")]),
    lambda: pa.array([_WHEN]),
    lambda: pa.array([2**62], pa.timestamp("s")),  # no date that Python has
    lambda: pa.array([2**62], pa.duration("s")),
    lambda: pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    lambda: pa.array(["a"]).dictionary_encode(),
    lambda: pa.array([datetime.time(1, 2)]),
    lambda: pa.array([2**63], pa.uint64()),
    lambda: pa.array([" "]),
    lambda: pa.array(["2"]),
    lambda: pa.array([2**40], pa.date64()),
)


def _of_columns(content: bytes, m: Mutation, ending: str) -> bytes:
    table = table_of(content, ending)
    at = m.where % table.num_columns
    name = table.column_names[at]
    if m.kind == "retype":
        one = _COLUMNS[m.what % len(_COLUMNS)]()
        table = table.set_column(at, name, pa.concat_arrays([one] * table.num_rows))
    elif m.kind == "delete":
        table = table.remove_column(at)
    elif m.kind == "twice":
        table = table.append_column(name, table.column(at))
    else:
        table = table.rename_columns([f"{n}_" if n == name else n for n in table.column_names])
    return table_bytes(table, ending)


KINDS = (*_BY_BYTES, "retype", "retype", "retype", "delete", "rename", "twice")
"""Kinds of changes; the likeliest finds stand there more than once."""
