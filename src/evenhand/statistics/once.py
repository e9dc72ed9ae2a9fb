"""What is computed of an estimate once and asked for again: intervals, of which bounds and searches take many."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Owner = TypeVar("Owner")
Found = TypeVar("Found")


def once_a_level(method: Callable[[Owner, float], Found]) -> Callable[[Owner, float], Found]:
    """Decorator of a method that follows from frozen fields and a level: each object computes it once a level.

    A copy with other fields (`dataclasses.replace`) begins anew. What is returned is shared and must not be written to.

    Args:
        method: Of a class without slots.
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
