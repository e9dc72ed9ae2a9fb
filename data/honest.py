"""HONEST's templates, and HurtLex, whose words are counted among a model's completions.

Templates: Nozza et al., "HONEST: Measuring Hurtful Sentence Completion in Language Models" (NAACL 2021), and Nozza et
al. 2022 (LT-EDI) for those about LGBTQIA+ people; MilaNLProc/honest 6efc781, MIT. The gap [M] is always at the end.
HurtLex 1.2 (MilaNLProc/hurtlex) is licensed CC BY-NC-SA 4.0, so that it is read from your copy alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.word_lists import listed
from evenhand.data.io import layouts, locate, rows
from evenhand.data.io.one_table import read_one
from evenhand.data.io.row_counts import demand_rows
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="honest",
    hub="",
    revision="",
    patterns=(),
    licence="MIT (templates); CC-BY-NC-SA-4.0 (HurtLex, which you add)",
    home="github.com/MilaNLProc/honest (commit 6efc781), folder resources",
)
Templates = Literal["binary", "queer_nonqueer"]
Language = Literal["en", "es", "fr", "it", "pt", "ro"]
ROWS = {
    **{("binary", language): 810 for language in ("en", "es", "fr", "it")},
    **{("binary", language): 840 for language in ("pt", "ro")},
    ("queer_nonqueer", "en"): 705,
}
"""Rows of the published files."""
COLUMNS = ("template_masked", "raw", "identity", "number", "category", "type")
GAP = "[M]"
CATEGORIES = listed("PS, RCI, PA, DDF, DDP, DMC, IS, OR, AN, ASM, ASF, PR, OM, QAS, CDS, RE, SVP")
"""HurtLex's categories, such as PR (words of prostitution)."""
CONSERVATIVE = "conservative"
_LEXICON_COLUMNS = ("category", "lemma", "level")
_GAP_AT_END = re.compile(r"(.*\S)\s*\[M\]\s*(\.?)\s*")


class Template(NamedTuple):
    """One sentence about a person, whose last word is missing."""

    before: str
    """The text before the gap."""
    behind: str
    """What ends the sentence: a full stop."""
    raw: str
    """The sentence without the person: what all people's have in common."""
    identity: str
    category: str
    """female or male; or which kind of queer or nonqueer identity."""
    kind: str
    """occupation, descriptive_adjective or descriptive_verb."""

    @property
    def focus(self) -> bool:
        """Whether the person is a woman, or queer: the side whose share is compared with the other's."""
        return self.category == "female" or self.category.startswith("queer")


class Loaded(NamedTuple):
    """Templates in file order, and their facts for a report."""

    templates: list[Template]
    facts: dict[str, Any]


class Lexicon(NamedTuple):
    """Hurtful words, each with the first category that the list has for it."""

    words: Mapping[str, str]
    lower: Mapping[str, str]
    """Words in lower case."""
    facts: dict[str, Any]

    def category(self, word: str) -> str:
        """The category of a completion: without accents, in its own case, as in the official code; "" is none."""
        return self.words.get(without_accents(word), "")

    def lower_category(self, word: str) -> str:
        """The same whatever the case of the word."""
        return self.lower.get(without_accents(word).lower(), "")


def without_accents(word: str) -> str:
    """The word without marks on its letters."""
    return "".join(c for c in unicodedata.normalize("NFD", word.strip()) if unicodedata.category(c) != "Mn")


def load(source: str, templates: Templates = "binary", language: Language = "en", *, partial: bool = False) -> Loaded:
    """Read the templates of one language.

    Args:
        source: "auto" ($EVENHAND_DATA/honest), "demo" (sentences of ours), a folder with binary/ and queer_nonqueer/
            (or resources/ above them), or one file.
        templates: Which of both sets.
        language: Language of binary; queer_nonqueer is in English only.
        partial: Whether another number of rows than the published one is accepted.

    Raises:
        DataError: There is no such file, a row has no gap at its end, or the number of rows is not the published one.
    """
    if source == "demo":
        return Loaded(_demo(templates), {"source": "demo: sentences of ours, not HONEST", "dropped": []})
    file = _file(locate.locate(DATASET, source), templates, language)
    how = locate.how_to_get(DATASET)
    found, facts = read_one(file, COLUMNS, template_of, what="template of HONEST", how_to_get=how)
    what = f"{templates} templates in {language}"
    notes = demand_rows(what, len(found), ROWS[templates, language], file, partial=partial, benchmark=DATASET.name)
    return Loaded(found, {**facts, "templates": len(found), "notes": notes})


def template_of(row: Mapping[str, Any]) -> Template:
    """A row as a template, by the names of its columns.

    Raises:
        Refused: A column is missing or empty, or the gap is not at the end.
    """
    masked, raw, identity, category, kind = (
        rows.text(row, column) for column in ("template_masked", "raw", "identity", "category", "type")
    )
    found = _GAP_AT_END.fullmatch(masked)
    if found is None or GAP in found[1]:
        raise rows.Refused(f"template_masked {masked[:60]!r} has no {GAP} at its end")
    return Template(" ".join(found[1].split()), found[2], " ".join(raw.split()), identity, category, kind)


def load_lexicon(path: str, language: str = "en") -> Lexicon:
    """Read HurtLex.

    Args:
        path: The file hurtlex_<LANGUAGE>.tsv, or a folder with it, such as a clone of MilaNLProc/hurtlex; "demo" is a
            list of ours; "" looks for it in $EVENHAND_DATA/honest.
        language: Whose list a folder is searched for.

    Raises:
        DataError: There is no lexicon; the message says where it is had, and under which licence.
    """
    if path == "demo":
        return _lexicon([("CDS", "clumsy"), ("CDS", "lazy"), ("OM", "blue"), ("AN", "goose")], {"source": "demo"})
    file = _lexicon_file(path, language)
    every, facts = read_one(file, _LEXICON_COLUMNS, _entry, what="lemma of HurtLex", how_to_get=_how_to_get(language))
    found = [(category, lemma) for category, lemma, level in every if level == CONSERVATIVE]
    if not found:
        raise DataError(f"{file} has no lemma of level {CONSERVATIVE!r}. {_how_to_get(language)}")
    return _lexicon(found, {**facts, "rows": len(found), "dropped": len(facts["dropped"])})


def _entry(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Category, lemma and level of a row of HurtLex."""
    category, lemma, level = (rows.text(row, column) for column in _LEXICON_COLUMNS)
    return category.upper(), lemma, level


def _lexicon(entries: list[tuple[str, str]], facts: dict[str, Any]) -> Lexicon:
    words: dict[str, str] = {}
    lower: dict[str, str] = {}
    for category, lemma in entries:
        words.setdefault(lemma, category)
        lower.setdefault(lemma.lower(), category)
    several = sum(" " in lemma for lemma in words)
    # a completion is one word, so a lemma of several can never be one
    return Lexicon(words, lower, {**facts, "lemmas": len(words), "lemmas_of_several_words": several})


def _lexicon_file(path: str, language: str) -> Path:
    name = f"hurtlex_{language.upper()}.tsv"
    folder = Path(path).expanduser() if path else locate.folder_of(DATASET)
    if folder is not None:
        places = (folder, folder / name, folder / "lexica" / language.upper() / "1.2" / name, folder / "1.2" / name)
        for place in places:
            for file in (place, place.with_name(f"{place.name}.gz")):
                if file.is_file():
                    return file
    raise DataError(f"no HurtLex at {str(folder or '')!r}: {name} is not there. {_how_to_get(language)}")


def _how_to_get(language: str) -> str:
    place = f"lexica/{language.upper()}/1.2/hurtlex_{language.upper()}.tsv"
    return (
        f"Take {place} from github.com/MilaNLProc/hurtlex and give its path: honest(lexicon='/path/to/it'). Its "
        "licence is CC BY-NC-SA 4.0 (not for commercial use), so it does not come with evenhand"
    )


def _file(path: Path, templates: Templates, language: str) -> Path:
    if path.is_file():
        return path
    name = f"{language}_template.tsv"
    for folder in (path, path / "resources"):
        for file in (folder / templates / name, folder / templates / f"{name}.gz"):
            if file.is_file():
                return file
    raise DataError(
        f"{path} holds no {templates}/{name}; found: {layouts.found_in(path)}. {locate.how_to_get(DATASET)}"
    )


def _demo(templates: Templates) -> list[Template]:
    """Harmless sentences in the form of the set."""
    people = {
        "binary": (("the woman", "female"), ("the girl", "female"), ("the man", "male"), ("the boy", "male")),
        "queer_nonqueer": (("the gay man", "queer_orientation"), ("the straight man", "nonqueer_orientation")),
    }
    said = (
        ("works as a", "occupation"),
        ("dreams of being a", "occupation"),
        ("is known as", "descriptive_adjective"),
        ("likes to", "descriptive_verb"),
    )
    return [
        Template(f"{who} {text}", ".", f"[I] {text} {GAP}", who, category, kind)
        for who, category in people[templates]
        for text, kind in said
    ]
