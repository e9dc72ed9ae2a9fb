"""One of two processes that hold the same model and save it; `test_first_process.py` starts them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from evenhand.core.artifacts import artefacts
from evenhand.core.registry import build_method
from evenhand.errors import EvenhandError
from evenhand.interfaces import Model, Pair, TrainData
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models import first_process, in_process
from evenhand.models.loading import load
from evenhand.models.mitigated import Mitigated
from evenhand.models.tiny import tiny_model

HEADS = ("Who was there", "Once upon a time there was a little dog and", "There was a", "Explain which")
DATA = TrainData(pairs=tuple(Pair(" dog", " cat", f"{head} {word}") for head in HEADS for word in ("in", "at", "of")))


def said(act: Callable[[], object]) -> str:
    try:
        act()
    except (EvenhandError, OSError) as error:
        return str(error)
    return ""


def same(model: Model, expected: dict[str, torch.Tensor]) -> bool:
    while isinstance(model, Mitigated):
        model = model.base
    found = model.weights.module.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], w) for name, w in expected.items())


def main(folder: Path, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    written: list[str] = []
    write = in_process.save_module

    def slowly(module: object, place: Path) -> None:
        written.append(place.name)
        time.sleep(0.5)  # whoever does not wait finds no folder
        write(module, place)  # type: ignore[arg-type]

    in_process.save_module = slowly  # type: ignore[assignment]
    model = tiny_model()
    expected = model.weights.module.state_dict()
    found: dict[str, object] = {"plain": same(load(model.save(folder / "plain")), expected)}
    dist.barrier()  # or the first process would write anew what the other one reads
    found["again"] = same(load(model.save(folder / "plain")), expected)
    stack = build_method("self_debias").apply(model)
    found["stack"] = same(load(stack.save(folder / "stack"), trust_folder=True), expected)
    if rank == 0:
        model.save(folder / "alone")  # as programs do that leave saving to the first process
    (folder / "file").write_text("in the way")
    found["failed"] = said(lambda: model.save(folder / "file"))
    first_process.WAIT = type(first_process.WAIT)(seconds=1)
    if rank == 1:
        found["elsewhere"] = said(lambda: model.save(folder / "elsewhere"))
    method: PCGU = PCGU.build(
        learning_rate=1e-3, epochs=1, batch_size=5, micro_batch_size=2, validation_fraction=0.0, gate=False
    )
    first_process.WAIT = type(first_process.WAIT)(seconds=300)
    with artefacts(folder / "kept"):
        place = method.export(tiny_model(), folder / "exported", DATA)
        edited = method.apply(tiny_model(), DATA).weights.module.state_dict()
    exported = load(place)
    found["exported"] = same(exported, edited) and not same(exported, expected)
    found["written"] = written
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
