"""Apply an activation edit inside a model for the duration of a block.

Hooks on the outputs of layers do the editing. They act only in the context (thread, task) that has installed them, so
that a model may be asked with and without an edit at the same time. Code that runs a forward passes, with the
tokens, which of them are edited; a forward without these flags is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from evenhand.errors import EvenhandError
from evenhand.inference.activation_edits import ActivationEdit, LayerEdit
from evenhand.inference.decoder_layers import decoder_layers, rows_of, with_rows
from evenhand.inference.edited_rows import PreparedEdit, edited_rows, prepared
from evenhand.inference.offload_support import place_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRIED = (3, 5, 7, 4, 6, 9)
"""Tokens for the support probe of a model."""

Where = tuple[int, torch.device, torch.dtype]


class EditHooks:
    """Hooks of one edit on one model."""

    def __init__(self, edit: ActivationEdit) -> None:
        """Prepare the hooks; nothing is installed yet. Each thread needs an object of its own.

        Args:
            edit: Edit to apply; its tensors are cast once for every device and type of rows.
        """
        self.edit = edit
        self._acting = edit.acting  # computed once, not for every forward
        self._flags: Tensor | None = None
        self._seen: set[int] = set()
        self._prepared: dict[Where, list[PreparedEdit]] = {}

    @contextmanager
    def installed(self, module: nn.Module) -> Iterator[None]:
        """Edit the activations of a model within the block; hooks that are already installed run first."""
        layers = decoder_layers(module)
        handles: list[RemovableHandle] = []
        token = _ACTIVE.set(self)
        try:
            for layer in self._acting:
                handles.append(layers[layer].register_forward_hook(partial(self._change, layer)))
            yield
        finally:
            for handle in handles:
                handle.remove()
            _ACTIVE.reset(token)

    @contextmanager
    def flagged(self, flags: Tensor) -> Iterator[None]:
        """Run one forward within the block.

        Args:
            flags: Which tokens are edited, [batch, tokens].

        Raises:
            EvenhandError: The forward skipped a layer's hook, so that its rows were not edited.
        """
        self.begin(flags)
        try:
            yield
        finally:
            self._flags = None
        self.check()

    def begin(self, flags: Tensor | None) -> None:
        """Set the flags of the next forward, [batch, tokens]; None removes them."""
        self._flags, self._seen = flags, set()

    def check(self) -> None:
        """Check, at the end of a forward, that all edits were applied.

        Raises:
            EvenhandError: The forward skipped a layer's hook.
        """
        self._flags = None
        left_out = sorted({*self._acting} - self._seen)
        if left_out:
            raise EvenhandError(
                f"the model ran without the edit of layer {left_out[0]}'s output: its layers do not run hooks, "
                "so its activations cannot be edited; load it without compilation and fused layers"
            )

    def _change(self, layer: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if _ACTIVE.get() is not self:
            return output
        rows, flags = rows_of(output), self._flags
        if flags is None or flags.shape != rows.shape[:-1]:
            known = "no tokens" if flags is None else f"tokens {tuple(flags.shape)}"
            raise EvenhandError(
                f"layer {layer} gives rows {tuple(rows.shape[:-1])}, but {known} are flagged as edited or not: run the "
                "model through its engine, which flags them"
            )
        self._seen.add(layer)
        self._flags = flags = flags.to(rows.device)  # usually also the device of the next layer
        return with_rows(output, edited_rows(self._cast(layer, rows), rows, flags))

    def _cast(self, layer: int, rows: Tensor) -> list[PreparedEdit]:
        where = layer, rows.device, rows.dtype
        if where not in self._prepared:
            self._prepared[where] = [prepared(edit, rows.device, rows.dtype) for edit in self._acting[layer]]
        return self._prepared[where]


_ACTIVE: ContextVar[EditHooks | None] = ContextVar("activation_edit", default=None)


@contextmanager
def without_edit() -> Iterator[None]:
    """Run the model without its installed edit within the block, for example for a support probe."""
    token = _ACTIVE.set(None)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def installed(edit: ActivationEdit | None, module: nn.Module) -> AbstractContextManager[None]:
    """Edit the activations of a model within a block; None edits nothing."""
    return nullcontext() if edit is None else EditHooks(edit).installed(module)


def edit_here() -> ActivationEdit | None:
    """Return the edit installed in this context; None if there is none."""
    hooks = _ACTIVE.get()
    return None if hooks is None else hooks.edit


def check_honoured(module: PreTrainedModel, edit: ActivationEdit) -> None:
    """Check, on a few tokens, that a model uses the outputs of hooks.

    Args:
        module: A language model, in evaluation mode; installed edits are inactive in this check.
        edit: Edit whose layers are checked.

    Raises:
        EvenhandError: The model runs without the hooks of a layer, or does not use their output.
    """
    embedding: Any = module.get_input_embeddings()
    ids = torch.tensor([[n % len(embedding.weight) for n in TRIED]], device=place_of(embedding))

    def forward(hooks: EditHooks | None) -> Tensor:
        edited = hooks.installed(module) if hooks else nullcontext()
        with without_edit(), edited, editing_rows(torch.ones_like(ids)):
            found: Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
            return found

    plain, size = forward(None), edit.hidden_size
    for layer in edit.acting:
        far = LayerEdit("add", torch.randn(1, size, generator=torch.Generator().manual_seed(layer)), 100.0)
        if torch.equal(forward(EditHooks(ActivationEdit({layer: (far,)}, skip_first=False))), plain):
            raise EvenhandError(
                f"{type(module).__name__} does not use the output of hooks on layer {layer}, so activations cannot be "
                "edited there; choose another layer, or load the model without compilation and fused layers"
            )


@contextmanager
def editing_rows(flags: Sequence[Sequence[bool]] | Tensor) -> Iterator[None]:
    """Run one forward within the block with these tokens edited; without an installed edit nothing is edited.

    Args:
        flags: Which tokens are edited, [batch, tokens].
    """
    hooks = _ACTIVE.get()
    if hooks is None:
        yield
        return
    with hooks.flagged(torch.as_tensor(flags, dtype=torch.bool)):
        yield


@contextmanager
def editing_by_mask(module: nn.Module, starts: Sequence[int]) -> Iterator[None]:
    """Run forwards of padded batches within the block, such as those of transformers' generation loop.

    Positions are counted by the attention mask, which covers all tokens so far, so left padding does not shift them.

    Args:
        module: The transformers model, whose forwards receive an `attention_mask` [batch, tokens so far].
        starts: Position of the first edited token of each row.
    """
    hooks = _ACTIVE.get()
    if hooks is None:
        yield
        return

    def begin(_: nn.Module, __: tuple[Any, ...], given: dict[str, Any]) -> None:
        hooks.begin(_flags_of(given.get("attention_mask"), given.get("input_ids"), starts))

    def end(_: nn.Module, __: tuple[Any, ...], ___: Any) -> None:
        hooks.check()

    handles = [module.register_forward_pre_hook(begin, with_kwargs=True), module.register_forward_hook(end)]
    try:
        yield
    finally:
        hooks.begin(None)
        for handle in handles:
            handle.remove()


def _flags_of(mask: object, ids: object, starts: Sequence[int]) -> Tensor:
    """Return which of the tokens being fed are edited, [batch, tokens]."""
    if not isinstance(mask, Tensor) or not isinstance(ids, Tensor) or mask.dim() != 2:
        raise EvenhandError(
            "the model is run without a plain attention mask, so the tokens to edit are unknown; pass one and input_ids"
        )
    positions = mask.long().cumsum(1) - 1
    edited = mask.bool() & (positions >= torch.tensor(starts, device=mask.device)[:, None])
    return edited[:, -ids.shape[1] :]
