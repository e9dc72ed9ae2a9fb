"""One of four processes that edit a tiny model in worlds of one to four; `test_distributed_pcgu.py` starts it."""

from __future__ import annotations

import copy
import json
import sys
from multiprocessing import get_context
from pathlib import Path
from random import Random

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoConfig, AutoModelForCausalLM

from evenhand.methods.unlearning._pairs import Side, TokenPair
from evenhand.methods.unlearning._pcgu.fsdp import World, local, shard, whole
from evenhand.methods.unlearning._pcgu.gradients import Scoring
from evenhand.methods.unlearning._pcgu.partition import partition
from evenhand.methods.unlearning._pcgu.updates import Plan, Unlearning

WORDS = 37  # 37 rows on 4 ranks are 10, 10, 10 and 7
CASES = {
    "row": ("llama", {}, "row"),
    "column": (
        "llama",
        {"direction": "increase_disadvantaged", "zero_rows": "kept", "reduction": "sum", "learning_rate": 0.02},
        "column",
    ),
    "turned": ("gpt2", {"direction": "both", "retain": 2.0, "gate": True, "learning_rate": 0.1}, "row"),
}


def model(kind: str) -> torch.nn.Module:
    sizes = {"vocab_size": WORDS, "tie_word_embeddings": True}
    if kind == "llama":
        sizes |= {
            "hidden_size": 20,
            "intermediate_size": 27,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
        }
    else:
        sizes |= {"n_embd": 18, "n_layer": 2, "n_head": 2, "n_positions": 32}
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).float().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(3 if p.dim() > 1 else 1)
    return module


def pairs(count: int) -> list[TokenPair]:
    """Texts of different lengths, whose answers are different tokens."""
    random, out = Random(3), []
    for _ in range(count):
        head = [random.randrange(WORDS) for _ in range(random.randrange(3, 9))]
        one, other = random.sample(range(WORDS), 2)
        sides = [Side((*head, t), (len(head) - 1,), (t,)) for t in (one, other)]
        out.append(TokenPair(sides[0], sides[1], ""))
    return out


def edited(case: str, mesh: DeviceMesh | None) -> dict[str, object]:
    kind, changed, axis = CASES[case]
    base = model(kind)
    module = copy.deepcopy(base)
    if mesh is not None:
        shard(module, mesh)
    world = World(module, mesh)
    parts = partition(module, axis)  # type: ignore[arg-type]
    plan = Plan(**{"epochs": 1, "learning_rate": 0.5, "batch": 8, "micro": 2, "share": 0.3, **changed})  # type: ignore[arg-type]
    every = pairs(19)  # the last batch has three, so that a rank of four has none
    retained = [Side(p.advantaged.ids, tuple(range(len(p.advantaged.ids) - 1)), p.advantaged.ids[1:]) for p in every]
    run = Unlearning(
        module=module,
        base=base,
        parts=parts,
        pairs=every,
        held_out=every[:5],
        retained=retained,  # type: ignore[arg-type]
        how=Scoring(causal=True),
        plan=plan,
        world=world,
    )
    run._finished = lambda: run._done >= plan.epochs  # type: ignore[method-assign]  # whatever the held-out pairs say
    run.run()
    weights = {name: whole(p) for name, p in module.named_parameters()}
    rows = world._everywhere
    last = run.delta()
    return {
        "weights": weights,
        "before": dict(base.state_dict()),
        "curve": run.curve,
        "chosen": run.seen.state()["chosen"],
        "rows": [r["model.embed_tokens.weight"] for r in rows] if kind == "llama" else [],
        "changed": last.size if last else 0,
        "vectors": parts.size,
    }


def halted(mesh: DeviceMesh | None) -> dict[str, object]:
    """A run of which one rank alone, the last, has a weight that is not finite after its third epoch."""
    base = model("llama")
    module = copy.deepcopy(base)
    if mesh is not None:
        shard(module, mesh)
    world = World(module, mesh)
    plan = Plan(epochs=5, learning_rate=0.02, batch=8, micro=2)
    run = Unlearning(
        module=module,
        base=base,
        parts=partition(module),
        pairs=pairs(19),
        how=Scoring(causal=True),
        plan=plan,
        world=world,
    )
    settle = run._settle

    def late() -> None:
        settle()
        if run._done == 2 and world.rank == world.size - 1:
            local(next(module.parameters()).data)[-1, 0] = torch.inf

    run._settle = late  # type: ignore[method-assign]
    kept = run.run()
    return {
        "epochs": len(run.curve),
        "halted": run.halted,
        "chosen": run.seen.state()["chosen"],
        "changed": kept.size if kept else 0,
    }


def large(mesh: DeviceMesh | None) -> dict[str, object]:
    """A run in float16 whose weights are finite on all ranks after its second epoch, and whose logits are not."""
    base = model("llama").half()
    module = copy.deepcopy(base).float()
    if mesh is not None:
        shard(module, mesh)
    world = World(module, mesh)
    run = Unlearning(
        module=module,
        base=base,
        parts=partition(module),
        pairs=pairs(19),
        how=Scoring(causal=True),  # type: ignore[arg-type]
        plan=Plan(epochs=3, learning_rate=0.02, batch=8, micro=2),
        world=world,
    )
    settle = run._settle

    def late() -> None:
        settle()
        if run._done == 1:
            for part in run.parts:
                local(module.get_parameter(part.name).data).fill_(30_000)

    run._settle = late  # type: ignore[method-assign]
    kept = run.run()
    return {"epochs": len(run.curve), "halted": run.halted, "changed": kept.size if kept else 0}


def by_method(folder: Path, rank: int) -> None:
    """The method as several launched processes call it: twice, the second time from what was kept."""
    from evenhand.core.artifacts import artefacts
    from evenhand.interfaces import Pair, TrainData
    from evenhand.methods.unlearning.pcgu import PCGU
    from evenhand.models.tiny import tiny_model

    heads = ("Who was there", "Once upon a time there was a little dog and", "There was a", "Explain which")
    data = TrainData(
        pairs=tuple(Pair(" dog", " cat", f"{head} {word}") for head in heads for word in ("in", "at", "of"))
    )
    method: PCGU = PCGU.build(
        learning_rate=1e-3, epochs=2, batch_size=5, micro_batch_size=2, validation_fraction=0.0, gate=False
    )
    found = []
    for _ in range(2):
        with artefacts(folder / "kept"):
            edited = method.apply(tiny_model(), data)
        found.append((edited.fingerprint, edited.facts()["edited_vectors"]))
    torch.save([found, dict(edited.weights.module.state_dict())], folder / f"method{rank}.pt")


def work(rank: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=4)
    names = []
    for size in (1, 2, 3, 4):
        mesh = DeviceMesh("cpu", list(range(size))) if size > 1 else None
        if rank < size:
            torch.save(halted(mesh), folder / f"halted{size}of{rank}.pt")
            torch.save(large(mesh), folder / f"large{size}of{rank}.pt")
        for case in CASES:
            if rank < size:
                found = edited(case, mesh)
                if rank == 0:
                    names.append(f"{case}-{size}")
                    torch.save(found, folder / f"{names[-1]}.pt")
    by_method(folder, rank)
    if rank == 0:
        (folder / "names.json").write_text(json.dumps(names))
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path, port: int) -> None:
    """Four forks of a process that has imported everything: that takes longer than the work."""
    ready = [get_context("fork").Process(target=work, args=(rank, folder, port)) for rank in range(4)]
    for p in ready:
        p.start()
    for p in ready:
        p.join()
    sys.exit(max(abs(p.exitcode or 0) for p in ready))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
