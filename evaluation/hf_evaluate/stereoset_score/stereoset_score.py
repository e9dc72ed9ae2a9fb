"""StereoSet's SS, LMS and ICAT as a module of evaluate."""

from __future__ import annotations

from collections import defaultdict
from math import isnan
from typing import Any

import datasets
import evaluate

from evenhand.evaluation.hf_evaluate import checked  # not the class, since evaluate takes the first that it finds
from evenhand.evaluation.hf_evaluate.inputs import scores
from evenhand.evaluation.stereoset import Outcome, StereoSet, outcome, term_row

_DESCRIPTION = "StereoSet's stereotype score, language-modelling score and ICAT: fractions, averaged over terms."
_CITATION = "Nadeem et al. 2021, StereoSet: Measuring Stereotypical Bias in Pretrained Language Models. ACL 2021."
_INPUTS = """
Args:
    predictions: per context the scores of its stereotype, anti-stereotype and unrelated text, higher for likelier; nan
        where one was not scored.
    references: per context its target term.
Returns:
    ss (0.5 is no bias), ss_bias, lms, icat, icat_of_terms, ties, unscored (share of contexts without a score, which are
    left out).
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class StereosetScore(checked.CheckedMetric):
    """Means over terms of shares over contexts."""

    scored = ("the stereotype", "the anti-stereotype", "the unrelated text")
    reference = "the target term"

    def _info(self) -> evaluate.MetricInfo:
        three = datasets.Sequence(datasets.Value("float64"), length=3)
        features = datasets.Features({"predictions": three, "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[list[float]], references: list[str], **_: Any) -> dict[str, float]:
        terms: dict[str, list[Outcome | None]] = defaultdict(list)
        for values, term in zip(scores(predictions), references, strict=True):
            terms[term].append(None if any(map(isnan, values)) else outcome(*values))
        return StereoSet().of_rows(term_row(outcomes) for outcomes in terms.values())
