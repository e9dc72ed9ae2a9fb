"""Scales, weights by agreement and weighted means, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.methods.adjudication._votes import agreement, combined, scale_of, standardised, weights

NAN = float("nan")


def test_each_judge_is_put_on_its_own_scale() -> None:
    votes = np.array([[0.0, 10.0], [2.0, 30.0], [4.0, NAN]])
    scale = scale_of(votes)
    assert scale.mean.tolist() == [2.0, 20.0]
    assert scale.deviation == pytest.approx([np.sqrt(8 / 3), 10.0])
    z = standardised(votes, scale)
    assert z[:, 1] == pytest.approx([-1.0, 1.0, NAN], nan_ok=True)
    assert z[:, 0] == pytest.approx([-np.sqrt(1.5), 0.0, np.sqrt(1.5)])


def test_a_constant_judge_has_no_weight_and_its_votes_are_zero() -> None:
    votes = np.array([[0.0, 3.0, 1.0], [1.0, 3.0, 2.0], [2.0, 3.0, 3.0], [4.0, 3.0, 5.0]])
    assert standardised(votes, scale_of(votes))[:, 1].tolist() == [0.0] * 4
    assert weights(votes)[1] == 0.0
    assert weights(votes)[[0, 2]] == pytest.approx([1.0, 1.0])  # the constant one does not dilute what they agree with


def test_a_judge_that_never_voted_has_no_weight() -> None:
    votes = np.array([[0.0, NAN, 1.0], [1.0, NAN, 2.0], [2.0, NAN, 4.0]])
    assert weights(votes)[1] == 0.0


def test_weight_is_the_correlation_with_the_mean_of_the_others() -> None:
    rng = np.random.default_rng(0)
    votes = rng.normal(size=(40, 4))
    votes[5, 2] = votes[7, 0] = NAN
    z = standardised(votes, scale_of(votes))
    for j in range(4):
        others = np.nanmean(np.delete(z, j, axis=1), axis=1)
        there = ~np.isnan(z[:, j])
        expected = max(0.0, float(np.corrcoef(z[there, j], others[there])[0, 1]))
        assert weights(votes)[j] == pytest.approx(expected)


def test_a_weak_judge_loses_influence_and_a_contrary_one_has_none() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=200)
    votes = np.stack([truth + 0.3 * rng.normal(size=200) for _ in range(3)], axis=1)
    weak, contrary = 0.15 * truth + rng.normal(size=200), -truth + 0.1 * rng.normal(size=200)
    found = weights(np.column_stack([votes, weak]))
    assert found[:3].min() > 0.8 and found[3] < 0.35
    assert weights(np.column_stack([votes, contrary]))[3] == 0.0


def test_a_pool_of_two_that_never_vote_on_the_same_answer_has_equal_weights() -> None:
    votes = np.array([[NAN, 0.0], [NAN, 3.0], [1.0, NAN], [4.0, NAN]])
    assert weights(votes).tolist() == [1.0, 1.0]
    constant = np.array([[NAN, 0.0], [NAN, 3.0], [2.0, NAN], [2.0, NAN]])
    assert weights(constant).tolist() == [0.0, 1.0]


def test_the_order_of_the_judges_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    votes = rng.normal(size=(30, 5))
    votes[rng.random(votes.shape) < 0.2] = NAN
    turn = [3, 0, 4, 1, 2]
    assert weights(votes[:, turn]) == pytest.approx(weights(votes)[turn])
    one, other = combined(votes, weights(votes)), combined(votes[:, turn], weights(votes)[turn])
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, nan_ok=True)
    assert agreement(votes[:, turn]) == pytest.approx(agreement(votes)[np.ix_(turn, turn)], nan_ok=True)


def test_weighted_mean_and_spread_by_hand() -> None:
    values = np.array([[1.0, 3.0, NAN], [NAN, NAN, 5.0], [NAN, NAN, NAN], [2.0, 2.0, 8.0]])
    found = combined(values, np.array([3.0, 1.0, 0.0]))
    assert found.mean == pytest.approx([1.5, NAN, NAN, 2.0], nan_ok=True)
    assert found.spread == pytest.approx([np.sqrt(0.75), NAN, NAN, 0.0], nan_ok=True)
    assert found.voters.tolist() == [2.0, 0.0, 0.0, 2.0]


def test_agreement_says_nothing_of_fewer_than_three_answers_in_common() -> None:
    z = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, NAN]])
    assert np.isnan(agreement(z)[0, 1])
    assert agreement(z)[0, 0] == pytest.approx(1.0)
