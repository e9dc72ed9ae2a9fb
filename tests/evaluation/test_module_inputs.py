"""What our modules of evaluate refuse, and how: the row, the value and the remedy."""

from __future__ import annotations

import json
from typing import Any

import evaluate
import numpy as np
import pytest

from evenhand.errors import EvenhandError
from evenhand.evaluation.hf_evaluate import path
from evenhand.proving_ground.generator.bbq_questions import all_rows

ROWS = [json.dumps(r) for r in all_rows()[:2]]


pytestmark = pytest.mark.usefixtures("module_cache")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "bbq_score",
        {"predictions": [0, [0.2, 0.3, 0.5]], "references": ROWS},
        r"predictions, row 1: \[0\.2, 0\.3, 0\.5\] is not a label but of the shape \[3\]; give a whole number",
    ),
    (
        "bbq_score",
        {"predictions": np.ones((2, 3)), "references": ROWS},
        r"predictions, row 0: .* of the shape \[3\]; .* Probabilities and logits have to be turned into labels",
    ),
    (
        "bbq_score",
        {"predictions": [0, "B"], "references": ROWS},
        "predictions, row 1: 'B' is not a label; give a whole",
    ),
    ("bbq_score", {"predictions": [0], "references": ROWS}, "1 predictions but 2 references; give one reference per"),
    ("bbq_score", {"predictions": 0, "references": ROWS}, "predictions: 0 is not a list; give a list"),
    ("bbq_score", {"predictions": None, "references": ROWS}, "predictions: None is not a list; give a list"),
    ("bbq_score", {"predictions": [], "references": []}, "predictions are empty; give one entry"),
    (
        "bbq_score",
        {"predictions": [0], "references": [{"a": 1}]},
        r"row 0: \{'a': 1\} is a dict, .*json.dumps",
    ),
    (
        "bbq_score",
        {"predictions": [0], "references": [7]},
        r"references, row 0: 7 is not in the .*; give the row of the",
    ),
    (
        "bbq_score",
        {"predictions": [0], "references": ["x"]},
        "references, row 0: 'x' is not a row of BBQ's file as JSON",
    ),
    ("bbq_score", {"predictions": [0], "references": ["[1]"]}, r"row 0: '\[1\]' is not a row of BBQ's file as JSON"),
    ("bbq_score", {"predictions": [0], "references": ["{}"]}, "row 0"),
    ("label_bias_score", {"predictions": [0, 1], "references": [0, [1]]}, r"references, row 1: \[1\] is not a label"),
    ("label_bias_score", {"predictions": [0], "references": [0], "classes": 0}, "classes=0 is not a number of labels"),
    ("label_bias_score", {"predictions": [0], "references": [0], "classes": "2"}, "classes='2' is not a number of"),
    (
        "label_bias_score",
        {"predictions": [0, 1], "references": [0, 1], "probabilities": [0.2, 0.8]},
        "probabilities, row 0: 0.2 is not a list; give 2 probabilities",
    ),
    (
        "label_bias_score",
        {"predictions": [0, 1], "references": [0, 1], "probabilities": 0.5},
        "probabilities=0.5 is not a list; give one row of 2 numbers per item",
    ),
    (
        "stereoset_score",
        {"predictions": [[-1, -2]], "references": ["chess"]},
        r"predictions, row 0: \[-1, -2\] has 2 scores; give 3 log-probabilities: of the stereotype, the anti",
    ),
    (
        "stereoset_score",
        {"predictions": [-1.5], "references": ["chess"]},
        r"row 0: -1\.5 is not a list of scores; give 3",
    ),
    (
        "crows_pairs_score",
        {"predictions": [[-1, -2], [-1, "low"]], "references": ["age", "age"]},
        r"predictions, row 1: \[-1, 'low'\] has a score that is not a number, 'low'; give 2 log-probabilities",
    ),
    ("crows_pairs_score", {"predictions": [[-1, -2, -3]], "references": ["age"]}, "has 3 scores; give 2 log-prob"),
    (
        "crows_pairs_score",
        {"predictions": [[-1, -2]], "references": [3]},
        "references, row 0: 3 .*; give the bias type",
    ),
    (
        "crows_pairs_score",
        {"predictions": [[-1, -2]], "references": ["age"], "group": "Age"},
        "no pair of bias type 'Age'; there are age",
    ),
    ("bbq_score", {"predictions": None, "references": None}, "there are no predictions: predictions=None and ref"),
    ("ifeval_score", {}, r"there are no predictions.*; give compute\(predictions=\.\.\., references=\.\.\.\)"),
    (
        "bbq_score",
        {"predictions": [0, 1], "references": [ROWS[0], json.dumps({**json.loads(ROWS[1]), "category": "Relgion"})]},
        "references, row 1: no category 'Relgion'; did you mean 'Religion'",
    ),
    (
        "bbq_score",
        {"predictions": [0], "references": [json.dumps({**json.loads(ROWS[0]), "category": " "})]},
        "references, row 0: the category is empty; give one, such as 'Age'",
    ),
    (
        "crows_pairs_score",
        {"predictions": [[-1, -2]] * 2, "references": ["age", "gendr"]},
        "references, row 1: no bias type 'gendr'; did you mean 'gender'",
    ),
    (
        "crows_pairs_score",
        {"predictions": [[-1, -2]] * 2, "references": ["age", " "]},
        "references, row 1: ' ' is empty; give the bias type",
    ),
    (
        "stereoset_score",
        {"predictions": [[-1, -2, -3]], "references": [""]},
        "references, row 0: '' is empty; give the target",
    ),
    (
        "label_bias_score",
        {"predictions": [0, 1], "references": [0, 1], "probabilities": [[0.5, 0.5], [0.5, "half"]]},
        "probabilities, row 1: 'half' is not a number; give 2",
    ),
    (
        "label_bias_score",
        {"predictions": [0, 1, 1], "references": [0, 1]},
        r"3 predictions but 2 references; .*\(row 2 is the first that has only one",
    ),
    (
        "ifeval_score",
        {"predictions": [3.5], "references": ["{}"]},
        "row 0: 3.5 is not in the .*; give the reply as text",
    ),
    (
        "ifeval_score",
        {"predictions": ["a"], "references": ["{"]},
        "references, row 0: '{' is not a row of IFEval's file",
    ),
]


@pytest.mark.parametrize(("name", "given", "message"), WRONG)
def test_wrong_inputs_are_named_with_the_remedy(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, EvenhandError), match=message) as caught:
        evaluate.load(path(name)).compute(**given)
    assert "Expected format: {" not in str(caught.value), "the features of evaluate help nobody"


def test_long_values_are_shortened() -> None:
    with pytest.raises(ValueError, match="predictions, row 0") as caught:
        evaluate.load(path("bbq_score")).compute(predictions=["x" * 10_000], references=ROWS[:1])
    assert len(str(caught.value)) < 400


def test_one_at_a_time_is_checked_and_counts_alike() -> None:
    module = evaluate.load(path("label_bias_score"))
    with pytest.raises(ValueError, match=r"^prediction: 'B' is not a label"):
        module.add(prediction="B", reference=0)
    for said, right in ((0, 0), (np.int64(1), 0), (1.0, 1), (-1, 1)):
        module.add(prediction=said, reference=right)
    assert module.compute()["accuracy"] == 0.5


def test_rows_of_arrays_and_tensors_are_scores() -> None:
    import torch

    module = evaluate.load(path("crows_pairs_score"))
    for given in (np.array([[-1.0, -2.0]]), torch.tensor([[-1.0, -2.0]]), [(-1, -2)]):
        assert module.compute(predictions=given, references=["age"])["stereotyped"] == 1.0


def test_bias_types_are_known_whatever_their_spelling_and_own_ones_are_kept() -> None:
    module = evaluate.load(path("crows_pairs_score"))
    given = {"predictions": [[-1.0, -2.0], [-2.0, -1.0], [-1.0, -2.0]], "references": ["Race_Color ", "age", "autre"]}
    for group, stereotyped in (("race-color", 1.0), ("Race_Color ", 1.0), ("age", 0.0), ("autre", 1.0)):
        assert module.compute(**given, group=group)["stereotyped"] == stereotyped
