"""PCGU: cosines of all rows compared with a loop, the selection of a 7B model, memory of a step, and sizes by ranks.

make bench        or        python benchmarks/bench_pcgu.py
"""

from __future__ import annotations

import argparse
import copy
import time
from math import ceil

import torch
from measuring import timed
from tables import put
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from evenhand.methods.unlearning._pairs import Side, TokenPair
from evenhand.methods.unlearning._pcgu.fsdp import World, _layers
from evenhand.methods.unlearning._pcgu.gradients import Scoring
from evenhand.methods.unlearning._pcgu.partition import Partition, partition
from evenhand.methods.unlearning._pcgu.selection import Similarities, lowest, similarities
from evenhand.methods.unlearning._pcgu.updates import Plan, Unlearning

ROWS, WIDTH, LOOPED = 100_000, 64, 10_000
"""Number of rows, their length, and the number on which the loop is timed; it takes equally long for each."""
LLAMA_2_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "tie_word_embeddings": False,
}
STEP = {**LLAMA_2_7B, "vocab_size": 8000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8}
RANKS = (1, 2, 4, 8)


def cosines() -> dict[str, object]:
    """Compute cosines of a parameter of many rows, all at once and row by row as the released code does."""
    layer = nn.Linear(WIDTH, ROWS, bias=False)
    one, other = ({"weight": torch.randn(ROWS, WIDTH)} for _ in range(2))
    parts, world = partition(layer), World(layer)
    ours = min((timed(lambda: similarities(parts, one, other, world)) for _ in range(5)), key=lambda t: t.seconds)
    begun = time.perf_counter()
    loop = [nn.functional.cosine_similarity(one["weight"][n], other["weight"][n], dim=0) for n in range(LOOPED)]
    theirs = (time.perf_counter() - begun) / LOOPED * ROWS
    difference = float((torch.stack(loop) - ours.values.cosine[:LOOPED]).abs().max())
    return {
        "what": f"cosines of {ROWS:,} rows of {WIDTH}",
        "loop, s": f"{theirs:.2f} (from {LOOPED:,})",
        "evenhand, s": f"{ours.seconds:.4f}",
        "ratio": f"{theirs / ours.seconds:.0f}",
        "largest difference": f"{difference:.0e}",
    }


def selection(size: int) -> dict[str, object]:
    """Select the lowest 30 % of all vectors of a 7B model, ties by index."""
    found = Similarities(torch.rand(size) * 2 - 1, torch.ones(size, dtype=torch.bool))
    seconds = timed(lambda: lowest(found, round(0.3 * size))).seconds
    return {
        "what": f"lowest 30 % of {size:,} cosines",
        "loop, s": "",
        "evenhand, s": f"{seconds:.2f}",
        "ratio": "",
        "largest difference": "",
    }


def step() -> dict[str, object]:
    """Measure the memory of a step beyond the float32 masters, relative to the parameters: mainly two gradients."""
    with torch.random.fork_rng():
        base = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **STEP)).bfloat16()
    module = copy.deepcopy(base).float()
    parts = partition(module)
    pairs = [TokenPair(Side((5, 6, n), (1,), (n,)), Side((5, 6, n + 9), (1,), (n + 9,)), "") for n in range(4)]
    plan = Plan(epochs=1, learning_rate=1e-4, batch=4, micro=4)
    how = Scoring(causal=True)
    run = Unlearning(module=module, base=base, parts=parts, pairs=pairs, how=how, plan=plan, world=World(module))
    once = timed(lambda: run.step(pairs))
    held = sum(p.numel() for p in module.parameters()) * 4 / 1e6
    return {
        "what": f"a step of {held / 4:.0f} M parameters ({held:.0f} MB)",
        "loop, s": "",
        "evenhand, s": f"{once.seconds:.2f}",
        "ratio": f"memory {once.memory / held:.2f} x parameters",
        "largest difference": "",
    }


def sizes(module: nn.Module, parts: Partition) -> list[dict[str, object]]:
    """Compute what a rank stores and sends, from shapes alone; the first rank has the largest shards."""
    groups = [list(layer.parameters()) for layer in _layers(module)]
    inside = {id(p) for group in groups for p in group}
    groups.append([p for p in module.parameters() if id(p) not in inside])
    every = sum(p.numel() for p in module.parameters())
    rows = []
    for ranks in RANKS:
        shards = sum(ceil(p.shape[0] / ranks) * (p.numel() // p.shape[0]) for p in module.parameters())
        gathered = 0 if ranks == 1 else 4 * max(sum(p.numel() for p in group) for group in groups)
        part = (ranks - 1) / ranks
        rows.append(
            {
                "ranks": ranks,
                "masters, GB": f"{4 * shards / 1e9:.1f}",
                "two gradients, GB": f"{8 * shards / 1e9:.1f}",
                "gathered layer, GB": f"{gathered / 1e9:.1f}",
                "sum, GB": f"{(12 * shards + gathered) / 1e9:.1f}",
                "weights sent a pass, GB": f"{2 * 2 * every * part / 1e9:.1f}",
                "gradients sent a pass, GB": f"{4 * every * part / 1e9:.1f}",
                "cosines sent a step, MB": f"{4 * parts.size * part / 1e6:.1f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    write = parser.parse_args().write
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **LLAMA_2_7B))
    parts = partition(module)
    put("pcgu", [cosines(), selection(parts.size), step()], write=write)
    put("pcgu sizes", sizes(module, parts), write=write)


if __name__ == "__main__":
    main()
