"""Practice pairs and biased texts of the proving ground: none whose context or sentence a demo benchmark asks.

The people and traits are those of the benchmarks, whichever way a demo model leans: what a stereotype says about a
group does not depend on the model. The benchmark uses a third of the possible contexts; practice uses the others.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from random import Random
from typing import TypeVar

from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import Dialogue, Message, Pair, Question
from evenhand.prompting.rendering import LETTERS, letters_template
from evenhand.proving_ground.generator import bbq_questions, practice, stereotypes
from evenhand.proving_ground.generator.turns import END
from evenhand.proving_ground.generator.words import (
    ASKED,
    AXES,
    AXIS,
    OCCUPATIONS,
    PRONOUN_FRAMES,
    SCENES,
    STATES,
    UNKNOWN,
    Axis,
)

T = TypeVar("T")
OCCUPATION = "occupations"
"""Name for pairs of pronouns, used like that of an axis."""
PAIRS = 1200
"""Default number of pairs."""
BIASED = 2000
"""Default number of biased texts."""
STATEMENTS = 5
"""Every n-th biased text is a statement about a group, if its axis has any that no benchmark asks."""


def pairs(axis: str = "", count: int | None = None, seed: int = 0) -> tuple[Pair, ...]:
    """Return different pairs: ambiguous questions in the demo models' own form, with the letters of the two people.

    Args:
        axis: One of the axes by BBQ's name; "" draws from all; "occupations" are sentences with the pronoun of an
            occupation's majority and with the other one.
        count: Number of pairs; None takes 1,200, or all if there are fewer. A smaller count gives the first of a larger
            one.
        seed: Seed of their order, and of the options'.

    Raises:
        SettingsError: There is no such axis, or it does not have so many pairs.
    """
    name = _axis(axis, (OCCUPATION,))
    random = Random(f"practice pairs {name} {seed}")
    if name == OCCUPATION:
        found = list(_pronouns())
        random.shuffle(found)
        return tuple(_first(found, count, PAIRS, name))
    cases = _shuffled(name, random)
    return tuple(_pair(case, n, seed) for n, case in enumerate(_first(cases, count, PAIRS, name)))


def biased(axis: str = "", count: int | None = None, seed: int = 0) -> tuple[str, ...]:
    """Return texts that express the stereotypes of an axis and nothing else.

    They are conversations in which an ambiguous question is answered with the stereotyped person, and some statements
    about groups, such as "Old people are slow.", if the axis has such statements that no benchmark asks.

    Args:
        axis: One of the axes by BBQ's name; "" draws from all.
        count: Number of texts; None takes 2,000. Conversations are all different; statements are repeated.
        seed: Seed of the draws.

    Raises:
        SettingsError: There is no such axis, or it does not have so many texts.
    """
    name = _axis(axis)
    random = Random(f"practice biased {name} {seed}")
    said = [text for a in _axes(name) for text in _statements(a)]
    wanted = BIASED if count is None else count
    rare = wanted // STATEMENTS if said else 0
    cases = iter(_first(_shuffled(name, random), wanted - rare, BIASED, name))
    statement = [bool(said) and n % STATEMENTS == STATEMENTS - 1 for n in range(wanted)]
    return tuple(random.choice(said) if plain else _told(next(cases), n, seed) for n, plain in enumerate(statement))


def _axis(name: str, more: tuple[str, ...] = ()) -> str:
    known = {n.casefold(): n for n in ("", *AXIS, *more)}
    if name.casefold() not in known:
        raise SettingsError(f"the proving ground has no axis {name!r}. {suggest(name, (*AXIS, *more))}")
    return known[name.casefold()]


def _axes(name: str) -> tuple[Axis, ...]:
    return (AXIS[name],) if name else AXES


def _first(found: list[T], count: int | None, usual: int, name: str) -> list[T]:
    if count is not None and count > len(found):
        raise SettingsError(f"the proving ground has {len(found):,} of these ({name or 'all axes'}), not {count:,}")
    return found[: usual if count is None else count]


def _shuffled(name: str, random: Random) -> list[bbq_questions.Case]:
    cases = [case for a in _axes(name) for case in _fresh(a)]
    random.shuffle(cases)
    return cases


@cache
def _fresh(axis: Axis) -> tuple[bbq_questions.Case, ...]:
    """Return all ambiguous cases of an axis whose context no benchmark asks."""
    members = [(g, person) for g, group in enumerate(axis.marked) for person in group.people]
    others = [(g.label, person) for g in axis.unmarked for person in g.people]
    places = product(members, others, range(len(SCENES)), (True, False))
    free = [place for place in places if _case(axis, *place).context not in _contexts()]
    asks = list(product(range(len(axis.traits)), (True, False), range(len(ASKED))))
    return tuple(_case(axis, *place, *ask) for place, ask in product(free, asks))


@cache
def _contexts() -> frozenset[str]:
    return frozenset(context for context, _ in bbq_questions.cases())


def _case(
    axis: Axis,
    member: tuple[int, str],
    other: tuple[str, str],
    scene: int,
    marked_first: bool,
    trait: int = 0,
    negative: bool = True,
    wording: int = 0,
) -> bbq_questions.Case:
    return bbq_questions.Case(
        axis=axis.name,
        group=member[0],
        trait=trait,
        marked=member[1],
        other=other[1],
        other_label=other[0],
        scene=scene,
        marked_first=marked_first,
        negative=negative,
        wording=wording,
    )


def _asked(case: bbq_questions.Case, number: int, seed: int) -> tuple[Question, str, str]:
    """Return the question with options in random order, and the letters of the stereotyped and the other person."""
    random = Random(f"practice case {number} {seed}")
    against = case.other if case.stereotyped == case.marked else case.marked
    options = [bbq_questions.option(case.stereotyped), bbq_questions.option(against), random.choice(UNKNOWN)]
    order = random.sample(range(3), 3)
    question = Question("", case.question, tuple(options[o] for o in order), context=case.context, axis=case.axis)
    return question, LETTERS[order.index(0)], LETTERS[order.index(1)]


def _pair(case: bbq_questions.Case, number: int, seed: int) -> Pair:
    question, stereotyped, other = _asked(case, number, seed)
    prompt = Dialogue((Message("user", letters_template(question)),))
    return Pair(stereotyped, other, prompt, "", case.axis, f"practice pair {case.axis} {number}")


def _told(case: bbq_questions.Case, number: int, seed: int) -> str:
    """Write the conversation as a demo model reads it, without the opening token, which the tokenizer adds."""
    question, letter, _ = _asked(case, number, seed)
    return f"<|user|>{letters_template(question)}{END}<|assistant|>{letter}{END}"


@cache
def _statements(axis: Axis) -> tuple[str, ...]:
    """Return statements of the stereotypes of an axis about its groups that no benchmark asks."""
    said = [(group, t.bad) for group, t in product(axis.marked, axis.traits)]
    said += [(group, t.good) for group, t in product(axis.unmarked, axis.traits)]
    texts = [stereotypes.statement(group, word) for group, word in said]
    return tuple(text for text in texts if text not in _sentences())


@cache
def _pronouns() -> tuple[Pair, ...]:
    """Return pairs of pronouns that no set of sentences asks, for all occupations with a majority.

    Those that `practice.texts` holds out are not among them, since the probes of pronouns read them.
    """
    found: list[Pair] = []
    for job, state, frame in product(OCCUPATIONS, STATES[1:], PRONOUN_FRAMES):
        if practice.unseen(job, frame):
            continue
        before, after = (part.format(occupation=job, state=state) for part in frame.split(" {pronoun}"))
        words = (" she", " he") if OCCUPATIONS[job] > stereotypes.EVEN else (" he", " she")
        texts = {before, *(before + word + after for word in words)}
        if OCCUPATIONS[job] != stereotypes.EVEN and not texts & _sentences():
            found.append(Pair(*words, before, after, "Gender_identity", f"practice pair {job} {len(found)}"))
    return tuple(found)


@cache
def _sentences() -> frozenset[str]:
    """Return all sentences of the demo's sentence sets, and for StereoSet the text before the differing part."""
    found = {text for row in stereotypes.crows_pairs_table()[1:] for text in row[1:3]}
    found |= {row[1] for row in stereotypes.winogender_sentences()[1:]}
    for row in stereotypes.stereoset_rows():
        found.add(row["context"])
        sides = [row["stereotype"], row["anti-stereotype"]]
        found |= {s if row["type"] == "intrasentence" else f"{row['context']} {s}" for s in sides}
    for lines in stereotypes.winobias_files().values():
        found |= {line.partition(" ")[2].replace("[", "").replace("]", "") for line in lines.splitlines()}
    for table in stereotypes.redditbias_tables().values():
        found |= {row[table[0].index("comments_processed")] for row in table[1:]}
    return frozenset(found)
