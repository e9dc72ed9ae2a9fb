"""UnQover's questions, generated from its word lists (Li et al., Findings of EMNLP 2020, arXiv 2010.02428).

Every question names two people or places and asks, without any hint, which of them did something; its twin asks the
negated question. The lists are read from your copy of allenai/unqover (3e47969, Apache-2.0, folder word_lists), and
what they make is never stored here: the activities are offensive on purpose. All combinations are about 13.5 million
questions, so subjects and activities are drawn by a seed, and every pair of drawn subjects is asked about every drawn
activity in every template, in both orders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from evenhand.core.draws import seeded_order
from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate, rows
from evenhand.data.io.content import read_bytes
from evenhand.data.io.content import text_of as content_text
from evenhand.data.io.row_counts import demand_rows
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="unqover",
    hub="",
    revision="",
    patterns=(),
    licence="Apache-2.0",
    home="github.com/allenai/unqover (commit 3e47969), folder word_lists",
)
Kind = Literal["country", "ethnicity", "religion", "gender"]
T = TypeVar("T")
KINDS: tuple[Kind, ...] = ("country", "ethnicity", "religion", "gender")
SIZES = {"country": 69, "ethnicity": 15, "religion": 11, "female": 70, "male": 70}
"""Subjects of the published lists."""
SUBJECTS: Mapping[str, tuple[str, ...]] = {kind: (kind,) for kind in KINDS[:3]} | {"gender": ("female", "male")}
"""Lists of subjects of a kind; of two lists, pairs have one subject of each."""
_FILES = {
    "country": ("activities/biased_country", "slots/country_noact"),
    "ethnicity": ("activities/biased_ethnicity", "slots/ethnicity_noact"),
    "religion": ("activities/biased_religion", "slots/religion_noact"),
    "gender": ("activities/occupation_rev1", "slots/gender_noact"),
}
_LINE = re.compile(r"\[([\w:-]+)\]\s*(?:([\w -]*?)\s*\|)?\s*(.+)")
_SUBJECT = re.compile(r"(?:\b([Aa])n? )?\[subj([12])(:dem)?\]")
_ACTIVITY = re.compile(r"\[([lp]_act)(-single)?(:neg)?\]")
_AN = re.compile(r"(?!eu|u[gkrt]|uni)[aeiou]", re.I)
"""What "an" stands before: a vowel that is not spoken as in "European"."""


class Subject(NamedTuple):
    """A person or place."""

    name: str
    demonym: str
    """What its people are called; the name itself where the list has none."""
    group: str
    """The list that it is of."""


class Activity(NamedTuple):
    """Something that is asked about."""

    id: str
    """Its tag and its number in the list, such as "p_act 3"."""
    forms: Mapping[str, str]
    """Phrases by the rest of the tag: "", ":neg", "-single", "-single:neg"."""


class Slot(NamedTuple):
    """A template."""

    id: str
    context: str
    question: str
    negated: str


class Lists(NamedTuple):
    """The word lists of one kind."""

    subjects: tuple[tuple[Subject, ...], ...]
    activities: tuple[Activity, ...]
    slots: tuple[Slot, ...]


class Asked(NamedTuple):
    """Two subjects, a template and an activity, as they are asked about."""

    kind: str
    slot: str
    activity: str
    subjects: tuple[str, str]
    """Names of both."""
    options: tuple[str, str]
    """What both are called in the texts."""
    contexts: tuple[str, str]
    """With the first subject first, and with the second one first."""
    question: str
    negated: str


class Loaded(NamedTuple):
    """What is asked, and its facts for a report."""

    asked: list[Asked]
    facts: dict[str, Any]


def load(
    source: str,
    kinds: Sequence[str] = (),
    *,
    subjects: int = 6,
    activities: int = 5,
    seed: int = 0,
    partial: bool = False,
) -> Loaded:
    """Read the lists, and make the questions.

    Args:
        source: "auto" ($EVENHAND_DATA/unqover), "demo" (lists of ours), or a folder with word_lists.
        kinds: Only these; empty takes all that are there.
        subjects: Most subjects per kind, drawn by the seed; 0 takes all.
        activities: Most activities per kind and tag, likewise.
        seed: Seed of the draws.
        partial: Whether lists of another length than the published ones are accepted.

    Raises:
        DataError: A list is missing, broken, or not of the published length.
    """
    if source == "demo":
        lists = {kind: _lists(kind, _DEMO.__getitem__) for kind in ("country", "gender")}
        facts: dict[str, Any] = {"source": _DEMO_SAID}
        notes: list[str] = []
    else:
        folder = _folder(locate.locate(DATASET, source))
        lists, digests, notes = _read(folder, partial)
        facts = {"source": str(folder), "files": digests}
    asked = [
        a
        for kind, mine in lists.items()
        if kind in kinds or not kinds
        for a in _asked(kind, _drawn(kind, mine, subjects, activities, seed))
    ]
    if not asked:
        raise DataError(f"{source} has nothing of the kinds {', '.join(kinds)}; it has {', '.join(lists)}")
    return Loaded(asked, {**facts, "items": len(asked), "dropped": [], "notes": notes})


def _read(folder: Path, partial: bool) -> tuple[dict[str, Lists], dict[str, str], list[str]]:
    """The lists of all kinds, the hashes of their files, and notes on their lengths."""
    digests: dict[str, str] = {}

    def text_of(name: str) -> str:
        content = read_bytes(folder / name)
        digests[name] = bytes_hash(content)
        return content_text(folder / name, content)

    try:
        lists: dict[str, Lists] = {kind: _lists(kind, text_of) for kind in KINDS}
    except rows.Refused as error:
        raise DataError(f"{folder / str(error)}") from error
    notes = []
    for kind, found in lists.items():
        for name, mine in zip(SUBJECTS[kind], found.subjects, strict=True):
            place = folder / "nouns" / "subjects" / name
            notes += demand_rows("subjects", len(mine), SIZES[name], place, partial=partial, benchmark=DATASET.name)
    return lists, digests, notes


def _folder(path: Path) -> Path:
    for folder in (path, path / "word_lists"):
        if (folder / "nouns" / "subjects").is_dir():
            return folder
    raise DataError(f"{path} holds no folder nouns/subjects of UnQover's word lists. {locate.how_to_get(DATASET)}")


def _lists(kind: str, text_of: Callable[[str], str]) -> Lists:
    """The lists of one kind, from a function that gives the text of a file.

    Raises:
        Refused: Subjects and demonyms, or the forms of activities, are not equally many; or a template is broken.
    """
    activities, slots = _FILES[kind]
    subjects = tuple(_subjects(name, text_of(f"nouns/subjects/{name}")) for name in SUBJECTS[kind])
    return Lists(subjects, _activities(activities, text_of(activities)), _slots(slots, text_of(slots)))


def _entries(name: str, text: str) -> dict[str, list[str]]:
    """The entries of a list by tag, without the class that some have before a bar."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(rows.lines(text), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise rows.Refused(f"{name}:{number}: {line[:40]!r} is not '[tag] class | entry'; take the list again")
        found.setdefault(match[1], []).append(match[3].strip())
    return found


def _subjects(name: str, text: str) -> tuple[Subject, ...]:
    place = f"nouns/subjects/{name}"
    found = _entries(place, text)
    names = found.get("subj", [])
    demonyms = found.get("subj:dem", names)
    if not names or len(demonyms) != len(names) or len(set(names)) < len(names):
        raise rows.Refused(
            f"{place}: {len(names)} different subjects and {len(demonyms)} demonyms; as many of both are needed"
        )
    return tuple(Subject(one, dem, name) for one, dem in zip(names, demonyms, strict=True))


def _activities(name: str, text: str) -> tuple[Activity, ...]:
    found = _entries(name, text)
    out = []
    for base in ("l_act", "p_act"):
        forms = {tag.removeprefix(base): phrases for tag, phrases in found.items() if tag.startswith(base)}
        if len({len(phrases) for phrases in forms.values()}) > 1 or ("" in forms) != (":neg" in forms):
            counts = ", ".join(f"{base}{form}: {len(phrases)}" for form, phrases in forms.items())
            raise rows.Refused(f"{name}: the forms of activities are not equally many ({counts}); take the list again")
        for n, phrases in enumerate(zip(*forms.values(), strict=True)):
            out.append(Activity(f"{base} {n}", dict(zip(forms, phrases, strict=True))))
    return tuple(out)


def _slots(name: str, text: str) -> tuple[Slot, ...]:
    out: list[Slot] = []
    for line in filter(str.strip, rows.lines(text)):
        parts = [part.strip() for part in line.split("\t")]
        if len(parts) != 3 or not _ACTIVITY.search(parts[1]) or not _ACTIVITY.search(parts[2]):
            raise rows.Refused(f"{name}: {line[:40]!r} is not a context, a question and a negated question, with tabs")
        out.append(Slot(str(len(out)), parts[0], parts[1], parts[2]))
    return tuple(out)


def _drawn(kind: str, lists: Lists, subjects: int, activities: int, seed: int) -> Lists:
    """The lists with a part of the subjects and activities, in their order."""
    each = -(-subjects // len(lists.subjects))
    kept = tuple(_part(s, [x.name for x in s], each, seed, f"{kind} subjects") for s in lists.subjects)
    acts: list[Activity] = []
    for base in ("l_act", "p_act"):
        mine = [a for a in lists.activities if a.id.startswith(base)]
        acts += _part(mine, [a.id for a in mine], activities, seed, f"{kind} activities")
    return Lists(kept, tuple(acts), lists.slots)


def _part(things: Sequence[T], names: Sequence[str], count: int, seed: int, what: str) -> tuple[T, ...]:
    """The things whose names come first in a seeded order; all where `count` is 0."""
    kept = {*(seeded_order(names, seed, f"unqover {what}")[: count or None])}
    return tuple(thing for thing, name in zip(things, names, strict=True) if name in kept)


def _asked(kind: str, lists: Lists) -> Iterator[Asked]:
    """Every pair of subjects in every template about every activity that fits it."""
    groups = lists.subjects
    pairs = list(product(*groups) if len(groups) == 2 else combinations(groups[0], 2))
    for slot, activity in product(lists.slots, lists.activities):
        phrases = [_phrase(text, activity) for text in (slot.question, slot.negated)]
        if None in phrases:
            continue
        question, negated = (str(p) for p in phrases)
        for one, two in pairs:
            demonym = ":dem]" in slot.context
            options = (one.demonym, two.demonym) if demonym else (one.name, two.name)
            contexts = (filled(slot.context, one, two), filled(slot.context, two, one))
            yield Asked(kind, slot.id, activity.id, (one.name, two.name), options, contexts, question, negated)


def _phrase(text: str, activity: Activity) -> str | None:
    """A question about the activity; None where the template asks about another tag."""
    found = _ACTIVITY.search(text)
    if found is None or found[1] != activity.id.split()[0]:
        return None
    form = f"{found[2] or ''}{found[3] or ''}"
    return _ACTIVITY.sub(lambda _: activity.forms[form], text) if form in activity.forms else None


def filled(context: str, one: Subject, two: Subject) -> str:
    """A template's context with both subjects; "a" before them becomes "an" where it is spoken so."""

    def word(found: re.Match[str]) -> str:
        subject = (one, two)[int(found[2]) - 1]
        said = subject.demonym if found[3] else subject.name
        article = f"{found[1]}{'n' if _AN.match(said) else ''} " if found[1] else ""
        return article + said

    return _SUBJECT.sub(word, context)


_DEMO_SAID = "demo: harmless lists of ours, not UnQover's"
_DEMO = {
    "nouns/subjects/country": "[subj] Northland\n[subj] Eastland\n[subj] Southland\n[subj] Islandia\n"
    "[subj:dem] Northlander\n[subj:dem] Eastlander\n[subj:dem] Southlander\n[subj:dem] Islandian\n",
    "nouns/subjects/female": "[subj] female | Ada\n[subj] female | Mary\n",
    "nouns/subjects/male": "[subj] male | Otto\n[subj] male | John\n",
    "activities/biased_country": "\n".join(
        f"[{base}{form}] demo | {word}{phrase}"
        for base, words in (("l_act", ("had rain", "had music")), ("p_act", ("liked tea", "sang songs")))
        for form, word in (("", ""), (":neg", "never "), ("-single", ""), ("-single:neg", "never "))
        for phrase in words
    ),
    "slots/country_noact": "[subj1] plays chess with [subj2].\tWhich place [l_act-single]?\t"
    "Which place [l_act-single:neg]?\n"
    "A [subj1:dem] met a [subj2:dem].\tWho [p_act-single]?\tWho [p_act-single:neg]?\n"
    "Next to a [subj1:dem] sat a [subj2:dem].\tWho [p_act-single]?\tWho [p_act-single:neg]?\n",
    "activities/occupation_rev1": "[p_act] was a baker\n[p_act] was a singer\n"
    "[p_act:neg] can never be a baker\n[p_act:neg] can never be a singer\n",
    "slots/gender_noact": "[subj1] met [subj2].\tWho [p_act]?\tWho [p_act:neg]?\n"
    "[subj1] wrote to [subj2].\tWho [p_act]?\tWho [p_act:neg]?\n",
}
"""Texts of the demo's files."""
