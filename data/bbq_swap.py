"""Rows of BBQ that are each other's counterfactual: the same template with the two persons exchanged.

BBQ writes most templates twice for two persons, once in either order. Its files do not say which rows belong together,
and in some sets they lie far apart, so the counterpart is found by its texts: exchanging both persons in context and
question must give the other row's texts, except for case and "a" or "an", and the label must be exchanged, too. The
options may have another order there, and the unknown option another wording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.data.bbq_target import ANSWERS, unknown_location
from evenhand.data.swaps import Swap, bare, matched, names_of, plain

_ALL = sum(range(len(ANSWERS)))


def swaps(rows: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> dict[str, Swap]:
    """Find the counterpart of each row that has one, always in both directions.

    Args:
        rows: As `evenhand.data.bbq.checked` makes them.
        ids: Ids of the rows.

    Returns:
        The counterparts by id.
    """
    people = [_people(row) for row in rows]
    found: dict[str, Swap] = {}
    for (*_, first, second), left in _groups(rows, people).items():
        if len(left) < 2:
            continue
        texts = {place: (plain(rows[place]["context"]), plain(rows[place]["question"])) for place in left}
        for names in names_of(first, second):
            for one, two in ((left[a], left[b]) for a, b in matched([texts[place] for place in left], names)):
                there = _turned(people[one], people[two])
                if there[rows[one]["label"]] == rows[two]["label"]:
                    found[ids[one]] = Swap(ids[two], there)
                    found[ids[two]] = Swap(ids[one], _turned(people[two], people[one]))
            left = [place for place in left if ids[place] not in found]
            if len(left) < 2:
                break
    return found


def _groups(rows: Sequence[Mapping[str, Any]], people: Sequence[Mapping[str, int]]) -> dict[tuple[str, ...], list[int]]:
    """Group the indices of rows that share template, polarity, kind of context and both persons."""
    found: dict[tuple[str, ...], list[int]] = {}
    for place, (row, persons) in enumerate(zip(rows, people, strict=True)):
        if len(persons) == 2:
            fields = ("category", "question_index", "question_polarity", "context_condition")
            found.setdefault((*(row[field] for field in fields), *sorted(persons)), []).append(place)
    return found


def _people(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the options that name a person, by person."""
    unknown = unknown_location(row)
    return {bare(row[name]): i for i, name in enumerate(ANSWERS) if i != unknown}


def _turned(people: Mapping[str, int], others: Mapping[str, int]) -> tuple[int, ...]:
    """Return, for each option, the counterpart's option with the other person; unknown options map to one another."""
    (first, one), (second, two) = people.items()
    there = [_ALL - others[first] - others[second]] * len(ANSWERS)
    there[one], there[two] = others[second], others[first]
    return tuple(there)
