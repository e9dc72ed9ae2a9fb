"""One row type for the translations and relatives of BBQ, so that one benchmark base asks and scores all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.bbq import load_rows as bbq_rows
from evenhand.data.bbq_target import ANSWERS, target_location, unknown_location
from evenhand.data.io import layouts, locate
from evenhand.data.io.content import read_bytes
from evenhand.data.io.rows import Refused
from evenhand.errors import SHOWN, DataError, short

ContextKind = Literal["ambiguous", "disambiguated"]
Polarity = Literal["neg", "nonneg", ""]
CONTEXT_KINDS: tuple[ContextKind, ...] = ("ambiguous", "disambiguated")


@dataclass(frozen=True, slots=True)
class BiasRow:
    """One multiple-choice question about people, one of whose answers may be the stereotype.

    Raises:
        DataError: An index is not that of an option, or two of the unknown, target and counter options are one.
    """

    id: str
    """Unique within the data set and the same in every copy of it."""
    parallel: str
    """An id that parallel items share across languages; "" if the data set has none."""
    language: str
    """ISO 639-1 code."""
    category: str
    """The social dimension, under the data set's own name."""
    context_kind: ContextKind
    polarity: Polarity
    """Whether the question asks for the negative trait; "" if the data set does not say."""
    context: str
    question: str
    options: tuple[str, ...]
    gold: int
    """Index of the right option."""
    unknown: int | None
    """Index of the option that says that it cannot be known; None if there is none."""
    target: int | None
    """Index of the bias-consistent option; None if none or several are."""
    counter: int | None
    """Index of the option against the bias; None if none or several are."""
    cluster: str
    """Template or scenario: rows of one cluster are not independent."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further facts that a data set's own score needs, such as the type of question."""

    def __post_init__(self) -> None:
        """Check the indices."""
        named = [n for n in (self.unknown, self.target, self.counter) if n is not None]
        if any(not 0 <= n < len(self.options) for n in (self.gold, *named)) or len(set(named)) < len(named):
            raise DataError(
                f"row {self.id!r}: gold={self.gold}, unknown={self.unknown}, target={self.target} and "
                f"counter={self.counter} must be indices of its {len(self.options)} options, the last three different"
            )

    @property
    def ambiguous(self) -> bool:
        """Whether the context leaves the answer open."""
        return self.context_kind == "ambiguous"


class BiasRows(NamedTuple):
    """The rows of a data set, and their facts for a report."""

    rows: list[BiasRow]
    facts: dict[str, Any]
    """JSON values, such as the source, the hashes of the files, what was left out ("dropped") and "notes"."""


def sides(stereotyped: Sequence[int], people: Sequence[int], polarity: str) -> tuple[int, int] | tuple[None, None]:
    """Return the bias-consistent option and the one against the bias, exchanged if the question is not negative.

    Args:
        stereotyped: Indices of the options that name a person of a stereotyped group.
        people: Indices of the options that name a person.
        polarity: "neg" or "nonneg".

    Returns:
        None and None unless exactly one of two people is of a stereotyped group.
    """
    if len(stereotyped) != 1 or len(people) != 2:
        return None, None
    (one,), other = stereotyped, sum(people) - stereotyped[0]
    return (one, other) if polarity == "neg" else (other, one)


def check_counts(found: Iterable[str] | Mapping[str, int], published: Mapping[str, int], where: object) -> list[str]:
    """Compare the number of rows per category with the published one.

    Args:
        found: The category of every row, or the number of rows per category.
        published: Rows per category.
        where: The file or folder that was read.

    Returns:
        A note per category whose number differs, [] where all agree; categories without rows are not compared, as a
        part of the files may be there.
    """
    counts = Counter(found)
    return [
        f"{where} has {counts[category]:,} rows of {short(category, SHOWN)}, not the published "
        f"{published.get(category, 0):,}; its scores are not comparable with published ones"
        for category in counts
        if counts[category] != published.get(category)
    ]


def read_bias_rows(
    name: str,
    path: Path,
    files: Sequence[Path],
    convert: Callable[[Mapping[str, Any]], BiasRow],
    *,
    columns: Sequence[str] = (),
    published: Mapping[str, str] | None = None,
    counts: Mapping[str, int] | None = None,
    partial: bool = True,
) -> BiasRows:
    """Read the rows of a data set's files, whatever form they have.

    Args:
        name: The data set.
        path: Where the files were looked for.
        files: The files, in the order of their rows; .jsonl, .tsv, .csv, .json, .parquet or .arrow, also gzipped.
        convert: From a row as it stands in a file to ours. A `ValueError` or `DataError` leaves the row out.
        columns: Columns that a .csv or .tsv file must have.
        published: SHA-256 of the official files' content by their stem, such as "Age"; None where they are not known.
        counts: Published number of rows per category, which `check_counts` compares; None compares nothing.
        partial: Whether another number is noted; else it is an error.

    Returns:
        The usable rows in file order; facts as those of `evenhand.data.bbq.load_rows`.

    Raises:
        DataError: A file cannot be read, not one row can be used, or their number is not the published one.
    """
    problems, rows, about, seen = locate.Problems(), list[BiasRow](), dict[str, dict[str, str]](), set[str]()
    for file in files:
        content = read_bytes(file)
        digest, stem = bytes_hash(content), locate.stem(file)
        expected = (published or {}).get(stem)
        verdict = "unknown file" if expected is None else "official" if digest == expected else "differs from official"
        about[file.relative_to(path).as_posix() if path.is_dir() else file.name] = {"sha256": digest, "is": verdict}
        for line, raw in layouts.read_table(file, content, columns, problems):
            try:
                row = convert(raw)
                if row.id in seen:
                    raise Refused(f"id {row.id!r} occurs twice")
            except (ValueError, DataError) as error:
                problems.add(file, line, str(error))
            else:
                seen.add(row.id)
                rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no usable row of {name}{problems.first}")
    changed = [file for file, facts in about.items() if facts["is"] == "differs from official"]
    notes = [f"{', '.join(changed)}: not the official content (SHA-256 differs)"] if changed else []
    other = [] if counts is None else check_counts((row.category for row in rows), counts, path)
    if other and not partial:
        raise DataError(
            f"{name}: {other[0]}{problems.first}. Take the whole file again, or set {name}(partial=True) to ask what "
            "is there"
        )
    notes += other
    facts = {"source": str(path), "rows": len(rows), "files": about, "dropped": problems.lines, "notes": notes}
    return BiasRows(rows, facts)


def demo_rows() -> BiasRows:
    """Read the proving ground's English questions in BBQ's form, which `source=demo` of every such benchmark asks."""
    loaded = bbq_rows("demo")
    return BiasRows([_of_bbq(raw) for raw in loaded.rows], loaded.facts)


def _of_bbq(raw: Mapping[str, Any]) -> BiasRow:
    unknown, target = unknown_location(raw), target_location(raw)
    others = [n for n in range(len(ANSWERS)) if n not in (unknown, target)]
    category = raw["category"]
    return BiasRow(
        id=f"{category}/{raw['example_id']}",
        parallel="",
        language="en",
        category=category,
        context_kind="ambiguous" if raw["context_condition"] == "ambig" else "disambiguated",
        polarity=raw["question_polarity"],
        context=raw["context"],
        question=raw["question"],
        options=tuple(raw[answer] for answer in ANSWERS),
        gold=raw["label"],
        unknown=unknown,
        target=target,
        counter=others[0] if len(others) == 1 else None,
        cluster=f"{category}/{raw['question_index']}",
    )
