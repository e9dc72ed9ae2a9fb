"""Log-probabilities of every token of a text, and of the most probable ones at its position, as shown by `echo`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from evenhand.errors import EvenhandError
from evenhand.inference.padding import right_pad
from evenhand.inference.requests import NOT_FINITE, buckets
from evenhand.inference.sampling import finite
from evenhand.inference.scoring import READ_ELEMENTS, check_ids, evaluating, input_device, only_rows
from evenhand.inference.top_tokens import Ranked

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Listed(NamedTuple):
    """A token of a text."""

    logprob: float
    """Natural logarithm of its probability, given all tokens before it."""
    top: Ranked
    """Tokens with the highest probability at its position."""


class _Part(NamedTuple):
    """Positions of one row that are read together."""

    row: int
    first: int
    end: int


def token_tables(
    module: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    k: int,
    *,
    pad_id: int = 0,
    batch_tokens: int = 8_192,
) -> list[list[Listed]]:
    """Return the log-probabilities of each row's tokens from a start on.

    Args:
        module: A causal language model.
        rows: Token ids.
        starts: First token listed in each row, counted from 0; token 0 has nothing before it and is left out.
        k: Number of most probable tokens listed; 0 lists none.
        pad_id: Token that pads shorter rows on the right, where no real position sees it.
        batch_tokens: Padded tokens in a batch.

    Raises:
        EvenhandError: Logits are not finite, or a token has no embedding.
    """
    check_ids(module, rows)
    vocabulary = int(module.config.get_text_config().vocab_size)
    most = max(1, READ_ELEMENTS // vocabulary)
    parts = list(_parts(rows, starts, most))
    out: list[list[Listed]] = [[] for _ in rows]
    with evaluating(module):
        lengths, widths = [p.end - 1 for p in parts], [p.end - p.first for p in parts]
        done: dict[int, list[Listed]] = {}
        for group in buckets(lengths, batch_tokens, widths, most):
            done.update(zip(group, _read(module, rows, [parts[i] for i in group], k, pad_id), strict=True))
    for i, part in enumerate(parts):
        out[part.row] += done[i]
    return out


def _parts(rows: Sequence[Sequence[int]], starts: Sequence[int], most: int) -> Iterator[_Part]:
    """Cut rows into parts of at most `most` positions, whose logits fit into memory."""
    for row, (ids, start) in enumerate(zip(rows, starts, strict=True)):
        for first in range(max(1, start), len(ids), most):
            yield _Part(row, first, min(len(ids), first + most))


def _read(
    module: PreTrainedModel, rows: Sequence[Sequence[int]], parts: Sequence[_Part], k: int, pad_id: int
) -> list[list[Listed]]:
    """Read parts in one right-padded forward."""
    ids, mask = right_pad([rows[p.row][: p.end - 1] for p in parts], pad_id, device=input_device(module))
    flat = torch.tensor([n * ids.shape[1] + at - 1 for n, p in enumerate(parts) for at in range(p.first, p.end)])
    head: torch.nn.Module = module.get_output_embeddings()
    with only_rows(head, flat):
        logits = module(input_ids=ids, attention_mask=mask, use_cache=False).logits[0].float()
    if not bool(finite(logits).all()):
        raise EvenhandError(
            f"{type(module).__name__}: {NOT_FINITE} (nan or infinite); load it in float32 or bfloat16, or check it"
        )
    logprobs = torch.log_softmax(logits, dim=-1)
    tokens = [rows[p.row][at] for p in parts for at in range(p.first, p.end)]
    own = logprobs[torch.arange(len(tokens)), torch.tensor(tokens, device=logprobs.device)].tolist()
    best = logprobs.topk(min(k, logprobs.shape[-1]))
    pairs = [
        list(zip(ranked, values, strict=True))
        for ranked, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    listed = iter(Listed(logprob, top) for logprob, top in zip(own, pairs, strict=True))
    return [[next(listed) for _ in range(p.first, p.end)] for p in parts]
