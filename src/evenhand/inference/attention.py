"""Replace the attention inside transformers models, which look attention functions up by name.

Everything else of a model runs unchanged; what its layers attend to is set by the active attention: a tree of tokens,
or rows that each continue their own text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "evenhand"


class Attention(Protocol):
    """Interface of attention implementations for all layers of a model."""

    def __call__(
        self, layer: int | None, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None
    ) -> Tensor:
        """Compute the attention of a layer.

        Args:
            layer: Number of the layer; None if the model does not state it.
            query: [batch, heads, tokens, width].
            key: [batch, key heads, tokens, width], with rotary positions applied.
            value: The same shape as `key`.
            scaling: Factor on the products; None is 1 / sqrt(width).
            softcap: Cap of the products (Gemma 2).

        Returns:
            Outputs, [batch, tokens, heads, width].
        """


_ACTIVE: ContextVar[Attention] = ContextVar("attention")


@contextmanager
def attending(module: torch.nn.Module, attention: Attention) -> Iterator[None]:
    """Make all layers of a model use an attention; the previous one is restored afterwards."""
    configs = _configs(module)
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = _ACTIVE.set(attention)
    for config in configs.values():
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        _ACTIVE.reset(token)


def _configs(module: torch.nn.Module) -> dict[int, Any]:
    """Return the configs in which layers look up their attention, each once."""
    found: list[Any] = [getattr(m, "config", None) for m in module.modules()]
    return {id(config): config for config in found if hasattr(config, "_attn_implementation")}


def attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scaling: float | None, softcap: float | None) -> Tensor:
    """Plain attention with a bias of 0 and -inf, and the soft cap that the usual kernels do not support."""
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap + bias
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype) @ v


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as the active attention does; transformers calls this in every layer, and the mask is not used."""
    return _ACTIVE.get()(getattr(module, "layer_idx", None), query, key, value, scaling, softcap), None


# No mask function is registered, so transformers builds no mask. With one, it would look for packed sequences first,
# by a value that it reads from the device, so that every forward would wait for the previous one.
AttentionInterface.register(NAME, _attend)
