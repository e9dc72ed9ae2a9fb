"""Attention of our own inside models of transformers, which looks attention functions up by name.

Everything else of a model runs unchanged; what its layers attend to is decided by whatever is active: a tree of tokens,
or rows that each continue a text of their own.
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
    """What the layers of a model attend to."""

    def __call__(
        self, layer: int | None, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None
    ) -> Tensor:
        """Attend.

        Args:
            layer: Number of the layer; None where the model does not say.
            query: [batch, heads, tokens, width].
            key: [batch, key heads, tokens, width], with positions already turned in.
            value: The same shape as `key`.
            scaling: Factor on the products; None is 1 / sqrt(width).
            softcap: Cap of the products (Gemma 2).

        Returns:
            [batch, tokens, heads, width].
        """


_ACTIVE: ContextVar[Attention] = ContextVar("attention")


@contextmanager
def attending(module: torch.nn.Module, attention: Attention) -> Iterator[None]:
    """Let all layers of a model use an attention; they are put back as they were afterwards."""
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
    """The configs that the layers look their attention up in, each once."""
    found: list[Any] = [getattr(m, "config", None) for m in module.modules()]
    return {id(config): config for config in found if hasattr(config, "_attn_implementation")}


def attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scaling: float | None, softcap: float | None) -> Tensor:
    """Plain attention with a bias of 0 and -inf, and the soft cap that the usual kernels lack."""
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
    """The function that transformers calls in every layer; the mask is not used."""
    return _ACTIVE.get()(getattr(module, "layer_idx", None), query, key, value, scaling, softcap), None


# No mask function is registered: transformers then builds no mask. With one, it would look for packed sequences first,
# by a value that it reads from the device, so that every forward would wait for the one before it.
AttentionInterface.register(NAME, _attend)
