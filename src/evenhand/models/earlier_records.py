"""Training records as earlier versions wrote them: next to the weights, in a file of another name for each method.

The edits of `pcgu` had theirs in their own file (`evenhand.methods.unlearning._pcgu.edited`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand.core import training_record
from evenhand.errors import EvenhandError
from evenhand.interfaces import TrainingRecord
from evenhand.models.json_files import read_json, read_value

WITH_METHOD = ("unlearning.json", "distillation.json")
"""Files that name the method; a file of that name without one is somebody else's."""
CURVE = "curve.json"
"""The curve of a student whose evenhand.json has the other facts."""
VECTOR = "training.json"
"""How a task vector was made."""
PRIORS = "priors.json"
"""What a calibrating method has learned."""
STATE = "trained.json"
"""A finished member of an adjudication: its fingerprint and how it was trained."""


def next_to_weights(folder: Path) -> TrainingRecord | None:
    """The record in a folder with weights or an adapter; None where there is none.

    Raises:
        EvenhandError: A file that names a method is not as evenhand wrote it.
    """
    for file in (folder / name for name in WITH_METHOD):
        if not file.is_file():
            continue
        facts = read_value(file)
        if isinstance(facts, dict) and isinstance(facts.get("method"), str):
            return training_record.of_facts(facts, file)
    return None


def of_student(folder: Path, facts: Mapping[str, Any], file: Path) -> TrainingRecord:
    """The record of a student whose file has facts, and its curve in another file.

    Args:
        folder: The student's.
        facts: What evenhand.json says.
        file: evenhand.json, for the message.

    Raises:
        EvenhandError: The facts or the curve are not as evenhand wrote them.
    """
    curve = read_value(folder / CURVE)
    return training_record.of_facts({**facts, "curve": curve}, file, method="permutation_distillation")


def of_learned(folder: Path, method: str) -> TrainingRecord | None:
    """The record of what a method has learned: a task vector, priors; None where there is none.

    Raises:
        EvenhandError: A file is not as evenhand wrote it.
    """
    for name in (VECTOR, PRIORS):
        if (folder / name).is_file():
            return training_record.of_facts(read_json(folder / name), folder / name, method=method)
    return None


def of_member(folder: Path) -> TrainingRecord | None:
    """The record of a member that an adjudication has trained; None where its training has not ended.

    Raises:
        EvenhandError: The file is not as evenhand wrote it.
    """
    file = folder / STATE
    if not file.is_file():
        return None
    content = read_json(file)
    if not isinstance(content.get("facts"), dict) or not isinstance(content.get("fingerprint"), str):
        raise EvenhandError(f"{file} is not as evenhand writes it; remove {folder} to train the member again")
    record = training_record.of_facts(content["facts"], file, method="cross_model_adjudication")
    return replace(record, results={**record.results, "fingerprint": content["fingerprint"]})
