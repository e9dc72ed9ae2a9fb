"""A metric of `evaluate` that refuses wrong inputs by row before they are cast.

For such inputs, `evaluate` itself prints its features and all rows, which names neither the row nor the
remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import evaluate
import numpy as np

from evenhand.evaluation.hf_evaluate.inputs import is_number, shown

Rows = Sequence[Any]


class CheckedMetric(evaluate.Metric):
    """Base of our modules; each declares what a row of its predictions and of its references is."""

    prediction: ClassVar[str] = ""
    """Kind of a prediction: "label", or what its text contains; "" if it is `scored`."""
    scored: ClassVar[tuple[str, ...]] = ()
    """Texts whose scores a prediction contains, in order."""
    reference: ClassVar[str] = ""
    """Kind of a reference: "label", or what its text contains."""

    def compute(
        self, *, predictions: Rows | None = None, references: Rows | None = None, **more: Any
    ) -> dict[str, Any] | None:
        """Compute the metrics of what is passed here, or was added before.

        Raises:
            ValueError: Nothing was passed or added, or as in `add_batch`.
        """
        if predictions is None and references is None and self.writer is None:
            raise ValueError(
                "there are no predictions: predictions=None and references=None, and nothing was added; give "
                "compute(predictions=..., references=...), or call add_batch first"
            )
        found: dict[str, Any] | None = super().compute(predictions=predictions, references=references, **more)
        return found

    def add_batch(self, *, predictions: Rows | None = None, references: Rows | None = None, **more: Any) -> None:
        """Add a batch of predictions and references.

        Raises:
            ValueError: They are missing, differ in number, or one is not what the module takes; the message names the
                row, the value and the remedy.
        """
        predicted, right = _rows(predictions, "predictions"), _rows(references, "references")
        if len(predicted) != len(right):
            first = min(len(predicted), len(right))
            raise ValueError(
                f"{len(predicted)} predictions but {len(right)} references; give one reference per prediction (row "
                f"{first} is the first that has only one of them)"
            )
        for row, (one, other) in enumerate(zip(predicted, right, strict=True)):
            self._check(one, other, f"s, row {row}")
        super().add_batch(predictions=predicted, references=right, **more)

    def add(self, *, prediction: Any = None, reference: Any = None, **more: Any) -> None:
        """Add one prediction and its reference; errors are those of `add_batch`."""
        self._check(prediction, reference, "")
        super().add(prediction=prediction, reference=reference, **more)

    def _check(self, prediction: Any, reference: Any, place: str) -> None:
        """Refuse anything but the labels, texts or scores that the module takes; `place` names the row."""
        for what, value, kind, scored in (
            ("prediction", prediction, self.prediction, self.scored),
            ("reference", reference, self.reference, ()),
        ):
            if reason := _no_scores(value, scored) if scored else _wrong(value, kind, what):
                raise ValueError(f"{what}{place}: {shown(value)} {reason}")


def _rows(values: Any, what: str) -> list[Any]:
    """Return the rows of a column."""
    if not _is_list(values):
        raise ValueError(f"{what}: {shown(values)} is not a list; give a list with one entry per item")
    rows = list(values)
    if not rows:
        raise ValueError(f"{what} are empty; give one entry per item")
    return rows


def _is_list(value: Any) -> bool:
    """Whether a value has entries: a list, a tuple, an array or a tensor, but neither a text nor a number."""
    if value is None or isinstance(value, (str, bytes, dict)):
        return False
    try:
        len(value)
    except TypeError:  # also for arrays and tensors without a dimension
        return False
    return True


def _wrong(value: Any, kind: str, what: str) -> str:
    """Return why a value is not a label or a text of the kind, and what to pass; "" if it is."""
    if kind == "label":
        return "" if value is None or is_number(value) else _no_label(value, what)
    if isinstance(value, str):
        return "" if value.strip() or what == "prediction" else f"is empty; give {kind} as text"
    if isinstance(value, dict):
        return f"is a dict, not in the expected format; give {kind} as text (json.dumps(row) of a row)"
    return f"is not in the expected format; give {kind} as text"


def _no_label(value: Any, what: str) -> str:
    several = f" but of the shape {list(np.shape(value))}" if isinstance(value, (list, tuple, np.ndarray)) else ""
    more = ", or -1 where the reply could not be parsed" if what == "prediction" else ""
    return (
        f"is not a label{several}; give a whole number from 0{more}. Probabilities and logits have to be turned into "
        "labels first"
    )


def _no_scores(value: Any, texts: Sequence[str]) -> str:
    wanted = f"give {len(texts)} log-probabilities: of {', '.join(texts)}; nan where a text was not scored"
    if not _is_list(value):
        return f"is not a list of scores; {wanted}"
    scores = list(value)
    if len(scores) != len(texts):
        return f"has {len(scores)} scores; {wanted}"
    strange = next((score for score in scores if score is not None and not is_number(score)), None)
    return f"has a score that is not a number, {shown(strange)}; {wanted}" if strange is not None else ""
