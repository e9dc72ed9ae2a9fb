"""Label-bias metrics as a module of evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from evenhand.evaluation.hf_evaluate import checked  # not the class: evaluate takes the first that it finds
from evenhand.evaluation.hf_evaluate.inputs import class_count, distributions, labels, predicted
from evenhand.evaluation.metrics.label_bias import LabelColumns, accuracy

_DESCRIPTION = "How evenly a classifier treats its labels: RSD, RStd, macro-F1, accuracy, shares, and BiasScore."
_CITATION = "Reif and Schwartz 2024, Beyond Performance: Quantifying and Mitigating Label Bias. arXiv 2405.02743."
_INPUTS = """
Args:
    predictions: per item the predicted label, 0 to K - 1; -1 where the reply could not be parsed.
    references: per item the right label.
    classes: K; by default the largest label plus one.
    probabilities: per item P(label), K numbers; without them BiasScore is nan.
Returns:
    accuracy, rsd, rstd, macro_f1, bias_score, position_1 ... position_K (share of decisions per label).
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class LabelBiasScore(checked.CheckedMetric):
    """Numbers from counts of labels."""

    prediction = reference = "label"

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")  # whole numbers would cut .97 to 0
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[float],
        classes: int | None = None,
        probabilities: list[list[float]] | None = None,
        **_: Any,
    ) -> dict[str, float]:
        classes = class_count(classes)
        right, said = labels(references, "references", classes), predicted(predictions, classes)
        columns = LabelColumns(classes or max(label for label in (*right, *said) if label is not None) + 1, "label")
        none: Sequence[list[float] | None] = [None] * len(said)
        known = none if probabilities is None else distributions(probabilities, len(said), columns.classes)
        rows = [columns.row(gold, label, p) for gold, label, p in zip(right, said, known, strict=True)]
        sums = np.sum(rows, axis=0)
        counted = columns.split(sums)
        shares = {name: float(m.value) for name, m in columns.metrics(sums).items()}
        return {"accuracy": float(accuracy(counted.gold, counted.hits)), **shares}
