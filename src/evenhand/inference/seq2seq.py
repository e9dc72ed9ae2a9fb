"""The engine of encoder-decoders (T5, BART): the prompt goes into the encoder, the reply into the decoder.

A sequence is one row of token ids: those of the encoder, `BORDER`, those of the decoder. Requests, prompts and keys
of the answer cache are thus the same for every kind of model, and positions count within the whole row.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference.batching import (
    Batches,
    has_nan,
    has_note,
    of_equal_length,
    read_once,
    set_aside,
    told_apart,
    widest,
    write_once,
)
from evenhand.inference.cached import Emit
from evenhand.inference.generation import write_batch
from evenhand.inference.padding import right_pad
from evenhand.inference.requests import Generated, Prompt, Request
from evenhand.inference.scoring import check_ids, evaluating, input_device, read_rows
from evenhand.inference.support_probe import near
from evenhand.interfaces import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BORDER = -1
"""Separator between the encoder's and the decoder's tokens; no token has this id."""
PADDED = 7
"""Number of padding tokens in the support probe of an encoder."""


class Seq2SeqEngine(Batches):
    """Runs requests on one encoder-decoder."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int | None = None
    ) -> None:
        """Make an engine for an encoder-decoder.

        Args:
            module: A transformers encoder-decoder language model.
            tokenizer: Its tokenizer.
            batch_tokens: Padded tokens in a batch, of both networks together. None is 8,192 on a CPU and 65,536
                elsewhere. Halved permanently whenever memory does not suffice.
        """
        super().__init__(module, batch_tokens)
        self.tokenizer = tokenizer
        self.pad_id = int(tokenizer.pad_token_id or 0)

    def weights_changed(self) -> None:
        """Do nothing: no copy of the weights is kept."""

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """Return the log-probabilities of all requests' reads, in order; nan if the logits are not finite."""
        values = read_once(requests, fingerprint, "read", self._score)
        self.warn_not_finite(sum(map(has_nan, values)), len(values))
        return values

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str) -> list[Generated]:
        """Continue all prompts, in order; draws of a greedy request are merged.

        Raises:
            SettingsError: A prompt has accompanying sequences, which cannot guide an encoder-decoder.
        """
        if any(p.beside for p in prompts):
            raise SettingsError(
                f"{type(self.module).__name__} is an encoder-decoder and cannot be guided by other texts"
            )
        prompts = told_apart(prompts, sampling)
        made = write_once(prompts, sampling, fingerprint, partial(self._continue, sampling))
        self.warn_not_finite(sum(bool(g.note) for g in made.values()), len(made))
        return [made[p] for p in prompts]

    # ------------------------------------------------------------------------------------------------ internals

    def _score(self, todo: list[Request], emit: Emit[list[float]]) -> None:
        lengths = [len(r.ids) for r in todo]

        def run(rows: Sequence[int], emit: Emit[list[float]]) -> None:
            self.run(
                lengths,
                lambda some: self._values([todo[i] for i in some]),
                emit,
                rows=rows,
                widths=[len(r.reads) for r in todo],
                width=widest(self.module.config.get_text_config()),
            )

        aside: list[int] = []
        check_ids(self.module, (r.ids for r in todo))
        with evaluating(self.module):
            for rows in self._compatible([r.ids for r in todo]):
                run(rows, set_aside(emit, has_nan, aside))
            for i in aside:
                run([i], emit)

    def _continue(self, sampling: Sampling, todo: list[Prompt], emit: Emit[list[Any]]) -> None:
        def write(some: list[int]) -> list[list[Any]]:
            return [list(g) for g in self._written([todo[i] for i in some], sampling)]

        aside: list[int] = []
        longest = [len(p.ids) + sampling.max_new_tokens for p in todo]
        check_ids(self.module, (p.ids for p in todo))
        with evaluating(self.module):
            for rows in self._compatible([p.ids for p in todo]):
                self.run(longest, write, set_aside(emit, has_note, aside), rows=rows)
            for i in aside:
                self.run(longest, write, emit, rows=[i])

    def _compatible(self, asked: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return groups of rows that may share batches: all, or those with equally many encoder tokens."""
        sources = [len(parted(ids)[0]) for ids in asked]
        if len(set(sources)) < 2 or self._padding_is_ignored:
            return [list(range(len(asked)))]
        return list(of_equal_length(range(len(asked)), sources))

    @cached_property
    def _padding_is_ignored(self) -> bool:
        """Whether padding after a text leaves the encoder's output unchanged; warns if it does not."""
        rows = [(3, 5, 7, 4, 6)]
        alone, padded = (self._encoded(rows, length)[0].last_hidden_state for length in (0, len(rows[0]) + PADDED))
        same = near(padded[:, : len(rows[0])], alone)
        if not same:
            name = type(self.module).__name__
            warnings.warn(
                f"only prompts of equal length are batched: padding changes the encoder of {name}", stacklevel=2
            )
        return same

    def _encoded(self, sources: Sequence[Sequence[int]], length: int = 0) -> tuple[Any, Tensor]:
        """Return the encoder's output, and the mask, [rows, length]: 1 for tokens, 0 for padding."""
        ids, mask = right_pad(sources, self.pad_id, length=length, device=input_device(self.module))
        encoder: Any = self.module.get_encoder()
        return encoder(input_ids=ids, attention_mask=mask, return_dict=True), mask

    def _values(self, batch: Sequence[Request]) -> list[list[float]]:
        """Score requests in one forward; a prompt that several share goes through the encoder once."""
        parts = [parted(r.ids) for r in batch]
        sources = {source: n for n, source in enumerate(dict.fromkeys(source for source, _ in parts))}
        encoded, mask = self._encoded(list(sources))
        hidden: Tensor = encoded.last_hidden_state
        rows = torch.tensor([sources[source] for source, _ in parts], device=hidden.device)
        encoded.last_hidden_state = hidden[rows]
        decoder, _ = right_pad([ids for _, ids in parts], self.pad_id, device=hidden.device)
        # a causal decoder does not see the padding after what is read; T5 starts with its padding token
        reads = [[(p - len(s) - 1, token) for p, token in r.reads] for r, (s, _) in zip(batch, parts, strict=True)]

        def forward() -> Tensor:
            logits: Tensor = self.module(
                encoder_outputs=encoded, attention_mask=mask[rows], decoder_input_ids=decoder, use_cache=False
            ).logits
            return logits

        return [list(values) for values in read_rows(self.module, forward, reads, decoder.shape[1])]

    def _written(self, batch: Sequence[Prompt], sampling: Sampling) -> list[Generated]:
        """Generate replies to prompts; the decoder inputs must have equal length, as one tokenizer makes them."""
        parts = [parted(p.ids) for p in batch]
        device = input_device(self.module)
        ids, mask = right_pad([source for source, _ in parts], self.pad_id, device=device)
        opening = torch.tensor([opening for _, opening in parts], device=device)
        return write_batch(
            self.module,
            self.tokenizer,
            batch,
            sampling,
            self.pad_id,
            start=opening.shape[1],
            input_ids=ids,
            attention_mask=mask,
            decoder_input_ids=opening,
        )


def parted(ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens of the encoder and those of the decoder."""
    at = list(ids).index(BORDER)
    return tuple(ids[:at]), tuple(ids[at + 1 :])
