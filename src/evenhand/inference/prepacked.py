"""Make forwards faster on CPUs without changing results: weights laid out for oneDNN, and MLPs run in blocks.

In float32 the default path of many CPUs is half as fast as oneDNN's; the laid-out weights are a copy, so they are made
only if memory allows, and again when weights change. The hidden states of an MLP are its largest tensors: for
a block of tokens they stay in the processor's cache, and for few tokens the allocator need not fetch new pages.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from evenhand.inference import mkldnn_support

SPARE = 2.0
"""Minimum ratio of the free memory to the size of the copy."""
BLOCK = 1024
"""Number of tokens that go through an MLP at once."""
FUSED = {
    "SiLU": mkldnn_support.SILU,
    "SiLUActivation": mkldnn_support.SILU,
    "GELUActivation": mkldnn_support.GELU,
    "GELUTanh": mkldnn_support.GELU_TANH,
}
"""Activations by class, in oneDNN's terms."""

Forward = Callable[[Tensor], Tensor]


class _Packed(NamedTuple):
    state: tuple[int, int]
    """Address and version of the original weight."""
    weight: Tensor


class Prepacked:
    """Keeps the laid-out weights of one module between uses."""

    def __init__(self) -> None:
        """Start empty; nothing is laid out yet."""
        self._packed: dict[nn.Linear, _Packed] = {}

    def forget(self) -> None:
        """Drop the laid-out weights: torch's counter misses some changes of weights (`.data`, fused optimizers)."""
        self._packed.clear()

    @contextmanager
    def __call__(self, module: nn.Module) -> Iterator[None]:
        """Run the module's layers the faster way within the block; if that is impossible nothing changes."""
        linears = [m for m in module.modules() if isinstance(m, nn.Linear) and _eligible(m)]
        if not _room_for([m for m in linears if m not in self._packed]):
            linears = []
        patched: dict[nn.Module, Forward] = {linear: self._linear(linear) for linear in linears}
        patched |= {m: made for m in module.modules() if (made := self._activated(m)) is not None}
        patched |= {m: _in_blocks(self._gated(m) or m.forward) for m in module.modules() if _is_token_wise(m)}
        for layer, forward in patched.items():
            vars(layer)["forward"] = forward
        try:
            yield
        finally:
            for layer in patched:
                del vars(layer)["forward"]

    def _linear(self, linear: nn.Linear) -> Forward:
        packed, bias = self._laid_out(linear), linear.bias

        def forward(x: Tensor) -> Tensor:
            return mkldnn_support.multiplied(x, packed, bias)

        return forward

    def _gated(self, mlp: Any) -> Forward | None:
        """Return down(activation(gate(x)) * up(x)), with activation and product fused into the multiplications.

        Returns:
            None if the MLP has another form, or its weights are not laid out.
        """
        parts = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        activation = FUSED.get(type(getattr(mlp, "act_fn", None)).__name__)
        linears = [p for p in parts if isinstance(p, nn.Linear) and p in self._packed and _eligible(p)]
        if activation is None or len(linears) < len(parts):
            return None
        gate, up, down = ((self._laid_out(linear), linear.bias) for linear in linears)

        def forward(x: Tensor) -> Tensor:
            gated = mkldnn_support.multiplied(x, *gate, activation)
            return mkldnn_support.multiplied(mkldnn_support.multiplied_by(x, gated, *up), *down)

        return forward

    def _activated(self, layer: nn.Module) -> Forward | None:
        """Return activation(dense(x)) as one operation, for the widening layer of BERT and the like; else None."""
        if not type(layer).__name__.endswith("Intermediate") or "forward" in vars(layer):
            return None
        parts = dict(layer.named_children())
        dense, activation = parts.get("dense"), FUSED.get(type(parts.get("intermediate_act_fn")).__name__)
        if activation is None or not isinstance(dense, nn.Linear) or dense not in self._packed or not _eligible(dense):
            return None
        packed, bias = self._laid_out(dense), dense.bias

        def forward(hidden_states: Tensor) -> Tensor:
            return mkldnn_support.multiplied(hidden_states, packed, bias, activation)

        return forward

    def _laid_out(self, linear: nn.Linear) -> Tensor:
        weight = linear.weight
        state = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        if linear not in self._packed or self._packed[linear].state != state:
            self._packed[linear] = _Packed(state, mkldnn_support.reordered(weight))
        return self._packed[linear].weight


def _in_blocks(forward: Forward) -> Forward:
    def run(x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        if len(tokens) <= BLOCK:
            return forward(x)
        out = torch.empty_like(tokens)
        for start in range(0, len(tokens), BLOCK):
            part = slice(start, start + BLOCK)
            out[part] = forward(tokens[None, part])[0]
        return out.reshape(x.shape)

    return run


def _is_token_wise(module: nn.Module) -> bool:
    """Return whether a module is an MLP or norm on the CPU, which maps hidden states token by token."""
    if not type(module).__name__.endswith(("MLP", "RMSNorm")) or "forward" in vars(module):
        return False
    on_cpu = all(p.device.type == "cpu" for p in module.parameters())
    return on_cpu and len(inspect.signature(module.forward).parameters) == 1


def _eligible(module: nn.Linear) -> bool:
    """Return whether a layer is a plain linear one in float32 on the CPU, whose forward is not replaced."""
    return (
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
        and "forward" not in vars(module)
        and mkldnn_support.supported()
    )


def _room_for(linears: list[nn.Linear]) -> bool:
    import psutil  # type: ignore[import-untyped]

    needed = sum(linear.weight.numel() * 4 for linear in linears)
    return bool(psutil.virtual_memory().available > SPARE * needed)
