"""An attention mask of tries that also knows their parts, by which torch's attention is computed where it can be.

The mask is a tensor like any other for whatever else is done with it. As the parts are in it, they reach the attention
on every way that a mask takes: through adapters, sharded weights, and the second forward of gradient checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evenhand.training.trie_attention import Part, attended_by_parts, supported

KEPT = (Tensor.to, Tensor.detach, Tensor.contiguous)
"""What gives the same mask, maybe in another dtype or elsewhere."""


class TrieMask(Tensor):
    """A mask [rows, 1, length, length] to be added to the attention, with the parts that it leaves."""

    parts: Sequence[Part] = ()
    """Without any, the mask itself is used."""
    made_at: int = 0
    """How often the numbers had been changed when the parts were made of them."""

    @classmethod
    def of(cls, mask: Tensor, parts: Sequence[Part]) -> TrieMask:
        """A mask with parts that give the same attention."""
        made = mask.as_subclass(cls)
        if not made.is_inference():  # whose changes are not counted
            made.parts, made.made_at = parts, made._version
        return made

    @property
    def valid_parts(self) -> Sequence[Part]:
        """The parts, unless the mask has been changed in place since."""
        return self.parts if self.parts and self._version == self.made_at else ()

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Attend by parts, keep them where the mask is moved or cast, and forget them otherwise."""
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
    """What `scaled_dot_product_attention` gives, by parts if that can be done."""
    parts = attn_mask.valid_parts if isinstance(attn_mask, TrieMask) else ()
    plain = not (dropout_p or is_causal or torch.is_autocast_enabled(query.device.type))
    if parts and plain and _fit(query, key, value, attn_mask) and supported():
        return attended_by_parts(query, key, value, parts, scale)
    return scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _fit(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> bool:
    """Whether these are whole rows on a CPU, with as many keys and values as queries."""
    whole = (len(mask), mask.shape[-1]) == (len(query), query.shape[-2]) and query.dim() == 4
    alike = all(t.shape == query.shape and t.dtype == query.dtype for t in (key, value))
    return whole and alike and query.device.type == "cpu"
