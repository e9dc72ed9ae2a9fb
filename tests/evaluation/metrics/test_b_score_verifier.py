"""The verifier's rules and thresholds by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.errors import SettingsError
from evenhand.evaluation.metrics.b_score_verifier import (
    accept,
    accept_two_step,
    best_threshold,
    best_two_step,
    verification_accuracy,
)

NAN = float("nan")


def test_one_step_accepts_up_to_the_threshold() -> None:
    b = [-0.5, 0.0, 0.2, 0.2000001, 1.0, NAN]
    assert accept(b, 0.2).tolist() == [True, True, True, False, False, False]
    assert accept(b, -1.0).tolist() == [False] * 6
    assert accept(b, 1.0).tolist() == [True] * 5 + [False]


def test_two_steps_need_both() -> None:
    first, b = [0.9, 0.9, 0.4, 0.4, 0.5, NAN], [0.0, 0.6, 0.0, 0.6, 0.3, 0.0]
    assert accept_two_step(first, b, 0.5, 0.3).tolist() == [True, False, False, False, True, False]
    assert accept_two_step(first, b, -np.inf, 0.3).tolist() == [True, False, True, False, True, False]


def test_accuracy_counts_right_acceptances_and_right_rejections() -> None:
    assert verification_accuracy([True, True, False, False, True], [True, False, False, True, True]) == 3 / 5
    assert verification_accuracy([True], [True]) == 1.0
    assert verification_accuracy([True, False], [False, True]) == 0.0
    assert np.isnan(verification_accuracy([], []))


def test_the_best_threshold() -> None:
    b, correct = [-0.1, 0.0, 0.1, 0.4, 0.5], [True, True, False, True, False]
    # T=0 judges 4 of 5 rightly (all but the right one at .4); so does T=.4 (all but the wrong one at .1)
    assert best_threshold(b, correct) == (-np.inf, 0.0, 4 / 5)
    assert best_threshold([0.1, 0.2], [False, False]) == (-np.inf, -np.inf, 1.0), "nothing is worth accepting"
    assert best_threshold([0.1, 0.2], [True, True]) == (-np.inf, 0.2, 1.0)


def test_the_best_two_thresholds_beat_one() -> None:
    first, b, correct = [0.9, 0.8, 0.3, 0.9], [0.0, 0.2, 0.1, 0.5], [True, True, False, False]
    assert best_two_step(first, b, correct) == (0.8, 0.2, 1.0)
    assert best_threshold(b, correct).accuracy == 3 / 4


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(SettingsError, match="2 first scores but 1"):
        accept_two_step([1, 1], [0], 0, 0)
    with pytest.raises(SettingsError, match="1 verdicts but 2"):
        verification_accuracy([True], [True, False])
    with pytest.raises(SettingsError, match="no answers"):
        best_threshold([], [])
