"""Rule packs: which words are to be equally probable, one YAML file per language and axis.

A rule has two or more groups, each a list of words: `{male: [he], female: [she]}` asks that the words of each group
together are as probable as those of every other. Rules that share a word are about the same probability and are
merged: object {him | her} and possessive {his | her} become {him, his | her}. Words of different case never meet in
one class, since a capital indicates the word's place in the sentence, not who is meant.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evenhand.core import yaml_reader
from evenhand.core.hashing import json_hash
from evenhand.errors import REASON, DataError, UnknownNameError, reason, short

FOLDER = Path(__file__).parents[3] / "data" / "word_groups"
"""The shipped packs. They are data; core code reads them as files and imports nothing of `evenhand.data`."""

Case = Literal["lower", "capital", "upper"]
Words = tuple[str, ...]
Node = TypeVar("Node", bound=Hashable)


class Rule(BaseModel):
    """Groups of words that are to be equally probable, or as probable as a prior states."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1)

    name: str
    groups: Annotated[dict[str, Words], Field(min_length=2)]
    """Words of each group."""
    prior: dict[str, float] | None = None
    """Share of each group, for mode "prior"; the shares sum to 1."""
    evidence: dict[str, Words] = {}
    """Words of each group that are never moved but state the group; added to those of the pack."""
    capitalise: bool = True
    """Whether a lower-case word also stands for its capitalised form, which becomes a class of its own."""
    optional: bool = False
    """Whether rules merged with this one still apply if a tokenizer lacks this one's words."""
    note: str = ""
    """Information for readers of reports, such as an ambiguous word."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for group, words in self.groups.items():
            if not words:
                raise ValueError(f"rule {self.name}: group {group} has no words; list some or leave the group out")
            for word in words:
                if len(word.split()) != 1 or word != word.strip():
                    raise ValueError(f"rule {self.name}: {word!r} of group {group} must be one word without blanks")
        twice = _in_two_groups(self.groups)
        if twice:
            raise ValueError(f"rule {self.name}: {twice}")
        _check_prior(self)
        unknown = sorted(set(self.evidence) - set(self.groups))
        if unknown:
            raise ValueError(f"rule {self.name}: evidence for {unknown}, which are not groups; it has {[*self.groups]}")
        for case, classed in self.by_case().items():
            lacking = [g for g, words in classed.items() if not words]
            if lacking:
                raise ValueError(
                    f"rule {self.name}: no {case}-case word in group {lacking[0]}, though another group has one; "
                    "cases are never mixed: add it, or take the others out"
                )
        return self

    def by_case(self) -> dict[Case, dict[str, Words]]:
        """Return the words by case and group, for every case that any group has."""
        found: dict[Case, dict[str, dict[str, None]]] = {}
        for group, words in self.groups.items():
            for word in words:
                capital = [word[0].upper() + word[1:]] if self.capitalise and case_of(word) == "lower" else []
                for form in (word, *capital):
                    of_case = found.setdefault(case_of(form), {g: {} for g in self.groups})
                    of_case[group][form] = None
        return {case: {g: tuple(words) for g, words in groups.items()} for case, groups in found.items()}


@dataclass(frozen=True)
class WordClass:
    """Words whose groups are to be equally probable: one rule in one case, or several that share a word."""

    name: str
    """The rules' names joined by a plus."""
    case: Case
    groups: Mapping[str, Words]
    prior: Mapping[str, float] | None = None
    needed: tuple[Mapping[str, Words], ...] = ()
    """The groups of every rule in it that is not optional."""


class RulePack(BaseModel):
    """All rules of one language and axis."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1)

    name: str
    language: str
    axis: str
    """Dimension in which the groups differ, such as "gender"."""
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]
    evidence: dict[str, Words] = {}
    """Words of each group that state the group and are never moved (woman, Mr)."""
    not_evidence: Words = ()
    """Words of rules that are too ambiguous to state a group, such as Dutch "zij" (she, they)."""

    @model_validator(mode="after")
    def _merge(self) -> Self:
        groups = {group for rule in self.rules for group in rule.groups}
        unknown = sorted(set(self.evidence) - groups)
        if unknown:
            raise ValueError(f"evidence for {unknown}, which no rule has as a group; groups: {sorted(groups)}")
        stray = sorted({w for w in self.not_evidence if case_of(w) != "lower" or not self._has(w)})
        if stray:
            raise ValueError(f"not_evidence has {stray}: list lower-case words of a rule's group, nothing else")
        self.classes()  # refuses what cannot be merged, while the file can still be named
        return self

    def _has(self, word: str) -> bool:
        return any(word in words for rule in self.rules for words in rule.groups.values())

    @property
    def hash(self) -> str:
        """Hash of all rules, since a file may change while its path stays."""
        return json_hash(self.model_dump(mode="json"))[:32]

    def classes(self) -> tuple[WordClass, ...]:
        """The equivalence classes, in the order of the rules, lower case first.

        Raises:
            ValueError: Merging puts a word into two groups, or joins rules with different priors.
        """
        single = [
            WordClass(rule.name, case, groups, rule.prior, () if rule.optional else (groups,))
            for rule in self.rules
            for case, groups in rule.by_case().items()
        ]
        linked = components([(c.case, word) for words in c.groups.values() for word in words] for c in single)
        return tuple(_united([single[i] for i in of_class]) for of_class in linked)

    def evidence_words(self) -> dict[str, Words]:
        """Return all words that state each group: the rules' own, without ambiguous ones, and the lists of evidence."""
        found: dict[str, dict[str, None]] = {}
        for rule in self.rules:
            for source in (rule.groups, rule.evidence, self.evidence):
                for group, words in source.items():
                    found.setdefault(group, {}).update(dict.fromkeys(words))
        return {group: tuple(w for w in words if w.lower() not in self.not_evidence) for group, words in found.items()}


def case_of(word: str) -> Case:
    """Return the case of a word by its first letter; "upper" if it is longer than a letter and all capitals."""
    if word.isupper() and len(word) > 1:
        return "upper"
    return "capital" if word[:1].isupper() else "lower"


def components(parts: Iterable[Iterable[Node]]) -> list[list[int]]:
    """Return indices of parts connected by shared members (union-find), in order of first occurrence."""
    above: list[int] = []
    owner: dict[Node, int] = {}

    def root(i: int) -> int:
        while above[i] != i:
            above[i] = above[above[i]]
            i = above[i]
        return i

    for i, members in enumerate(parts):
        above.append(i)
        for member in members:
            a, b = sorted((root(owner.setdefault(member, i)), root(i)))
            above[b] = a
    found: dict[int, list[int]] = {}
    for i in range(len(above)):
        found.setdefault(root(i), []).append(i)
    return list(found.values())


def rule_pack(name: str | Path = "en_pronouns") -> RulePack:
    """Return a pack by name, or by the path of a YAML file with the same keys.

    Args:
        name: A shipped pack, such as "en_pronouns", or a file's path.

    Raises:
        UnknownNameError: The name is neither a shipped pack nor a file.
        DataError: The file is not a rule pack; the message names the error and its place.
    """
    shipped = {path.stem: path for path in FOLDER.glob("*.yaml")}
    path = shipped.get(str(name)) or Path(name).expanduser()
    if not path.is_file():
        raise UnknownNameError("rule pack", str(name), shipped)
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, modified: int) -> RulePack:  # the time is only part of the cache key
    content: Any = None
    try:
        content = yaml_reader.load(path.read_text(encoding="utf-8"))
        return RulePack.model_validate(_named(content, path.stem))
    except ValidationError as error:
        wrong = "; ".join(
            f"{_where(e['loc'], content)}{e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        raise DataError(
            f"{path} is not a rule pack: {short(wrong, REASON)}. See {FOLDER / 'en_pronouns.yaml'} for the keys"
        ) from error
    except yaml_reader.DoubleKeyError as error:
        raise DataError(
            f"{path} cannot be read as a rule pack: {error.key!r} occurs twice, in lines {error.first} and {error.line}"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as a rule pack: {reason(error)}") from error


def _named(content: Any, name: str) -> Any:
    """Return the file's content with names added that are its keys."""
    if not isinstance(content, dict) or not isinstance(content.get("rules"), dict):
        return content
    rules = [{"name": key, **rule} if isinstance(rule, dict) else rule for key, rule in content["rules"].items()]
    return {"name": name, **content, "rules": rules}


def _where(place: tuple[int | str, ...], content: Any) -> str:
    """Return the place of an error as keys; a rule by its name, not by its number."""
    keys = [*map(str, place)]
    if place[:1] == ("rules",) and len(place) > 1 and isinstance(place[1], int):
        keys[1] = str([*content["rules"]][place[1]])
    return f"{'.'.join(keys)}: " if keys else ""


def _in_two_groups(groups: Mapping[str, Words]) -> str:
    """Describe which word is in two groups; "" if none is."""
    owner: dict[str, str] = {}
    for group, words in groups.items():
        for word in words:
            if owner.setdefault(word, group) != group:
                return f"{word!r} is in group {owner[word]} and in group {group}; a word can only be in one group"
    return ""


def _check_prior(rule: Rule) -> None:
    if rule.prior is None:
        return
    if set(rule.prior) != set(rule.groups):
        raise ValueError(f"rule {rule.name}: the prior names {[*rule.prior]}, but the groups are {[*rule.groups]}")
    if min(rule.prior.values()) < 0 or not math.isclose(sum(rule.prior.values()), 1, abs_tol=1e-6):
        raise ValueError(f"rule {rule.name}: the prior's shares must be at least 0 and sum to 1: {rule.prior}")


def _united(classes: list[WordClass]) -> WordClass:
    """Merge several classes into one: the union of each group's words."""
    groups: dict[str, Words] = {}
    for c in classes:
        for group, words in c.groups.items():
            groups[group] = tuple(dict.fromkeys((*groups.get(group, ()), *words)))
    name = "+".join(dict.fromkeys(c.name for c in classes))
    twice = _in_two_groups(groups)
    if twice:
        raise ValueError(f"the rules {name} share words and are merged, but then {twice}")
    if any(c.prior != classes[0].prior for c in classes):
        raise ValueError(f"the rules {name} share words and are merged, but their priors differ: give them the same")
    needed = tuple(rule for c in classes for rule in c.needed)
    return WordClass(name, classes[0].case, groups, classes[0].prior, needed)
