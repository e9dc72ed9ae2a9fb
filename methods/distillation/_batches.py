"""Turn texts into batches of tokens: what the student reads, where it is compared, and where a rule acts.

Tokens to mask for a masked language model are drawn per text, so that they do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from evenhand.core.draws import generator
from evenhand.inference.padding import right_pad
from evenhand.inference.requests import buckets
from evenhand.models.tokenization import Encoder
from evenhand.training.packing import IGNORED, Layout, pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]
GROUP = 64
"""Number of batches' worth of texts laid out together: enough for dense rows, few enough to mix lengths in an epoch."""
ROW = 256
"""Maximum number of tokens in a row of several texts."""


class Rows(NamedTuple):
    """A batch. All tables are [rows, length] and describe the position whose output they are about."""

    inputs: dict[str, Any]
    """Arguments with which the module is called."""
    labels: Tensor
    """The token to be predicted at a position, or `IGNORED`."""
    read: Tensor
    """Whether teacher and student are compared at a position."""
    open: Tensor
    """Whether the rule acts at a position."""
    spots: Tensor | None = None
    """Number of a position on which rules on words of several tokens act (`evenhand.methods.distillation._words`); -1
    elsewhere."""


class Text(NamedTuple):
    """A text, or a stretch of a long one, in tokens."""

    ids: Ids
    labels: Ids
    """For each position, the token to be predicted, or `IGNORED`."""
    open: list[bool]
    """Whether the rule acts, for each position."""
    spots: list[int] | None = None
    """Numbers as in `Rows`, for each position; None is -1 everywhere."""
    read: list[bool] | None = None
    """For a causal model, whether each position is compared; None is every position but the last, which predicts
    nothing."""


class Masking(NamedTuple):
    """How tokens are masked for a masked language model."""

    share: float
    """Share of the tokens to be predicted."""
    often: float
    """Share for tokens that a rule is about."""
    rule_tokens: frozenset[int]


Gate = Callable[[Sequence[Ids], Sequence[list[bool]]], list[list[bool]]]
"""Maps token ids as they are read, and which of them are masked or replaced, to where the rule acts (by position)."""


# ------------------------------------------------------------------------------------------------- in tokens


def stretches(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, *, causal: bool
) -> list[tuple[tuple[int, ...], Ids]]:
    """Tokenise each text with the tokenizer's special tokens; long texts are cut into stretches.

    Args:
        texts: Plain texts.
        tokenizer: The model's own.
        length: Maximum number of tokens of a stretch, at least one more than the special ones.
        causal: Whether only an opening token precedes a text, as for causal models.

    Returns:
        Stretches with two or more tokens to learn from (causal), or one; each after the tokens of its whole text,
        without special ones.
    """
    before, after = _ends(tokenizer, causal)
    room = length - len(before) - len(after)
    out: list[tuple[tuple[int, ...], Ids]] = []
    plain = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
    for ids in plain:
        whole, parts = tuple(ids), (list(ids[start : start + room]) for start in range(0, len(ids), room))
        out += [(whole, [*before, *part, *after]) for part in parts]
    return [(whole, ids) for whole, ids in out if len(ids) > (1 if causal else len(before) + len(after))]


def _ends(tokenizer: PreTrainedTokenizerBase, causal: bool) -> tuple[Ids, Ids]:
    """Return the special tokens before and after every text."""
    if causal:
        return Encoder(tokenizer).opening, []
    whole = list(tokenizer("a").input_ids)
    bare = list(tokenizer("a", add_special_tokens=False).input_ids)
    start = next(n for n in range(len(whole)) if whole[n : n + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def predicting(texts: Sequence[Ids], gate: Gate) -> list[Text]:
    """Prepare texts for a causal model: each position predicts the token after it; the last predicts nothing."""
    opened = gate(texts, [[False] * len(ids) for ids in texts])
    return [Text(ids, [*ids[1:], IGNORED], where) for ids, where in zip(texts, opened, strict=True)]


def hiding(
    texts: Sequence[Ids], gate: Gate, masking: Masking, tokenizer: PreTrainedTokenizerBase, seed: str
) -> list[Text]:
    """Prepare texts for a masked model: of the tokens to predict, 80 % are masked, 10 % replaced, 10 % unchanged.

    Source of the shares: Devlin et al. 2019, "BERT" (NAACL 2019, arXiv 1810.04805), section 3.1.

    Args:
        texts: Token ids with special tokens.
        gate: See `Gate`.
        masking: How many tokens are masked.
        tokenizer: Gives the mask token and special tokens.
        seed: Seed of the draws, which are independent for each text.
    """
    special, mask = set(tokenizer.all_special_ids), int(tokenizer.mask_token_id or 0)
    others = np.array([n for n in range(len(tokenizer)) if n not in special])
    read, labels = [], []
    for n, ids in enumerate(texts):
        rng = generator(n, seed)
        draws, kinds, random = rng.random(len(ids)), rng.random(len(ids)), rng.choice(others, len(ids))
        shares = [0.0 if t in special else masking.often if t in masking.rule_tokens else masking.share for t in ids]
        found = [bool(d < share) for d, share in zip(draws, shares, strict=True)]
        shown = [
            t if not f or k >= 0.9 else mask if k < 0.8 else int(r)
            for t, f, k, r in zip(ids, found, kinds, random, strict=True)
        ]
        read.append(shown)
        labels.append([t if f else IGNORED for t, f in zip(ids, found, strict=True)])
    # Replaced tokens are predicted like masked ones: if rules did not act there, their labels would bring back
    # the skew of the text
    opened = gate(read, [[a != b for a, b in zip(*pair, strict=True)] for pair in zip(texts, read, strict=True)])
    return [Text(*row) for row in zip(read, labels, opened, strict=True)]


# ------------------------------------------------------------------------------------------------ in batches


def batches(
    texts: Sequence[Text],
    layout: Layout | None,
    tokens: int,
    pad: int,
    random: Random,
    *,
    hidden: bool = False,
    size: int | None = None,
) -> list[Rows]:
    """Arrange all texts once in batches of at most `tokens` tokens, in a newly drawn order.

    Args:
        texts: Texts from `predicting` or `hiding`.
        layout: Layout of a causal model; None is a masked model, with one text per row.
        tokens: Maximum number of tokens in a batch, padding included; a longer text is a batch by itself.
        pad: Token with which rows are padded.
        random: Draws the order.
        hidden: Whether a masked student is compared with its teacher only at the tokens to predict.
        size: Number of texts in a batch, whatever their lengths; None is as many as `tokens` allows.
    """
    order = random.sample(range(len(texts)), len(texts))
    out: list[Rows] = []
    if size is not None:
        for start in range(0, len(order), size):
            out += _together([texts[n] for n in order[start : start + size]], layout, pad, hidden)
        return out
    for group in _groups([texts[n] for n in order], GROUP * tokens):
        if layout is not None:
            out += _packed(group, layout, tokens)
            continue
        out += [_masked([group[n] for n in rows], pad, hidden) for rows in buckets([len(t.ids) for t in group], tokens)]
    random.shuffle(out)
    return out


def _together(texts: Sequence[Text], layout: Layout | None, pad: int, hidden: bool) -> list[Rows]:
    """Combine texts into one batch."""
    if layout is None:
        return [_masked(texts, pad, hidden)]
    return _packed(texts, layout, len(texts) * max(ROW, *(len(text.ids) for text in texts)))


def _masked(texts: Sequence[Text], pad: int, hidden: bool) -> Rows:
    rows = _padded(texts, pad)
    return rows._replace(read=rows.labels != IGNORED) if hidden else rows


def _groups(texts: Iterable[Text], tokens: int) -> list[list[Text]]:
    out: list[list[Text]] = [[]]
    size = 0
    for text in texts:
        if size > tokens:
            out, size = [*out, []], 0
        out[-1].append(text)
        size += len(text.ids)
    return out


def _packed(texts: Sequence[Text], layout: Layout, tokens: int) -> list[Rows]:
    # what `pack` moves along with a token is where the place before it stands in these lists; -1 if it is not read
    labels = torch.tensor([x for t in texts for x in t.labels])
    open = torch.tensor([o for t in texts for o in t.open])
    spots = torch.tensor([n for t in texts for n in t.spots or [-1] * len(t.ids)])
    starts = [0, *accumulate(len(t.ids) for t in texts)]
    places = [[-1, *_read(t, start)] for t, start in zip(texts, starts, strict=False)]
    out = []
    for batch in pack([t.ids for t in texts], layout, labels=places, length=min(ROW, tokens), tokens=tokens):
        at = torch.full_like(batch.labels, -1)
        at[:, :-1] = batch.labels[:, 1:]
        read, at = at >= 0, at.clamp_min(0)
        out.append(
            Rows(
                batch.inputs,
                torch.where(read, labels[at], IGNORED),
                read,
                read & open[at],
                torch.where(read, spots[at], -1),
            )
        )
    return out


def _read(text: Text, start: int) -> list[int]:
    """Return, per position but the last, its place in a list where the text begins at `start`; -1 if it is not read."""
    read = text.read or [True] * len(text.ids)
    return [start + n if read[n] else -1 for n in range(len(text.ids) - 1)]


def _padded(texts: Sequence[Text], pad: int) -> Rows:
    ids, mask = right_pad([t.ids for t in texts], pad)
    labels, opened = right_pad([t.labels for t in texts], IGNORED).values, right_pad([t.open for t in texts], 0).values
    return Rows({"input_ids": ids, "attention_mask": mask}, labels, mask.bool(), opened.bool())
