"""Calls of a model within a loss: as many on every process, without any effect on the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError
from evenhand.training.loss_step import DONE, EVALUATED, LEARNED, Calls, LossStep
from evenhand.training.sharding import blocks_of


class Stack(nn.Module):
    """Notes with what it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.seen: list[tuple[bool, bool, Any]] = []

    def forward(self, x: Tensor, past_key_values: Any = None, use_cache: bool = True) -> dict[str, Any]:
        self.seen.append((torch.is_grad_enabled(), use_cache, past_key_values))
        return {"none": None, "states": x * self.weight}


def others(*wanted: int) -> Callable[[int], int]:
    """Another process that wants these kinds of calls, one after another, and goes on when it is its turn."""
    left = list(wanted)

    def highest(mine: int) -> int:
        agreed = max(mine, left[0] if left else DONE)
        if left and left[0] == agreed:
            left.pop(0)
        return agreed

    return highest


def once(module: Any) -> Tensor:
    value: Tensor = module(torch.ones(3), past_key_values="cache", use_cache=True)["states"].sum()
    return value


def test_a_call_is_repeated_while_others_call_and_changes_nothing() -> None:
    stack = Stack()
    calls = Calls(stack, others(LEARNED, LEARNED, EVALUATED, LEARNED))
    value = calls.aligned(once, stack)
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == 6 and float(stack.weight.grad) == 3  # type: ignore[arg-type]
    again = [(True, False, None), (False, False, None), (True, False, None)]
    assert stack.seen == [(True, True, "cache"), *again], "repeated without the cache of the call before"


def test_a_call_without_gradients_waits_for_one_with_them() -> None:
    def twice(module: Any) -> Tensor:
        value = once(module)
        with torch.no_grad():
            once(module)
        return value

    stack = Stack()
    Calls(stack, others(LEARNED, LEARNED, EVALUATED)).aligned(twice, stack)
    assert [grad for grad, *_ in stack.seen] == [True, True, False]


def test_every_call_has_a_backward_pass_of_its_own() -> None:
    """A call that the loss does not depend on gets a gradient of zero."""

    def unused(module: Any) -> Tensor:
        once(module)
        return (other**2).sum()

    other, stack = nn.Parameter(torch.tensor([3.0])), Stack()
    Calls(stack, others(LEARNED)).aligned(unused, stack).backward()  # type: ignore[no-untyped-call]
    assert stack.weight.grad is not None and float(stack.weight.grad) == 0 and other.grad is not None
    assert float(other.grad) == 6


def test_outside_of_a_loss_nothing_is_agreed_upon() -> None:
    stack = Stack()
    calls = Calls(stack, lambda kind: pytest.fail("asked the others"))
    once(stack)
    calls.remove()
    assert not stack._forward_hooks and not stack._forward_pre_hooks


def test_a_loss_that_never_calls_the_model_is_refused() -> None:
    stack = Stack()
    with pytest.raises(EvenhandError, match="must call it for every batch"):
        Calls(stack, others(LEARNED)).aligned(lambda m: torch.zeros(()), stack)


def test_a_step_is_a_forward_pass_with_the_module() -> None:
    line = nn.Linear(2, 2)
    step, seen = LossStep(line), list[str]()
    step.register_forward_pre_hook(lambda *_: seen.append("forward"))
    assert step(lambda m: m is line) and seen == ["forward"]


def test_blocks_are_the_list_with_the_most_parameters() -> None:
    class Expert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(1, 1) for _ in range(9))

    module = nn.Module()
    module.decoder = nn.Module()
    module.decoder.layers = nn.ModuleList(Expert() for _ in range(2))
    module.more = nn.ModuleList(nn.Linear(2, 1) for _ in range(5))
    found = blocks_of(module)
    assert found is not None and found.list is module.decoder.layers and found.stack is module.decoder
    assert found.prefix == "decoder.layers." and blocks_of(nn.Linear(1, 1)) is None
