"""Generation by transformers' own loop, for models that cannot be run on a tree of tokens.

A logits processor leaves a single token possible, so that samples do not depend on the batch. Of the checkpoint's
generation config only the end tokens apply, as in `evenhand.inference.decoding`: one rule for all ways of writing a
reply.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from evenhand.inference.edit_hooks import edit_here, editing_by_mask
from evenhand.inference.edited_tokens import first_edited_of
from evenhand.inference.listening import is_left, listener
from evenhand.inference.padding import left_pad
from evenhand.inference.requests import Generated, Prompt
from evenhand.inference.sampling import end_tokens, no_reply, pick, reply, stopped, uniforms
from evenhand.inference.scoring import input_device
from evenhand.inference.support_probe import inner
from evenhand.interfaces import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGIT_KNOBS = {
    "bad_words_ids": None,
    "begin_suppress_tokens": None,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1.0,
    "max_time": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "token_healing": False,
    "watermarking_config": None,
}
"""Settings of a generation config that change even greedy replies, with their neutral values."""
SAMPLING_KNOBS = {
    "do_sample": False,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "min_p": None,
    "num_beams": 1,
    "penalty_alpha": None,
    "temperature": 1.0,
    "top_h": None,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
}
"""Settings of sampling and searching, which `Sampling` replaces, with their neutral values."""


def prescribed(module: torch.nn.Module, knobs: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a checkpoint's generation config that are ignored, as JSON values; {} for most models.

    Args:
        module: The model.
        knobs: Settings to check, with their neutral values; None is all that affect replies.
    """
    config = getattr(module, "generation_config", None)
    known = {**LOGIT_KNOBS, **SAMPLING_KNOBS} if knobs is None else knobs
    given = {name: getattr(config, name, None) for name in known}
    return {name: _plain(v) for name, v in sorted(given.items()) if v is not None and v != known[name] and v != []}


def _plain(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):  # keys that are tuples of ids, or objects
        return str(value)


@contextmanager
def neutral(module: torch.nn.Module) -> Iterator[None]:
    """Replace the checkpoint's generation configs, from which `generate` fills in missing settings, by neutral ones."""
    held = [(m, vars(m)["generation_config"]) for m in module.modules() if "generation_config" in vars(m)]
    for holder, _ in held:
        vars(holder)["generation_config"] = GenerationConfig()
    try:
        yield
    finally:
        for holder, config in held:
            vars(holder)["generation_config"] = config


class RowSampler(LogitsProcessor):
    """A logits processor that leaves only the token possible that `evenhand.inference.sampling.pick` chooses."""

    def __init__(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Draw the uniform numbers of all rows and steps."""
        self.prompts, self.sampling, self.step = prompts, sampling, 0
        self.listener = listener()
        self.uniforms = [uniforms(p, sampling) for p in prompts]
        self.broken: dict[int, int] = {}
        """Rows whose logits were not finite at some step, with the number of new tokens before it."""
        self.left: set[int] = set()
        """Rows whose replies are no longer needed."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Leave only the drawn token possible in each row of `scores` [rows, vocabulary]."""
        drawn = [u[self.step] for u in self.uniforms] if self.sampling.temperature > 0 else []
        picked = pick(scores, self.sampling, drawn)
        for row, token in enumerate(picked):
            if token is None:
                self.broken.setdefault(row, self.step)
        self.step += 1
        if self.listener is not None:
            for row, (prompt, token) in enumerate(zip(self.prompts, picked, strict=True)):
                if row not in self.broken and token is not None:
                    new = [*input_ids[row, input_ids.shape[1] - self.step + 1 :].tolist(), token]
                    if is_left(self.listener, prompt, new):
                        self.left.add(row)
        chosen = torch.tensor([token or 0 for token in picked], device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)  # type: ignore[return-value]


class Ended(StoppingCriteria):
    """Ends a row once its logits are not finite, its reply is no longer needed, or it contains a stop string."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], prompt_length: int, sampler: RowSampler
    ) -> None:
        """Store where the new tokens begin."""
        self.tokenizer, self.stop, self.start, self.sampler = tokenizer, stop, prompt_length, sampler

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.BoolTensor:
        """Return which rows are finished, [rows]."""
        found = stopped(input_ids[:, self.start :].tolist(), self.tokenizer, self.stop)
        over = self.sampler.broken.keys() | self.sampler.left
        done = [stop or row in over for row, stop in enumerate(found)]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def generate_batch(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Prompt],
    sampling: Sampling,
    pad_id: int,
) -> list[Generated]:
    """Continue every prompt in one left-padded batch, under the installed activation edit."""
    ids, mask = left_pad([p.ids for p in batch], pad_id, device=input_device(module))
    inputs = {"input_ids": ids, "attention_mask": mask}
    return write_batch(module, tokenizer, batch, sampling, pad_id, start=ids.shape[1], **inputs)


def write_batch(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Prompt],
    sampling: Sampling,
    pad_id: int,
    *,
    start: int,
    **inputs: torch.Tensor,
) -> list[Generated]:
    """Continue a batch with transformers' own loop.

    Args:
        module: A language model, or an encoder-decoder.
        tokenizer: Its tokenizer.
        batch: Prompts that are continued, for the uniform numbers of each row.
        sampling: How tokens are drawn, and the stop strings.
        pad_id: Token with which finished rows are padded.
        start: Number of tokens of a row before the new ones, padding included.
        **inputs: Inputs of the model, [rows, length] each; for an encoder-decoder also `decoder_input_ids`.
    """
    ends = end_tokens(module, tokenizer)
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=sorted(ends) or None,
        pad_token_id=pad_id,
    )
    if "decoder_input_ids" in inputs:  # transformers would add the checkpoint's before them
        config.decoder_start_token_id = int(inputs["decoder_input_ids"][0, 0])
    sampler = RowSampler(batch, sampling)
    stopping = Ended(tokenizer, sampling.stop, start, sampler)
    edited = editing_by_mask(inner(module), [first_edited_of(edit_here(), p) for p in batch])
    with neutral(module), edited:
        out = module.generate(  # type: ignore[operator]
            **inputs,
            generation_config=config,
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([stopping]),
        )
    made = [
        reply(row[start:][: sampler.broken.get(n)].tolist(), ends, sampling, tokenizer) for n, row in enumerate(out)
    ]
    # a finished row is fed padding until the others finish, so nan in its logits there does not matter
    return [no_reply() if n in sampler.broken and not m.finished else m for n, m in enumerate(made)]
