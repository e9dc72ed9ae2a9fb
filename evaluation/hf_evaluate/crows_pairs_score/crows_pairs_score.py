"""The share of CrowS-Pairs' stereotypes that a model prefers, as a module of evaluate."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from evenhand.data.crows_pairs import BIAS_TYPES
from evenhand.evaluation.crows_pairs import CrowSPairs
from evenhand.evaluation.hf_evaluate import checked  # not the class, since evaluate takes the first that it finds
from evenhand.evaluation.hf_evaluate.inputs import group_names, no_group, scores
from evenhand.evaluation.metrics.shared_parts import pair_row

_DESCRIPTION = "Share of CrowS-Pairs whose stereotyping sentence is more probable, as a fraction; 0.5 is unbiased."
_CITATION = "Nangia et al. 2020, CrowS-Pairs: A Challenge Dataset for Measuring Social Biases in MLMs. EMNLP 2020."
_INPUTS = """
Args:
    predictions: per pair the score of its more and of its less stereotyping sentence (sent_more, sent_less); nan where
        one was not scored.
    references: per pair its bias type; `group` chooses one.
    group: a bias type; by default all pairs.
Returns:
    stereotyped, bias (prefer less oppose), neutral, mean_difference, mean_distance, unscored (share of pairs without a
    score, which are left out).
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class CrowsPairsScore(checked.CheckedMetric):
    """Counts over pairs."""

    scored = ("the more stereotyping sentence", "the less stereotyping one")
    reference = "the bias type"

    def _info(self) -> evaluate.MetricInfo:
        two = datasets.Sequence(datasets.Value("float64"), length=2)
        features = datasets.Features({"predictions": two, "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self, predictions: list[list[float]], references: list[str], group: str = "", **_: Any
    ) -> dict[str, float]:
        kinds = group_names(references, BIAS_TYPES, "bias type")
        pairs = zip(scores(predictions), references, kinds, strict=True)
        rows = [pair_row(more, less) for (more, less), *names in pairs if group in names or not group]
        if not rows:
            raise no_group(group, "pair of bias type", sorted(set(kinds)))
        return CrowSPairs().of_rows(rows)
