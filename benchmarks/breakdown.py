"""Break down the time of a scoring call, by the operations in PyTorch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

SCOPES = {
    # part -> the function whose operations belong to it; the innermost one counts
    "attention": "evenhand.inference.tree_attention.TreeAttention.__call__",
    "forward": "evenhand.inference.tree_forward.hidden_states",
    "logits": "evenhand.inference.engine.score_pack",
}
PRODUCTS = ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm", "aten::mkldnn_linear", "aten::linear")
"""Operations that multiply by a layer's weights."""


def breakdown(run: Callable[[], object]) -> dict[str, float]:
    """Measure processor milliseconds by part.

    Args:
        run: Scores something with an engine that has been used before. The profiler slows it down a little.

    Returns:
        `linear layers`, `attention` (gathering included), `norms, activations, sums`, `output embedding`, `logsumexp`
        and `everything else`: tokenising, the trie, answers, and the time between the operations.
    """
    with _scoped(), profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen, record_function("whole"):
        run()
    spent = dict.fromkeys(
        ("linear layers", "attention", "norms, activations, sums", "output embedding", "logsumexp"), 0.0
    )
    whole = 0.0
    for event in seen.events() or []:
        if event.name == "whole":
            whole += event.cpu_time_total / 1000
        elif (kind := _kind(event)) is not None:
            spent[kind] += event.self_cpu_time_total / 1000
    return spent | {"everything else": whole - sum(spent.values())}


def told(spent: dict[str, float]) -> str:
    """Return one line with the share of each part."""
    whole = sum(spent.values())
    return ", ".join(f"{name} {part / whole:.1%}" for name, part in spent.items())


def _kind(event: FunctionEvent) -> str | None:
    """Return the part of an operation's own time; None for scopes and for operations outside all scopes."""
    if event.name in SCOPES or (scope := _scope(event)) is None:
        return None
    product = event.name in PRODUCTS
    kinds = {
        "attention": ("attention", "attention"),
        "forward": ("linear layers", "norms, activations, sums"),
        "logits": ("output embedding", "logsumexp"),
    }
    return kinds[scope][0 if product else 1]


def _scope(event: FunctionEvent) -> str | None:
    above: FunctionEvent | None = event.cpu_parent
    while above is not None and above.name not in SCOPES:
        above = above.cpu_parent
    return None if above is None else above.name


@contextmanager
def _scoped() -> Iterator[None]:
    """Record the functions of `SCOPES` in the profiler within the block."""
    with ExitStack() as stack:
        for name, target in SCOPES.items():
            plain = _found(target)
            stack.enter_context(patch(target, _recorded(plain, name)))
        yield


def _recorded(plain: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(plain)
    def run(*given: Any, **named: Any) -> Any:
        with record_function(name):
            return plain(*given, **named)

    return run


def _found(target: str) -> Callable[..., Any]:
    import pkgutil

    function: Callable[..., Any] = pkgutil.resolve_name(target)
    return function
