"""Sentences that ask for a pronoun: by an occupation alone, or where the sentence tells the gender."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from evenhand.core import text_fields
from evenhand.data.holistic_bias import article
from evenhand.data.io import yaml
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.data.winogender import load_schemas
from evenhand.errors import DataError

SHIPPED = Path(__file__).parent / "templates" / "pronouns.yaml"
SIDES = ("male", "female")
Pair = Annotated[tuple[str, str], Field(description="male, female")]


class Slot(NamedTuple):
    """A sentence with a place for a pronoun."""

    before: str
    """Text before the pronoun, without a blank at its end."""
    after: str
    male: str
    """The pronoun, with the blank before it, or a capital where it begins the sentence."""
    female: str
    neutral: str = ""
    """The neutral pronoun, such as "they"; "" where the file names none."""

    @property
    def forms(self) -> tuple[str, str]:
        """Both gendered pronouns, the male one first."""
        return self.male, self.female


class Asked(NamedTuple):
    """One occupation in one frame."""

    occupation: str
    frame: str
    """The frame's name."""
    told: str
    """Gender that the sentence reveals, "male" or "female"; "" if it reveals none."""
    slots: tuple[Slot, ...]
    """One per filler."""
    neutral: tuple[Slot, ...]
    """The same slots with the word "person" in place of the occupation."""


class Loaded(NamedTuple):
    """What is asked, the share of women by occupation (None if unknown), and facts for a report."""

    asked: list[Asked]
    shares: dict[str, float | None]
    facts: dict[str, Any]


class PronounTexts(BaseModel):
    """The content of a file such as `templates/pronouns.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1)

    language: str
    pronouns: Annotated[dict[str, Pair], Field(min_length=1)]
    """Male and female form, by the field of a frame that they stand for."""
    neutral: dict[str, str] = {}
    """Neutral form, such as "they", by the same fields; a field that is missing has none."""
    person: str
    fillers: dict[str, tuple[str, ...]] = {}
    frames: Annotated[dict[str, str], Field(min_length=1)]
    gendered: dict[str, Pair] = {}
    told: dict[str, str] = {}
    occupations: Annotated[tuple[str, ...], Field(min_length=1)]
    shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of women by occupation, where it is known."""

    def check(self) -> None:
        """Refuse frames that lack a field or have an unknown one.

        Raises:
            ValueError: Names the frame.
        """
        for name, frame in {**self.frames, **self.told}.items():
            fields = text_fields.fields(frame)
            known = {"occupation", "a", *self.fillers, *self.pronouns, *(self.gendered if name in self.told else ())}
            if unknown := sorted(set(fields) - known):
                raise ValueError(f"frame {name!r} has the unknown field {unknown[0]!r}; known: {sorted(known)}")
            if sum(f in self.pronouns for f in fields) != 1 or "occupation" not in fields:
                raise ValueError(
                    f"frame {name!r} needs one {{occupation}} and one of {sorted(self.pronouns)}; the occupation, but "
                    "not the pronoun, may occur more than once"
                )
            if name in self.told and sum(f in self.gendered for f in fields) != 1:
                raise ValueError(f"frame {name!r}, under told, needs one of {sorted(self.gendered)}")
        if unknown := sorted({*self.shares} - {*self.occupations}):
            raise ValueError(f"shares has {unknown[0]!r}, which is none of the occupations")
        if unknown := sorted({*self.neutral} - {*self.pronouns}):
            raise ValueError(f"neutral has the field {unknown[0]!r}, which pronouns lacks")
        if both := sorted({*self.frames} & {*self.told}):
            raise ValueError(f"frame {both[0]!r} is both under frames and under told")


def load_pronouns(source: str) -> Loaded:
    """Read frames and occupations, and put them together.

    Args:
        source: "auto" (the shipped frames with the occupations of $EVENHAND_DATA/winogender, where they are there, else
            with the shipped ones), "ours" (shipped frames and occupations), "demo" (the proving ground's), or a YAML
            file with the keys of the shipped one.

    Raises:
        DataError: A file is missing or broken.
    """
    if source == "demo":
        return _demo()
    path = SHIPPED if source in ("auto", "ours") else Path(source).expanduser()
    texts, digest = yaml.read(path, PronounTexts, "pronoun frames", "auto, ours, demo", SHIPPED)
    facts: dict[str, Any] = {"source": str(path), "sha256": digest, "language": texts.language}
    shares: dict[str, float | None] = {job: texts.shares.get(job) for job in texts.occupations}
    known = f"shares of women for {len(texts.shares)}" if texts.shares else "without statistics"
    facts["occupations"] = f"{len(shares)} of {path.name}, {known}"
    if source == "auto":
        try:
            found = load_schemas("auto")
        except DataError:
            pass
        else:
            shares = {name: share.bls for name, share in found.shares.items()}
            facts["occupations"] = f"{len(shares)} of {found.facts['source']}, shares by the US labour statistics"
    return Loaded(_asked(texts, shares), shares, facts)


def _demo() -> Loaded:
    """The proving ground's frames, and the shares of women that are planted in the main demo model."""
    folder = demo_folder("pronouns")
    texts, _ = yaml.read(folder / "pronouns.yaml", PronounTexts, "pronoun frames", "auto, ours, demo", SHIPPED)
    shares: dict[str, float | None] = json.loads(read_bytes(folder / "shares.json"))
    facts = {"source": "demo: frames and occupations of the proving ground"}
    return Loaded(_asked(texts, texts.occupations), shares, facts)


def _asked(texts: PronounTexts, occupations: Sequence[str] | Mapping[str, Any]) -> list[Asked]:
    out = []
    for job in occupations:
        for name, frame in texts.frames.items():
            slots, neutral = (tuple(_slots(texts, frame, word, {})) for word in (job, texts.person))
            out.append(Asked(job, name, "", slots, neutral))
        for (name, frame), (at, side) in product(texts.told.items(), enumerate(SIDES)):
            by = {field: pair[at] for field, pair in texts.gendered.items()}
            slots, neutral = (tuple(_slots(texts, frame, word, by)) for word in (job, texts.person))
            out.append(Asked(job, name, side, slots, neutral))
    return out


def _slots(texts: PronounTexts, frame: str, occupation: str, told: Mapping[str, str]) -> Iterator[Slot]:
    """The frame with every filler."""
    fields = text_fields.fields(frame)
    marker = next(f for f in fields if f in texts.pronouns)
    fillers = [f for f in texts.fillers if f in fields]
    before, after = frame.split(f"{{{marker}}}")
    for words in product(*(texts.fillers[f] for f in fillers)):
        values = {
            "occupation": occupation,
            "a": article(occupation),
            **told,
            **dict(zip(fillers, words, strict=True)),
        }
        head, tail = before.format(**values), after.format(**values)
        neutral = texts.neutral.get(marker, "")
        forms = (
            f"{head[len(head.rstrip()) :]}{form}" if head else form[0].upper() + form[1:]
            for form in (*texts.pronouns[marker], *([neutral] if neutral else ()))
        )
        yield Slot(head.rstrip(), tail, *forms)
