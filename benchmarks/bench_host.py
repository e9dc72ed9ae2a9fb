"""Cost of asking in addition to the model: processor time of the host, per item and call, on the demo's BBQ.

The model's forward is replaced by one that returns ready-made hidden states, keys, values and logits of the right
shapes; everything else is real: rendering, tokenising, requests, the tree, the plan of its attention, normalising,
and the methods' own work. An item counts once per prompt that a method makes of it: `none` makes one,
`permutation` one in each of 6 orders, `self_debias` one in each of two turns. A figure is thus the seconds of one
`model.choose` over all items, divided by items x prompts. The best of several runs counts, on one thread.

make bench        or        OMP_NUM_THREADS=1 python benchmarks/bench_host.py --rows 0.25 --profile none
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tables import put

import evenhand
from evenhand.core.answer_cache import answer_cache
from evenhand.core.registry import build_benchmark, build_method
from evenhand.inference import attention
from evenhand.inference.tree_attention import TreeAttention
from evenhand.interfaces import Model, Question
from evenhand.models.local import LocalModel

PROMPTS = {"none": 1, "permutation": 6, "self_debias": 2}
"""Methods, and the number of prompts that each makes of an item."""
RUNS = 5
PARTS = {
    "tokenizers": "tokenising",
    "transformers": "tokenising",
    "models/tokenization": "tokenising",
    "prompting": "rendering",
    "string": "rendering",
    "models": "requests and choices",
    "inference/requests": "requests and choices",
    "inference/batching": "requests and choices",
    "inference/cached": "requests and choices",
    "core": "requests and choices",
    "inference": "tree and its attention",
    "torch": "tree and its attention",
    "methods": "the method",
    "interfaces": "the method",
}
"""Part to which a function's own time belongs, by a text in its file's path or name; the first match counts."""


def ready_made(model: LocalModel) -> Callable[..., None]:
    """Make a forward that computes nothing: the head is called as by the model, and keys and values are zeros.

    Each layer has its own tensors for every number of nodes, as those of a real forward are not parts of larger ones.
    """
    module = model.weights.module
    config: Any = module.config.get_text_config()
    head = module.get_output_embeddings()
    shared = int(config.num_key_value_heads)
    width = int(config.hidden_size) // int(config.num_attention_heads)
    hidden = torch.zeros(1, 70_000, config.hidden_size)

    @cache
    def states(layer: int, nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(nodes, shared, width), torch.zeros(nodes, shared, width)

    logits = torch.randn(70_000, config.vocab_size, generator=torch.Generator().manual_seed(0))
    vars(head)["forward"] = lambda rows: logits[: rows.shape[0]] if rows.dim() == 2 else rows

    def forward(input_ids: torch.Tensor, **_: object) -> None:
        active = attention._ACTIVE.get()
        if isinstance(active, TreeAttention) and active._keep:
            nodes = input_ids.shape[1]
            for layer in range(config.num_hidden_layers):
                active.made[layer] = states(layer, nodes)
        head(hidden[:, : input_ids.shape[1]])

    return forward


@contextmanager
def without_forward(model: LocalModel) -> Iterator[None]:
    """Make the model's forward cost nothing; the support probe runs first."""
    assert model.engine.tried.finish is not None, model.engine.tried.reason
    module = model.weights.module
    vars(module)["forward"] = ready_made(model)
    try:
        yield
    finally:
        del vars(module)["forward"], vars(module.get_output_embeddings())["forward"]


def seconds(model: Model, questions: list[Question], cache: Path | None) -> float:
    """Measure the processor seconds of one call."""
    gc.collect()
    with answer_cache(cache) if cache else nullcontext():
        begun = time.process_time()
        model.choose(questions)
        return time.process_time() - begun


def measure(name: str, base: LocalModel, questions: list[Question], runs: int) -> dict[str, object]:
    """Measure one row of the table."""
    asked = len(questions) * PROMPTS[name]
    model = build_method(name).apply(base)
    seconds(model, questions[:20], None)
    plain = min(seconds(model, questions, None) for _ in range(runs))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{n}.sqlite" for n in range(runs)]
        stored = min(seconds(model, questions, path) for path in paths)
        found = min(seconds(model, questions, path) for path in paths)
    columns = {"µs per item and prompt": plain, "answers stored": stored, "answers found": found}
    return {"method": name, "prompts": asked, **{c: f"{s / asked * 1e6:.0f}" for c, s in columns.items()}}


def breakdown(name: str, base: LocalModel, questions: list[Question]) -> None:
    """Print shares of the time by part, and the slowest functions; a profiler overstates the cost of Python code."""
    model = build_method(name).apply(base)
    profile = cProfile.Profile(time.process_time)
    profile.runcall(model.choose, questions)
    stats: Any = pstats.Stats(profile)
    parts: Counter[str] = Counter()
    for (file, _, function), (_, _, own, _, _) in stats.stats.items():
        where = file + function
        parts[next((part for key, part in PARTS.items() if key in where), "numpy and built-in functions")] += own
    total = sum(parts.values())
    for part, own in parts.most_common():
        print(f"{name}: {part}: {own / total:.0%}")
    stats.sort_stats("tottime").print_stats(25)
    stats.sort_stats("cumtime").print_stats(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="methods whose name contains this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--profile", default="", help="print where this method's time goes, without measuring")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    base = evenhand.load("demo")
    questions = [item.question for item in build_benchmark("bbq(source=demo)").load()]
    questions = questions[: max(1, int(len(questions) * given.rows))]
    with without_forward(base):
        if given.profile:
            return breakdown(given.profile, base, questions)
        rows = [measure(name, base, questions, given.runs) for name in PROMPTS if given.only in name]
    put("host", rows, write=given.write)


if __name__ == "__main__":
    main()
