"""An attention mask of tries that carries their parts, so that attention is computed in parts when possible.

For everything else the mask is an ordinary tensor. As it carries the parts, they reach the attention wherever a mask
does: through adapters, sharded weights, and the second forward pass of gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evenhand.training.trie_attention import Part, attended_by_parts, supported

KEPT = (Tensor.to, Tensor.detach, Tensor.contiguous)
"""Functions that return the same mask, possibly in another dtype or on another device."""


class TrieMask(Tensor):
    """A mask [rows, 1, length, length] to be added to the attention, with the parts that it leaves open."""

    parts: Sequence[Part] = ()
    """Parts that give the same attention; if there are none, the mask itself is used."""
    made_at: int = 0
    """Number of changes to the mask when its parts were made, as torch counts them."""

    @classmethod
    def of(cls, mask: Tensor, parts: Sequence[Part]) -> TrieMask:
        """Make a mask with parts that give the same attention."""
        made = mask.as_subclass(cls)
        if not made.is_inference():  # torch does not count changes of inference tensors
            made.parts, made.made_at = parts, made._version
        return made

    @property
    def valid_parts(self) -> Sequence[Part]:
        """The parts; none if the mask has been changed in place since."""
        return self.parts if self.parts and self._version == self.made_at else ()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Attend by parts, keep them if the mask is moved or cast, and drop them otherwise."""
        named = dict(kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            if func is scaled_dot_product_attention:
                return _attended(*args, **named)
            made = func(*args, **named)
            if func in KEPT and isinstance(args[0], TrieMask) and made is not args[0]:
                return cls.of(made, args[0].valid_parts)
        return made


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what `scaled_dot_product_attention` gives, computed by parts if possible."""
    parts = attn_mask.valid_parts if isinstance(attn_mask, TrieMask) else ()
    plain = not (dropout_p or is_causal or torch.is_autocast_enabled(query.device.type))
    if parts and plain and _fit(query, key, value, attn_mask) and supported():
        return attended_by_parts(query, key, value, parts, scale)
    return scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _fit(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> bool:
    """Whether the tensors are whole rows on a CPU, with as many keys and values as queries."""
    whole = (len(mask), mask.shape[-1]) == (len(query), query.shape[-2]) and query.dim() == 4
    alike = all(t.shape == query.shape and t.dtype == query.dtype for t in (key, value))
    return whole and alike and query.device.type == "cpu"
