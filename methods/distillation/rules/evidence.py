"""Find the positions that leave the choice between groups open.

After "the woman", "she" is not a stereotype but what the text means, and flattening it teaches the model
to forget. So a rule is to act only where no word of the context states a group.

The words are looked for in the text that the tokens spell, not among token ids: a word of several tokens is found like
any other, and a piece inside a longer word ("man" in "mankind") is not. The text is put together from the vocabulary's
bytes, so that nothing has to be tokenized or decoded again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evenhand.errors import SettingsError
from evenhand.methods.distillation.rules.packs import RulePack, case_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Mask = NDArray[np.bool_]

BREAK = b"\x00"
"""Bytes of a special token: they separate words, and no word contains them."""
LETTER = rb"(?:[0-9A-Za-z_]|[\xc3-\xdf][\x80-\xbf])"
"""A letter in UTF-8 of one or two bytes; curly quotes and dashes have three, and separate words."""
NOT_AFTER = rb"(?<![0-9A-Za-z_])(?<![\xc3-\xdf][\x80-\xbf])"


class EvidenceGate:
    """Decides for every position of a text whether its context leaves the choice open; built once for all batches."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        pack: RulePack,
        *,
        masked: bool,
        ends: Collection[int] = (),
    ) -> None:
        """Read the vocabulary and the words.

        Args:
            tokenizer: The model's tokenizer, which has to be a fast one.
            pack: The groups' words and lists of evidence; a lower-case word is also found with a capital and in
                capitals, any other as it is written.
            masked: Whether positions see both sides (a masked model) or only what is before them (a causal one).
            ends: Ids of tokens after which another text begins, if one row contains several.
        """
        self.tokenizer = tokenizer
        self.masked = masked
        self.ends = frozenset(ends)
        kind = _kind(json.loads(_backend(tokenizer).to_str()))
        self.spelled = _spelled(tokenizer, kind)
        lowers = _lowers(tokenizer)
        words = {form for group in pack.evidence_words().values() for word in group for form in _forms(word, lowers)}
        longest_first = sorted(words, key=lambda w: (-len(w), w))
        either = b"|".join(_written(word, kind) for word in longest_first) or b"(?!)"  # without words, nothing matches
        self.pattern = re.compile(NOT_AFTER + b"(?:" + either + b")(?!" + LETTER + b")")

    def __call__(self, rows: Sequence[Sequence[int]] | Sequence[str]) -> list[Mask]:
        """Return one mask per row, True where the position is open.

        Args:
            rows: Token ids of each text, as the model reads them; or texts, which are tokenized as the tokenizer does
                by default, special tokens included.

        Returns:
            [length] per row. Causal: the value at t is about the prediction that is made at t, of the token t + 1, from
            the tokens up to t; a word closes the position of its last token and all after it. (Whether a token ends a
            word is read from the next one, the only look ahead.) Masked: the value at t is about the token at t itself,
            from all others; a word does not count for the positions that it takes itself.
        """
        return [self._row(self._ids(row)) for row in rows]

    def _ids(self, row: Sequence[int] | str) -> list[int]:
        return list(self.tokenizer(row)["input_ids"] if isinstance(row, str) else map(int, row))

    def _row(self, ids: list[int]) -> Mask:
        cuts = [0, *(at + 1 for at, i in enumerate(ids) if i in self.ends), len(ids)]
        if len(cuts) == 2:
            return self._text(ids)
        return np.concatenate([self._text(ids[a:b]) for a, b in pairwise(cuts)])

    def _text(self, ids: list[int]) -> Mask:
        pieces = [self.spelled[i] if i < len(self.spelled) else BREAK for i in ids]
        until = np.fromiter(accumulate(map(len, pieces)), np.int64, len(pieces))
        found = [match.span() for match in self.pattern.finditer(b"".join(pieces))]
        if not found:
            return np.ones(len(ids), np.bool_)
        # Which tokens contain the first and the last byte of every word found.
        first, last = (until.searchsorted([at for at in ends], side="right") for ends in _ends(found))
        if not self.masked:
            return np.asarray(np.arange(len(ids)) < last.min())
        own = np.zeros(len(ids) + 1, np.int64)
        np.add.at(own, first, 1)
        np.add.at(own, last + 1, -1)
        return np.asarray(len(found) - own.cumsum()[:-1] == 0)


def open_positions(
    texts_or_ids: Sequence[Sequence[int]] | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    pack: RulePack,
    *,
    masked: bool,
    ends: Collection[int] = (),
) -> list[Mask]:
    """Return where no context states a group, with an `EvidenceGate` built for one call; reuse a gate for batches."""
    return EvidenceGate(tokenizer, pack, masked=masked, ends=ends)(texts_or_ids)


def _ends(found: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return the first and the last byte of every span."""
    return [a for a, _ in found], [b - 1 for _, b in found]


def _forms(word: str, lowers: bool) -> set[str]:
    if lowers:
        return {word.lower()}
    if case_of(word) != "lower":
        return {word}
    return {word, word[0].upper() + word[1:], word.upper()}


def _written(word: str, kind: str) -> bytes:
    """Return the word as a pattern; WordPiece splits a word at its apostrophe without marking the missing blank."""
    parts = re.findall(r"\w+|[^\w\s]|\s+", word) if kind == "WordPiece" else [word]
    return b" ?".join(re.escape(part.encode()) for part in parts)


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    if not tokenizer.is_fast:
        raise SettingsError(f"{type(tokenizer).__name__} cannot be read as bytes: use a fast tokenizer")
    return tokenizer.backend_tokenizer


def _kind(backend: dict[str, Any]) -> str:
    """Return how the vocabulary writes blanks and bytes."""
    decoder = json.dumps(backend["decoder"])
    return next((kind for kind in ("ByteLevel", "WordPiece") if f'"{kind}"' in decoder), "")


def _lowers(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer drops all capitals."""
    normalizer = _backend(tokenizer).normalizer
    return normalizer is not None and "A" not in normalizer.normalize_str("A")


def _spelled(tokenizer: PreTrainedTokenizerBase, kind: str) -> list[bytes]:
    """Return what each token id adds to a text."""
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [BREAK if i in special or t is None else _bytes(t, kind) for i, t in enumerate(tokens)]


def _bytes(token: str, kind: str) -> bytes:
    if kind == "ByteLevel":
        return b"".join(bytes([BYTES[c]]) if c in BYTES else c.encode() for c in token)
    if kind == "WordPiece":
        return token[2:].encode() if token.startswith("##") else b" " + token.encode()
    byte = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """Return the characters that byte-level BPE writes for the 256 bytes: printable ones are themselves."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}


BYTES = _byte_alphabet()
