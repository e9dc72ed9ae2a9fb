"""The shared optimizer and learning rates have known answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evenhand.training.loop import Schedule
from evenhand.training.optimizer import adamw, constant_rate, cosine_rate, linear_rate, set_learning_rate


def test_a_first_step_is_the_rate_and_the_decay() -> None:
    """Adam's first step is the rate times the sign of the gradient; before it weights shrink by rate times decay."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 2.0)
    for decay_vectors, bias in ((True, 1.88), (False, 1.9)):
        nn.init.constant_(layer.bias, 2.0)
        nn.init.constant_(layer.weight, 2.0)
        optimizer = adamw(layer.parameters(), weight_decay=0.1, decay_vectors=decay_vectors)
        set_learning_rate(optimizer, 0.1)
        layer(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert float(layer.weight.detach()) == pytest.approx(2 * (1 - 0.01) - 0.1)
        assert float(layer.bias.detach()) == pytest.approx(bias)


def test_rates() -> None:
    assert [linear_rate(x, 2.0, 0.25) for x in (0, 0.125, 0.25, 0.625, 1)] == pytest.approx([0, 1, 2, 1, 0])
    assert linear_rate(0, 2.0, 0.0) == 2
    assert [constant_rate(x, 2.0, 0.25) for x in (0, 0.125, 0.25, 0.625, 1)] == pytest.approx([0, 1, 2, 2, 2])
    assert [constant_rate(x, 2.0, 0.0) for x in (0, 0.5, 1)] == [2, 2, 2]
    plans = [Schedule(epochs=1, learning_rate=2.0, warmup_ratio=0.0, learning_rate_decay=d) for d in ("linear", "none")]
    assert [plan.rate(0.75) for plan in plans] == pytest.approx([0.5, 2])
    assert ["learning_rate_decay" in plan.for_checkpoints() for plan in plans] == [False, True]
    assert [cosine_rate(x, 2.0, 0.5) for x in (0, 0.5, 1)] == pytest.approx([2, 1.5, 1])


def test_the_old_name_of_max_grad_norm_works() -> None:
    with pytest.warns(DeprecationWarning, match="clip is now max_grad_norm"):
        plan = Schedule(epochs=1, learning_rate=0.1, clip=0.5)  # type: ignore[call-arg]
    assert plan.max_grad_norm == 0.5 and plan.for_checkpoints()["clip"] == 0.5
