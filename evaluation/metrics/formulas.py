"""Declare a metric with its computation in one place: `share`, `mean` and `formula`.

Statistics are given by name, or as names joined by plus and minus: `share("unscored", "asked - scored", "asked", ...)`.
Anything else computed from them is a function of `Sums`. All work on any number of leading dimensions, as intervals
are computed from the same sums without each cluster in turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from evenhand.errors import SettingsError
from evenhand.evaluation.metrics.sums import Sums
from evenhand.interfaces import Array, Direction, Form, Measured, Metric, MetricKind
from evenhand.statistics.moments import ratio

Term = str | Callable[[Sums], Array]
"""Names of statistics joined by plus and minus, or a function of the sums."""
_SUM = re.compile(r"\s*[^\s+-]+(\s*[+-]\s*[^\s+-]+)*\s*")
ROUNDING = 1e-9
"""Relative tolerance by which the part of a row may exceed its whole, since fractions sum to 1 inexactly."""
_SIGNED = re.compile(r"([+-]?)\s*([^\s+-]+)")


@dataclass(frozen=True)
class Formula:
    """Metrics that are computed together; most formulas have one."""

    metrics: tuple[Metric, ...]
    compute: Callable[[Sums], Mapping[str, Measured]]
    """Computes the metrics by name from the sums. Pure, vectorised over leading dimensions."""
    counted: tuple[str, str] | None = None
    """For a share of named statistics, its part and its whole; every row must keep to 0 <= part <= whole."""


def formula(
    name: str,
    value: Term,
    n: Term,
    direction: Direction,
    kind: MetricKind,
    about: str,
    *,
    main: bool = False,
    form: Form = "smooth",
    range: tuple[float, float] = (-inf, inf),
    grades: str | None = None,
) -> Formula:
    """Declare a metric that is any function of the sums.

    Args:
        name: Name of the metric.
        value: The number, vectorised over leading dimensions; nan where it is not defined.
        n: The number of answers that it is computed from.
        direction: Which way is better, as in `Metric`.
        kind: As in `Metric`.
        about: One sentence: the definition and its range.
        main: Whether the short table shows it.
        form: How its interval is made, as in `Metric`.
        range: Smallest and largest value that it can take.
        grades: For a share of right answers, the part of the grades that it counts, as in `Metric.part`.
    """
    metric = Metric(name, direction, kind, about, main, form, range, grades)
    compute, count = _term(value), _term(n)
    return Formula((metric,), lambda sums: {name: Measured(compute(sums), count(sums))})


def mean(
    name: str,
    total: Term,
    count: Term,
    direction: Direction,
    kind: MetricKind,
    about: str,
    *,
    main: bool = False,
    form: Form = "smooth",
    range: tuple[float, float] = (-inf, inf),
    n: Term | None = None,
) -> Formula:
    """Declare a ratio of two sums, such as a mean; nan if nothing is counted.

    Args:
        name: Name of the metric.
        total: The dividend.
        count: The divisor.
        direction: Which way is better, as in `Metric`.
        kind: As in `Metric`.
        about: One sentence: the definition and its range.
        main: Whether the short table shows it.
        form: How its interval is made, as in `Metric`.
        range: Smallest and largest value that it can take.
        n: The number of answers that it is computed from; None is `count`.
    """
    value, n = _quotient(total, count), count if n is None else n
    return formula(name, value, n, direction, kind, about, main=main, form=form, range=range)


def share(
    name: str,
    part: Term,
    whole: Term,
    direction: Direction,
    kind: MetricKind,
    about: str,
    *,
    main: bool = False,
    grades: str | None = None,
) -> Formula:
    """Declare the share of items that have some property: a proportion from 0 to 1, nan without items.

    Args:
        name: Name of the metric.
        part: The items that have the property, such as "right" or "asked - scored". Where both are names of statistics,
            a row whose part is negative or exceeds its whole is refused.
        whole: All items that count.
        direction: Which way is better, as in `Metric`.
        kind: As in `Metric`.
        about: One sentence: the definition and its range.
        main: Whether the short table shows it.
        grades: For a share of right answers, the part of the grades that it counts, as in `Metric.part`.
    """
    value = _quotient(part, whole)
    declared = formula(
        name, value, whole, direction, kind, about, main=main, form="proportion", range=(0, 1), grades=grades
    )
    return replace(declared, counted=(part, whole)) if isinstance(part, str) and isinstance(whole, str) else declared


def beyond_whole(counted: tuple[str, str], rows: Sums) -> tuple[int, float, float] | None:
    """Return the first row whose part is negative or exceeds its whole by more than rounding.

    Args:
        counted: The part and the whole of a share.
        rows: The statistics [R] of each row by itself.

    Returns:
        The row's number, its part and its whole; None if all rows can be counted.
    """
    part, whole = (_term(term)(rows) for term in counted)
    slack = ROUNDING * np.maximum(1, np.abs(whole))
    bad = (part < -slack) | (part > whole + slack)
    if not bad.any():
        return None
    n = int(bad.argmax())
    return n, float(part[n]), float(whole[n])


def _quotient(part: Term, whole: Term) -> Callable[[Sums], Array]:
    above, below = _term(part), _term(whole)
    return lambda sums: ratio(above(sums), below(sums))


def _term(term: Term) -> Callable[[Sums], Array]:
    """Turn a term into a function of the sums.

    Raises:
        SettingsError: The text is not a sum of names.
    """
    if not isinstance(term, str):
        return term
    if not _SUM.fullmatch(term):
        raise SettingsError(
            f"{term!r} does not say how statistics are added up; write names joined by plus and minus, such as "
            "'asked - scored', or give a function of the sums"
        )
    (_, first), *others = _SIGNED.findall(term)

    def total(sums: Sums) -> Array:
        found = sums[first]
        for sign, name in others:
            found = found - sums[name] if sign == "-" else found + sums[name]
        return found

    return total
