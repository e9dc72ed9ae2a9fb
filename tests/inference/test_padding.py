"""Padding: what is real stays where it belongs, and the mask says which that is."""

from __future__ import annotations

import torch

from evenhand.inference.padding import left_pad, right_pad


def test_rows_are_filled_up_on_the_right() -> None:
    values, mask = right_pad([[5, 6, 7], [8]], 9)
    assert values.tolist() == [[5, 6, 7], [8, 9, 9]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert values.dtype == mask.dtype == torch.long


def test_rows_are_filled_up_on_the_left() -> None:
    values, mask = left_pad([[5, 6, 7], [8]], 9)
    assert values.tolist() == [[5, 6, 7], [9, 9, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_mask_is_of_places_and_not_of_values() -> None:
    assert right_pad([[9, 9], [9]], 9).mask.tolist() == [[1, 1], [1, 0]]


def test_a_minimum_length() -> None:
    assert right_pad([[1], []], 0, length=3).values.tolist() == [[1, 0, 0], [0, 0, 0]]
    assert left_pad([[1], []], 0, length=3).mask.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert right_pad([[1, 2]], 0, length=1).values.tolist() == [[1, 2]], "nothing is cut"


def test_no_rows() -> None:
    assert tuple(right_pad([], 0).values.shape) == (0, 0) and tuple(left_pad([], 0, length=2).mask.shape) == (0, 2)
