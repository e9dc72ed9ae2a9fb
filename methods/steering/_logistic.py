"""Logistic regression with an L2 penalty, as scikit-learn solves it.

Source: FairSteer's probes (Li et al. 2025, arXiv 2504.14492) are scikit-learn's and cuML's `LogisticRegression` with
C = 1, no scaling of the states and at most 10,000 iterations. The objective here is the same, solved by the same
L-BFGS of SciPy: |w|^2 / 2 + C * sum of log(1 + exp(-y (w.h + b))), with y = +-1 and no penalty on b.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from evenhand.interfaces import Array

MOST_ITERATIONS = 10_000
TOLERANCE = 1e-8
"""Maximum gradient per row at which the solver ends; 1e-4 in scikit-learn."""


class Probe(NamedTuple):
    """A classifier with the probability sigmoid(weight.h + bias)."""

    weight: Array
    """Weight vector, [hidden]."""
    bias: float
    iterations: int


def fitted(states: Array, labels: Array, penalty: float = 1.0) -> Probe:
    """Fit the probe that separates rows labelled 1 from rows labelled 0.

    Args:
        states: [rows, hidden].
        labels: [rows] of 0 and 1; both have to occur.
        penalty: scikit-learn's C: the smaller, the shorter the weight.
    """
    rows = np.asarray(states, dtype=np.float64)
    signs = np.where(np.asarray(labels) > 0, 1.0, -1.0)

    def objective(given: Array, *_: object) -> tuple[float, Array]:
        weight, bias = given[:-1], given[-1]
        margins = signs * (rows @ weight + bias)
        losses = np.logaddexp(0.0, -margins)
        pull = -signs / (1.0 + np.exp(np.clip(margins, -700, 700)))
        gradient = np.append(weight + penalty * (rows.T @ pull), penalty * pull.sum())
        return float(weight @ weight / 2 + penalty * losses.sum()), gradient

    start = np.zeros(rows.shape[1] + 1)
    options = {"maxiter": MOST_ITERATIONS, "maxfun": 10 * MOST_ITERATIONS, "gtol": TOLERANCE * len(rows), "ftol": 1e-15}
    found: Any = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)  # type: ignore[call-overload]
    return Probe(found.x[:-1], float(found.x[-1]), int(found.nit))


def probability(probe: Probe, states: Array) -> Array:
    """Compute the probability of label 1 per row, [rows]."""
    along = np.asarray(states, dtype=np.float64) @ probe.weight + probe.bias
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(along, -700, 700))))
