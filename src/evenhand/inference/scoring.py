"""Log-probabilities at the positions that are read, and nowhere else.

A forward pre-hook on the output embedding hands it only the hidden states of the positions that are read. So the
[batch, sequence, vocabulary] tensor never exists, and whatever the architecture does after its head (soft caps, scales)
still happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from evenhand.errors import EvenhandError
from evenhand.inference.edit_hooks import edit_here, editing_rows
from evenhand.inference.edited_tokens import first_edited_of
from evenhand.inference.offload_support import place_of
from evenhand.inference.padding import right_pad
from evenhand.inference.requests import Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READ_ELEMENTS = 64_000_000
"""Most logits held at once (float32: 256 MB)."""


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Dropout off and no gradients inside; the training flags of all submodules are put back afterwards."""
    with _dropout_off(module), torch.inference_mode():
        yield


@contextmanager
def frozen(module: torch.nn.Module) -> Iterator[None]:
    """As `evaluating`, for results that a loss with gradients is computed from, which inference tensors cannot be."""
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
    """Where token ids go; with a device map that is where the input embedding lies, or runs where it is offloaded."""
    embedding: Any = module.get_input_embeddings()
    return place_of(embedding)


def log_normaliser(logits: torch.Tensor) -> torch.Tensor:
    """Log of the sum of exp over the last axis; nan where it is not finite.

    Of logits with +inf it would be +inf, and every other token would silently be impossible.
    """
    found = torch.logsumexp(logits, dim=-1)
    return found.where(found.isfinite(), torch.nan)


def check_ids(module: PreTrainedModel, sequences: Iterable[Sequence[int]]) -> None:
    """Refuse token ids that the model has no embedding for; a GPU would end the process over them.

    Raises:
        EvenhandError: The message names the largest one.
    """
    embedding: Any = module.get_input_embeddings()
    rows, largest = int(embedding.weight.shape[0]), max((max(ids, default=0) for ids in sequences), default=0)
    if largest >= rows:
        raise EvenhandError(
            f"token id {largest} has no embedding: the model has {rows}, for ids 0 to {rows - 1}. Use the tokenizer "
            "that the model was trained with, or leave out the text of that token"
        )


def right_padded_flags(mask: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
    """Which tokens of a right-padded batch are edited, [rows, length]; padding never is.

    Args:
        mask: [rows, length] 1 for tokens, 0 for padding.
        starts: Per row the position of its first edited token.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)[None]
    return mask.bool() & (positions >= torch.tensor(starts, device=mask.device)[:, None])


def score_batch(
    module: PreTrainedModel, batch: Sequence[Request], pad_id: int, *, causal: bool = True
) -> list[tuple[float, ...]]:
    """One right-padded forward over `batch`, under the activation edit that is installed.

    Right padding leaves a causal model's real positions untouched: they attend only to what stands before them.

    Args:
        module: A language model.
        batch: At least one request.
        pad_id: What rows are filled up with.
        causal: Whether the model is one that might keep keys and values, and is told not to.

    Returns:
        Per request its reads, natural log, computed in float32; nan where the logits are not finite.
    """
    device = input_device(module)
    ids, mask = right_pad([r.ids for r in batch], pad_id, device=device)
    options = {"use_cache": False} if causal else {}

    def forward() -> torch.Tensor:
        logits: torch.Tensor = module(input_ids=ids, attention_mask=mask, **options).logits
        return logits

    with editing_rows(right_padded_flags(mask, [first_edited_of(edit_here(), r) for r in batch])):
        return read_rows(module, forward, [r.reads for r in batch], ids.shape[1])


def read_rows(
    module: PreTrainedModel,
    forward: Callable[[], torch.Tensor],
    reads: Sequence[Sequence[tuple[int, int]]],
    length: int,
) -> list[tuple[float, ...]]:
    """Log-probabilities of tokens after positions of a padded batch; no other position's logits are made.

    Args:
        module: The language model that `forward` runs.
        forward: Runs the batch once, and gives the model's logits.
        reads: Per row pairs of a position and a token.
        length: Of the rows that reach the output embedding.

    Returns:
        Per row its reads, natural log, computed in float32; nan where the logits are not finite.
    """
    places = [(row, p) for row, some in enumerate(reads) for p in sorted({p for p, _ in some})]
    head: torch.nn.Module = module.get_output_embeddings()
    with only_rows(head, torch.tensor([row * length + p for row, p in places])):
        logits = forward()[0].float()
    slot = {place: n for n, place in enumerate(places)}
    at = torch.tensor([slot[row, p] for row, some in enumerate(reads) for p, _ in some], device=logits.device)
    token = torch.tensor([t for some in reads for _, t in some], device=logits.device)
    values = iter((logits[at, token] - log_normaliser(logits)[at]).tolist())
    return [tuple(islice(values, len(some))) for some in reads]
