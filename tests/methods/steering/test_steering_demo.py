"""On the demo, whose bias is planted: a sweep of strengths goes one way, and letters say nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.evaluation.bbq import BBQ
from evenhand.experiment import training_data
from evenhand.interfaces import Model
from evenhand.methods.steering.steering import Steering


def biased(model: Model) -> float:
    """Mean probability of the stereotyped answer over some ambiguous questions about age."""
    items = [
        i for i in BBQ(source="demo").load() if i.category == "Age" and not i.disambiguated and i.target is not None
    ]
    some = items[:: max(1, len(items) // 48)]
    choices = model.choose([i.question for i in some])
    return float(np.mean([c.probabilities[i.target] for c, i in zip(choices, some, strict=True) if c.probabilities]))  # type: ignore[index]


@pytest.mark.slow
def test_the_bias_falls_with_the_strength_and_rises_against_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    model, data = evenhand.load("demo"), training_data.load("demo:pairs:Age:80").data
    with artefacts(tmp_path_factory.mktemp("kept")):
        found = [
            biased(Steering(fit_at="answer", layer=2, strength=strength).apply(model, data))
            for strength in (-1.0, -0.5, 0.0, 0.5, 1.0)
        ]
        random = biased(Steering(fit_at="answer", layer=2, control="random").apply(model, data))
        letters = Steering(layer=2).apply(model, data)
    assert all(a > b for a, b in pairwise(found)), found
    assert found[2] - found[4] > 0.1
    assert abs(random - found[2]) < 0.03
    assert biased(letters) == pytest.approx(found[2], abs=0.01)
    assert letters.training is not None
    assert letters.training.results["letter_effect"] == {"2": 0.0}
