"""The engine of encoders (BERT and its like): whole lists in, batches of like length through the module.

All masks of a text share everything but one token, yet attention looks both ways, so no part of one can be reused for
another: what is left to gain is that nothing is fed twice, that batches are large and hardly padded, and that logits
are made at the masks only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor

from evenhand.core import answer_cache
from evenhand.errors import SettingsError
from evenhand.inference.activation_edits import ActivationEdit
from evenhand.inference.batching import Batches, has_nan, of_equal_length, read_once, set_aside, widest
from evenhand.inference.cached import Emit, through_cache
from evenhand.inference.decoder_layers import check_layers
from evenhand.inference.edit_hooks import check_honoured, editing_rows, installed
from evenhand.inference.edited_tokens import first_edited
from evenhand.inference.padding import right_pad
from evenhand.inference.prepacked import Prepacked
from evenhand.inference.requests import Request
from evenhand.inference.scoring import check_ids, evaluating, input_device, right_padded_flags, score_batch
from evenhand.inference.support_probe import near
from evenhand.interfaces import Array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = Mapping[str, Tensor]
"""`input_ids` and `attention_mask` [rows, length], right-padded, and `token_type_ids` where they were given."""
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids, and token types or nothing."""

Asked = TypeVar("Asked", Row, Request)
Out = TypeVar("Out")

PADDED = 7
"""Tokens of padding with which a model is tried out."""


class EncoderEngine(Batches):
    """Runs rows of token ids through one encoder."""

    def __init__(self, module: PreTrainedModel, pad_id: int = 0, batch_tokens: int | None = None) -> None:
        """Take an encoder.

        Args:
            module: An encoder of transformers, with or without a head.
            pad_id: The token that rows are filled up with.
            batch_tokens: Padded tokens in a batch. None is 8,192 on a CPU and 65,536 elsewhere. Halved for good
                whenever the memory does not suffice.
        """
        super().__init__(module, batch_tokens)
        self.pad_id = pad_id
        self.edit: ActivationEdit | None = None
        """How the activations are changed; None for the model as it is."""
        self._batch_tokens = batch_tokens
        self._prepacked = Prepacked()
        self._padding: bool | None = None
        self._honoured = False

    def edited(self, edit: ActivationEdit) -> EncoderEngine:
        """An engine of the same module that changes activations; this one does not, and may be used in between.

        Args:
            edit: Of scope `all`; it comes after this engine's own edit, where it has one.

        Raises:
            SettingsError: A scope that encoders cannot have, or the module has no such layers or other hidden sizes.
        """
        if edit.is_identity:
            return self
        if edit.scope != "all":
            raise SettingsError(
                f"scope {edit.scope!r} cannot be used with {type(self.module).__name__}: an encoder has no prompt that "
                "an answer follows, since its tokens see one another both ways; use scope 'all'"
            )
        check_layers(self.module, [*edit.layers], edit.hidden_size)
        made = EncoderEngine(self.module, self.pad_id, self._batch_tokens)
        made.edit = edit if self.edit is None else self.edit.then(edit)
        made._prepacked = self._prepacked  # a copy of the weights, and they are the same ones
        return made

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run forwards within the block: without dropout and gradients, the fast way, and with the edit."""
        with evaluating(self.module), self._prepacked(self.module), installed(self.edit, self.module):
            if self.edit is not None and not self._honoured:
                check_honoured(self.module, self.edit)
                self._honoured = True
            yield

    def _run(self, compute: Callable[[Inputs], Out], inputs: Inputs) -> Out:
        """Compute something of one batch, with the edit."""
        mask = inputs["attention_mask"]
        with editing_rows(right_padded_flags(mask, [first_edited(self.edit, 0)] * len(mask))):
            return compute(inputs)

    def weights_changed(self) -> None:
        """Drop what was made of the weights as they were."""
        self._prepacked.forget()

    def masked(
        self, rows: Sequence[Sequence[int]], places: Sequence[int], tokens: Sequence[Sequence[int]], fingerprint: str
    ) -> list[list[float]]:
        """Log-probabilities of tokens at one place of each row; no other place's logits are made.

        Rows that differ in nothing but what is read are fed once. Answers come from the active cache where it has them.

        Args:
            rows: Token ids, with masks in them.
            places: Per row where is read.
            tokens: Per row what is read there.
            fingerprint: Of the model.

        Returns:
            Natural logs, computed in float32, in the order of `tokens`; nan where the logits are not finite.
        """
        asked = zip(rows, places, tokens, strict=True)
        requests = [Request(tuple(ids), tuple((place, token) for token in some)) for ids, place, some in asked]
        found = read_once(requests, fingerprint, "masked", self._score, self.edit)
        self.warn_not_finite(sum(map(has_nan, found)), len(found))
        return [list(values) for values in found]

    def outputs(
        self,
        rows: Sequence[Sequence[int]],
        run: Callable[[Inputs], Tensor] | None = None,
        *,
        types: Sequence[Sequence[int]] | None = None,
        fingerprint: str | None = None,
    ) -> Array:
        """What the module gives for each row, such as a classifier's logits or a pooled hidden state.

        Args:
            rows: Token ids; of a pair of texts both, as the tokenizer joins them.
            run: What is computed of a batch, [batch, ...] of one shape for all rows; it must not depend on the padding.
                None takes the logits.
            types: Per row the token types, where the model tells two texts apart by them.
            fingerprint: Of the model and of what `run` computes; with it, answers come from and go to the active cache.

        Returns:
            [rows, ...], in the given order.

        Raises:
            SettingsError: Not as many types as tokens.
        """
        if types is not None and list(map(len, types)) != list(map(len, rows)):
            raise SettingsError("give every token of every row a type, or no types at all")
        asked: list[Row] = [(tuple(ids), tuple(types[n]) if types else ()) for n, ids in enumerate(rows)]
        unique, stored = list(dict.fromkeys(asked)), fingerprint is not None
        keys = [answer_cache.key(fingerprint, "outputs", *row) for row in unique]
        compute = run or self._logits

        def batch(todo: Sequence[Row]) -> list[Any]:
            made = self._run(compute, self._inputs(todo)).float().cpu().numpy()
            return list(made.tolist() if stored else made)

        def all_batches(todo: list[Row], emit: Emit[Any]) -> None:
            self._in_batches(todo, batch, emit)

        with nullcontext() if stored else answer_cache.answer_cache(None):
            values = through_cache(unique, keys, all_batches, "reading")
        self.warn_not_finite(sum(map(has_nan, values)), len(values))
        found = dict(zip(unique, values, strict=True))
        return np.array([found[row] for row in asked], dtype=np.float64)

    def _score(self, todo: list[Request], emit: Emit[list[float]]) -> None:
        def batch(some: Sequence[Request]) -> list[list[float]]:
            return [list(values) for values in score_batch(self.module, some, self.pad_id, causal=False)]

        self._in_batches(todo, batch, emit, [len(r.reads) for r in todo])

    def _in_batches(
        self,
        todo: Sequence[Asked],
        batch: Callable[[Sequence[Asked]], list[Out]],
        emit: Emit[Out],
        widths: Sequence[int] | None = None,
    ) -> None:
        """Rows of like length together; of equal length where padding would change what comes out."""
        lengths = [len(row[0]) for row in todo]
        aside: list[int] = []

        def run(rows: list[int], emit: Emit[Out]) -> None:
            self.run(
                lengths,
                lambda some: batch([todo[i] for i in some]),
                emit,
                rows=rows,
                widths=widths,
                width=widest(self.module.config) if widths else 0,
            )

        check_ids(self.module, (row[0] for row in todo))
        with self.running():
            for rows in self.compatible(todo, lengths):
                run(rows, set_aside(emit, has_nan, aside))
            for rows in of_equal_length(aside, lengths):
                run(rows, emit)

    def compatible(self, todo: Sequence[Asked], lengths: Sequence[int]) -> list[list[int]]:
        """Rows that may stand in one batch, the longest first."""
        shortest, longest = min(lengths), max(lengths)
        if self._padding is None and shortest < longest:
            row = todo[lengths.index(shortest)]
            self._padding = self._unchanged_by_padding(row[0], min(longest, shortest + PADDED))
        if self._padding is not False:
            return [list(range(len(lengths)))]
        return list(of_equal_length(range(len(lengths)), lengths))

    def _unchanged_by_padding(self, ids: tuple[int, ...], length: int) -> bool:
        """Whether a row gives the same with padding behind it; said where it does not."""
        alone, padded = (self._run(self._first, self._inputs([(ids, ())], n)) for n in (len(ids), length))
        same = near(padded[:, : len(ids)] if padded.dim() > 2 else padded, alone)
        if not same and not alone.isnan().any():
            name = type(self.module).__name__
            warnings.warn(f"only rows of equal length are batched: {name} sees the padding", stacklevel=2)
        return same

    def _inputs(self, rows: Sequence[Row], length: int = 0) -> dict[str, Tensor]:
        """A right-padded batch."""
        device = input_device(self.module)
        ids, mask = right_pad([ids for ids, _ in rows], self.pad_id, length=length, device=device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if rows[0][1]:
            inputs["token_type_ids"] = right_pad([types for _, types in rows], 0, length=length, device=device).values
        return inputs

    def _first(self, inputs: Inputs) -> Tensor:
        """The first thing that the model gives: logits, or the last hidden states."""
        first: Tensor = self.module(**inputs)[0]
        return first

    def _logits(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self.module(**inputs).logits
        return logits
