"""Attention on CPUs that also returns its normaliser, an undocumented operation of torch.

`supported` checks once that it exists, and that it gives the results of plain attention. If not, long
shared beginnings are gathered for every question: that is slower, but gives the same results.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

FAILURES = (AttributeError, RuntimeError, TypeError, ValueError, NotImplementedError)
"""What torch raises if an operation is missing, or takes other arguments."""


@cache
def supported() -> bool:
    """Return whether torch has the operation, and it computes what plain attention does, up to rounding."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 8, generator=generator) for tokens in (4, 6, 6))
    bias = torch.zeros(2, 1, 4, 6)
    bias[..., 4:] = -torch.inf
    try:
        pairs = []
        for given in (None, bias):
            out, normaliser = attended_with_normaliser(q, k, v, given, 0.5)
            pairs.append((out, scaled_dot_product_attention(q, k, v, attn_mask=given, scale=0.5)))
            scores = q @ k.transpose(-1, -2) * 0.5 + (0 if given is None else given)
            pairs.append((normaliser, scores.logsumexp(-1)))
    except FAILURES:
        return False
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


def attended_with_normaliser(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scaling: float | None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute plain attention, and the log of the sum that its weights are divided by.

    Args:
        q: [batch, heads, queries, width], on a CPU.
        k: [batch, heads, keys, width].
        v: The same shape as `k`; the operation does not accept another width.
        bias: [batch, 1 or heads, queries, keys], added to the products; None adds nothing.
        scaling: Factor on the products; None is 1 / sqrt(width).
        causal: Whether a query attends to the keys up to its own position only.

    Returns:
        Outputs, [batch, heads, queries, width], and normalisers, [batch, heads, queries], in float32 (or float64).
    """
    out, normaliser = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, 0.0, causal, attn_mask=bias, scale=scaling
    )
    return out, normaliser
