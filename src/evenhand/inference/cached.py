"""Compute nothing twice: answers are taken from the active cache, and new ones are stored as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from evenhand.core import answer_cache
from evenhand.core.progress import track
from evenhand.inference.team import active

Asked = TypeVar("Asked")
Out = TypeVar("Out")
Emit = Callable[[list[int], list[Out]], None]
"""Receives answers: row numbers in the list to compute, and their values."""


Divide = Callable[[list[Asked], int], list[list[int]]]
"""Divides a list into a number of parts, given as rows of each part; some may be empty."""


def through_cache(
    unique: Sequence[Asked],
    keys: Sequence[str] | Callable[[], Sequence[str]],
    compute: Callable[[list[Asked], Emit[Out]], None],
    label: str,
    divide: Divide[Asked] | None = None,
) -> list[Out]:
    """Return answers to all of `unique`, in order.

    Args:
        unique: Distinct requests; if they can be divided among processes, they consist of numbers only.
        keys: Key of each in the cache, or a function that returns the keys, called only if there is a cache.
        compute: Answers a list, and emits row numbers and values, any number of times.
        label: Label of the progress bar.
        divide: Divides the list among processes that ask together (see `evenhand.inference.team`); values must then be
            JSON. None has each process compute everything.
    """
    team = None if divide is None else active()
    store = answer_cache.active() if team is None or team.first else None
    names = [] if store is None else keys() if callable(keys) else keys

    def look_up() -> dict[int, Out]:
        known: dict[str, Out] = {} if store is None else store.get(names)
        return {i: known[k] for i, k in enumerate(names) if k in known}

    # unlike strings, numbers have the same hash in every process
    out = look_up() if team is None else team.told(label, hash(tuple(unique)), look_up)
    todo = [i for i in range(len(unique)) if i not in out]
    with track(len(todo), label) as step:

        def emit(rows: list[int], values: list[Out]) -> None:
            out.update((todo[r], v) for r, v in zip(rows, values, strict=True))
            if store is not None:
                store.put({names[todo[r]]: v for r, v in zip(rows, values, strict=True)})
            step(len(rows))

        asked = [unique[i] for i in todo]
        if asked and team is not None and divide is not None:
            team.share(_part(compute, asked, divide(asked, team.count)[team.rank]), emit)
        elif asked:
            compute(asked, emit)
    return [out[i] for i in range(len(unique))]


def _part(
    compute: Callable[[list[Asked], Emit[Out]], None], asked: list[Asked], rows: list[int]
) -> Callable[[Emit[Out]], None]:
    """Return a computation of some rows of a list, which emits their row numbers in the whole list."""

    def work(emit: Emit[Out]) -> None:
        if rows:
            compute([asked[r] for r in rows], lambda mine, values: emit([rows[m] for m in mine], values))

    return work
