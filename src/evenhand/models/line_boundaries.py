r"""Whether a tokenizer treats the lines of a text one by one, so that each need be tokenised only once.

A tokenizer of the Hugging Face tokenizers library cuts a text at its added tokens, normalises the parts, cuts them into
words by its pre-tokenizer, and makes tokens of each word by itself. So the tokens of a text are those of its lines, one
after another, where no word reaches over a line end and none looks beyond it. That is read off the tokenizer's parts:
what is not known to keep to it is tokenised whole (Metaspace, SentencePiece's prepended blank, other patterns).

A line is cut off after its "\n" where an ASCII letter, a digit or "(" follows, and, where the pattern of words looks at
what follows blanks (`\s+(?!\S)`, GPT-2), only where no other blank precedes the "\n".
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEGINS = frozenset(string.ascii_letters + string.digits + "(")
"""With what a line may begin that is cut off."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` cuts words by."""
NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"}
"""These change characters where they stand, and nothing combines with a line end."""
WHITESPACE = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
"""These cut at every blank."""

_ENDS_LINES = {r"\n", r"\n\n", r"\s", r"\s+", r"\s*[\r\n]+", r"\s*[\r\n]", r" ?[^\s\p{L}\p{N}]+[\r\n]*"}
"""Alternatives that may contain line ends, and nothing after them."""
_LOOKS_AHEAD = r"\s+(?!\S)"
_TAKES_ALL_ENDS = {r"\s*[\r\n]+", r"\n"}
"""Where one of these comes first, nothing is left of line ends for the alternative that looks ahead."""
_ATOM = (
    r"(?:"
    r"\\p\{\w+\}"  # a class of letters or numbers
    r"|\\[wdb]|\\[^\w\s]"
    r"|\[\^(?=[^\]]*(?:\\s|\\r\\n))(?:\\p\{\w+\}|\\?[^\]\\\[])*\]"  # all but blanks or line ends, and more
    r"|\[(?!\^)(?:\\p\{\w+\}|\\[^\w\s]|[^\]\\\[\s])+\]"
    r"|\((?:\?i:|\?:|(?!\?))|\)|\||"
    r"[^\\\[\](){}|?*+.^$\n]"
    r")(?:[?*+]|\{\d+(?:,\d*)?\})?"
)
_WITHIN_A_LINE = re.compile(rf"(?:{_ATOM})+")
_OVER_LINES = re.compile(r"\\?\n|\\n")


@dataclass(frozen=True)
class LineEnds:
    """Where a text may be cut."""

    begins: frozenset[str]
    """With what a line may begin that is cut off."""
    after_blanks: bool
    """Whether it may be where blanks or further line ends precede its line end."""
    specials: re.Pattern[str] | None
    """Where, inside of a line, what precedes ends in a special token; None where there are no such."""


def line_ends(tokenizer: PreTrainedTokenizerBase) -> LineEnds | None:
    """Where texts may be cut for this tokenizer; None where they may not.

    Args:
        tokenizer: Any; one that is written in Python alone may not.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not tokenizer.is_fast or backend is None or backend.encode_special_tokens or not _plain_model(backend.model):
        return None
    words = _words(_state(backend.pre_tokenizer))
    if words is None or not _keeps_to_lines(_state(backend.normalizer)):
        return None
    added = list(tokenizer.added_tokens_decoder.values())
    if any("\n" in token.content[:-1] for token in added):
        return None
    taken = {token.content[:1] for token in added if token.lstrip}
    return LineEnds(BEGINS - words.follow - taken, words.after_blanks, _specials(added))


@dataclass(frozen=True)
class _Words:
    """How a pre-tokenizer cuts words."""

    isolates: bool = True
    """Whether it cuts at every line end; else it at least never reaches over one."""
    after_blanks: bool = True
    follow: frozenset[str] = frozenset()
    """What follows a line end in a word that reaches over it."""


def _plain_model(model: Any) -> bool:
    """Whether the same word always becomes the same tokens."""
    kind = type(model).__name__
    return kind in ("WordPiece", "Unigram", "WordLevel") or (kind == "BPE" and not model.dropout)


def _state(part: Any) -> dict[str, Any]:
    """What a part of the tokenizer is, as tokenizer.json has it."""
    if part is None:
        return {}
    found: dict[str, Any] = json.loads(part.__getstate__())
    return found


def _keeps_to_lines(normalizer: dict[str, Any]) -> bool:
    parts = normalizer.get("normalizers", [normalizer] if normalizer else [])
    return all(part["type"] in NORMALIZERS for part in parts)


def _words(state: dict[str, Any]) -> _Words | None:
    """How words are cut; None where they may reach over line ends, or that is not known."""
    first = _Words(isolates=False)
    for part in state.get("pretokenizers", [state] if state else []):
        if first.isolates:  # the line ends are cut out already, and what follows sees one word at a time
            if part["type"] not in ("Split", "Digits", "Punctuation") and not _is_bytes(part):
                return None
            continue
        found = _of_part(part)
        if found is None:
            return None
        first = _Words(found.isolates, found.after_blanks and first.after_blanks, found.follow | first.follow)
    return first if first.isolates else None


def _of_part(part: dict[str, Any]) -> _Words | None:
    if part["type"] in WHITESPACE:
        return _Words()
    if part["type"] in ("Digits", "Punctuation"):
        return _Words(isolates=False)
    if _is_bytes(part):
        return _of_pattern(GPT2) if part.get("use_regex", True) else _Words(isolates=False)
    if part["type"] != "Split" or part["behavior"] not in ("Isolated", "Removed"):
        return None
    pattern = part["pattern"].get("Regex")
    return None if pattern is None else _of_pattern(pattern)


def _is_bytes(part: dict[str, Any]) -> bool:
    return part["type"] == "ByteLevel" and not part["add_prefix_space"]


def _of_pattern(pattern: str) -> _Words | None:
    """What a regular expression's matches do at line ends."""
    follow: set[str] = set()
    kinds = _alternatives(pattern)
    for kind in kinds:
        if kind in _ENDS_LINES or kind == _LOOKS_AHEAD or _WITHIN_A_LINE.fullmatch(kind):
            continue
        after = _follow(kind)
        if after is None:
            return None
        follow |= after
    isolates = any(kind in (r"\s", r"\s+", r"\n") for kind in kinds)
    looks = _LOOKS_AHEAD in kinds
    first = kinds[: kinds.index(_LOOKS_AHEAD)] if looks else []
    return _Words(isolates, not looks or not _TAKES_ALL_ENDS.isdisjoint(first), frozenset(follow))


def _follow(kind: str) -> set[str] | None:
    """The characters after the line ends inside of a fixed text; None where it is another pattern."""
    lines = _OVER_LINES.split(kind)
    if len(lines) < 2 or not all(_WITHIN_A_LINE.fullmatch(line) for line in lines[1:]):
        return None
    if lines[0] and not _WITHIN_A_LINE.fullmatch(lines[0]):
        return None
    begins = {line[0] for line in lines[1:]}
    return begins if begins <= BEGINS - {"("} and not any(line[1:2] in "?*{" for line in lines[1:]) else None


def _alternatives(pattern: str) -> list[str]:
    """A regular expression, cut at the bars outside of groups and classes."""
    found, depth, in_class, start = [], 0, False, 0
    at = 0
    while at < len(pattern):
        mark = pattern[at]
        if mark == "\\":
            at += 1
        elif in_class:
            in_class = mark != "]"
        elif mark == "[":
            in_class = True
        elif mark in "()":
            depth += 1 if mark == "(" else -1
        elif mark == "|" and depth == 0:
            found.append(pattern[start:at])
            start = at + 1
        at += 1
    return [*found, pattern[start:]]


def _specials(added: Sequence[Any]) -> re.Pattern[str] | None:
    """Special tokens that are found before anything else is done to a text, and take nothing of what follows."""
    sure = [t.content for t in added if t.special and not t.normalized and not t.rstrip and not t.single_word]
    alone = [c for c in sure if not _inside_another(c, (t.content for t in added))]
    return re.compile("|".join(f"(?<={re.escape(c)})" for c in alone)) if alone else None


def _inside_another(content: str, others: Iterable[str]) -> bool:
    return any(content in other and content != other for other in others)
