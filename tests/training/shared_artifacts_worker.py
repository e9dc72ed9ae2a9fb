"""One of two processes that call methods that train; `test_shared_artifacts.py` starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import torch

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import DivergedError, EvenhandError
from evenhand.interfaces import Model, TrainData
from evenhand.methods.distillation.fair_distillation import FairDistillation
from evenhand.models.tiny import tiny_model

DATA = TrainData(
    texts=tuple(f"There was {a} and {b} was {c}" for a in "abcdef" for b in ("he", "she") for c in ("little", "there"))
)
PLAN = {"epochs": 2, "gradient_accumulation_steps": 2, "batch_tokens": 64}
CASES = ("copied", "unnamed base", "masked")
LAYOUTS = ("whole", "sharded")


class Diverging(FairDistillation):
    """Its result is refused before it is saved, which the first process alone finds out."""

    def check(self, model: Model, made: Any) -> NoReturn:
        """Refuse it."""
        raise DivergedError("no finite scores")


class Unsaved(FairDistillation):
    """Its result cannot be saved."""

    def keep(self, *given: Any) -> NoReturn:
        """Fail as a full disk does."""
        raise OSError("no space is left")


def model_of(case: str) -> Model:
    """Without dropout, whose draws differ between processes."""
    if case != "masked":
        return tiny_model(texts=["he she"])
    model = evenhand.load("demo-mlm", device="cpu")
    with model.editing() as weights:
        for part in weights.module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
    return model


def trained(case: str) -> dict[str, Any]:
    """What a method gives."""
    made = FairDistillation(**PLAN, student="lora" if case == "unnamed base" else "copied").apply(model_of(case), DATA)
    weights = {name: w.clone() for name, w in made.weights.module.state_dict().items()}
    return {"fingerprint": made.fingerprint, "weights": weights, "record": made.training}


def refusals() -> list[str]:
    """What is said in this process where the first one fails after the training."""
    said = []
    for kind in (Diverging, Unsaved):
        try:
            kind(**PLAN, student="copied").apply(model_of("copied"), DATA)
        except (EvenhandError, OSError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def work(_: int, folder: Path, *only: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layout in only[:1] or LAYOUTS:
        os.environ["ACCELERATE_USE_FSDP"] = "1" if layout == "sharded" else "0"
        if only:
            found[layout] = {case: trained(case) for case in only[1:]}
            continue
        found[layout] = {case: trained(case) for case in CASES}
        with artefacts(folder / layout):
            found[f"{layout}, kept"] = {case: trained(case) for case in CASES}
            found[f"{layout}, found"] = {case: trained(case) for case in CASES}
        found[f"{layout}, refused"] = refusals()
    for runs in found.values():
        for run in runs.values() if isinstance(runs, dict) else ():
            run["record"] = repr(run["record"])
    return found


if __name__ == "__main__":
    import two_processes  # next to this file, which is run as a script

    two_processes.main(work, Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:], FSDP_VERSION="2")
