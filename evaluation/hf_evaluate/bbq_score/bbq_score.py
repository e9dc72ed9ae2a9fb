"""BBQ's bias score and accuracy as a module of evaluate."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from evenhand.data.bbq import CATEGORIES
from evenhand.evaluation.bbq import score
from evenhand.evaluation.hf_evaluate import checked  # not the class, since evaluate takes the first that it finds
from evenhand.evaluation.hf_evaluate.inputs import group_names, json_rows, no_group, predicted

_DESCRIPTION = "BBQ bias score and accuracy in ambiguous and disambiguated contexts, as fractions."
_CITATION = "Parrish et al. 2022, BBQ: A Hand-Built Bias Benchmark for Question Answering. arXiv 2110.08193."
_INPUTS = """
Args:
    predictions: for each row the index of the chosen answer, 0 to 2; -1 where the reply could not be parsed.
    references: for each row the row of the BBQ file, as JSON.
    convention: "paper" (default), "helm" or "lm-eval-like".
    group: "overall" (default), or a category.
Returns:
    every metric of `evenhand benchmarks bbq`, by name.
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class BBQScore(checked.CheckedMetric):
    """The official arithmetic, on rows and predictions."""

    prediction = "label"
    reference = "the row of the BBQ file, by json.dumps(row),"

    def _info(self) -> evaluate.MetricInfo:
        # integers would truncate .97 to 0
        features = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[str],
        convention: str = "paper",
        group: str = "overall",
        **_: Any,
    ) -> dict[str, float]:
        rows = json_rows(references, "BBQ")
        group_names([str(row.get("category") or "") for row in rows], CATEGORIES, "category")
        found = score(rows, predicted(predictions, 3), convention)
        if group not in found:
            raise no_group(group, "row of group", found)
        return found[group]
