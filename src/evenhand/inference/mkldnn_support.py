"""oneDNN's linear layers on CPUs, undocumented operations of torch (`torch.ops.mkldnn`).

`supported` checks once on small matrices that they exist, and that they give the results of plain layers. If
not, nothing is laid out for oneDNN and each layer runs as in torch: slower, but with the same results.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, silu

FAILURES = (AttributeError, RuntimeError, TypeError, NotImplementedError)
"""What torch raises if an operation is missing, or takes other arguments."""


class Activation(NamedTuple):
    """Activation applied to a product, in oneDNN's terms."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


NONE = Activation()
SILU = Activation("swish", (1.0,))
GELU = Activation("gelu", (), "none")
GELU_TANH = Activation("gelu", (), "tanh")


@cache
def supported() -> bool:
    """Return whether torch has the operations, and they compute what plain layers do, up to rounding."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=generator) for size in ((3, 16), (8, 16), (8,)))
    plain = linear(x, weight, bias)
    try:
        laid_out = reordered(weight)
        pairs = [
            (multiplied(x, laid_out, bias), plain),
            (multiplied(x, laid_out, None, SILU), silu(linear(x, weight))),
            (multiplied(x, laid_out, bias, GELU), gelu(plain)),
            (multiplied(x, laid_out, bias, GELU_TANH), gelu(plain, approximate="tanh")),
            (multiplied_by(x, plain, laid_out, bias), plain * plain),
        ]
    except FAILURES:
        return False
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs)


def reordered(weight: Tensor) -> Tensor:
    """Return a copy of a weight [out, in] in oneDNN's layout."""
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return made


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = NONE) -> Tensor:
    """Compute activation(x @ weight.T + bias).

    Args:
        x: Inputs, [..., in].
        weight: Weight from `reordered`.
        bias: Bias, [out], or None.
        activation: Activation of the result.
    """
    name, scalars, algorithm = activation
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, list(scalars), algorithm)
    return out


def multiplied_by(x: Tensor, factor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute (x @ weight.T + bias) * factor; `factor` is [..., out]."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, factor, weight, bias, "mul")
    return out
