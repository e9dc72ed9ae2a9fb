"""Answers as a table: columns that can be filtered as they are, and JSON for what no column holds.

Every file of answers has the same columns, whatever the benchmark. A `Choice` or `Reply` is stored in the columns
themselves. Any other kind of answer is stored in `rest` as a whole, and its columns repeat what is known of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import chain
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from evenhand.core.arrow_columns import arrow_column
from evenhand.core.checksums import CHANGED
from evenhand.core.hashing import stream_hash
from evenhand.interfaces import Choice, Reply, Usage

if TYPE_CHECKING:
    import pyarrow as pa

AnswerStatus = Literal["answered", "unparsed", "unanswered"]
GradeLabel = Literal["right", "wrong", "undecided"]
Holds = Literal["text", "texts", "integer", "number", "numbers", "flag"]
COLUMNS: Mapping[str, Holds] = {
    "item": "text",
    "model": "text",
    "method": "text",
    "benchmark": "text",
    "cluster": "text",
    "groups": "texts",
    "part": "text",
    "status": "text",
    "note": "text",
    "decision": "integer",
    "grade": "text",
    "probabilities": "numbers",
    "mass": "number",
    "reply": "text",
    "cut": "flag",
    "calls": "integer",
    "prompt_tokens": "integer",
    "new_tokens": "integer",
    "seconds": "number",
    "rest": "text",
}
"""All columns, in order."""
FIELDS: Mapping[str, Mapping[str, str]] = {
    "Choice": {name: name for name in ("decision", "probabilities", "status", "reply", "mass", "note", "cut")},
    "Reply": {"text": "reply", "note": "note"},
}
"""Fields that have a column, each with the name of the column, by kind of answer."""
COST = ("calls", "prompt_tokens", "new_tokens")
"""Columns with the fields of an answer's `usage`."""
WHOLE = "answer"
"""Column of the whole answer as JSON in files of earlier versions, which have no other column but the item."""
ABOUT, ANSWER_KIND, DIGEST = b"evenhand", b"evenhand_answer", b"evenhand_sha256"
"""Keys of a file's metadata: facts of the cell as JSON; the kind of answer, where it is one of `FIELDS`; a digest of
both and of all that answers are read from."""
SHOWN_DIGEST = b"evenhand_shown_sha256"
"""Key of a digest of the other columns, which only show what is known of an answer."""


def stated(answer: Any) -> dict[str, Any]:
    """Return the fields of one answer by name, of any benchmark; empty if it is not a dataclass."""
    if not dataclasses.is_dataclass(answer):
        return {}
    return {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}


@runtime_checkable
class _Counted(Protocol):
    """An answer that gives its cost, in a field or a property."""

    @property
    def usage(self) -> Usage:
        """Cost of the answer."""


def usages(answers: Sequence[Any]) -> list[Usage | None]:
    """Return the cost of each answer; None for kinds of answers that do not give it."""
    kinds = {type(answer): answer for answer in answers}
    counted = {kind for kind, one in kinds.items() if isinstance(one, _Counted)}  # slow, so not for every answer
    return [answer.usage if type(answer) in counted else None for answer in answers]


class AnswerFacts(NamedTuple):
    """Facts about one answer beyond the answer itself; None if not known."""

    cluster: str | None = None
    groups: tuple[str, ...] | None = None
    """Groups that the benchmark counts the item in."""
    part: str | None = None
    """Kind of item, such as "ambiguous", where a benchmark counts right answers of each kind separately."""
    status: AnswerStatus | None = None
    note: str | None = None
    """Why something is unparsed or unanswered."""
    decision: int | None = None
    """The option that the benchmark counts as the decision."""
    grade: GradeLabel | None = None
    usage: Usage | None = None
    seconds: float | None = None


class _Column(NamedTuple):
    """The values of a column, and the rows whose value it does not represent exactly."""

    values: list[Any]
    lossy: Set[int] = frozenset()


def answer_table(
    answers: Sequence[Any], ids: Sequence[str], about: Mapping[str, Any], facts: Sequence[AnswerFacts] = ()
) -> pa.Table:
    """Make the table of one cell's answers.

    Args:
        answers: All of one kind.
        ids: Ids of the items, one per answer.
        about: Facts of the cell, kept in the metadata; "model", "method" and "benchmark" are columns as well.
        facts: Facts, one per answer; empty if nothing more is known.
    """
    import pyarrow as pa

    kind = _kind(answers)
    raw = _raw(answers, ids, about, facts, kind)
    columns = {name: _column(holds, raw[name]) for name, holds in COLUMNS.items() if name != "rest"}
    columns |= {name: _blank(columns[name], raw[name]) for name in _nulled(kind)}
    shown = {name: column.values for name, column in columns.items()}
    shown["rest"] = _rests(answers, kind, {name: column.lossy for name, column in columns.items()})
    types = {
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "integer": pa.int64(),
        "number": pa.float64(),
        "numbers": pa.list_(pa.float64()),
        "flag": pa.bool_(),
    }
    metadata = {ABOUT: json.dumps(about, default=str).encode(), ANSWER_KIND: kind.encode()}
    metadata[DIGEST] = _digest(metadata, [shown[name] for name in _stored_columns(kind)])
    metadata[SHOWN_DIGEST] = _shown_digest([shown[name] for name in _shown_columns(kind)])
    schema = pa.schema([(name, types[holds]) for name, holds in COLUMNS.items()], metadata)
    return pa.table([arrow_column(shown[name], schema.field(name).type) for name in COLUMNS], schema)


def answers_in(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Return the answers of a table by item, each as `dataclasses.asdict` gives it.

    Raises:
        ValueError: The table is not as it was written.
    """
    if WHOLE in table.column_names:  # a file of an earlier version
        return {i: json.loads(a) for i, a in zip(*(table[n].to_pylist() for n in ("item", WHOLE)), strict=True)}
    if lacking := [name for name in COLUMNS if name not in table.column_names]:
        raise ValueError(f"it has no column {lacking[0]!r}")
    metadata = table.schema.metadata or {}
    kind = metadata.get(ANSWER_KIND, b"").decode()
    names = _stored_columns(kind)
    columns = [table[name].to_pylist() for name in names]
    if metadata.get(DIGEST) != _digest(metadata, columns):
        raise ValueError(CHANGED)
    return _stored(dict(zip(names, columns, strict=True)), kind)


def about_in(table: pa.Table) -> dict[str, Any]:
    """Return the facts of the cell, as they were given to `answer_table`.

    Raises:
        ValueError: They are not as they were written.
    """
    about = json.loads((table.schema.metadata or {}).get(ABOUT, b"{}"))
    if not isinstance(about, dict):
        raise ValueError("its facts are not a JSON object")
    return about


def check_shown(table: pa.Table) -> None:
    """Verify the columns that answers are not read from; files of earlier versions have no checksum of these.

    Raises:
        ValueError: They are not as they were written.
    """
    answers_in(table)
    metadata = table.schema.metadata or {}
    names = _shown_columns(metadata.get(ANSWER_KIND, b"").decode())
    if SHOWN_DIGEST in metadata and metadata[SHOWN_DIGEST] != _shown_digest([table[n].to_pylist() for n in names]):
        raise ValueError(CHANGED)


def _kind(answers: Sequence[Any]) -> str:
    """Return which of `FIELDS` the answers are; "" for others, also for subclasses, which may have more fields."""
    types = {type(answer) for answer in answers}
    return next((kind.__name__ for kind in (Choice, Reply) if types == {kind}), "")


def _stored_columns(kind: str) -> list[str]:
    """Return the columns that answers are read from."""
    return ["item", *FIELDS.get(kind, {}).values(), *(COST if kind else ()), "rest"]


def _shown_columns(kind: str) -> list[str]:
    """Return the columns that answers are not read from."""
    stored = _stored_columns(kind)
    return [name for name in COLUMNS if name not in stored]


def _shown_digest(columns: Sequence[Sequence[Any]]) -> bytes:
    return stream_hash(json.dumps(column).encode() for column in columns).encode()


def _digest(metadata: Mapping[bytes, bytes], columns: Sequence[Sequence[Any]]) -> bytes:
    """Hash what answers are read from, as JSON, which does not depend on how a file is encoded."""
    about = metadata.get(ABOUT, b"") + b"\n" + metadata.get(ANSWER_KIND, b"")
    return stream_hash(chain([about], (json.dumps(column).encode() for column in columns))).encode()


def _raw(
    answers: Sequence[Any], ids: Sequence[str], about: Mapping[str, Any], facts: Sequence[AnswerFacts], kind: str
) -> dict[str, list[Any]]:
    """Return the values of all columns but `rest` as they are, before they are made to fit their columns."""
    known = facts or [AnswerFacts()] * len(answers)
    raw: dict[str, list[Any]] = {name: [about.get(name)] * len(answers) for name in ("model", "method", "benchmark")}
    raw |= {name: [None] * len(answers) for name in ("mass", "reply", "cut", "probabilities")}
    raw |= {name: [fact[n] for fact in known] for n, name in enumerate(AnswerFacts._fields)}
    counted: list[Usage | None] = raw.pop("usage")
    for field, column in FIELDS.get(kind, {}).items():
        raw[column] = list(map(attrgetter(field), answers))
    if kind:
        counted = usages(answers)
        raw["cut"] = [not a.finished if isinstance(a, Reply) else a.cut for a in answers]
    for name in COST:
        of = attrgetter(name)
        raw[name] = [None if usage is None else of(usage) for usage in counted]
    return raw | {"item": list(ids)}


def _column(holds: Holds, values: list[Any]) -> _Column:
    """Make values fit a column."""
    if _fits(holds, values):
        return _Column(values)
    shown = [_shown(holds, value) for value in values]
    pairs = enumerate(zip(values, shown, strict=True))
    return _Column(shown, {n for n, (value, one) in pairs if not _same(value, one)})


def _nulled(kind: str) -> list[str]:
    """Return the columns in which an empty text is stored as null: those whose field is empty by default.

    The text of a `Reply` is not among them: it may be empty, or None if there is none.
    """
    defaults = _defaults(kind)
    fields = FIELDS.get(kind, {"reply": "reply", "note": "note"})
    return [column for field, column in fields.items() if not kind or defaults.get(field) == ""]


def _defaults(kind: str) -> dict[str, Any]:
    """Return the defaults of an answer's fields, if they have any."""
    cls = {"Choice": Choice, "Reply": Reply}.get(kind)
    known = dataclasses.fields(cls) if cls else ()
    return {field.name: field.default for field in known if field.default is not dataclasses.MISSING}


def _blank(column: _Column, values: Sequence[Any]) -> _Column:
    """Replace empty texts in a column with null; it no longer distinguishes these from None."""
    none = {n for n, value in enumerate(values) if value is None}
    return _Column([value or None for value in column.values], column.lossy | none)


def _fits(holds: Holds, values: Sequence[Any]) -> bool:
    """Whether a column takes all of these values as they are; a quick answer that may be too cautious."""
    if holds in ("texts", "numbers"):
        inner: Holds = "text" if holds == "texts" else "number"
        rows = [value for value in values if value is not None]
        return set(map(type, rows)) <= {tuple, list} and _fits(inner, one := list(chain(*rows))) and None not in one
    plain = {"text": str, "integer": int, "number": float, "flag": bool}[holds]
    if not set(map(type, values)) <= {plain, NoneType}:
        return False
    if holds == "integer":
        return all(value is None or value.bit_length() < 64 for value in values)
    return holds != "text" or all(
        value is None or value.isascii() or _shown("text", value) == value for value in values
    )


def _same(value: Any, shown: Any) -> bool:
    """Whether a shown value equals the original, in its digits and its kind of number."""
    if isinstance(value, tuple | list) and isinstance(shown, tuple | list):
        return all(map(_same, value, shown))
    if isinstance(value, float) and isinstance(shown, float):
        return value == shown or (value != value and shown != shown)
    return isinstance(shown, float) == isinstance(value, float) and bool(value == shown)


def _rests(answers: Sequence[Any], kind: str, lossy: Mapping[str, Set[int]]) -> list[str | None]:
    """Return, per answer, what no column represents exactly, as JSON; None if that is nothing but defaults."""
    encode: Callable[[Any], str] = json.JSONEncoder(default=_plain).encode
    held = FIELDS.get(kind, {})
    again = {field: lossy[column] for field, column in held.items()}
    again |= {"usage": frozenset[int]().union(*(lossy[name] for name in COST))} if kind else {}
    unsaid = {name: value for name, value in _defaults(kind).items() if name not in again}
    rests: list[str | None] = []
    # a field without a default is compared with the answer itself, which no field of it equals
    for n, answer in enumerate(answers):
        names = [f.name for f in dataclasses.fields(answer) if n in again.get(f.name, (n,))]
        rest = {name: value for name in names if (value := getattr(answer, name)) != unsaid.get(name, answer)}
        rests.append(encode(rest) if rest or not kind else None)
    return rests


def _plain(value: Any) -> Any:
    """Convert what JSON does not know; an answer's parts are dataclasses, tuples and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"an answer with {value!r} ({type(value).__name__}) inside cannot be stored as JSON")


def _stored(columns: Mapping[str, Sequence[Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Rebuild the answers by item, from the columns and the rest of each."""
    if not kind:
        return dict(zip(columns["item"], map(json.loads, columns["rest"]), strict=True))
    held, defaults, nulled = FIELDS[kind], _defaults(kind), _nulled(kind)
    unsaid = json.dumps({name: value for name, value in defaults.items() if name not in (*held, "usage")})
    rests = (json.loads(unsaid) | json.loads(rest or "{}") for rest in columns["rest"])
    columns = {n: [v or "" for v in values] if n in nulled else values for n, values in columns.items()}
    usages = [dict(zip(COST, usage, strict=True)) for usage in zip(*(columns[name] for name in COST), strict=True)]
    rows = zip(*(columns[column] for column in held.values()), usages, strict=True)
    names = (*held, "usage")
    found = (dict(zip(names, row, strict=True)) | rest for row, rest in zip(rows, rests, strict=True))
    return dict(zip(columns["item"], found, strict=True))


def _shown(holds: Holds, value: Any) -> Any:
    """Return a value as a column shows it; None if it cannot."""
    if holds == "text" and isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # a server may send half of a surrogate pair
    if holds in ("texts", "numbers") and isinstance(value, tuple | list):
        single: Holds = "text" if holds == "texts" else "number"
        values = [_shown(single, v) for v in value]
        return None if None in values else values
    if isinstance(value, bool):
        return value if holds == "flag" else None
    if holds == "integer" and isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    if holds == "number" and isinstance(value, int | float):
        return float(value) if abs(value) < 2**53 or isinstance(value, float) else None
    return None
