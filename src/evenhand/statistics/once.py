"""Cache results of an estimate that are needed repeatedly: intervals, of which bounds and searches take many."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Owner = TypeVar("Owner")
Found = TypeVar("Found")


def once_a_level(method: Callable[[Owner, float], Found]) -> Callable[[Owner, float], Found]:
    """Decorate a method that depends on frozen fields and a level: each object computes it once per level.

    A copy with other fields (`dataclasses.replace`) starts empty. The result is shared and must not be written to.

    Args:
        method: Method of a class without slots.
    """
    place = f"{method.__name__} by level"  # no field of a class has such a name

    @wraps(method)
    def found(owner: Owner, alpha: float) -> Found:
        known: dict[float, Any] = vars(owner).setdefault(place, {})
        if alpha not in known:
            known[alpha] = method(owner, alpha)
        made: Found = known[alpha]
        return made

    return found
