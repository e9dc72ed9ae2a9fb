"""SEAT: effect sizes and p-values by hand, the published layout of files, and representations of a model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from evenhand.data.seat import load
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.seat import SEAT, Associations, association, effect_size, p_value, represented
from evenhand.models.local import LocalModel
from evenhand.testing import check_benchmark

X, Y = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 2.0], [-1.0, 0.0]])
A, B = np.array([[3.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 4.0]])


def test_associations_and_effect_size_by_hand() -> None:
    x, y = association(X, A, B), association(Y, A, B)
    assert x == pytest.approx([1, 0]) and y == pytest.approx([-1, -1]), "cosines to A less those to B"
    spread = math.sqrt(((1 - -0.25) ** 2 + 0.25**2 + 2 * 0.75**2) / 3)
    assert effect_size(x, y) == pytest.approx(1.5 / spread)
    assert effect_size(y, x) == pytest.approx(-1.5 / spread)
    assert math.isnan(effect_size(np.ones(2), np.ones(2)))


def test_p_is_exact_for_few_sentences_and_ties_count_against() -> None:
    assert p_value(np.array([3.0, 2.0]), np.array([1.0, 0.0]), 6) == pytest.approx(1 / 6)
    assert p_value(np.array([1.0, 0.0]), np.array([3.0, 2.0]), 6) == 1.0
    assert p_value(np.array([1.0, 1.0]), np.array([1.0, 1.0]), 6) == 1.0
    drawn = p_value(np.arange(6, 12.0), np.arange(6.0), 500, 0, "t")
    assert drawn == pytest.approx(1 / 500, abs=0.005) and drawn >= 1 / 500, (
        "924 divisions: drawn, the own one among them"
    )


def written(folder: Path, name: str = "sent-weat6", **changes: object) -> Path:
    made: dict[str, object] = {
        "targ1": {"category": "MaleNames", "examples": ["This is John.", "That is John."]},
        "targ2": {"category": "FemaleNames", "examples": ["This is Amy.", "That is Amy."]},
        "attr1": {"category": "Career", "examples": ["This is work."]},
        "attr2": {"category": "Family", "examples": ["This is home.", "This is a home."]},
    }
    file = folder / f"{name}.jsonl"
    file.write_text(json.dumps({**made, **changes}, indent=1))
    return file


def test_the_published_layout_over_several_lines(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    written(tmp_path / "tests")
    written(tmp_path / "tests", "broken", targ1={"category": "x", "examples": ["One."]})
    loaded = load(str(tmp_path))
    (test,) = loaded.tests
    assert test.name == "sent-weat6" and test.targets[1].category == "FemaleNames"
    assert test.attributes[1].sentences == ("This is home.", "This is a home.")
    assert len(loaded.facts["dropped"]) == 1 and "targ1 has 1 sentences and targ2 2" in loaded.facts["dropped"][0]
    with pytest.raises(DataError, match="no usable test of SEAT"):
        load(str(tmp_path / "tests/broken.jsonl"))
    with pytest.raises(SettingsError, match="no test 'sent-weat9'"):
        SEAT.build(source=str(tmp_path), tests=("sent-weat9",)).load()


def test_the_metrics_are_means_over_tests(tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(tmp_path, name)
    bench = SEAT.build(source=str(tmp_path), alpha=0.2)
    answers = [Associations((3.0, 2.0), (1.0, 0.0)), Associations((1.0, 0.0), (3.0, 2.0))]
    tally = bench.tally(bench.load(), answers)
    got = {name: m.value for name, m in bench.compute(tally.total).items()}
    d = 2 / np.array([0.0, 1, 2, 3]).std(ddof=1)
    assert tally.groups == ("overall", "one", "two")
    assert got["effect_size"] == pytest.approx([0, d, -d]) and got["effect_size_absolute"] == pytest.approx([d, d, d])
    assert got["significant"] == pytest.approx([0.5, 1, 0])


@pytest.mark.parametrize("token", ["first", "last", "mean"])
def test_representations_are_those_of_a_plain_forward_pass(tiny: LocalModel, token: str) -> None:
    module, tokenizer = tiny.weights
    texts = ["the dog was in the question", "a cat", "the dog"]
    found = represented(module, tokenizer, texts, token)  # type: ignore[arg-type]
    for text, vector in zip(texts, found, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            hidden = module(ids, output_hidden_states=True).hidden_states[-1][0].double()
        expected = {"first": hidden[0], "last": hidden[-1], "mean": hidden.mean(dim=0)}[token]
        assert vector == pytest.approx(expected.numpy(), abs=1e-5)


def test_the_demo_models_keep_the_contract() -> None:
    bench = SEAT.build(source="demo", samples=200)
    assert len(bench.load()) == 3 and all(len(i.test.targets[0].sentences) == 7 for i in bench.load())
    check_benchmark(bench)
