"""BBQ-type questions, such as which of two people was forgetful, with and without a sentence that tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from random import Random
from typing import Any

from evenhand.proving_ground.generator.cipher import Language, table_name, written
from evenhand.proving_ground.generator.planted import MAIN, Planted
from evenhand.proving_ground.generator.words import ASKED, AXES, AXIS, DEEDS, EVERY_AXIS, SCENES, UNKNOWN, Axis, Trait


@dataclass(frozen=True, slots=True)
class Case:
    """One question before it is written down."""

    axis: str
    group: int
    """Index of the marked group."""
    trait: int
    marked: str
    """The marked person, such as "grandfather"."""
    other: str
    other_label: str
    scene: int
    marked_first: bool
    """Whether the scene names the marked person first."""
    negative: bool
    """Whether the question asks for the bad trait."""
    deed: int | None = None
    """Which sentence tells who did what; None leaves it open (an ambiguous context)."""
    marked_did: bool = False
    """Whether the marked person did the bad deed, if a sentence tells."""
    wording: int = 0
    language: Language = "english"
    """Language in which it is written; persons and traits are stored in English."""

    @property
    def cell_axis(self) -> str:
        """Name of the axis in the tables of planted quantities, which distinguish the languages."""
        return table_name(self.axis, self.language)

    def written(self, text: str) -> str:
        """Write a text about this case in its language."""
        return written(text, self.language)

    @property
    def traits(self) -> Trait:
        """The pair of traits asked about."""
        return AXIS[self.axis].traits[self.trait]

    @property
    def context(self) -> str:
        """The scene, and in a disambiguated context what happened there."""
        first, second = (self.marked, self.other) if self.marked_first else (self.other, self.marked)
        text = SCENES[self.scene].format(x=first, y=second)
        if self.deed is None:
            return self.written(text)
        guilty, innocent = (self.marked, self.other) if self.marked_did else (self.other, self.marked)
        told = DEEDS[self.deed].format(s=guilty, o=innocent, bad=self.traits.bad_deed, good=self.traits.good_deed)
        return self.written(f"{text} {told}")

    @property
    def question(self) -> str:
        """Who had the bad, or the good, trait."""
        return self.written(ASKED[self.wording].format(trait=self.traits.bad if self.negative else self.traits.good))

    @property
    def stereotyped(self) -> str:
        """The person of the answer that agrees with the stereotype."""
        return self.marked if self.negative else self.other

    @property
    def right(self) -> str | None:
        """The person whom the context shows to be the answer; None if it shows none."""
        if self.deed is None:
            return None
        return self.marked if self.marked_did == self.negative else self.other


def option(person: str) -> str:
    """Write a person as an answer."""
    return f"The {person}"


def draw_case(random: Random, planted: Planted = MAIN) -> Case:
    """Draw a case for the training text: frequent groups come more often, and half of the contexts tell.

    Args:
        random: Source of the draws.
        planted: Model from whose axes and languages it is drawn.
    """
    axis = random.choice(planted.drawn_axes)
    group = random.choices(range(len(axis.marked)), [len(g.people) for g in axis.marked])[0]
    label, other = random.choice([(g.label, person) for g in axis.unmarked for person in g.people])
    case = Case(
        axis=axis.name,
        group=group,
        trait=random.randrange(len(axis.traits)),
        marked=random.choice(axis.marked[group].people),
        other=other,
        other_label=label,
        scene=random.randrange(len(SCENES)),
        marked_first=random.random() < 0.5,
        negative=random.random() < 0.5,
        deed=random.randrange(len(DEEDS)) if random.random() < 0.5 else None,
        marked_did=random.random() < 0.5,
        wording=random.randrange(len(ASKED)),
    )
    return replace(case, language=draw_language(random, planted))


def draw_language(random: Random, planted: Planted) -> Language:
    """Draw one of a model's languages; nothing is drawn if there is only one."""
    return random.choice(planted.languages) if len(planted.languages) > 1 else planted.languages[0]


@cache
def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the demo benchmark in BBQ's row format: category -> rows.

    Per axis 12 templates (6 traits, 2 wordings) of 48 rows: 6 pairs of people, 2 orders, 2 contexts, 2 polarities.
    """
    return {axis.name: [_row(*numbered) for numbered in enumerate(_cases(axis))] for axis in AXES}


@cache
def rows_in(language: Language) -> dict[str, list[dict[str, Any]]]:
    """Return the questions for demo-x on all its axes, in one language: category -> rows."""
    return {
        axis.name: [_row(n, replace(case, language=language)) for n, case in enumerate(_cases(axis))]
        for axis in EVERY_AXIS
    }


def cases(planted: Planted = MAIN) -> dict[tuple[str, str], Case]:
    """Return the demo benchmark's cases by (context, question), on the axes and in the languages of a model."""
    every = [case for axis in planted.axes for case in _cases(axis)]
    said = [replace(case, language=language) for language in planted.languages for case in every]
    return {(case.context, case.question): case for case in said}


def _cases(axis: Axis) -> Iterator[Case]:
    others = [(g.label, person) for g in axis.unmarked for person in g.people]
    members = [(g, person) for g, group in enumerate(axis.marked) for person in group.people]
    for trait, wording in product(range(len(axis.traits)), range(len(ASKED))):
        template = trait * len(ASKED) + wording
        for n, ((group, person), marked_first, told) in enumerate(product(members, (True, False), (False, True))):
            label, other = others[(n // 4 + template) % len(others)]
            for negative in (True, False):
                yield Case(
                    axis=axis.name,
                    group=group,
                    trait=trait,
                    marked=person,
                    other=other,
                    other_label=label,
                    scene=template % len(SCENES),
                    marked_first=marked_first,
                    negative=negative,
                    deed=wording if told else None,
                    marked_did=(n // 2 + template) % 2 == 0,
                    wording=wording,
                )


def _row(number: int, case: Case) -> dict[str, Any]:
    axis = AXIS[case.axis]
    unknown = case.written(UNKNOWN[number % len(UNKNOWN)])
    group = axis.marked[case.group]
    info = [[_info(case, case.marked), group.label], [_info(case, case.other), case.other_label], [unknown, "unknown"]]
    texts = [case.written(option(case.marked)), case.written(option(case.other)), unknown]
    order = _order(number)
    right = unknown if case.right is None else case.written(option(case.right))
    return {
        "example_id": number,
        "question_index": str(case.trait * len(ASKED) + case.wording + 1),
        "question_polarity": "neg" if case.negative else "nonneg",
        "context_condition": "ambig" if case.deed is None else "disambig",
        "category": case.axis,
        "answer_info": {f"ans{i}": info[o] for i, o in enumerate(order)},
        "additional_metadata": {
            "subcategory": group.name,
            "stereotyped_groups": list(dict.fromkeys(g.label for g in axis.marked)),
            "version": "a" if case.marked_first else "b",
            "source": "evenhand proving ground",
        },
        "context": case.context,
        "question": case.question,
        **{f"ans{i}": texts[o] for i, o in enumerate(order)},
        "label": order.index([*texts].index(right)),
    }


def _info(case: Case, person: str) -> str:
    """Return the group for `answer_info`, in which BBQ names nations without the noun."""
    return person.split()[0] if case.axis == "Nationality" else person


def _order(number: int) -> tuple[int, ...]:
    """Return one of the six orders, which are equally frequent and do not depend on polarity or context."""
    orders = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (2, 1, 0), (1, 0, 2))
    return orders[(number + number // 6 + number // 48) % 6]


def all_rows() -> list[dict[str, Any]]:
    """Return the rows of all categories as one list."""
    return [row for category in rows().values() for row in category]
