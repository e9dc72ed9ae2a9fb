"""The most probable next tokens of prompts, for callers that list tokens without asking for specific ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from evenhand.errors import EvenhandError
from evenhand.inference.padding import right_pad
from evenhand.inference.requests import NOT_FINITE, buckets
from evenhand.inference.sampling import finite
from evenhand.inference.scoring import READ_ELEMENTS, evaluating, input_device, only_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Ranked = list[tuple[int, float]]
"""Token ids with their log-probabilities (natural log), the most probable first."""


def top_tokens(
    module: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    k: int,
    *,
    also: Sequence[Sequence[int]] = (),
    pad_id: int = 0,
    batch_tokens: int = 8_192,
) -> list[Ranked]:
    """Return the `k` most probable next tokens of each row.

    Args:
        module: A causal language model.
        rows: Token ids, at least one per row.
        k: Number of tokens; a smaller vocabulary gives all it has.
        also: Tokens of each row that are listed as well, if they are not among these.
        pad_id: Token that pads shorter rows on the right, where no real position sees it.
        batch_tokens: Padded tokens in a batch.

    Raises:
        EvenhandError: Logits are not finite.
    """
    vocabulary = int(module.config.get_text_config().vocab_size)
    out: list[Ranked] = [[]] * len(rows)
    most = max(1, READ_ELEMENTS // vocabulary)
    with evaluating(module):
        for group in buckets([len(r) for r in rows], batch_tokens, [1] * len(rows), most):
            logprobs = torch.log_softmax(_last_logits(module, [rows[i] for i in group], pad_id), dim=-1)
            best, tokens = logprobs.topk(min(k, vocabulary))
            for at, i in enumerate(group):
                ranked = list(zip(tokens[at].tolist(), best[at].tolist(), strict=True))
                more = [t for t in (also[i] if also else ()) if t not in tokens[at]]
                out[i] = ranked + [(t, float(logprobs[at, t])) for t in more]
    return out


def _last_logits(module: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
    """Return logits after the last token of each row, [rows, vocabulary], float32."""
    ids, mask = right_pad(rows, pad_id, device=input_device(module))
    last = torch.tensor([n * ids.shape[1] + len(r) - 1 for n, r in enumerate(rows)])
    head: torch.nn.Module = module.get_output_embeddings()
    with only_rows(head, last):
        logits: torch.Tensor = module(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
    if not bool(finite(logits).all()):
        raise EvenhandError(
            f"{type(module).__name__} in {str(logits.dtype).removeprefix('torch.')}: {NOT_FINITE} (nan or infinite); "
            "load the model in float32 or bfloat16, or check its weights"
        )
    return logits.float()
