r"""Determine whether a tokenizer handles lines independently, so that each is tokenised only once.

A tokenizer of the Hugging Face tokenizers library cuts a text at its added tokens, normalises the parts, cuts them into
words by its pre-tokenizer, and tokenises each word separately. So the tokens of a text are those of its lines, one
after another, if no word crosses a line end and none looks beyond it. That is determined from the tokenizer's parts:
anything not known to satisfy it is tokenised whole (Metaspace, SentencePiece's prepended blank, other patterns).

A text is cut after a "\n" if an ASCII letter, a digit or "(" follows, and, if the pattern of words looks at
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
"""First characters of a line before which a text may be cut."""
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Pattern by which `ByteLevel` cuts words."""
NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"}
"""Normalizers that change characters in place, and combine nothing with a line end."""
WHITESPACE = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
"""Pre-tokenizers that cut at all whitespace."""

_ENDS_LINES = {r"\n", r"\n\n", r"\s", r"\s+", r"\s*[\r\n]+", r"\s*[\r\n]", r" ?[^\s\p{L}\p{N}]+[\r\n]*"}
"""Alternatives that may contain line ends, and nothing after them."""
_LOOKS_AHEAD = r"\s+(?!\S)"
_TAKES_ALL_ENDS = {r"\s*[\r\n]+", r"\n"}
"""If one of these comes first, no line ends are left for the alternative that looks ahead."""
_CLASS = r"\\p\{(?:L[ultmo&]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Han|Hiragana|Katakana|Hangul|Latin|Cyrillic|Thai)\}"
"""Classes of letters, marks, numbers, punctuation, symbols or a script; control characters include line ends."""
_ATOM = (
    r"(?:"
    rf"{_CLASS}"
    r"|\\[wdb]|\\[^\w\s]"
    r"|\[\^(?=[^\]]*(?:\\s|\\r\\n))(?:\\p\{\w+\}|\\?[^\]\\\[])*\]"  # excludes at least blanks or line ends
    rf"|\[(?!\^)(?:{_CLASS}|\\[^\w\s]|[^\]\\\[\s])+\]"
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
    """First characters of a line before which a text may be cut."""
    after_blanks: bool
    """Whether a cut is allowed if blanks or further line ends precede the line end."""
    specials: re.Pattern[str] | None
    """Matches places inside a line right after a special token; None if there are no such tokens."""


def line_ends(tokenizer: PreTrainedTokenizerBase) -> LineEnds | None:
    """Return where texts may be cut for a tokenizer; None if they may not be cut.

    Args:
        tokenizer: Any tokenizer; for one written in pure Python the result is None.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not tokenizer.is_fast or backend is None or not _plain_model(backend.model):
        return None
    if tokenizer.split_special_tokens:  # each call sets the backend's own flag to this one
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
    """Whether it cuts at every line end; otherwise its words at least never cross one."""
    after_blanks: bool = True
    follow: frozenset[str] = frozenset()
    """Characters that follow a line end in a word that crosses it."""


def _plain_model(model: Any) -> bool:
    """Whether the same word always becomes the same tokens."""
    kind = type(model).__name__
    return kind in ("WordPiece", "Unigram", "WordLevel") or (kind == "BPE" and not model.dropout)


def _state(part: Any) -> dict[str, Any]:
    """Return the description of a part of the tokenizer, as in tokenizer.json."""
    if part is None:
        return {}
    found: dict[str, Any] = json.loads(part.__getstate__())
    return found


def _keeps_to_lines(normalizer: dict[str, Any]) -> bool:
    parts = normalizer.get("normalizers", [normalizer] if normalizer else [])
    return all(part["type"] in NORMALIZERS for part in parts)


def _words(state: dict[str, Any]) -> _Words | None:
    """Return how words are cut; None if they may cross line ends, or if that is unknown."""
    first = _Words(isolates=False)
    for part in state.get("pretokenizers", [state] if state else []):
        if first.isolates:  # line ends are cut already; the remaining parts see one word at a time
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
    """Return how a regular expression's matches behave at line ends; None if that is unknown."""
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
    """Return the characters after line ends within a fixed text; None for other patterns."""
    lines = _OVER_LINES.split(kind)
    if len(lines) < 2 or not all(_WITHIN_A_LINE.fullmatch(line) for line in lines[1:]):
        return None
    if lines[0] and not _WITHIN_A_LINE.fullmatch(lines[0]):
        return None
    begins = {line[0] for line in lines[1:]}
    return begins if begins <= BEGINS - {"("} and not any(line[1:2] in "?*{" for line in lines[1:]) else None


def _alternatives(pattern: str) -> list[str]:
    """Split a regular expression at the bars outside groups and classes."""
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
    """Match places after special tokens that are found before other processing and absorb nothing that follows."""
    sure = [t.content for t in added if t.special and not t.normalized and not t.rstrip and not t.single_word]
    alone = [c for c in sure if not _inside_another(c, (t.content for t in added))]
    return re.compile("|".join(f"(?<={re.escape(c)})" for c in alone)) if alone else None


def _inside_another(content: str, others: Iterable[str]) -> bool:
    return any(content in other and content != other for other in others)
