"""Generation by transformers' own loop, for models that cannot be run on a tree of tokens.

It sees a processor that leaves a single token possible, so that samples do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from evenhand.engine.requests import Generated, Prompt
from evenhand.engine.sampling import end_tokens, pick, reply, stopped, uniforms
from evenhand.engine.scoring import input_device
from evenhand.interfaces import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RowSampler(LogitsProcessor):
    """Leaves only the token possible that `evenhand.engine.sampling.pick` takes."""

    def __init__(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Draw the uniform numbers of all rows and steps."""
        self.sampling, self.step = sampling, 0
        self.uniforms = [uniforms(p, sampling) for p in prompts]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Leave only the drawn token possible in each row of `scores` [rows, vocabulary]."""
        drawn = [u[self.step] for u in self.uniforms] if self.sampling.temperature > 0 else []
        self.step += 1
        chosen = torch.tensor(pick(scores, self.sampling, drawn), device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)  # type: ignore[return-value]


class StopStrings(StoppingCriteria):
    """Ends a row once one of the stop strings stands in its newest tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], prompt_length: int) -> None:
        """Remember where the new tokens begin."""
        self.tokenizer, self.stop, self.start = tokenizer, stop, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.BoolTensor:
        """Which rows are done, [rows]."""
        done = stopped(input_ids[:, self.start :].tolist(), self.tokenizer, self.stop)
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def generate_batch(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Prompt],
    sampling: Sampling,
    pad_id: int,
) -> list[Generated]:
    """Continue every prompt of one left-padded batch."""
    length = max(len(p.ids) for p in batch)
    ids = torch.full((len(batch), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(batch), length), dtype=torch.long)
    for row, prompt in enumerate(batch):
        ids[row, length - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, length - len(prompt.ids) :] = 1
    ends = end_tokens(module, tokenizer)
    # every knob is named: what is left out would be filled from the checkpoint's own generation config
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0,
        no_repeat_ngram_size=0, temperature=1.0, top_p=1.0, top_k=50, eos_token_id=sorted(ends) or None,
        pad_token_id=pad_id,
    )  # fmt: skip
    device = input_device(module)
    sampler = [RowSampler(batch, sampling)] if sampling.temperature > 0 else []
    stopping = [StopStrings(tokenizer, sampling.stop, length)] if sampling.stop else []
    out = module.generate(  # type: ignore[operator]
        input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config,
        logits_processor=LogitsProcessorList(sampler), stopping_criteria=StoppingCriteriaList(stopping),
    )  # fmt: skip
    return [reply(row[length:].tolist(), ends, sampling, tokenizer) for row in out]
