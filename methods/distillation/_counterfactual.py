"""Texts with the groups' words swapped: the student learns, for each of them, the teacher's mean prediction over all.

A swap is a permutation of token ids, so that a text and its swapped form have their tokens in the same places, and a
distribution can be swapped back. Words are swapped only where every word of their line is one token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from evenhand.errors import DataError, SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.methods.distillation._words import WordRule

ENGLISH = """
he she, himself herself, man woman, men women, boy girl, boys girls, male female, males females, gentleman lady,
gentlemen ladies, father mother, fathers mothers, dad mom, son daughter, sons daughters, brother sister,
brothers sisters, uncle aunt, uncles aunts, nephew niece, nephews nieces, grandfather grandmother, grandpa grandma,
grandson granddaughter, husband wife, husbands wives, boyfriend girlfriend, groom bride, widower widow, king queen,
kings queens, prince princess, princes princesses, actor actress, waiter waitress, sir madam, mr ms
"""
"""Our list. "her" is him and his, "his" is her and hers: no permutation of words swaps them, so they stay."""
SHIPPED = {"en": ENGLISH}

Line = tuple[str, ...]


class Found(NamedTuple):
    """A line in one form, as tokens."""

    words: Line
    ids: tuple[int, ...]
    left_out: str = ""
    """Why it is not swapped; "" if it is."""


def swap_lines(name: str) -> list[Line]:
    """Return the lines of words that are swapped.

    Args:
        name: "en", or a text file with one word per group in each line, separated by blanks, all lines equally long.

    Raises:
        DataError: The file cannot be read.
        SettingsError: It is not a file, a word occurs twice, or lines differ in length.
    """
    if name in SHIPPED:
        lines = [tuple(part.split()) for part in SHIPPED[name].split(",")]
    else:
        path = Path(name).expanduser()
        if not path.is_file():
            raise SettingsError(f"swaps={name!r} is not a file: set 'en', or a file with a word per group in each line")
        try:
            lines = [tuple(line.split()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the list of swaps {path}: {error}") from error
    every = [word for line in lines for word in line]
    twice = sorted({word for word in every if every.count(word) > 1})
    if twice:
        raise SettingsError(f"swaps {name}: {twice[0]!r} occurs twice, so it cannot be swapped back; leave one out")
    if len({len(line) for line in lines}) != 1 or len(lines[0]) < 2:
        raise SettingsError(f"swaps {name}: every line needs the same number of words, two or more")
    return lines


def resolved(lines: Sequence[Line], tokenizer: PreTrainedTokenizerBase) -> list[Found]:
    """Return every line in its forms: after a blank, with and without capitals, and capitalised without a blank."""
    out: dict[tuple[int, ...], Found] = {}
    left: list[Found] = []
    for line in lines:
        for before, words in _forms(line):
            ids = [tokenizer(before + word, add_special_tokens=False).input_ids for word in words]
            if all(len(one) == 1 and one[0] != tokenizer.unk_token_id for one in ids):
                whole = tuple(int(one[0]) for one in ids)
                out.setdefault(whole, Found(tuple(before + word for word in words), whole))
            else:
                left.append(Found(tuple(before + word for word in words), (), "not one token each"))
    tokens = [token for ids in out for token in ids]
    if len(set(tokens)) < len(tokens):
        raise SettingsError("this tokenizer has one token for words that are to be swapped; shorten the list of swaps")
    if not out:
        raise SettingsError("no line of the list of swaps has one token for each of its words in this tokenizer")
    return [*out.values(), *left]


def _forms(line: Line) -> Iterator[tuple[str, Line]]:
    capital = tuple(word[0].upper() + word[1:] for word in line)
    yield " ", line
    if capital != line:
        yield " ", capital
    yield "", capital


def report(found: Sequence[Found]) -> str:
    """Return what is swapped, and what is left out and why."""
    rows = [" <-> ".join(f.words) + (f"  left out: {f.left_out}" if f.left_out else f"  {f.ids}") for f in found]
    return "\n".join(rows)


class SwapRule:
    """Averages the teacher's predictions over all readings of a text, swapped back; it reads the same in each."""

    words: WordRule | None = None

    def __init__(self, found: Sequence[Found], *, strength: float, emphasis: float = 0.0) -> None:
        """Create the rule from the swaps.

        Args:
            found: Result of `resolved`.
            strength: 0 .. 1, how far to move from the teacher's own distribution to the mean, in probability.
            emphasis: Additional weight of a position, times the probability of the swapped words there.
        """
        kept = [f.ids for f in found if not f.left_out]
        self.inputs, self.strength = len(kept[0]), strength
        self.emphasis = emphasis if strength > 0 else 0.0
        self.tokens = torch.tensor(sorted(token for ids in kept for token in ids))
        self._next = torch.arange(int(self.tokens.max()) + 1)
        for ids in kept:
            self._next[list(ids)] = torch.tensor([*ids[1:], ids[0]])

    def read(self, ids: Tensor) -> Tensor:
        """Return the text as it is, and swapped once, twice ..."""
        return torch.stack([self._turn(k, int(ids.max()) + 1)[ids] for k in range(self.inputs)])

    def labels(self, labels: Tensor) -> Tensor:
        """Swap the labels alike; ignored ones stay."""
        counted = labels.clamp_min(0)
        return torch.where(labels >= 0, self.read(counted), labels)

    def target(self, logprobs: Tensor, open: Tensor) -> Tensor:
        """Return the mean of the readings; at strength 0 the same tensor object."""
        if self.strength == 0:
            return logprobs
        many, words = self.inputs, logprobs.shape[-1]
        turns = [self._turn(k, words).to(logprobs.device) for k in range(many)]
        back = torch.stack([logprobs[k::many][:, turns[k]] for k in range(many)])  # swapped back
        mean = back.logsumexp(0) - math.log(many)
        if self.strength < 1:
            back = torch.logaddexp(back + math.log1p(-self.strength), mean + math.log(self.strength))
        else:
            back = mean.expand_as(back)
        out = torch.empty_like(logprobs)
        for k in range(many):
            out[k::many] = back[k][:, turns[-k % many]]
        return out

    def weight(self, logprobs: Tensor, open: Tensor) -> Tensor | None:
        """Weight positions where the swapped words are probable."""
        if not self.emphasis:
            return None
        return 1 + self.emphasis * logprobs[:, self.tokens.to(logprobs.device)].exp().sum(dim=-1)

    def softened(self, labels: Tensor, open: Tensor) -> Tensor:
        """Soften no label: each is learned in every reading, so once for every group if the readings are alike."""
        return torch.zeros_like(open)

    def soft(self, labels: Tensor, logprobs: Tensor) -> Tensor:
        """Never called, as no label is softened."""
        raise NotImplementedError

    def _turn(self, times: int, words: int) -> Tensor:
        """Return, [words or more], what each token becomes when swapped that many times."""
        size = max(words, len(self._next))
        once = torch.cat([self._next, torch.arange(len(self._next), size)])
        out = torch.arange(size)
        for _ in range(times):
            out = once[out]
        return out[:words] if words >= len(self._next) else out
