"""Probe which rows transformers' own loop may continue in a batch: logits must be those of plain forwards.

A recurrent model may take padding into its state, or keep one state for a whole batch (RWKV in transformers 5.23); its
replies would then depend on what they were batched with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig

from evenhand.inference.generation import neutral
from evenhand.inference.padding import left_pad
from evenhand.inference.scoring import input_device
from evenhand.inference.support_probe import REFUSALS, near

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Together = Literal["all", "equal length", "none"]
"""Which rows may share a batch."""
LONG, SHORT, AS_LONG = (3, 5, 7, 4, 6, 9, 8), (4, 3, 9), (4, 3, 9, 8, 8, 2, 1)
"""Token ids of the sequences for the probe."""
STEPS = 3
"""Number of new tokens per sequence: the second and third use what the first has put into a cache."""


def together(module: PreTrainedModel, pad_id: int) -> Together:
    """Return which rows transformers' loop continues in a batch as it does alone; warn if not all.

    Args:
        module: A causal language model.
        pad_id: Token with which rows are padded.
    """
    words = int(module.config.get_text_config().vocab_size)
    long, short, as_long = ([token % words for token in ids] for ids in (LONG, SHORT, AS_LONG))
    if _as_alone(module, [long, short], pad_id):
        return "all"
    found: Together = "equal length" if _as_alone(module, [long, as_long], pad_id) else "none"
    what = (
        "only prompts of equal length are continued side by side" if found != "none" else "replies are written singly"
    )
    warnings.warn(f"{what}: in a batch {type(module).__name__} generates other replies than alone", stacklevel=2)
    return found


def _as_alone(module: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int) -> bool:
    """Return whether the logits of all steps of a batch are those of plain forwards over each row."""
    try:
        new, logits = _continued(module, rows, pad_id)
    except REFUSALS:
        return False
    return all(
        _equal(_plain(module, [*ids, *new[row][:step].tolist()]), logits[row, step])
        for row, ids in enumerate(rows)
        for step in range(STEPS)
    )


def _continued(module: Any, rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return new tokens, [rows, steps], and the logits they were chosen from, [rows, steps, vocabulary]."""
    ids, mask = left_pad(rows, pad_id, device=input_device(module))
    config = GenerationConfig(
        max_new_tokens=STEPS,
        do_sample=False,
        num_beams=1,
        pad_token_id=pad_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    with neutral(module):
        out = module.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, dim=1)


def _plain(module: Any, ids: Sequence[int]) -> Tensor:
    """Return the logits after one sequence, [vocabulary]."""
    logits: Tensor = module(input_ids=torch.tensor([list(ids)], device=input_device(module)), use_cache=False).logits
    return logits[0, -1]


def _equal(plain: Tensor, batched: Tensor) -> bool:
    """Compare logits up to rounding where the plain ones are finite; others do not depend on the batch."""
    known = plain.isfinite()
    return not bool(known.any()) or near(batched.to(plain.device, plain.dtype)[known], plain[known])
