"""Swapped readings: the target is the same whichever of them is the text, and keeps what a text tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evenhand.errors import SettingsError
from evenhand.methods.distillation._batches import Rows
from evenhand.methods.distillation._counterfactual import Found, SwapRule, resolved, swap_lines
from evenhand.methods.distillation._losses import readings
from evenhand.models.tiny import tiny_tokenizer
from evenhand.training.packing import IGNORED

PAIRS = [Found(("he", "she"), (0, 4)), Found(("man", "woman"), (2, 1))]
THREE = [Found(("a", "b", "c"), (3, 0, 5))]


def rule(found: list[Found] = PAIRS, strength: float = 1.0, **more: Any) -> SwapRule:
    return SwapRule(found, strength=strength, **more)


def logprobs(rows: int, words: int = 7) -> torch.Tensor:
    draws = torch.randn(rows, words, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.log_softmax(draws * 2, dim=-1)


def opened(rows: int) -> torch.Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_texts_are_read_as_they_are_and_swapped() -> None:
    ids = torch.tensor([[3, 0, 6, 1], [4, 2, 2, 5]])
    assert rule().read(ids).tolist() == [ids.tolist(), [[3, 4, 6, 2], [0, 1, 1, 5]]]
    assert rule(THREE).read(torch.tensor([[3, 0, 5, 1]])).tolist() == [[[3, 0, 5, 1]], [[0, 5, 3, 1]], [[5, 3, 0, 1]]]
    assert rule().labels(torch.tensor([[IGNORED, 0], [4, 6]])).tolist()[1] == [[IGNORED, 4], [0, 6]]


def test_by_hand_the_target_is_the_mean_swapped_back() -> None:
    two = [Found(("he", "she"), (0, 1))]
    given = torch.tensor([[0.6, 0.1, 0.3], [0.2, 0.7, 0.1]], dtype=torch.float64)  # of the text, and of it swapped
    made = rule(two).target(given.log(), opened(2)).exp()
    # swapped back, the second is (.7, .2, .1): the mean is (.65, .15, .2)
    assert torch.allclose(made, torch.tensor([[0.65, 0.15, 0.2], [0.15, 0.65, 0.2]], dtype=torch.float64))
    alike = torch.tensor([[0.6, 0.1, 0.3]] * 2, dtype=torch.float64)  # nothing in the text is swapped
    even = rule(two).target(alike.log(), opened(2)).exp()
    assert torch.allclose(even, torch.tensor([[0.35, 0.35, 0.3]] * 2, dtype=torch.float64))
    half = rule(two, strength=0.5).target(alike.log(), opened(2)).exp()
    assert torch.allclose(half[0], torch.tensor([0.475, 0.225, 0.3], dtype=torch.float64))


@pytest.mark.parametrize("found", [PAIRS, THREE])
def test_the_target_is_the_same_whichever_reading_is_the_text(found: list[Found]) -> None:
    by = rule(found)
    many, given = by.inputs, logprobs(4 * by.inputs)
    made = by.target(given, opened(len(given)))
    assert torch.allclose(made.exp().sum(-1), torch.ones(len(given), dtype=torch.float64))
    turned = given.view(4, many, -1).roll(-1, 1).reshape(given.shape)  # the text swapped once
    other = by.target(turned, opened(len(given)))
    assert torch.allclose(other, made.view(4, many, -1).roll(-1, 1).reshape(given.shape))
    assert torch.allclose(by.target(made, opened(len(given))), made)


def test_at_strength_0_nothing_changes() -> None:
    given = logprobs(6)
    assert rule(strength=0.0).target(given, opened(6)) is given
    assert rule(strength=0.0, emphasis=5).weight(given, opened(6)) is None


def test_readings_of_one_place_are_neighbours() -> None:
    ids = torch.tensor([[6, 0, 3], [2, 5, 5]])
    read = torch.tensor([[False, True, True], [True, False, False]])
    rows = Rows({"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}, ids, read, read)
    inputs, places, labels, acts = readings(rows, rule())
    assert inputs["input_ids"].tolist() == [[6, 0, 3], [2, 5, 5], [6, 4, 3], [1, 5, 5]]
    assert inputs["attention_mask"].shape == (4, 3) and inputs["use_cache"] is False
    assert inputs["input_ids"].flatten()[places].tolist() == [0, 4, 3, 3, 2, 1]
    assert labels.tolist() == [0, 4, 3, 3, 2, 1]
    assert acts.tolist() == [True] * 6


def test_words_that_are_not_one_token_are_left_out_and_reported() -> None:
    words = tiny_tokenizer(["he she man Man Woman"], chat=False)
    found = resolved([("he", "she"), ("man", "woman")], words)
    assert [f.words for f in found if not f.left_out] == [(" he", " she"), (" Man", " Woman")]
    assert (" man", " woman") in [f.words for f in found if f.left_out]
    with pytest.raises(SettingsError, match="no line"):
        resolved([("father", "mother")], words)


def test_lists_that_cannot_be_swapped_back_are_refused(tmp_path: Path) -> None:
    assert ("he", "she") in swap_lines("en")
    file = tmp_path / "swaps.txt"
    for text, message in (("his her\nhim her\n", "'her' occurs twice"), ("a b\nc d e\n", "same number")):
        file.write_text(text)
        with pytest.raises(SettingsError, match=message):
            swap_lines(str(file))
    with pytest.raises(SettingsError, match="is not a file"):
        swap_lines("xx")
