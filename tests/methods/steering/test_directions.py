"""Directions, probes and conditions with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evenhand.errors import SettingsError
from evenhand.methods.steering import _condition as conditions
from evenhand.methods.steering import _logistic as logistic
from evenhand.methods.steering._directions import (
    first_component,
    letter_part,
    letter_size,
    random_like,
    side_mean,
    unit_difference,
)
from evenhand.methods.steering._statistics import separation

E = torch.eye(4, dtype=torch.float64)
MEANS = {
    ("unbiased", "A"): (3.0, (E[0] + E[2])[None]),
    ("unbiased", "B"): (1.0, (E[0] + E[3])[None]),
    ("biased", "A"): (1.0, E[2][None]),
    ("biased", "B"): (3.0, E[3][None]),
}
SIDES = ("unbiased", "biased")
"""Letters lie along the third and fourth coordinate, the side along the first."""


def test_balanced_means_have_no_part_along_letters_and_unbalanced_ones_do() -> None:
    balanced, plain = (
        side_mean(MEANS, "unbiased", SIDES, balanced=b)[0] - side_mean(MEANS, "biased", SIDES, balanced=b)[0]
        for b in (True, False)
    )
    assert torch.equal(balanced, E[0])
    assert torch.allclose(plain, E[0] + (E[2] - E[3]) / 2)
    # the letters' part, with letters' means over both sides
    assert torch.allclose(letter_part(MEANS, *SIDES)[0], (E[2] - E[3]) / 2)
    assert float(letter_size(MEANS)[0]) == pytest.approx(float(((E[2] - E[3]) / 2).norm()))


def test_letters_that_one_side_never_has_cannot_be_balanced() -> None:
    apart = {("unbiased", "A"): (1.0, E[:1]), ("biased", "B"): (1.0, E[1:2])}
    with pytest.raises(SettingsError, match="balance_letters=False"):
        side_mean(apart, "biased", SIDES, balanced=True)


def test_the_first_component_leaves_the_mean_difference_out() -> None:
    along = torch.tensor([[10.0, s, 0.1 * s * s, 0.0] for s in (-2.0, 1.0, 1.5, 2.0)], dtype=torch.float64)
    found = first_component(along)
    assert abs(float(found[1])) > 0.95
    assert abs(float(found[0])) < 1e-9  # what all have in common is what a mean difference is
    assert float(found[1]) > 0  # the sign that most of them have
    assert float(first_component(-along)[1]) < 0


def test_differences_of_unit_vectors_ignore_how_far_a_side_is_from_neutral() -> None:
    near, far = E[0] * 2 + E[3], E[1] * 200 + E[3]
    assert torch.allclose(unit_difference(near, far, E[3]), E[0] - E[1])


def test_a_random_control_is_as_long_and_repeats_itself() -> None:
    given = torch.stack([E[0] * 3, E[1] * 7]).float()
    made = random_like(given, 0, 1)
    assert torch.allclose(made.norm(dim=-1), torch.tensor([3.0, 7.0]))
    assert torch.equal(made, random_like(given, 0, 1))
    assert not torch.equal(made, random_like(given, 1, 1))
    assert not torch.equal(made, random_like(given, 0, 2))


def test_separation_is_the_share_of_pairs_in_the_right_order() -> None:
    states = torch.tensor([[[2.0]], [[0.0]], [[1.0]], [[-1.0]]])
    found = separation(states, [True, True, False, False], {5: torch.ones(1, 1)})
    assert found == {"5": 0.75}


def test_the_probe_is_where_the_penalised_loss_has_no_slope() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(200, 5))
    labels = (rows @ np.array([2.0, -1.0, 0.0, 0.0, 0.5]) + 0.7 + random.logistic(size=200)) > 0
    probe = logistic.fitted(rows, labels)
    residual = logistic.probability(probe, rows) - labels
    assert np.abs(probe.weight + rows.T @ residual).max() < 1e-4
    assert abs(residual.sum()) < 1e-4
    assert probe.weight[0] > 1.5


def test_a_smaller_c_gives_a_shorter_weight() -> None:
    rows, labels = np.array([[1.0], [2.0], [-1.0], [-2.0]]), np.array([1, 1, 0, 0])
    assert abs(logistic.fitted(rows, labels, 0.01).weight[0]) < abs(logistic.fitted(rows, labels, 1.0).weight[0])


def test_the_threshold_has_the_best_f1_and_of_equals_the_widest_gap() -> None:
    threshold, f1 = conditions.best_threshold(np.array([0.0, 1.0, 4.0, 5.0]), np.array([False, False, True, True]))
    assert (threshold, f1) == (2.5, 1.0)
    threshold, f1 = conditions.best_threshold(np.array([0.0, 1.0, 1.2, 9.0]), np.array([False, True, False, True]))
    assert (threshold, f1) == (0.5, pytest.approx(0.8))


def test_a_condition_points_to_the_prompts_that_are_steered() -> None:
    steered = torch.tensor([[3.0, 1.0], [5.0, -1.0]], dtype=torch.float64)
    found = conditions.fitted(steered, steered - torch.tensor([4.0, 0.0]))
    assert torch.allclose(found.direction, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert (found.threshold, found.f1) == (pytest.approx(2.0), 1.0)
