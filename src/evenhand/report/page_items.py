"""Changed items as the page keeps them: chosen up to a cap, compressed, and unpacked when a reader asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from evenhand.core.records import is_baseline
from evenhand.core.text_output import count
from evenhand.errors import RunError
from evenhand.report.answers import StoredCell
from evenhand.report.changes import DIRECTIONS, Change, Changes, changed_items, remembering
from evenhand.report.opened import Opened
from evenhand.report.page_libraries import packed
from evenhand.report.transcript import GATED, Transcript

MAX_ITEMS = 1_000
"""Maximum number of changed items that the page keeps of one method on one benchmark."""
MAX_TOTAL = 12_000
"""Maximum number of changed items that the page keeps in all; methods and benchmarks share them evenly."""
MAX_CHARACTERS = 20_000_000
"""Maximum characters of compressed items in the page; with tables, charts and libraries it stays below 30 MB."""
MAX_TURN = 20_000
"""Maximum characters of one turn of a dialogue; the rest is cut, and the page says so."""


@dataclass(frozen=True)
class Compared:
    """Changes by one method on one benchmark."""

    model: str
    method: str
    against: str
    benchmark: str
    changes: Changes


def compared(cells: Sequence[StoredCell]) -> Iterator[Compared]:
    """Yield what every method of a run changed on every benchmark, compared with its own baseline.

    Args:
        cells: Cells of the report; none if no answers are stored.
    """
    opened: dict[str, Opened] = {}
    answers = remembering()
    for model, benchmark, method in rows_of(cells):
        with suppress(RunError):  # without a baseline, or with a damaged file: the other methods are still shown
            changes = changed_items(cells, method, model=model, benchmark=benchmark, opened=opened, answers=answers)
            if len(changes):
                yield Compared(model, method, changes[0].against, benchmark, changes)


def rows_of(cells: Sequence[StoredCell]) -> list[tuple[str, str, str]]:
    """Return model, benchmark and method of every cell except the baselines'; those of one benchmark are together."""
    rows = dict.fromkeys((c.model, c.benchmark, c.method) for c in cells if not is_baseline(c.method))
    pairs = list(dict.fromkeys(row[:2] for row in rows))
    return sorted(rows, key=lambda row: pairs.index(row[:2]))


@dataclass
class Shelves:
    """All data about changed items that goes into the page."""

    cells: list[dict[str, Any]] = field(default_factory=list)
    """Facts of each method on each benchmark, in the form that page.js reads."""
    packs: dict[str, str] = field(default_factory=dict)
    """Compressed items by their id in the page."""


def shelves(compared: Iterable[Compared], number: int) -> Shelves:
    """Choose and compress the items that the page keeps.

    Args:
        compared: Every method on every benchmark that changed something; those of one baseline are adjacent.
        number: Maximum number of them; they share the space.
    """
    made = Shelves()
    cap, room = max(1, min(MAX_ITEMS, MAX_TOTAL // max(1, number))), MAX_CHARACTERS // max(1, number)
    former: dict[str, Any] = {}
    base, of = ("", "", ""), ""
    for n, cell in enumerate(compared):
        if base != (cell.model, cell.against, cell.benchmark):
            base, of, former = (cell.model, cell.against, cell.benchmark), f"before-{n}", {}
        shown, own, before = _fitting(cell, cap, room, former)
        former.update(before)
        made.packs |= {f"items-{n}": own, of: packed(former)}
        made.cells.append({**_facts(cell, shown), "shelf": f"items-{n}", "before": of})
    return made


def chosen(changes: Sequence[Change], cap: int) -> list[Change]:
    """Limit the number of changes: every direction gets an equal share, and the first directions get the rest.

    Within a direction they are spread evenly, since items are often sorted by axis.

    Args:
        changes: All changes.
        cap: Maximum number of changes.
    """
    by_direction = {d: [c for c in changes if c.direction == d] for d in DIRECTIONS}
    there = [of for of in by_direction.values() if of]
    taken, left = [min(len(of), cap // len(there)) for of in there], cap
    left -= sum(taken)
    for n, of in enumerate(there):
        more = min(left, len(of) - taken[n])
        taken[n], left = taken[n] + more, left - more
    return [c for of, k in zip(there, taken, strict=True) for c in _spread(of, k)]


def _spread(changes: Sequence[Change], k: int) -> Iterator[Change]:
    return (changes[n * len(changes) // k] for n in range(k))


def _fitting(cell: Compared, cap: int, room: int, former: dict[str, Any]) -> tuple[int, str, dict[str, Any]]:
    """Return as many items as fit: their number, their compressed form, and new dialogues of the baseline."""
    while True:
        shown = chosen(cell.changes, cap)
        rows, before = [], {}
        for change in shown:
            row, dialogue = _row(change, quotable=cell.changes.quotable)
            rows.append(row)
            if dialogue is not None and change.item not in former:
                before[change.item] = dialogue
        own = packed({"rows": rows})
        size = len(own) + len(packed(before))
        if size <= room or len(shown) == 1:
            return len(shown), own, before
        cap = max(1, int(0.95 * len(shown) * room / size))


def _row(change: Change, *, quotable: bool) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a changed item as page.js reads it, and the baseline's dialogue, without texts that must not be shown."""
    row = {
        "item": change.item,
        "groups": list(change.groups),
        "part": change.part or "",
        "direction": DIRECTIONS.index(change.direction),
        "chosen": [change.before, change.after],
        "probabilities": [_rounded(change.before_probabilities), _rounded(change.after_probabilities)],
        "before": _answer(change.before, change.before_text if quotable else "", change.before_leaning),
        "after": _answer(change.after, change.after_text if quotable else "", change.after_leaning),
    }
    if not quotable:
        return row, None
    before, after = change.transcripts()
    row["options"] = list(change.options)
    return {**row, "said": _dialogue(after)}, _dialogue(before)


def _answer(option: int | None, text: str, leaning: str) -> str:
    if option is None:
        return "undecided"
    named = text or f"option {option}"
    return f"{named} ({leaning})" if leaning and leaning not in named.lower() else named


def _dialogue(transcript: Transcript) -> dict[str, Any]:
    turns = [(turn.role, _cut(turn.content)) for turn in transcript.turns]
    return {"turns": turns, "outcome": transcript.outcome, "note": transcript.note}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TURN else f"{text[:MAX_TURN]} […cut after {count(MAX_TURN)} characters]"


def _rounded(probabilities: Iterable[float] | None) -> list[float] | None:
    return None if probabilities is None else [round(p, 4) for p in probabilities]


def _facts(cell: Compared, shown: int) -> dict[str, Any]:
    counts = cell.changes.counts()
    every = len(cell.changes)
    some = "" if shown == every else f"; this page keeps {count(shown)} of them, evenly spread"
    return {
        "model": cell.model,
        "method": cell.method,
        "against": cell.against,
        "benchmark": cell.benchmark,
        "counts": [counts.get(direction, 0) for direction in DIRECTIONS],
        "told": f"{count(every)} of {count(cell.changes.asked)} items have another answer{some}.",
        "withheld": "" if cell.changes.quotable else f"Not shown: {GATED}.",
    }
