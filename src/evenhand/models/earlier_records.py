"""Training records as earlier versions wrote them: next to the weights, under a file name that depended on the method.

The records of `pcgu` were in a file of their own (`evenhand.methods.unlearning._pcgu.edited`).
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
"""Files that name the method; without a method in it, such a file is not evenhand's."""
CURVE = "curve.json"
"""Training curve of a student; the other facts are in evenhand.json."""
VECTOR = "training.json"
"""Record of a task vector."""
PRIORS = "priors.json"
"""Priors that a calibrating method has learned."""
STATE = "trained.json"
"""Fingerprint and training record of a finished member of an adjudication."""


def next_to_weights(folder: Path) -> TrainingRecord | None:
    """Read the record in a folder with weights or an adapter; None if there is none.

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
    """Assemble the record of a student from the facts in evenhand.json and the curve in another file.

    Args:
        folder: Folder of the student.
        facts: Content of evenhand.json.
        file: Path of evenhand.json, for messages.

    Raises:
        EvenhandError: The facts or the curve are not as evenhand wrote them.
    """
    curve = read_value(folder / CURVE)
    return training_record.of_facts({**facts, "curve": curve}, file, method="permutation_distillation")


def of_learned(folder: Path, method: str) -> TrainingRecord | None:
    """Read the record of a task vector or priors that a method has learned; None if there is none.

    Raises:
        EvenhandError: A file is not as evenhand wrote it.
    """
    for name in (VECTOR, PRIORS):
        if (folder / name).is_file():
            return training_record.of_facts(read_json(folder / name), folder / name, method=method)
    return None


def of_member(folder: Path) -> TrainingRecord | None:
    """Read the record of a trained member of an adjudication; None if its training has not finished.

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
