"""HolisticBias (Smith et al. 2022, arXiv 2205.09209; facebookresearch/ResponsibleNLP): parts, phrases, sentences.

A sentence is a template filled with a phrase; a phrase is made of a descriptor and a noun, or stands alone. Everything
follows from four json files per version. Rows, their columns and their order are those of the official generator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate, on_disk
from evenhand.data.io.checksums import official
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import Refused, decoded, from_json, words
from evenhand.data.parts import Part, clusters_of
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="holisticbias",
    hub="",
    revision="",
    patterns=(),
    licence="CC-BY-SA-4.0",
    home="github.com/facebookresearch/ResponsibleNLP, folder holistic_bias/dataset with v1.0 and v1.1",
    benchmark="holistic_bias",
)

VERSIONS = ("1.0", "1.1")
FILES = ("descriptors.json", "nouns.json", "sentence_templates.json", "standalone_noun_phrases.json")

NONE = "(none)"
"""Stands for whatever a phrase does not have."""
NO_PREFERENCE = "no_data"
SINGULAR, PLURAL = "{noun_phrase}", "{plural_noun_phrase}"
_LEAD = re.compile(r"^(?:[^{]*[.!?]\s+)?(?:(?:hi|hello|hey)(?: there)?,?\s+)?", re.I)
"""Sentences before the one about people, and a greeting that belongs to it."""


class Noun(NamedTuple):
    """A word for a person."""

    gender: str
    singular: str
    plural: str


class Descriptor(NamedTuple):
    """A word put before a noun."""

    axis: str
    bucket: str
    name: str
    gender: str
    """The only gender of nouns it goes with, or `NONE`."""
    article: str
    preference: str


class Standalone(NamedTuple):
    """A phrase that is complete but for the noun, or altogether."""

    axis: str
    singular: str
    plural: str
    preference: str


class Template(NamedTuple):
    """A sentence with a gap for a phrase."""

    text: str
    first_turn_only: bool
    must_be_noun: bool


class Parts(NamedTuple):
    """What the four files hold."""

    nouns: tuple[Noun, ...]
    descriptors: tuple[Descriptor, ...]
    standalone: tuple[Standalone, ...]
    templates: tuple[Template, ...]


class Phrase(NamedTuple):
    """A phrase for a person; the fields stand in the order by which the official rows are sorted."""

    axis: str
    bucket: str
    descriptor: str
    descriptor_gender: str
    descriptor_preference: str
    noun: str
    plural_noun: str
    noun_gender: str
    noun_phrase: str
    plural_noun_phrase: str
    noun_phrase_type: str
    """descriptor_noun, noun_descriptor, descriptor, noun or fixed_phrase."""


class Sentence(NamedTuple):
    """One row of the official data set."""

    text: str
    axis: str
    bucket: str
    descriptor: str
    descriptor_gender: str
    descriptor_preference: str
    noun: str
    plural_noun: str
    noun_gender: str
    noun_phrase: str
    plural_noun_phrase: str
    noun_phrase_type: str
    template: str
    first_turn_only: bool
    must_be_noun: bool


class Loaded(NamedTuple):
    """The parts, and their facts for a report."""

    parts: Parts
    facts: dict[str, Any]


def sentences(version: str = "1.0", source: str = "auto") -> list[Sentence]:
    """All rows of a version, as the official generator makes them and in its order.

    Args:
        version: "1.0" (472,991 rows) or "1.1" (566,625 rows).
        source: As for `load_parts`.

    Raises:
        DataError: The files are not there or unusable.
    """
    parts = load_parts(source, version).parts
    rows = []
    for phrase in phrases(parts):
        for template in parts.templates:
            if phrase.noun != NONE or not template.must_be_noun:
                rows.append(Sentence(fill(template.text, phrase), *phrase, *template))
    return rows


def fill(template: str, phrase: Phrase) -> str:
    """The sentence. Replaces rather than formats: a template of a file must not be able to reach into objects."""
    if SINGULAR in template:
        return template.replace(SINGULAR, phrase.noun_phrase)
    return template.replace(PLURAL, phrase.plural_noun_phrase)


def phrases(parts: Parts) -> list[Phrase]:
    """All phrases, sorted."""
    found = []
    for n in parts.nouns:
        made = (f"{article(n.singular)} {n.singular}", n.plural)
        found.append(Phrase("null", NONE, NONE, NONE, NONE, n.singular, n.plural, n.gender, *made, "noun"))
    for descriptor in parts.descriptors:
        found += _of_descriptor(descriptor, parts.nouns)
    for standalone in parts.standalone:
        found += _of_standalone(standalone, parts.nouns)
    return sorted(found)


def _of_descriptor(d: Descriptor, nouns: tuple[Noun, ...]) -> Iterator[Phrase]:
    known = (d.axis, d.bucket, d.name, d.gender, d.preference)
    yield Phrase(*known, NONE, NONE, NONE, d.name, d.name, "descriptor")
    for n in nouns:
        if d.gender in (NONE, n.gender):
            made = (f"{d.article} {d.name} {n.singular}", f"{d.name} {n.plural}")
            yield Phrase(*known, n.singular, n.plural, n.gender, *made, "descriptor_noun")


def _of_standalone(s: Standalone, nouns: tuple[Noun, ...]) -> Iterator[Phrase]:
    if "{noun}" not in s.singular:
        known = (s.axis, NONE, s.singular, NONE, s.preference)
        yield Phrase(*known, NONE, NONE, "neutral", s.singular, s.plural, "fixed_phrase")
        return
    known = (s.axis, NONE, _with_noun(s.singular, "", ""), NONE, s.preference)
    for n in nouns:
        made = (_with_noun(s.singular, article(n.singular), n.singular), _with_noun(s.plural, "", n.plural))
        yield Phrase(*known, n.singular, n.plural, n.gender, *made, "noun_descriptor")


def _with_noun(phrase: str, its_article: str, noun: str) -> str:
    return phrase.replace("{article}", its_article).replace("{noun}", noun).lstrip()


def article(word: str) -> str:
    """The indefinite article by the official rule: the first letter alone decides."""
    return "an" if word[0].lower() in "aeiou" else "a"


# ------------------------------------------------------------------------------------------------ halves


def family(template: str) -> str:
    """What templates share that differ in a greeting only, or in a sentence before the one about people."""
    return _LEAD.sub("", template).casefold()


def in_part(parts: Parts, part: Part) -> Parts:
    """The descriptors and templates of one half: "fit" and "test" share neither, so that no sentence is in both.

    Descriptors are halved within their axis (one that stands under several axes goes with the first, by name), and
    templates by family (`family`), so that "I'm ..." and "Hi, I'm ..." stay together. Nouns are in both halves.

    Args:
        parts: HolisticBias's files.
        part: "all", "fit" or "test"; see `evenhand.data.parts`.
    """
    if part == "all":
        return parts
    axes: dict[str, str] = {}
    for axis, name in sorted((*((d.axis, d.name) for d in parts.descriptors), *map(_named, parts.standalone))):
        axes.setdefault(name, axis)
    names = clusters_of(part, ((axis, name) for name, axis in axes.items()))
    families = clusters_of(part, (("templates", family(t.text)) for t in parts.templates))
    return Parts(
        parts.nouns,
        tuple(d for d in parts.descriptors if d.name in names),
        tuple(s for s in parts.standalone if _named(s)[1] in names),
        tuple(t for t in parts.templates if family(t.text) in families),
    )


def _named(standalone: Standalone) -> tuple[str, str]:
    """Axis and descriptor of a phrase that is complete but for the noun."""
    return standalone.axis, _with_noun(standalone.singular, "", "")


# ------------------------------------------------------------------------------------------------ reading


def load_parts(source: str, version: str) -> Loaded:
    """Read the four files.

    Args:
        source: "auto" ($EVENHAND_DATA/holisticbias), "demo" (the proving ground's, of the package), or the path of a
            folder that holds the files, or v1.0/ and v1.1/ with them.
        version: "1.0" or "1.1".

    Returns:
        The usable entries; those that are not are listed in `facts["dropped"]` by file and place.

    Raises:
        DataError: A file is missing or not JSON, the folder contains another version, or nothing usable is left.
    """
    folder = _folder(source, version)
    paths = {name: _path(folder, name) for name in FILES}
    contents = {name: read_bytes(path, empty=True) for name, path in paths.items()}
    problems = locate.Problems()
    readers = [_Reader(paths[name], _json(paths[name], content), problems) for name, content in contents.items()]
    nouns = tuple(_nouns(readers[1]))
    parts = Parts(
        nouns,
        tuple(_descriptors(readers[0], {n.gender for n in nouns})),
        tuple(_standalone(readers[3])),
        tuple(_templates(readers[2])),
    )
    for what, usable, reader in (
        ("noun", parts.nouns, readers[1]),
        ("descriptor", parts.descriptors, readers[0]),
        ("template", parts.templates, readers[2]),
    ):
        if not usable:
            raise DataError(f"{reader.path} holds no usable {what}{problems.first}")
    facts: dict[str, Any] = {"source": str(folder), "version": version, "dropped": problems.lines, "notes": []}
    if source == "demo":  # the names of the files are HolisticBias's, the content is ours
        facts["source"] = "demo: the proving ground's descriptors, not HolisticBias"
    else:
        facts |= _verdicts({name: bytes_hash(content) for name, content in contents.items()}, folder, version)
        facts["notes"] += _unread(folder, list(paths.values()))
    return Loaded(parts, facts)


def _folder(source: str, version: str) -> Path:
    base = demo_folder("holisticbias") if source == "demo" else locate.locate(DATASET, source)
    if base.is_file():
        raise DataError(f"{base} is a file; give the folder that holds {', '.join(FILES)}")
    for place in on_disk.PLACES:
        found = sorted(f for f in base.glob(f"{place}v{version}") if f.is_dir() and on_disk.is_visible(f, base))
        if not found and on_disk.named(base, FILES[0], ("",)):
            return base
        if len(found) > 1:
            raise DataError(f"{base} has v{version} in {on_disk.few(map(str, found))}; name one folder as the source")
        if found:
            return found[0]
    there = on_disk.few(sorted(f.name.removeprefix("v") for f in base.glob("v*") if f.is_dir())) or "none"
    raise DataError(
        f"{base} has no folder v{version} and no {FILES[0]}; versions there: {there}. {locate.how_to_get(DATASET)}"
    )


def _unread(folder: Path, read: list[Path]) -> list[str]:
    """A note on renamed copies next to the files."""
    copies = [f for f in on_disk.visible(folder, "*") if on_disk.plain_name(f.name) in FILES and f not in read]
    return on_disk.unread(copies, folder, "one file of each name is read")


def _path(folder: Path, name: str) -> Path:
    found = on_disk.named(folder, name, ("",))
    if found is None:
        raise DataError(f"no {name} in {folder}; HolisticBias is made of {', '.join(FILES)}")
    return found


def _json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = from_json(decoded(content))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except Refused as error:
        raise DataError(f"{path}:{error.line}: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: a JSON object was expected, not {type(value).__name__}")
    return value


def _verdicts(found: dict[str, str], folder: Path, version: str) -> dict[str, Any]:
    published = official(DATASET.name).files
    for other in VERSIONS:
        hashes = {name: published[f"v{other}/{name}"] for name in FILES}
        if other != version and found == hashes:
            raise DataError(f"{folder} holds the files of version {other}, not {version}; set version='{other}'")
    files = {
        name: {
            "sha256": digest,
            "is": "official" if digest == published.get(f"v{version}/{name}") else "differs from official",
        }
        for name, digest in found.items()
    }
    changed = [name for name, verdict in files.items() if verdict["is"] != "official"]
    notes = [f"{', '.join(changed)}: not the official content of v{version} (SHA-256 differs)"] if changed else []
    return {"files": files, "notes": notes}


@dataclass
class _Reader:
    """The content of one file; what cannot be used goes to `problems` with its place."""

    path: Path
    content: dict[str, Any]
    problems: locate.Problems

    def drop(self, place: str, reason: str) -> None:
        self.problems.lines.append(f"{self.path}: {place}: {reason}")

    def entries(self, value: Any, place: str, read: Callable[[Any], Any]) -> Iterator[Any]:
        """What `read` makes of each entry of a list; it raises ValueError for those that are unusable."""
        if not isinstance(value, list):
            self.drop(place, f"a list was expected, not {type(value).__name__}")
            return
        for number, entry in enumerate(value, start=1):
            try:
                yield read(entry)
            except ValueError as error:
                self.drop(f"{place}, entry {number}", str(error))


def _nouns(reader: _Reader) -> Iterator[Noun]:
    for gender, pairs in reader.content.items():

        def read(entry: Any, gender: str = gender) -> Noun:
            if not isinstance(entry, list) or len(entry) != 2:
                raise ValueError(f"a pair [singular, plural] was expected, not {entry!r}")
            return Noun(gender, _word(entry[0], "singular"), _word(entry[1], "plural"))

        yield from reader.entries(pairs, f"gender {gender!r}", read)


def _descriptors(reader: _Reader, genders: set[str]) -> Iterator[Descriptor]:
    for axis, buckets in reader.content.items():
        if not isinstance(buckets, dict):
            reader.drop(f"axis {axis!r}", f"an object of buckets was expected, not {type(buckets).__name__}")
            continue
        for bucket, entries in buckets.items():

            def read(entry: Any, axis: str = axis, bucket: str = bucket) -> Descriptor:
                fields = _fields(entry, "descriptor")
                name = _word(fields.get("descriptor"), "descriptor")
                gender = _word(fields.get("gender", NONE), "gender")
                if gender != NONE and gender not in genders:
                    raise ValueError(f"gender {gender!r} is none of {', '.join(sorted(genders))}")
                its_article = _word(fields.get("article", article(name)), "article")
                preference = _word(fields.get("preference", NO_PREFERENCE), "preference")
                return Descriptor(axis, bucket, name, gender, its_article, preference)

            yield from reader.entries(entries, f"axis {axis!r}, bucket {bucket!r}", read)


def _standalone(reader: _Reader) -> Iterator[Standalone]:
    for axis, entries in reader.content.items():

        def read(entry: Any, axis: str = axis) -> Standalone:
            fields = _fields(entry, "noun_phrase")
            singular = _word(fields.get("noun_phrase"), "noun_phrase")
            plural = _word(fields.get("plural_noun_phrase", singular), "plural_noun_phrase")
            for name, phrase in (("noun_phrase", singular), ("plural_noun_phrase", plural)):
                rest = phrase.replace("{noun}", "").replace("{article}", "")
                if "{" in rest or "}" in rest:
                    raise ValueError(f"{name} {phrase!r} has a gap other than {{article}} and {{noun}}")
            if ("{noun}" in singular) != ("{noun}" in plural):
                raise ValueError(f"only one of {singular!r} and {plural!r} has a gap for the noun")
            if "{noun}" not in singular and "{article}" in singular + plural:
                raise ValueError(f"{singular!r} has an article but no noun")
            return Standalone(axis, singular, plural, _word(fields.get("preference", NO_PREFERENCE), "preference"))

        yield from reader.entries(entries, f"axis {axis!r}", read)


def _templates(reader: _Reader) -> Iterator[Template]:
    for text, rules in reader.content.items():
        place = f"template {text!r}"
        rest = text.replace(SINGULAR, "", 1) if SINGULAR in text else text.replace(PLURAL, "", 1)
        if rest == text or "{" in rest or "}" in rest:
            reader.drop(place, f"exactly one gap, {SINGULAR} or {PLURAL}, was expected")
        elif not isinstance(rules, dict):
            reader.drop(place, f"an object of rules was expected, not {type(rules).__name__}")
        else:
            flags = [rules.get(name, False) for name in ("first_turn_only", "must_be_noun")]
            if all(isinstance(flag, bool) for flag in flags):
                yield Template(text, *flags)
            else:
                reader.drop(place, "first_turn_only and must_be_noun must be true or false")


def _fields(entry: Any, main: str) -> dict[str, Any]:
    """An entry is a string, or an object with more to say."""
    if isinstance(entry, str):
        return {main: entry}
    if not isinstance(entry, dict):
        raise ValueError(f"a string or an object was expected, not {entry!r}")
    if main not in entry:
        raise ValueError(f"field {main!r} is missing")
    return entry


def _word(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field} {value!r} is not a text")
    return words(value, field)
