"""Which option a row names as the right one: by its index, its letter, its text, or a label that the row declares.

A string may be read in several ways: with the options 3, 2, 1 and 0, "1" is the index of the second and the text of the
third. Such a row is used only where the setting `gold_as` or the other rows of its file say which reading is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from evenhand.data.io import rows

Form = Literal["index", "letter", "text"]
GoldAs = Literal["auto", "index", "letter", "text"]
FORMS: tuple[Form, ...] = ("index", "letter", "text")
FIELDS = ("answer", "label", "gold", "answerKey")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNPUBLISHED = -1
_NUMBER = re.compile(r"-1|[0-9]{1,9}")


class Options(NamedTuple):
    """The options of a row."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    """Their names as the row declares them, as ARC does; () where it declares none."""
    from_zero: bool = True
    """Whether a number counts options from 0; not so where labels are numbers, or columns begin at answer1."""


class Gold(NamedTuple):
    """What a row says of its right option."""

    field: str
    written: str
    options: int
    label: int | None
    """The option that declares `written` as its label."""
    readings: dict[Form, int]
    """The option in each form that is possible without a setting; as index, -1 is an answer that is not published."""
    all_readings: dict[Form, int]
    """`readings` and the forms that are used only if the setting asks for them."""

    @property
    def ambiguous(self) -> bool:
        """Whether the possible readings name different options."""
        return self.label is None and len(set(self.readings.values())) > 1


def read(raw: Mapping[str, Any], options: Options) -> Gold:
    """What a row says of its right option, in every form; a number that is not a string is an index.

    Raises:
        Refused: The row says nothing, or neither a text nor a whole number.
    """
    field = next((n for n in FIELDS if raw.get(n) is not None), "")
    if not field:
        raise rows.Refused(f"no right answer: a field {', '.join(FIELDS)} is needed")
    written = rows.identifier(raw, field)
    found: dict[Form, int] = {}
    if _NUMBER.fullmatch(written) and int(written) < len(options.texts):
        found["index"] = int(written)
    if len(written) == 1 and (letter := LETTERS.find(written.upper())) in range(len(options.texts)):
        found["letter"] = letter
    if written in options.texts:
        found["text"] = options.texts.index(written)
    label = options.labels.index(written) if written in options.labels else None
    possible = dict(found)
    if not isinstance(raw[field], str):
        possible.pop("letter", None)
        possible.pop("text", None)
    if not options.from_zero and found.get("index") != UNPUBLISHED:
        possible.pop("index", None)
    return Gold(field, written, len(options.texts), label, possible, found)


def common_form(golds: Iterable[Gold]) -> Form | None:
    """The only form that all these rows, which are those of one column of a file, can have; None where that is open.

    One clear row rules a form out: where it names no option by its text, the column does not have texts.
    """
    read_by_form = [g.readings for g in golds if g.label is None]
    possible = [form for form in FORMS if all(form in readings for readings in read_by_form)]
    return possible[0] if read_by_form and len(possible) == 1 else None


def right(gold: Gold, gold_as: GoldAs, common: Form | None) -> int:
    """The right option.

    Args:
        gold: What the row says.
        gold_as: The form that a setting prescribes; auto for none.
        common: The form of the column (`common_form`), which decides an ambiguous row.

    Raises:
        Refused: It names none of the options, is not published, or several options may be meant.
    """
    if gold_as != "auto":
        declared = gold.label if gold_as == "letter" else None
        found = gold.all_readings.get(gold_as) if declared is None else declared
        if found is None:
            raise rows.Refused(f"{gold.field} {gold.written[:40]!r} is not the {gold_as} of an option (gold_as)")
    elif gold.label is not None:
        found = gold.label
    elif not gold.readings:
        why = "; it may count from 0 or from 1" if "index" in gold.all_readings else ""
        raise rows.Refused(f"{gold.field} {gold.written[:40]!r} is none of the {gold.options} options{why}")
    elif gold.ambiguous and common is None:
        ways = " and ".join(
            "not published" if n == UNPUBLISHED else f"the {form} of option {n + 1}"
            for form, n in gold.readings.items()
        )
        forms = " or ".join(gold.readings)
        raise rows.Refused(f"{gold.field} {gold.written[:40]!r} is ambiguous: {ways}; set gold_as to {forms}")
    else:
        found = next(iter(gold.readings.values())) if common is None else gold.readings[common]
    if found == UNPUBLISHED:
        raise rows.Refused(f"{gold.field} is -1: the right answers of this part are not published")
    return found
