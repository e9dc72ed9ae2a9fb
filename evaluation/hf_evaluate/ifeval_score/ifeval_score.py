"""IFEval's four accuracies as a module of evaluate."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from evenhand.evaluation.hf_evaluate import checked  # not the class: evaluate takes the first that it finds
from evenhand.evaluation.hf_evaluate.inputs import json_rows
from evenhand.evaluation.ifeval import score

_DESCRIPTION = "IFEval: share of prompts and of instructions followed, strict and loose."
_CITATION = "Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models. arXiv 2311.07911."
_INPUTS = """
Args:
    predictions: replies.
    references: per reply the row of IFEval's file, as JSON (key, prompt, instruction_id_list, kwargs).
Returns:
    prompt_strict, instruction_strict, prompt_loose, instruction_loose, blank.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class IfevalScore(checked.CheckedMetric):
    """Verdicts of the maintained checkers."""

    prediction = "the reply"
    reference = "the row of IFEval's file, by json.dumps(row),"

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[str], references: list[str], **_: Any) -> dict[str, float]:
        return score(json_rows(references, "IFEval"), predictions)
