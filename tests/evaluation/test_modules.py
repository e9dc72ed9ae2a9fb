"""Our metrics as modules of evaluate: loaded from their installed path, computed, combined."""

from __future__ import annotations

import json
import math
from typing import Any

import evaluate
import numpy as np
import pytest

from evenhand.errors import UnknownNameError
from evenhand.evaluation import bbq
from evenhand.evaluation.hf_evaluate import NAMES, path
from evenhand.proving_ground.generator.bbq_questions import all_rows

pytestmark = pytest.mark.usefixtures("module_cache")


@pytest.mark.parametrize("name", NAMES)
def test_every_module_loads_and_says_what_it_takes(name: str) -> None:
    module = evaluate.load(path(name))
    assert module.name == name
    assert set(module.features) == {"predictions", "references"}
    assert "predictions:" in module.inputs_description and module.citation


def test_unknown_module() -> None:
    with pytest.raises(UnknownNameError, match="bbq_score"):
        path("bbq_scor")


def test_bbq_score_equals_the_benchmark() -> None:
    rows = all_rows()[:480]
    predictions = [(i * 7 + i // 5) % 3 if i % 11 else -1 for i in range(len(rows))]
    module = evaluate.load(path("bbq_score"))
    got = module.compute(predictions=predictions, references=[json.dumps(r) for r in rows])
    want = bbq.score(rows, [None if p < 0 else p for p in predictions])["overall"]
    assert got == pytest.approx(want, nan_ok=True)
    helm = module.compute(predictions=predictions, references=[json.dumps(r) for r in rows], convention="helm")
    assert helm["accuracy_ambiguous"] != got["accuracy_ambiguous"]


def test_label_bias_score_known_answers() -> None:
    module = evaluate.load(path("label_bias_score"))
    constant = module.compute(predictions=[0, 0, 0, 0], references=[0, 0, 1, 1])
    assert constant["rsd"] == pytest.approx(1.0) and constant["rstd"] == pytest.approx(0.5)
    assert constant["accuracy"] == 0.5 and constant["bias_score"] != constant["bias_score"]
    sure = module.compute(predictions=[0, 0], references=[0, 1], probabilities=[[1.0, 0.0], [1.0, 0.0]])
    assert sure["bias_score"] == pytest.approx(0.5)


def test_stereoset_score_averages_over_terms_of_unequal_size() -> None:
    """chess: 3 contexts, 2 stereotyped, all meaningful; France: 1 context, not stereotyped, one side meaningful."""
    module = evaluate.load(path("stereoset_score"))
    got = module.compute(
        predictions=[[-1, -2, -9], [-1, -2, -9], [-3, -2, -9], [-9, -1, -5]],
        references=["chess", "chess", "chess", "France"],
    )
    assert got["ss"] == pytest.approx((2 / 3 + 0) / 2) and got["lms"] == pytest.approx((1 + 0.5) / 2)
    assert got["icat"] == pytest.approx(0.75 * (1 / 3) / 0.5)


def test_crows_pairs_score_by_group_and_with_a_tie() -> None:
    module = evaluate.load(path("crows_pairs_score"))
    asked = {"predictions": [[-1, -2], [-2, -1], [-1, -1]], "references": ["age", "age", "race-color"]}
    assert module.compute(**asked)["stereotyped"] == pytest.approx(1 / 3)
    assert module.compute(**asked, group="age")["bias"] == 0.0
    with pytest.raises(ValueError, match="no pair of bias type 'nothing'"):
        module.compute(**asked, group="nothing")


def test_ifeval_score_strict_and_loose() -> None:
    pytest.importorskip("lm_eval")
    row = {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    module = evaluate.load(path("ifeval_score"))
    got = module.compute(predictions=["a, b\nc", "no comma"], references=[json.dumps(row)] * 2)
    assert (got["prompt_strict"], got["prompt_loose"]) == (0.5, 1.0), "loose leaves the first line away"


@pytest.mark.parametrize("wrong", [0.97, -0.5, 1e300, math.nan, math.inf, None, 3, -2, -100, "0.97", np.float32(0.6)])
def test_what_is_no_label_is_refused_and_not_cut(wrong: Any) -> None:
    """`evaluate` casts to the features: whole numbers would make 0 of 0.97, any negative an unparsed reply."""
    rows = [json.dumps(r) for r in all_rows()[:2]]
    bbq_score, label_bias = (evaluate.load(path(n)) for n in ("bbq_score", "label_bias_score"))
    with pytest.raises(
        ValueError, match=r"predictions, row 1: .* is not a label; give a whole number from 0 to 2, or -1"
    ):
        bbq_score.compute(predictions=[0, wrong], references=rows)
    with pytest.raises(ValueError, match=r"predictions, row 1: .* is not a label"):
        label_bias.compute(predictions=[0, wrong], references=[0, 1], classes=2)
    with pytest.raises(ValueError, match=r"references, row 0: .* is not a label; give a whole number from 0 to 1"):
        label_bias.compute(predictions=[0, 1], references=[wrong, 1], classes=2)


WHOLE = ([1, 0], [1.0, -0.0], np.array([1, 0]), np.array([1, 0], dtype=np.float32), [True, False])


@pytest.mark.parametrize("whole", WHOLE)
def test_whole_numbers_of_every_type_are_labels(whole: Any) -> None:
    module = evaluate.load(path("label_bias_score"))
    assert module.compute(predictions=whole, references=[1, 0])["accuracy"] == 1.0
    assert module.compute(predictions=[-1, 0], references=[1, 0])["accuracy"] == 0.5, "-1 is unparsed, so wrong"
    with pytest.raises(ValueError, match="references, row 0: -1"):
        module.compute(predictions=[0, 1], references=[-1, 1])


@pytest.mark.parametrize("wrong", [[[0.2, 0.8]], [[0.2], [0.3]], [[0.2, 9.0], [0.3, 0.7]], [[math.nan, 1.0], [0, 1]]])
def test_probabilities_have_to_be_distributions(wrong: Any) -> None:
    module = evaluate.load(path("label_bias_score"))
    with pytest.raises(ValueError, match=r"1 rows of probabilities|probabilities, row 0: .* over 2 labels"):
        module.compute(predictions=[0, 1], references=[0, 1], probabilities=wrong)
    exact = module.compute(predictions=[0, 1], references=[0, 1], probabilities=[[0.75, 0.25], [0.25, 0.75]])
    assert exact["bias_score"] == pytest.approx(0.0)


@pytest.mark.parametrize("lost", [math.nan, None])
def test_a_text_without_a_score_is_left_out_and_counted(lost: float | None) -> None:
    stereo, crows = (evaluate.load(path(n)) for n in ("stereoset_score", "crows_pairs_score"))
    got = stereo.compute(predictions=[[-1, -2, -9], [lost, -1, -2]], references=["chess", "chess"])
    assert (got["ss"], got["lms"], got["unscored"]) == (1.0, 1.0, 0.5), "not a preference for the anti-stereotype"
    pairs = crows.compute(predictions=[[-1, -2], [lost, -2]], references=["age", "age"])
    assert (pairs["stereotyped"], pairs["unscored"]) == (1.0, 0.5)
    for module, row in ((stereo, [-math.inf, -1, -2]), (crows, [-math.inf, -math.inf])):
        with pytest.raises(ValueError, match=r"predictions, row 0: .* infinite score"):
            module.compute(predictions=[row], references=["age"])


@pytest.mark.parametrize("wrong", [3.5, None, ["a"], {"a": 1}])
def test_what_is_no_text_is_refused_by_ifeval(wrong: Any) -> None:
    row = {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    with pytest.raises(ValueError, match="expected format"):
        evaluate.load(path("ifeval_score")).compute(predictions=[wrong], references=[json.dumps(row)])


def test_an_unknown_group_is_named() -> None:
    module = evaluate.load(path("bbq_score"))
    with pytest.raises(ValueError, match="no row of group 'Agee'; there are overall, Age"):
        module.compute(predictions=[0], references=[json.dumps(all_rows()[0])], group="Agee")


def test_modules_combine() -> None:
    both = evaluate.combine([evaluate.load(path("label_bias_score")), evaluate.load(path("label_bias_score"))])
    got = both.compute(predictions=[0, 1, 1], references=[0, 1, 0])
    assert got["label_bias_score_0_accuracy"] == got["label_bias_score_1_accuracy"] == pytest.approx(2 / 3)
    rows = [json.dumps(r) for r in all_rows()[:4]]
    mixed = evaluate.combine({"bbq": evaluate.load(path("bbq_score"))}, force_prefix=True)
    assert mixed.compute(predictions=[0, 1, 2, 0], references=rows)["bbq_unparsed"] == 0.0
