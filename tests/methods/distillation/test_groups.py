"""Pseudo-groups and how far apart they are: planted clusters and hand-made numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evenhand.methods.distillation._groups import _distances, _silhouette, apart, mmd2, pseudo_groups


def cloud(*points: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float64)


def test_two_points_one_apart() -> None:
    """1 + 1 - 2 exp(-1/2)."""
    assert float(mmd2(cloud((0.0,)), cloud((1.0,)), width=1.0)) == pytest.approx(2 - 2 * math.exp(-0.5))


def test_clouds_of_unequal_sizes() -> None:
    """{0, 2} and {1}: (2 + 2 e^-2) / 4 + 1 - 2 e^-1/2."""
    expected = (2 + 2 * math.exp(-2)) / 4 + 1 - 2 * math.exp(-0.5)
    assert float(mmd2(cloud((0.0,), (2.0,)), cloud((1.0,)), width=1.0)) == pytest.approx(expected)


@pytest.mark.parametrize("width", [None, 0.5])
def test_the_same_cloud_is_not_apart_and_a_point_twice_is_the_same_cloud(width: float | None) -> None:
    some = cloud((0.0, 1.0), (2.0, 0.0), (5.0, 5.0))
    assert float(mmd2(some, some.flip(0), width)) == pytest.approx(0, abs=1e-12)
    assert float(mmd2(some, some.repeat(2, 1), width=0.5)) == pytest.approx(0, abs=1e-12)
    assert float(mmd2(cloud((1.0,)), cloud((1.0,)))) == 0  # all distances are 0


def test_the_median_distance_sets_the_width() -> None:
    """{0, 1} and {3}: squared distances 1, 9, 4, the median is 4, so the kernel is exp(-d / 8)."""
    k = [math.exp(-d / 8) for d in (1, 9, 4)]
    found = mmd2(cloud((0.0,), (1.0,)), cloud((3.0,)))
    assert float(found) == pytest.approx((2 + 2 * k[0]) / 4 + 1 - (k[1] + k[2]))
    scaled = mmd2(7 * cloud((0.0,), (1.0,)), 7 * cloud((3.0,)))
    assert float(scaled) == pytest.approx(float(found))


def test_pairs_of_groups_are_averaged_and_a_group_alone_is_nothing() -> None:
    points = cloud((0.0,), (1.0,), (2.0,), (0.0,))
    of = torch.tensor([4, 1, 7, 4])
    one, two = 2 - 2 * math.exp(-0.5), 2 - 2 * math.exp(-2)
    assert float(apart(points, of, width=1.0)) == pytest.approx((one + one + two) / 3)
    alone = apart(points.requires_grad_(), torch.zeros(4))
    assert float(alone.detach()) == 0
    torch.autograd.backward(alone)  # it must still be a loss


def test_a_step_down_brings_clouds_together() -> None:
    x, y = cloud((0.0,), (0.5,)).requires_grad_(), cloud((3.0,))
    torch.autograd.backward(mmd2(x, y, width=2.0))
    assert x.grad is not None and bool((x.grad < 0).all())


@pytest.mark.parametrize("sizes", [(40, 8), (30, 10, 5), (12, 50, 7, 20, 9)])
def test_planted_groups_are_found_whatever_their_sizes(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    centres = 20 * np.eye(6)[: len(sizes)]
    planted = np.repeat(np.arange(len(sizes)), sizes)
    order = rng.permutation(len(planted))
    features = (centres[planted] + rng.normal(size=(len(planted), 6)))[order]
    found = pseudo_groups(features, most=8, seed=0)
    assert found.many == len(sizes)
    assert sorted(np.bincount(found.of)) == sorted(sizes)
    pairs = set(zip(planted[order].tolist(), found.of.tolist(), strict=True))
    assert len(pairs) == len(sizes)
    assert found.silhouette > 0.7
    again = pseudo_groups(features, most=8, seed=0)
    assert np.array_equal(again.of, found.of)


def test_no_more_groups_than_asked_for_and_few_or_equal_texts_are_one() -> None:
    features = np.repeat(np.arange(5.0), 10)[:, None] * 100 + np.tile(np.arange(10.0), 5)[:, None]
    assert pseudo_groups(features, most=3, seed=0).many <= 3
    assert pseudo_groups(features[:4], most=3, seed=0).many == 1
    assert pseudo_groups(np.ones((50, 3)), most=3, seed=0).many == 1


def test_silhouettes_by_hand() -> None:
    """Points 0, 1 | 5: of 0 a = 1, b = 5; of 1 a = 1, b = 4; of 5 none, as it is alone."""
    points = np.array([[0.0], [1.0], [5.0]])
    expected = (4 / 5 + 3 / 4 + 0) / 3
    assert _silhouette(_distances(points), np.array([0, 0, 1])) == pytest.approx(expected)
    assert _silhouette(_distances(points), np.array([0, 0, 0])) == -1
