"""KL divergences by hand, where outcomes are impossible, and where shapes do not fit."""

from __future__ import annotations

import math

import pytest
import torch

from evenhand.errors import SettingsError
from evenhand.training.divergences import kl


def log(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_a_known_answer_in_both_directions() -> None:
    p, q = log(0.5, 0.5), log(0.25, 0.75)
    assert float(kl(p, q)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert float(kl(q, p)) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert float(kl(p, p)) == 0


def test_what_the_first_excludes_adds_nothing() -> None:
    assert float(kl(log(1.0, 0.0), log(0.5, 0.5))) == pytest.approx(math.log(2))
    assert float(kl(log(1.0, 0.0), log(1.0, 0.0))) == 0, "excluded by both"


def test_what_only_the_second_excludes_is_infinite() -> None:
    assert float(kl(log(0.5, 0.5), log(1.0, 0.0))) == math.inf


def test_rows_are_apart_and_none_becomes_nan() -> None:
    p = torch.stack([log(0.5, 0.5), log(1.0, 0.0)])
    assert kl(p, p.flip(0)).tolist() == [math.inf, pytest.approx(math.log(2))]


def test_gradients_are_finite_where_p_is_0() -> None:
    """Of KL(p || q) with respect to log q it is -p; the excluded outcome has the gradient 0, and not nan."""
    p, q = log(0.25, 0.75, 0.0).requires_grad_(), log(0.5, 0.25, 0.25).requires_grad_()
    torch.autograd.backward(kl(p, q))
    assert q.grad is not None and q.grad.tolist() == pytest.approx([-0.25, -0.75, 0.0])
    assert p.grad is not None and bool(p.grad.isfinite().all())


def test_exact_probabilities_are_taken_as_they_are() -> None:
    target, q = torch.tensor([0.1, 0.9, 0.0]), torch.tensor([0.2, 0.3, 0.5]).log().requires_grad_()
    torch.autograd.backward(kl(target.log(), q, mass=target))
    assert q.grad is not None and torch.equal(q.grad, -target), "bit for bit"


@pytest.mark.parametrize("shape", [(2, 4), (1, 3), (3,), (2, 1)])
def test_unequal_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Broadcasting would compare other outcomes, or one row with all."""
    with pytest.raises(SettingsError, match=r"\(2, 3\) and \(.*cannot be compared"):
        kl(torch.zeros(2, 3), torch.zeros(shape))
