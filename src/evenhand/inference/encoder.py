"""The engine of encoders (such as BERT): takes whole lists, and runs batches of similar length.

All masks of a text share everything but one token, yet attention is bidirectional, so no part of one can be reused for
another: what remains is to feed nothing twice, to use large batches with little padding, and to compute logits
at the masks only.
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
from evenhand.inference.prefix_parts import by_length
from evenhand.inference.prepacked import Prepacked
from evenhand.inference.requests import Request
from evenhand.inference.scoring import check_ids, evaluating, input_device, right_padded_flags, score_batch
from evenhand.inference.support_probe import near
from evenhand.interfaces import Array

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = Mapping[str, Tensor]
"""`input_ids` and `attention_mask` [rows, length], right-padded, and `token_type_ids` if given."""
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids, and token types or ()."""

Asked = TypeVar("Asked", Row, Request)
Out = TypeVar("Out")

PADDED = 7
"""Number of padding tokens in the support probe of a model."""


class EncoderEngine(Batches):
    """Runs rows of token ids through one encoder."""

    def __init__(self, module: PreTrainedModel, pad_id: int = 0, batch_tokens: int | None = None) -> None:
        """Make an engine for an encoder.

        Args:
            module: A transformers encoder, with or without a head.
            pad_id: Token with which rows are padded.
            batch_tokens: Padded tokens in a batch. None is 8,192 on a CPU and 65,536 elsewhere. Halved permanently
                whenever memory does not suffice.
        """
        super().__init__(module, batch_tokens)
        self.pad_id = pad_id
        self.edit: ActivationEdit | None = None
        """Edit of the activations; None if there is none."""
        self._batch_tokens = batch_tokens
        self._prepacked = Prepacked()
        self._padding: bool | None = None
        self._honoured = False

    def edited(self, edit: ActivationEdit) -> EncoderEngine:
        """Return an engine of the same module with edited activations; this one is unchanged and stays usable.

        Args:
            edit: Edit of scope `all`; it is applied after this engine's own edit, if it has one.

        Raises:
            SettingsError: The scope is not `all`, or the edit does not fit the module's layers or hidden size.
        """
        if edit.is_identity:
            return self
        if edit.scope != "all":
            raise SettingsError(
                f"scope {edit.scope!r} cannot be used with {type(self.module).__name__}: an encoder has no prompt that "
                "an answer follows, since attention is bidirectional; use scope 'all'"
            )
        check_layers(self.module, [*edit.layers], edit.hidden_size)
        made = EncoderEngine(self.module, self.pad_id, self._batch_tokens)
        made.edit = edit if self.edit is None else self.edit.then(edit)
        made._prepacked = self._prepacked  # it copies the weights, which are the same
        return made

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run forwards within the block: without dropout and gradients, with prepacked weights and the edit."""
        with evaluating(self.module), self._prepacked(self.module), installed(self.edit, self.module):
            if self.edit is not None and not self._honoured:
                check_honoured(self.module, self.edit)
                self._honoured = True
            yield

    def _run(self, compute: Callable[[Inputs], Out], inputs: Inputs) -> Out:
        """Run a computation on a batch, with the edit."""
        mask = inputs["attention_mask"]
        with editing_rows(right_padded_flags(mask, [first_edited(self.edit, 0)] * len(mask))):
            return compute(inputs)

    def weights_changed(self) -> None:
        """Drop what was derived from the old weights."""
        self._prepacked.forget()

    def masked(
        self, rows: Sequence[Sequence[int]], places: Sequence[int], tokens: Sequence[Sequence[int]], fingerprint: str
    ) -> list[list[float]]:
        """Compute log-probabilities of tokens at one position of each row; only its logits are computed.

        Rows that differ only in what is read are fed once. Cached answers are taken from the active cache.

        Args:
            rows: Token ids, with masks in them.
            places: Position to read in each row.
            tokens: Tokens to read there, for each row.
            fingerprint: Fingerprint of the model.

        Returns:
            Natural logs, computed in float32, in the order of `tokens`; nan if the logits are not finite.
        """
        asked = zip(rows, places, tokens, strict=True)
        requests = [Request(tuple(ids), tuple((place, token) for token in some)) for ids, place, some in asked]
        found = read_once(requests, fingerprint, "masked", self._score, self.edit, _by_length)
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
        """Compute an output for each row, such as a classifier's logits or a pooled hidden state.

        Args:
            rows: Token ids; for a pair of texts those of both, as the tokenizer joins them.
            run: Computes the output of a batch, [batch, ...], of one shape for all rows and independent of padding.
                None uses the logits.
            types: Token types of each row, if the model distinguishes two texts by them.
            fingerprint: Fingerprint of the model and of `run`; if given, the active cache is used.

        Returns:
            Outputs, [rows, ...], in the given order.

        Raises:
            SettingsError: The numbers of types and tokens differ.
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
            values = through_cache(unique, keys, all_batches, "reading", _by_length if stored else None)
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
        """Run rows of similar length together, or of equal length if padding would change the results."""
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
        """Return groups of rows that may share batches, longest first."""
        shortest, longest = min(lengths), max(lengths)
        if self._padding is None and shortest < longest:
            row = todo[lengths.index(shortest)]
            self._padding = self._unchanged_by_padding(row[0], min(longest, shortest + PADDED))
        if self._padding is not False:
            return [list(range(len(lengths)))]
        return list(of_equal_length(range(len(lengths)), lengths))

    def _unchanged_by_padding(self, ids: tuple[int, ...], length: int) -> bool:
        """Return whether padding leaves a row's results unchanged; warn if it does not."""
        alone, padded = (self._run(self._first, self._inputs([(ids, ())], n)) for n in (len(ids), length))
        same = near(padded[:, : len(ids)] if padded.dim() > 2 else padded, alone)
        if not same and not alone.isnan().any():
            name = type(self.module).__name__
            warnings.warn(f"only rows of equal length are batched: padding changes the results of {name}", stacklevel=2)
        return same

    def _inputs(self, rows: Sequence[Row], length: int = 0) -> dict[str, Tensor]:
        """Make a right-padded batch."""
        device = input_device(self.module)
        ids, mask = right_pad([ids for ids, _ in rows], self.pad_id, length=length, device=device)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if rows[0][1]:
            inputs["token_type_ids"] = right_pad([types for _, types in rows], 0, length=length, device=device).values
        return inputs

    def _first(self, inputs: Inputs) -> Tensor:
        """Return the first output of the model: logits, or the last hidden states."""
        first: Tensor = self.module(**inputs)[0]
        return first

    def _logits(self, inputs: Inputs) -> Tensor:
        logits: Tensor = self.module(**inputs).logits
        return logits


def _by_length(asked: Sequence[Asked], count: int) -> list[list[int]]:
    """Divide rows or requests into parts with similar numbers of tokens; rows of an encoder share nothing."""
    return by_length([row[0] for row in asked], count)
