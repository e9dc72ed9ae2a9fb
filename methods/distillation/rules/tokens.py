"""Find a pack's words in a tokenizer's vocabulary.

A rule is about words, a model about tokens. A word is written in the places where a text may have it (after a
blank, at the start of a text, after a line break, after a quotation mark), and the single token that it takes there is
what the rule moves. Tokens with and without the blank are different events, so each place is a class of its own; places
that share a token (all of them in a WordPiece vocabulary) are one class.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from evenhand.errors import SettingsError
from evenhand.methods.distillation.rules.packs import RulePack, WordClass, components

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Multi = Literal["refuse", "skip", "sequence"]
Unspaced = Literal["capitals", "all", "none"]
Ids = tuple[int, ...]

PLACES = {"after a blank": ("x ", " x"), "start": ("", " x"), "new line": ("x\n", " x"), "quote": ('x "', " x")}
"""Text before and after the word in each place. Nearly all words are in the first one."""
BLANK = next(iter(PLACES))


@dataclass(frozen=True)
class TokenClass:
    """Tokens whose groups are to be equal; no token is in two groups or in two classes."""

    name: str
    """The rules from which it is made."""
    groups: tuple[str, ...]
    ids: tuple[Ids, ...]
    """Token ids of each group."""
    prior: tuple[float, ...] | None = None
    """Share of each group, if the pack gives one."""


@dataclass(frozen=True)
class SequenceClass:
    """Words of which at least one takes several tokens (after a blank); they are compared as whole sequences."""

    name: str
    groups: tuple[str, ...]
    sequences: tuple[tuple[Ids, ...], ...]
    """Token ids of each word of each group."""
    prior: tuple[float, ...] | None = None


class Hit(NamedTuple):
    """One word in one place."""

    rule: str
    case: str
    group: str
    word: str
    place: str
    ids: Ids
    pieces: tuple[str, ...]
    left_out: str = ""
    """Why no rule moves it; "" if one does."""


class RuleTensors(NamedTuple):
    """The classes as indices: n tokens in G groups in C classes."""

    ids: Tensor
    """[n] token ids, without repeats."""
    group: Tensor
    """[n] the group of each token."""
    members: Tensor
    """[G, width] positions in `ids` of each group's tokens, padded with n."""
    sizes: Tensor
    """[G] tokens in each group."""
    owner: Tensor
    """[G] the class of each group."""
    groups: Tensor
    """[C, width] the groups of each class, padded with G."""


@dataclass(frozen=True)
class TokenRules:
    """A pack's rules as token ids."""

    pack: str
    pack_hash: str
    masked: bool
    """Whether the rules are for a masked model."""
    classes: tuple[TokenClass, ...]
    """Classes that `evenhand.methods.distillation.rules.project` moves."""
    sequences: tuple[SequenceClass, ...] = ()
    """Classes that it cannot move, as they have a word of several tokens, with multi="sequence". In a causal model the
    probability of such a word is the product over its tokens, each given those before."""
    hits: tuple[Hit, ...] = field(default=(), compare=False, repr=False)

    @property
    def ids(self) -> Ids:
        """All token ids that a rule moves."""
        return tuple(i for c in self.classes for ids in c.ids for i in ids)

    @property
    def highest(self) -> int:
        """The highest token id; -1 if there is none."""
        return max(self.ids, default=-1)

    def tensors(self, device: torch.device | str = "cpu") -> RuleTensors:
        """Return the classes as indices on a device, made once per device."""
        return _tensors(self.classes, str(device))

    def report(self) -> str:
        """Return a table of what every rule moves in this tokenizer, and of what is left out and why."""
        head = ("rule", "case", "group", "word", "place", "token", "piece", "left out")
        rows = [
            (h.rule, h.case, h.group, h.word, h.place, " ".join(map(str, h.ids)), " ".join(h.pieces), h.left_out)
            for h in self.hits
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        kind = "masked" if self.masked else "causal"
        moved = len(self.ids)
        summary = f"{self.pack} for a {kind} model: {len(self.classes)} classes, {moved} tokens"
        if self.sequences:
            summary += f"; {len(self.sequences)} classes of sequences"
        return "\n".join([summary, *lines])


def resolve(
    pack: RulePack,
    tokenizer: PreTrainedTokenizerBase,
    *,
    masked: bool,
    multi: Multi = "refuse",
    unspaced: Unspaced = "capitals",
) -> TokenRules:
    """Find a pack's words in a tokenizer.

    Args:
        pack: The rules.
        tokenizer: A fast tokenizer (it must report which characters a token covers).
        masked: Whether the model is a masked one. Its probabilities of words of unequal length are not comparable, so
            with multi="sequence" such classes are left out, and reported.
        multi: What happens to a word that is not one token after a blank. "refuse" raises. "skip" leaves the word out;
            a group without words is removed from its class, and a class is dropped if it has one group left, or was
            merged from rules of which one has lost a group. "sequence" keeps the whole class as sequences, which
            `project` does not touch.
        unspaced: Which words are also looked for without a blank before them. In most vocabularies such a token
            also continues words ("t" + "he"), so only those with a capital are used by default. A word that is not
            one token there is left out there, whatever `multi` says.

    Raises:
        SettingsError: A word has several tokens with multi="refuse", a token would be in two groups, the tokenizer is
            not fast, or nothing is left of the pack.
    """
    if not tokenizer.is_fast:
        raise SettingsError(f"{type(tokenizer).__name__} does not report the characters of a token: use a fast one")
    hits: list[Hit] = []
    parts: list[_Part] = []
    sequences: list[SequenceClass] = []
    for c in pack.classes():
        found = [_hit(tokenizer, c, group, word, BLANK) for group, words in c.groups.items() for word in words]
        if multi == "sequence" and any(_unusable(h, tokenizer) for h in found):
            kept, noted = _as_sequences(c, found, tokenizer, masked)
            sequences += kept
            hits += noted
            continue
        parts += _place(c, found, tokenizer, hits)
        for place in PLACES:
            if place != BLANK and (unspaced == "all" or (unspaced == "capitals" and c.case != "lower")):
                here = [_hit(tokenizer, c, group, word, place) for group, words in c.groups.items() for word in words]
                parts += _place(c, here, tokenizer, hits)
    refused = [h for h in hits if h.place == BLANK and h.left_out in (_SEVERAL, _UNKNOWN, _SPILLS)]
    if multi == "refuse" and refused:
        raise SettingsError(_refusal(pack, refused))
    classes = tuple(
        _united([parts[i] for i in of_class], tokenizer) for of_class in components(p.nodes() for p in parts)
    )
    if not classes and not sequences:
        left = "; ".join(dict.fromkeys(f"{h.word}: {h.left_out}" for h in hits if h.place == BLANK))
        raise SettingsError(f"rule pack {pack.name}: no rule is left in this tokenizer ({left})")
    return TokenRules(pack.name, pack.hash, masked, classes, tuple(sequences), tuple(hits))


_SEVERAL = "several tokens"
_UNKNOWN = "unknown to the tokenizer"
_SPILLS = "its token contains more than the word"


class _Part(NamedTuple):
    """A word class in one place, with the one-token words of each group."""

    words: WordClass
    place: str
    ids: dict[str, Ids]

    def nodes(self) -> Iterator[int]:
        return (i for ids in self.ids.values() for i in ids)


def _hit(tokenizer: PreTrainedTokenizerBase, c: WordClass, group: str, word: str, place: str) -> Hit:
    """Write the word in its place and return which tokens cover it."""
    before, after = PLACES[place]
    text = before + word + after
    written = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    start, end = len(before), len(before) + len(word)
    # A blank that is a token by itself is the first of several; otherwise it is part of the word's token.
    lead = start - 1 if place == BLANK else start
    over = [
        (i, (a, b))
        for i, (a, b) in zip(written["input_ids"], written["offset_mapping"], strict=True)
        if (a < end and b > start) or lead <= a <= b <= start
    ]
    ids = tuple(i for i, _ in over)
    spills = any(text[a:start].strip() or text[end:b].strip() for _, (a, b) in over)
    hit = Hit(c.name, c.case, group, word, place, ids, tuple(tokenizer.convert_ids_to_tokens(list(ids))))
    return hit._replace(left_out=_SPILLS) if spills else hit


def _unusable(hit: Hit, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return why the hit is not a single token of its own, or ""."""
    if not hit.ids or tokenizer.unk_token_id in hit.ids:
        return _UNKNOWN
    return _SEVERAL if len(hit.ids) > 1 else hit.left_out


def _place(c: WordClass, found: Sequence[Hit], tokenizer: PreTrainedTokenizerBase, hits: list[Hit]) -> list[_Part]:
    """Return the class in one place, if two groups are left there; notes every word in `hits`."""
    marked = [h._replace(left_out=_unusable(h, tokenizer)) for h in found]
    left = {h.word for h in marked if not h.left_out}
    ids = {g: tuple(dict.fromkeys(h.ids[0] for h in marked if h.group == g and not h.left_out)) for g in c.groups}
    ids = {g: some for g, some in ids.items() if some}
    reason = _lapsed(c, left) or ("no other group left" if len(ids) < 2 else "")
    hits += [h if h.left_out or not reason else h._replace(left_out=reason) for h in marked]
    return [] if reason else [_Part(c, found[0].place, ids)]


def _lapsed(c: WordClass, left: Collection[str]) -> str:
    """Return why a merged class cannot do without the words that are left out, or "".

    Without "him", {him, his | her} would move the mass of the object "her" to "his", where no sentence has it.
    """
    if len(c.needed) < 2:
        return ""
    for rule in c.needed:
        for words in rule.values():
            if not any(word in left for word in words):
                return f"merged with a rule that lacks {' and '.join(words)}"
    return ""


def _as_sequences(
    c: WordClass, found: Sequence[Hit], tokenizer: PreTrainedTokenizerBase, masked: bool
) -> tuple[list[SequenceClass], list[Hit]]:
    """Return the class as sequences, or nothing and the reason on every word."""
    lengths = {len(h.ids) for h in found}
    broken = next((w for h in found if (w := _unusable(h, tokenizer)) in (_UNKNOWN, _SPILLS)), "")
    if broken or (masked and len(lengths) > 1):
        reason = broken or "a masked model cannot compare words of unequal length"
        return [], [h._replace(left_out=_unusable(h, tokenizer) or reason) for h in found]
    sequences = tuple(tuple(h.ids for h in found if h.group == g) for g in c.groups)
    kept = SequenceClass(c.name, tuple(c.groups), sequences, _shares(c.prior, tuple(c.groups)))
    return [kept], [h._replace(place=f"{BLANK}, as a sequence") for h in found]


def _shares(prior: Mapping[str, float] | None, groups: tuple[str, ...]) -> tuple[float, ...] | None:
    """Return the prior of the existing groups, normalised to sum to 1."""
    if prior is None:
        return None
    total = sum(prior[g] for g in groups)
    return tuple(prior[g] / total for g in groups) if total else None


def _united(parts: Sequence[_Part], tokenizer: PreTrainedTokenizerBase) -> TokenClass:
    """Merge parts that share tokens: case is lost in an uncased vocabulary, the blank in a WordPiece one."""
    ids: dict[str, dict[int, None]] = {}
    owner: dict[int, str] = {}
    for part in parts:
        for group, found in part.ids.items():
            ids.setdefault(group, {}).update(dict.fromkeys(found))
            for i in found:
                if owner.setdefault(i, group) != group:
                    raise SettingsError(
                        f"rule {part.words.name}: token {i} ({tokenizer.convert_ids_to_tokens(i)!r}) stands for group "
                        f"{owner[i]} and for group {group} in this tokenizer; take one of the words out of the pack"
                    )
    priors = [part.words.prior for part in parts]
    name = "+".join(dict.fromkeys(part.words.name for part in parts))
    if any(p != priors[0] for p in priors):
        raise SettingsError(f"the rules {name} share tokens here, but their priors differ: give them the same")
    groups = tuple(ids)
    return TokenClass(name, groups, tuple(tuple(found) for found in ids.values()), _shares(priors[0], groups))


def _refusal(pack: RulePack, refused: Sequence[Hit]) -> str:
    told = [
        f"{h.word!r} (rule {h.rule}, group {h.group}: {h.left_out}, {' '.join(map(repr, h.pieces))})" for h in refused
    ]
    more = f" and {len(told) - 5} more" if len(told) > 5 else ""
    return (
        f"rule pack {pack.name}: not one token of its own in this tokenizer: {', '.join(told[:5])}{more}. A rule can "
        "only move single tokens. Set multi=skip to leave such words out, multi=sequence to keep their rules as "
        "sequences where they are scored as such, or use a pack without them"
    )


@lru_cache(maxsize=16)
def _tensors(classes: tuple[TokenClass, ...], device: str) -> RuleTensors:
    import torch

    groups = [ids for c in classes for ids in c.ids]
    owners = [k for k, c in enumerate(classes) for _ in c.ids]
    ids = [i for g in groups for i in g]
    of_group = [k for k, g in enumerate(groups) for _ in g]

    def where(owner: Sequence[int], parts: int) -> Tensor:
        lists = [[at for at, part in enumerate(owner) if part == k] for k in range(parts)]
        width = max(map(len, lists), default=0)
        return torch.tensor([[*at, *[len(owner)] * (width - len(at))] for at in lists], device=device)

    return RuleTensors(
        ids=torch.tensor(ids, device=device),
        group=torch.tensor(of_group, device=device),
        members=where(of_group, len(groups)),
        sizes=torch.tensor([len(g) for g in groups], device=device),
        owner=torch.tensor(owners, device=device),
        groups=where(owners, len(classes)),
    )
