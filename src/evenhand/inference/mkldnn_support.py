"""oneDNN's linear layers on CPUs, which torch has without documenting them (`torch.ops.mkldnn`).

`supported` tries them once on small matrices: that they are there, and that they give what plain layers give. Where
they do not, nothing is laid out for oneDNN and each layer runs as torch runs it: slower, with the same results.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, silu

FAILURES = (AttributeError, RuntimeError, TypeError, NotImplementedError)
"""What torch raises where an operation is missing, or takes other arguments."""


class Activation(NamedTuple):
    """What is done to a product, in oneDNN's words."""

    name: str = "none"
    scalars: tuple[float, ...] = ()
    algorithm: str = ""


NONE = Activation()
SILU = Activation("swish", (1.0,))
GELU_TANH = Activation("gelu", (), "tanh")


@cache
def supported() -> bool:
    """Whether this torch has the operations, and they compute what plain layers compute, up to rounding."""
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
            (multiplied(x, laid_out, bias, GELU_TANH), gelu(plain, approximate="tanh")),
            (multiplied_by(x, plain, laid_out, bias), plain * plain),
        ]
    except FAILURES:
        return False
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs)


def reordered(weight: Tensor) -> Tensor:
    """A weight [out, in] laid out for oneDNN; a copy."""
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return made


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = NONE) -> Tensor:
    """activation(x @ weight.T + bias).

    Args:
        x: [..., in].
        weight: From `reordered`.
        bias: [out], or None.
        activation: What follows.
    """
    name, scalars, algorithm = activation
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, list(scalars), algorithm)
    return out


def multiplied_by(x: Tensor, factor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(x @ weight.T + bias) * factor; `factor` is [..., out]."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, factor, weight, bias, "mul")
    return out
