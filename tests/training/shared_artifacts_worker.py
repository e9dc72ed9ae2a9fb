"""One of two processes that call methods that train; `test_shared_artifacts.py` starts it."""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

import accelerate  # noqa: F401  # forks of this process find it imported
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


def work(rank: int, folder: Path, port: int, only: tuple[str, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "FSDP_VERSION": "2",
    }  # as accelerate launch sets them
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    try:
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
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the other process would wait
    for runs in found.values():
        for run in runs.values() if isinstance(runs, dict) else ():
            run["record"] = repr(run["record"])
    torch.save(found, folder / f"found{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def main(folder: Path, port: int, *only: str) -> None:
    """Two forks of a process that has imported everything: that takes longer than the work."""
    ready = [get_context("fork").Process(target=work, args=(rank, folder, port, only)) for rank in range(2)]
    for p in ready:
        p.start()
    while any(p.exitcode is None for p in ready):
        wait([p.sentinel for p in ready if p.exitcode is None])
        if any(p.exitcode for p in ready):  # the other one would wait for it
            for p in ready:
                p.kill()
    sys.exit(max(abs(p.exitcode or 0) for p in ready))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
