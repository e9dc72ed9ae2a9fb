"""Nothing is asked twice: answers come from the active cache where it has them, and go there as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from evenhand.core import answer_cache
from evenhand.core.progress import track

Asked = TypeVar("Asked")
Out = TypeVar("Out")
Emit = Callable[[list[int], list[Out]], None]
"""Hands over answers: which rows of the list that was to be computed, and their values."""


def through_cache(
    unique: Sequence[Asked],
    keys: Sequence[str] | Callable[[], Sequence[str]],
    compute: Callable[[list[Asked], Emit[Out]], None],
    label: str,
) -> list[Out]:
    """Answers to all of `unique`, in order.

    Args:
        unique: What is asked, each thing once.
        keys: The name of each in the cache, or what gives the names, which is called where there is a cache.
        compute: Answers a list and hands over what it has, row numbers and values, as often as it likes.
        label: What a progress bar says.
    """
    store = answer_cache.active()
    names = [] if store is None else keys() if callable(keys) else keys
    known: dict[str, Out] = {} if store is None else store.get(names)
    out: dict[int, Out] = {i: known[k] for i, k in enumerate(names) if k in known}
    todo = [i for i in range(len(unique)) if i not in out]
    with track(len(todo), label) as step:

        def emit(rows: list[int], values: list[Out]) -> None:
            out.update((todo[r], v) for r, v in zip(rows, values, strict=True))
            if store is not None:
                store.put({names[todo[r]]: v for r, v in zip(rows, values, strict=True)})
            step(len(rows))

        if todo:
            compute([unique[i] for i in todo], emit)
    return [out[i] for i in range(len(unique))]
