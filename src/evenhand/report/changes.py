"""Changed items: what one row of a report answers differently from another, item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from evenhand.core.records import BASELINE
from evenhand.core.sinks import in_html
from evenhand.core.text_output import count, visible
from evenhand.errors import RunError, SettingsError, suggest
from evenhand.report.answers import StoredCell, chosen
from evenhand.report.opened import Opened
from evenhand.report.transcript import Transcript, transcript

if TYPE_CHECKING:
    import pandas as pd

OTHER = "other"
DIRECTIONS = (
    "right → wrong",
    "wrong → right",
    "wrong → other wrong",
    "decided → undecided",
    "undecided → decided",
    OTHER,
)
"""Kinds of change, in the order of display; "other" is a new decision on an item without a right answer."""
SHOWN = ("item", "groups", "part", "decision", "grade", "probabilities", "reply", "cluster")
Answers = Callable[[StoredCell], Mapping[str, dict[str, Any]]]


@dataclass(frozen=True)
class Change:
    """One item whose answer changes under a method."""

    model: str
    method: str
    against: str
    """Row that it is compared with."""
    benchmark: str
    item: str
    cluster: str
    groups: tuple[str, ...]
    """Groups that the item belongs to, without "overall"."""
    part: str
    """Kind of item, such as "ambiguous"; "" if there is only one kind."""
    direction: str
    """One of `DIRECTIONS`."""
    before: int | None
    """Index of the option that was chosen before; None if none was."""
    after: int | None
    before_grade: str
    """right, wrong or undecided; "" if the item has no right answer."""
    after_grade: str
    before_probabilities: tuple[float, ...] | None
    """Texts of the options, in the benchmark's order."""
    after_probabilities: tuple[float, ...] | None
    before_reply: str = field(repr=False)
    """Text that the decision was read from; "" if none was written, or if it may not be shown."""
    after_reply: str = field(repr=False)
    _cells: tuple[StoredCell, StoredCell] = field(repr=False)
    _opened: Opened = field(repr=False)
    _answers: Answers = field(repr=False)

    @property
    def before_text(self) -> str:
        """The option that was chosen before; "" if it is unknown or may not be shown."""
        return self._opened.option(self.item, self.before)

    @property
    def after_text(self) -> str:
        """The option that is chosen now; "" if it is unknown or may not be shown."""
        return self._opened.option(self.item, self.after)

    @property
    def before_leaning(self) -> str:
        """stereotyped, counter-stereotyped or unknown; "" if the benchmark does not say."""
        return self._opened.leaning(self.item, self.before)

    @property
    def after_leaning(self) -> str:
        """stereotyped, counter-stereotyped or unknown; "" if the benchmark does not say."""
        return self._opened.leaning(self.item, self.after)

    @property
    def options(self) -> tuple[str, ...]:
        """Texts of the options, in the benchmark's order; none if they are unknown or may not be shown."""
        found = self._opened.question(self.item)
        return () if found is None else tuple(found.options)

    @property
    def question(self) -> str:
        """Context and question; "" if they are unknown or may not be shown."""
        found = self._opened.question(self.item)
        return "" if found is None else f"{found.context} {found.question}".strip()

    def transcripts(self) -> tuple[Transcript, Transcript]:
        """Read the whole dialogues, before and after; texts that must not be published are left out.

        Raises:
            RunError: A file of answers is damaged.
        """
        before, after = (self._transcript(cell) for cell in self._cells)
        return before, after

    def _transcript(self, cell: StoredCell) -> Transcript:
        named = {**cell.usage, "model": cell.model, "method": cell.method, "benchmark": cell.benchmark}
        return transcript(self._opened, named, self.item, self._answers(cell)[self.item])

    @property
    def searched(self) -> str:
        """Text that a full-text search looks through."""
        question = self._opened.question(self.item)
        options = () if question is None else question.options
        texts = (self.item, *self.groups, self.part, self.question, *options, self.before_reply, self.after_reply)
        return " ".join(texts).lower()


class Changes(Sequence[Change]):
    """Changed items, in the order of `DIRECTIONS`: those that turned from right to wrong first."""

    def __init__(self, found: Iterable[Change], asked: int, *, quotable: bool = True, skipped: int = 0) -> None:
        """Sort the changes.

        Args:
            found: The changes.
            asked: Number of items that both rows were asked.
            quotable: Whether their texts may be shown.
            skipped: Number of items that only one of the rows was asked.
        """
        self._found = sorted(found, key=lambda change: DIRECTIONS.index(change.direction))
        self.asked, self.quotable, self.skipped = asked, quotable, skipped

    def __len__(self) -> int:
        """Number of changed items."""
        return len(self._found)

    @overload
    def __getitem__(self, at: int) -> Change: ...
    @overload
    def __getitem__(self, at: slice) -> Changes: ...
    def __getitem__(self, at: int | slice) -> Change | Changes:
        """One change, or some of them."""
        return self._like(self._found[at]) if isinstance(at, slice) else self._found[at]

    def __iter__(self) -> Iterator[Change]:
        """Iterate in the order of `DIRECTIONS`."""
        return iter(self._found)

    def counts(self) -> dict[str, int]:
        """Count the changes of each direction; directions without any are left out."""
        found = [change.direction for change in self]
        return {direction: found.count(direction) for direction in DIRECTIONS if direction in found}

    def where(self, *, direction: str = "", group: str = "", part: str = "", text: str = "") -> Changes:
        """Return the changes that match; "" takes all.

        Args:
            direction: One of `DIRECTIONS`; "->" may stand for the arrow.
            group: A group that the item belongs to, such as "Age".
            part: A kind of item, such as "ambiguous".
            text: Words in its question, options, replies or id, whatever their case.

        Raises:
            SettingsError: There is no such direction.
        """
        wanted = direction.replace("->", "→").strip()
        if wanted and wanted not in DIRECTIONS:
            raise SettingsError(f"direction={direction!r} is not known. {suggest(wanted, DIRECTIONS)}")
        return self._like(
            change
            for change in self
            if wanted in ("", change.direction)
            and (not group or group in change.groups)
            and part in ("", change.part)
            and (not text or text.lower() in change.searched)
        )

    def frame(self) -> pd.DataFrame:
        """Return one line per changed item."""
        import pandas as pd

        names = ("model", "method", "against", "benchmark", "item", "cluster", "groups", "part", "direction")
        rows = [
            {
                **{name: vars(change)[name] for name in names},
                "before": change.before,
                "after": change.after,
                "before_text": change.before_text,
                "after_text": change.after_text,
                "before_leaning": change.before_leaning,
                "after_leaning": change.after_leaning,
                "before_probability": _probability(change.before_probabilities, change.before),
                "after_probability": _probability(change.after_probabilities, change.after),
            }
            for change in self
        ]
        more = [n for side in ("", "_text", "_leaning", "_probability") for n in (f"before{side}", f"after{side}")]
        return pd.DataFrame(rows, columns=[*names, *more])

    def __repr__(self) -> str:
        """Return the number of changes of each kind, for logs."""
        kinds = ", ".join(f"{count(n)} {direction}" for direction, n in self.counts().items()) or "none"
        return f"Changes({kinds}; of {count(self.asked)} items)"

    def _repr_html_(self) -> str:
        return f"<p>{in_html(repr(self))}</p>{visible(self[:100].frame().to_html(escape=True))}"

    def _like(self, found: Iterable[Change]) -> Changes:
        return Changes(found, self.asked, quotable=self.quotable, skipped=self.skipped)


def changed_items(
    cells: Sequence[StoredCell],
    method: str,
    against: str = BASELINE,
    *,
    model: str = "",
    benchmark: str = "",
    opened: dict[str, Opened] | None = None,
    answers: Answers | None = None,
) -> Changes:
    """Compare two rows item by item.

    Args:
        cells: Cells of the report.
        method: Row of the report.
        against: Row to compare it with. "none" is the method's own baseline, whose answers are read in the same way.
        model: Only this one; "" takes all.
        benchmark: Only this spec; "" takes all.
        opened: Benchmarks that are already open, by spec; missing ones are added.
        answers: Reads the answers of a cell; use `remembering` if many rows are compared.

    Raises:
        RunError: No answers are kept, there is no such row, or the two have no item in common.
    """
    mine = chosen(cells, model=model, benchmark=benchmark, method=method)
    found: list[Change] = []
    asked = skipped = 0
    shelf = {} if opened is None else opened
    opened = {c.benchmark: shelf.setdefault(c.benchmark, Opened(c.benchmark)) for c in mine}
    answers = answers or remembering()
    for cell in mine:
        other = _partner(cells, cell, against)
        if other is None:
            continue
        changes, both, apart = _between(other, cell, opened[cell.benchmark], answers)
        found += changes
        asked, skipped = asked + both, skipped + apart
    if not asked:
        raise RunError(f"{method} and {against} have no item in common in this run, so nothing can be compared")
    return Changes(found, asked, quotable=all(o.quotable for o in opened.values()), skipped=skipped)


def remembering(most: int = 2) -> Answers:
    """Return a reader that reads a file of answers when it is first needed, and keeps those used last.

    Args:
        most: Maximum number of files to keep.
    """
    read: dict[tuple[str, str], Mapping[str, dict[str, Any]]] = {}

    def answers(cell: StoredCell) -> Mapping[str, dict[str, Any]]:
        place = str(cell.folder), cell.key
        read[place] = read.pop(place) if place in read else cell.answers()
        while len(read) > most:
            del read[next(iter(read))]
        return read[place]

    return answers


def _partner(cells: Sequence[StoredCell], cell: StoredCell, against: str) -> StoredCell | None:
    """Return the cell of another row with the same model, benchmark and seed, else that row's first cell."""
    name = str(cell.usage.get("baseline") or BASELINE) if against == BASELINE else against
    mine = [c for c in cells if (c.run, c.model, c.benchmark, c.method) == (cell.run, cell.model, cell.benchmark, name)]
    mine = mine or [c for c in cells if (c.model, c.benchmark, c.method) == (cell.model, cell.benchmark, name)]
    return next((c for c in mine if c.variant[0] == cell.variant[0]), next(iter(mine), None))


def _between(before: StoredCell, after: StoredCell, opened: Opened, answers: Answers) -> tuple[list[Change], int, int]:
    """Return the changes, the number of common items, and the number of items that only one of the two has."""
    one, other = (cell.frame().loc[:, SHOWN].set_index("item") for cell in (before, after))
    both = one.add_suffix("_before").join(other.add_suffix("_after"), how="inner")
    apart = len(one) + len(other) - 2 * len(both)
    decided = [both[f"decision_{side}"].astype(object).where(both[f"decision_{side}"].notna(), None) for side in SIDES]
    grades = [both[f"grade_{side}"].fillna("").astype(str) for side in SIDES]
    differing = [_direction(*answers) for answers in zip(*grades, *decided, strict=True)]
    kept = both.assign(direction=differing)
    kept = kept[kept.direction != ""]
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()} for row in kept.reset_index().to_dict("records")
    ]
    return (
        [_change(row, before, after, opened, answers) for row in rows],
        len(both),
        apart,
    )


SIDES = ("before", "after")


def _direction(was: str, now: str, before: int | None, after: int | None) -> str:
    """Return the kind of change; "" if there is none."""
    if not was or not now:
        return OTHER if before != after else ""
    if was == now:
        return "wrong → other wrong" if was == "wrong" and before != after else ""
    if now == "undecided":
        return "decided → undecided"
    return "undecided → decided" if was == "undecided" else f"{was} → {now}"


def _change(row: Mapping[str, Any], before: StoredCell, after: StoredCell, opened: Opened, answers: Answers) -> Change:
    groups = row["groups_after"] if row["groups_after"] is not None else ()
    return Change(
        after.model,
        after.method,
        before.method,
        after.benchmark,
        str(row["item"]),
        _text(row["cluster_after"]),
        tuple(str(g) for g in groups if g != "overall"),
        _text(row["part_after"]),
        row["direction"],
        _whole(row["decision_before"]),
        _whole(row["decision_after"]),
        _text(row["grade_before"]),
        _text(row["grade_after"]),
        _numbers(row["probabilities_before"]),
        _numbers(row["probabilities_after"]),
        _text(row["reply_before"]) if opened.quotable else "",
        _text(row["reply_after"]) if opened.quotable else "",
        (before, after),
        opened,
        answers,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    import pandas as pd

    return None if value is None or pd.isna(value) else int(value)


def _numbers(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))


def _probability(probabilities: tuple[float, ...] | None, decision: int | None) -> float | None:
    if probabilities is None or decision is None or not 0 <= decision < len(probabilities):
        return None
    return probabilities[decision]
