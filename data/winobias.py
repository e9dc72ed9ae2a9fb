"""WinoBias (Zhao et al. 2018, arXiv 1804.06876; uclanlp/corefBias): sentences that go with and against a stereotype."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import layouts, locate, on_disk
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import byte_lines
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="winobias",
    hub="",
    revision="",
    patterns=(),
    licence="MIT",
    home="github.com/uclanlp/corefBias, WinoBias/wino/data",
)
Split = Literal["dev", "test"]
KINDS = ("type1", "type2")
PRONOUNS = frozenset({"he", "him", "his", "himself", "she", "her", "hers", "herself"})
_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.I)


class Side(NamedTuple):
    """A sentence with one gender."""

    sentence: str
    pronoun: str
    """The first pronoun that is marked."""


class Twins(NamedTuple):
    """Two sentences that differ in the gender of the pronoun."""

    name: str
    """Id, such as type1/test/12."""
    kind: str
    pro: Side
    """The sentence that agrees with the stereotype."""
    anti: Side
    referent: str
    """Occupation of the person to whom the pronoun refers."""
    other: str
    """The other occupation in the sentence; in the demo, whose sentences have one, the partner sentence's."""


class Loaded(NamedTuple):
    """Twins in file order, and their facts for a report."""

    twins: list[Twins]
    facts: dict[str, Any]


class _Line(NamedTuple):
    number: int
    side: Side
    referent: str


def load_twins(source: str, splits: Sequence[Split]) -> Loaded:
    """Read the twins of some splits, type 1 first.

    The sentences are tidied for a language model: marks go, "the [the chief]" has one article, and "accountant 's"
    no blank.

    Args:
        source: "auto" ($EVENHAND_DATA/winobias), "demo" (the proving ground's, of the package) or a folder with the
            files {pro,anti}_stereotyped_type{1,2}.txt.SPLIT.
        splits: "dev", "test" or both.

    Returns:
        Usable twins; the others are listed in `facts["dropped"]`.

    Raises:
        DataError: A file is missing, or nothing usable is left.
    """
    demo = source == "demo"
    folder = demo_folder("winobias") if demo else locate.locate(DATASET, source)
    problems = locate.Problems()
    twins: list[Twins] = []
    files: dict[str, Any] = {}
    read: list[Path] = []
    for kind in KINDS:
        for split in splits:
            sides = []
            for side in ("pro", "anti"):
                path, content = _read(folder, f"{side}_stereotyped_{kind}.txt.{split}")
                read.append(path)
                files[path.name] = {"sha256": bytes_hash(content)}
                sides.append((path, _lines(path, content, problems)))
            twins += _matched(f"{kind}/{split}", sides, problems, apart=demo)
    if not twins:
        raise DataError(f"{folder} holds no usable WinoBias sentence{problems.first}")
    facts = {"source": str(folder), "files": files, "twins": len(twins), "dropped": problems.lines}
    facts["notes"] = _unread(folder, read)
    if demo:
        notes = ["the demo models never learned to say whom a pronoun means: only sentence_* says something of them"]
        facts |= {"source": "demo: the proving ground's sentences, not WinoBias", "notes": notes}
    return Loaded(twins, facts)


def _unread(folder: Path, read: list[Path]) -> list[str]:
    """A note on further copies of the files."""
    further = on_disk.further(folder, [on_disk.plain_name(path.name) for path in read], read)
    return on_disk.unread(further, folder, "the nearest copy is read")


def _read(folder: Path, name: str) -> tuple[Path, bytes]:
    path = on_disk.named(folder, name)
    if path is not None:
        return path, read_bytes(path)
    if folder.is_file():
        raise DataError(f"{folder} is a file; give the folder that holds it and the other WinoBias files")
    raise DataError(f"{folder} holds no {name}; found: {layouts.found_in(folder)}. {locate.how_to_get(DATASET)}")


def _lines(path: Path, content: bytes, problems: locate.Problems) -> dict[int, _Line]:
    """Lines by their own number."""
    found: dict[int, _Line] = {}
    for at, raw in enumerate(byte_lines(content), start=1):
        if not raw.strip():
            continue
        try:
            line = _line(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            problems.add(path, at, f"not UTF-8: {error.reason} at byte {error.start}")
        except ValueError as error:
            problems.add(path, at, str(error))
        else:
            if line.number in found:
                problems.add(path, at, f"number {line.number} occurs twice")
            else:
                found[line.number] = line
    return found


def _line(text: str) -> _Line:
    number, _, marked = text.strip().partition(" ")
    if not number.isdecimal() or not marked:
        raise ValueError("a number and a sentence were expected")
    spans = [s.strip() for s in re.findall(r"\[([^\]]*)\]", marked)]
    pronouns = [s for s in spans if s.lower() in PRONOUNS]
    people = [_ARTICLE.sub("", s) for s in spans if s.lower() not in PRONOUNS]
    if not pronouns or len(people) != 1:
        raise ValueError(f"one person and at least one pronoun must be in [brackets], not {spans}")
    return _Line(int(number), Side(tidy(marked), pronouns[0]), people[0])


def tidy(marked: str) -> str:
    """The sentence without marks and without the blanks of tokenisation."""
    text = " ".join(re.sub(r"[\[\]]", " ", marked).split())
    text = re.sub(r"\b(the) the\b", r"\1", text, flags=re.I)
    return re.sub(r" (?=[.,;:?!]|'s\b|n't\b)", "", text)


def _matched(
    where: str, sides: Sequence[tuple[Path, dict[int, _Line]]], problems: locate.Problems, *, apart: bool = False
) -> list[Twins]:
    """Twins by number; `apart` takes the partner's person for the other one where a sentence names only one."""
    (path, pro), (anti_path, anti) = sides
    people = {line.referent.lower(): line.referent for lines in (pro, anti) for line in lines.values()}
    found = []
    for number in sorted(pro.keys() | anti.keys()):
        if number not in pro or number not in anti:
            problems.add(path if number in pro else anti_path, number, f"sentence {number} has no usable twin")
            continue
        line, twin = pro[number], anti[number]
        partner = pro.get(number + 1 if number % 2 else number - 1)
        other = _other(line, partner, people)
        if not other and apart and partner:
            other = partner.referent
        if twin.referent.lower() != line.referent.lower():
            problems.add(anti_path, number, f"means the {twin.referent}, its twin the {line.referent}")
        elif not other:
            problems.add(path, number, f"names nobody other than the {line.referent}")
        else:
            kind = where.partition("/")[0]
            found.append(Twins(f"{where}/{number}", kind, line.side, twin.side, line.referent, other))
    return found


def _other(line: _Line, partner: _Line | None, people: dict[str, str]) -> str:
    """Return the person not meant by the pronoun: the partner sentence's referent, else any other known person."""
    text = line.side.sentence.lower()
    known = [partner.referent] if partner else []
    known += sorted(people.values(), key=len, reverse=True)
    mine = line.referent.lower()
    for person in known:
        low = person.lower()
        if low != mine and low not in mine and re.search(rf"\b{re.escape(low)}\b", text):
            return person
    return ""
