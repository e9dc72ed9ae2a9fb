"""Linear layers with weights laid out for oneDNN: about twice as fast in float32 on CPUs whose default path is slow.

The laid-out weights are a copy, so they are made only where the memory allows, and made anew when weights change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SPARE = 2.0
"""The free memory must be this many times the copy."""


class _Packed(NamedTuple):
    state: tuple[int, int]
    """Address and version of the weight it was made of."""
    weight: Tensor


class Prepacked:
    """Keeps the laid-out weights of one module between uses."""

    def __init__(self) -> None:
        """Nothing is laid out yet."""
        self._packed: dict[nn.Linear, _Packed] = {}

    @contextmanager
    def __call__(self, module: nn.Module) -> Iterator[None]:
        """Let the module's linear layers use laid-out weights; where that is impossible nothing changes."""
        linears = [m for m in module.modules() if isinstance(m, nn.Linear) and _eligible(m)]
        if not _room_for([m for m in linears if m not in self._packed]):
            linears = []
        for linear in linears:
            vars(linear)["forward"] = self._forward(linear)
        try:
            yield
        finally:
            for linear in linears:
                del vars(linear)["forward"]

    def _forward(self, linear: nn.Linear) -> Callable[[Tensor], Tensor]:
        weight = linear.weight
        state = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if linear not in self._packed or self._packed[linear].state != state:
            self._packed[linear] = _Packed(state, _laid_out(weight))
        packed, bias = self._packed[linear].weight, linear.bias
        multiply = torch.ops.mkldnn._linear_pointwise

        def forward(x: Tensor) -> Tensor:
            out: Tensor = multiply(x, packed, bias, "none", [], "")
            return out

        return forward


def _eligible(module: nn.Linear) -> bool:
    """Plain linear layers in float32 on the CPU whose forward nobody has replaced."""
    return (
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and "forward" not in vars(module)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    )


def _laid_out(weight: Tensor) -> Tensor:
    reorder: Any = torch.ops.mkldnn._reorder_linear_weight
    packed: Tensor = reorder(weight.detach())
    return packed


def _room_for(linears: list[nn.Linear]) -> bool:
    import psutil  # type: ignore[import-untyped]

    needed = sum(linear.weight.numel() * 4 for linear in linears)
    return bool(psutil.virtual_memory().available > SPARE * needed)
