"""Compute log-probabilities only at the positions that are read.

A forward pre-hook passes the output embedding only the hidden states of the positions that are read. So the
[batch, sequence, vocabulary] tensor never exists, while steps of the architecture after its head (soft caps, scales)
still apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from evenhand.errors import EvenhandError
from evenhand.inference.edit_hooks import edit_here, editing_rows
from evenhand.inference.edited_tokens import first_edited_of
from evenhand.inference.last_layer import wide_part_at
from evenhand.inference.offload_support import place_of
from evenhand.inference.padding import right_pad
from evenhand.inference.requests import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READ_ELEMENTS = 64_000_000
"""Maximum number of logits in memory at once (float32: 256 MB)."""


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Turn off dropout and gradients within the block; all training flags are restored afterwards."""
    with _dropout_off(module), torch.inference_mode():
        yield


@contextmanager
def frozen(module: torch.nn.Module) -> Iterator[None]:
    """Like `evaluating`, for results that enter a loss with gradients, which inference tensors cannot."""
    with _dropout_off(module), torch.no_grad():
        yield


@contextmanager
def _dropout_off(module: torch.nn.Module) -> Iterator[None]:
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def only_rows(head: torch.nn.Module, rows: torch.Tensor) -> Iterator[None]:
    """Let the output embedding see only `rows` of the flattened [batch * sequence] hidden states."""

    def keep(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0]
        kept = hidden.reshape(-1, hidden.shape[-1])[rows.to(hidden.device)]
        return (kept[None], *inputs[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def input_device(module: PreTrainedModel) -> torch.device:
    """Return the device for token ids: that of the input embedding, or where it runs if it is offloaded."""
    embedding: Any = module.get_input_embeddings()
    return place_of(embedding)


def log_normaliser(logits: torch.Tensor) -> torch.Tensor:
    """Return the log of the sum of exp over the last axis; nan if it is not finite.

    For logits with +inf it would be +inf, which would silently make every other token impossible.
    """
    found = torch.logsumexp(logits, dim=-1)
    return found.where(found.isfinite(), torch.nan)


def check_ids(module: PreTrainedModel, sequences: Iterable[Sequence[int]]) -> None:
    """Refuse token ids for which the model has no embedding; on a GPU they would crash the process.

    Raises:
        EvenhandError: An id has no embedding; the message names the largest one.
    """
    embedding: Any = module.get_input_embeddings()
    rows, largest = int(embedding.weight.shape[0]), max((max(ids, default=0) for ids in sequences), default=0)
    if largest >= rows:
        raise EvenhandError(
            f"token id {largest} has no embedding: the model has {rows}, for ids 0 to {rows - 1}. Use the tokenizer "
            "that the model was trained with, or leave out the text of that token"
        )


def right_padded_flags(mask: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
    """Return which tokens of a right-padded batch are edited, [rows, length]; padding never is.

    Args:
        mask: Mask, [rows, length]: 1 for tokens, 0 for padding.
        starts: Position of the first edited token of each row.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)[None]
    return mask.bool() & (positions >= torch.tensor(starts, device=mask.device)[:, None])


def score_batch(
    module: PreTrainedModel, batch: Sequence[Request], pad_id: int, *, causal: bool = True
) -> list[tuple[float, ...]]:
    """Score a batch in one right-padded forward, under the installed activation edit.

    Right padding does not affect a causal model's real positions, which attend only to what is before them.

    Args:
        module: A language model.
        batch: At least one request.
        pad_id: Token with which rows are padded.
        causal: Whether the model may have a KV cache, which is then turned off.

    Returns:
        The reads of each request, natural logs, computed in float32; nan if the logits are not finite.
    """
    device = input_device(module)
    ids, mask = right_pad([r.ids for r in batch], pad_id, device=device)
    options = {"use_cache": False} if causal else {}

    def forward() -> torch.Tensor:
        logits: torch.Tensor = module(input_ids=ids, attention_mask=mask, **options).logits
        return logits

    with editing_rows(right_padded_flags(mask, [first_edited_of(edit_here(), r) for r in batch])):
        return read_rows(module, forward, [r.reads for r in batch], ids.shape[1], encoder=not causal)


def read_rows(
    module: PreTrainedModel,
    forward: Callable[[], torch.Tensor],
    reads: Sequence[Sequence[tuple[int, int]]],
    length: int,
    *,
    encoder: bool = False,
) -> list[tuple[float, ...]]:
    """Compute log-probabilities of tokens after positions of a padded batch, without other positions' logits.

    Args:
        module: The language model that `forward` runs.
        forward: Runs the batch once, and returns the model's logits.
        reads: Pairs of a position and a token for each row.
        length: Length of the rows that reach the output embedding.
        encoder: Whether the model is an encoder, whose last layer is also needed at these positions only.

    Returns:
        The reads of each row, natural logs, computed in float32; nan if the logits are not finite.
    """
    places = [(row, p) for row, some in enumerate(reads) for p in sorted({p for p, _ in some})]
    head: torch.nn.Module = module.get_output_embeddings()
    at = torch.tensor([row * length + p for row, p in places])
    with only_rows(head, at), wide_part_at(at, module) if encoder else nullcontext():
        logits = forward()[0].float()
    slot = {place: n for n, place in enumerate(places)}
    found = torch.tensor([slot[row, p] for row, some in enumerate(reads) for p, _ in some], device=logits.device)
    token = torch.tensor([t for some in reads for _, t in some], device=logits.device)
    values = iter((logits[found, token] - log_normaliser(logits)[found]).tolist())
    return [tuple(islice(values, len(some))) for some in reads]
