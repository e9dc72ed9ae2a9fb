"""Our metrics as modules of Hugging Face evaluate, such as `evaluate.load(path("bbq_score"))`."""

from __future__ import annotations

from pathlib import Path

from evenhand.errors import UnknownNameError

NAMES = ("bbq_score", "label_bias_score", "stereoset_score", "crows_pairs_score", "ifeval_score")


def path(name: str) -> str:
    """The installed path of a module, for `evaluate.load`.

    Raises:
        UnknownNameError: There is no such module.
    """
    if name not in NAMES:
        raise UnknownNameError("evaluate module", name, NAMES)
    return str(Path(__file__).parent / name / f"{name}.py")
