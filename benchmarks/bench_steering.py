"""Activation steering: the cost of an edit while a model answers, and of reading the states of pairs.

make bench        or        python benchmarks/bench_steering.py --only 'fit: all layers' --rows 0.1

Both are ratios of the processor time of two ways that are run in turns, so that other work on the machine hits both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch
from tables import put
from workloads import bbq_prompts, bbq_questions, llama_135m, shuffled, tokenizer_for

from evenhand.inference.activation_edits import ActivationEdit, LayerEdit, Mode, Scope, TokenGate
from evenhand.inference.decoder_layers import decoder_layers
from evenhand.inference.padding import right_pad
from evenhand.inference.states import mean_states
from evenhand.interfaces import Model
from evenhand.models.local import LocalModel
from evenhand.models.steered import steered

PAIRS, QUESTIONS = 1000, 192
LAYER = 12
"""Layer at 0.4 of the depth, where AISteer360 steers by default."""
BATCHES = (1, 16)
"""Batch sizes of the unshared forwards; the better one on a few pairs is used."""
TURNS = 5
STRETCHES = 6

Pairs = list[tuple[list[int], list[int]]]


def edits() -> dict[str, ActivationEdit]:
    """Edits that are measured, by name."""
    v = torch.randn(576, generator=torch.Generator().manual_seed(0))
    gate = TokenGate(v, 0.0)
    kinds: list[tuple[Mode, Scope, TokenGate | None]] = [
        ("add", "all", None),
        ("add", "answer", None),
        ("add", "answer", gate),
        ("ablate", "all", None),
    ]
    return {
        f"{mode}, {scope}{', gated' if gate else ''}": ActivationEdit({LAYER: (LayerEdit(mode, v, gate=gate),)}, scope)
        for mode, scope, gate in kinds
    }


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time of all threads."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def choosing(share: float, only: str) -> list[dict[str, object]]:
    """Measure choosing letters with an edit and without it."""
    questions = shuffled(bbq_questions(max(6, int(QUESTIONS * share)), STRETCHES))
    tokenizer = tokenizer_for([f"{q.context} {q.question} {' '.join(q.options)}" for q in questions])
    base = LocalModel(llama_135m(), tokenizer, name="bench")
    wanted = {name: edit for name, edit in edits().items() if only in f"choose: {name}"}
    models: dict[str, Model] = {"": base, **{name: steered(base, edit) for name, edit in wanted.items()}}
    for model in models.values():
        model.choose(questions[:2])  # the support probe runs, and weights are laid out, only once
    taken: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(TURNS):
        for name in list(models)[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds(partial(models[name].choose, questions)))
    return [
        {
            "measured": f"choose: {name}",
            "rows": len(questions),
            "without, s": f"{median(taken['']):.2f}",
            "with, s": f"{median(some):.2f}",
            "paired ratio": f"{median(np.divide(some, taken[''])):.3f}",
        }
        for name, some in taken.items()
        if name
    ]


def plain_means(module: Any, pairs: Pairs, batch: int) -> torch.Tensor:
    """Compute the mean difference of the last tokens' states, [layers, hidden], by two separate forwards per pair."""
    layers = decoder_layers(module)
    sums = torch.zeros(len(layers), module.config.hidden_size, dtype=torch.float64)
    ends: list[int] = []
    sign = 1.0

    def hook(layer: int, _: Any, __: Any, output: Any) -> None:
        rows = output[0] if isinstance(output, tuple) else output
        sums[layer] += sign * rows[torch.arange(len(ends)), ends].double().sum(0)

    handles = [layer.register_forward_hook(partial(hook, n)) for n, layer in enumerate(layers)]
    with torch.inference_mode():
        for side, start in product((0, 1), range(0, len(pairs), batch)):
            some = [pair[side] for pair in pairs[start : start + batch]]
            ends, sign = [len(ids) - 1 for ids in some], 1.0 - 2.0 * side
            padded = right_pad(some, 0)
            module.model(input_ids=padded.values, attention_mask=padded.mask, use_cache=False)
    for handle in handles:
        handle.remove()
    return sums / len(pairs)


def our_means(model: LocalModel, pairs: Pairs, layers: Sequence[int]) -> torch.Tensor:
    """Compute the mean difference through the prefix trie."""
    sequences = [ids for pair in pairs for ids in pair]
    ends = [[len(ids) - 1] for ids in sequences]
    found = mean_states(model.engine, sequences, ends, layers, [n % 2 for n in range(len(sequences))])
    return found[0].mean - found[1].mean


def letter_pairs(share: float) -> tuple[Pairs, LocalModel]:
    """Make BBQ prompts that end in either of two letters, shuffled, and a model that reads them."""
    prompts = bbq_prompts(max(TURNS, int(PAIRS * share)), STRETCHES)
    tokenizer = tokenizer_for(prompts)
    heads: list[list[int]] = [list(tokenizer(text).input_ids) for text in shuffled(prompts)]
    letters = [tokenizer(f" {letter}", add_special_tokens=False).input_ids[-1] for letter in "AB"]
    pairs = [([*head, letters[0]], [*head, letters[1]]) for head in heads]
    return pairs, LocalModel(llama_135m(), tokenizer, name="bench")


def fitting(share: float, only: str) -> list[dict[str, object]]:
    """Measure reading states of BBQ pairs that differ in the answer's letter, in turns with plain forwards."""
    pairs, model = letter_pairs(share)
    module, every = model.engine.module, list(range(len(decoder_layers(model.engine.module))))
    rows = {name: some for name, some in (("all layers", every), (f"layer {LAYER}", [LAYER])) if only in f"fit: {name}"}
    few = pairs[: max(BATCHES)]
    our_means(model, few[:2], every)  # the support probe runs, and weights are laid out once
    plain = {batch: seconds(partial(plain_means, module, few, batch)) for batch in BATCHES}
    ways = {"": partial(plain_means, module, batch=min(plain, key=lambda batch: plain[batch]))}
    ways |= {name: partial(our_means, model, layers=layers) for name, layers in rows.items()}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds(partial(ways[name], pairs=pairs[turn::TURNS])))
    apart = (our_means(model, few, every) - plain_means(module, few, 1)).abs().max()
    print(f"largest difference of a mean: {float(apart):.1e}", flush=True)
    return [
        {
            "measured": f"fit: {name}",
            "rows": len(pairs),
            "without, s": f"{sum(taken['']):.2f}",
            "with, s": f"{sum(taken[name]):.2f}",
            "paired ratio": f"{median(np.divide(taken[name], taken[''])):.3f}",
        }
        for name in rows
    ]


WORKLOADS: dict[str, Callable[[float, str], list[dict[str, object]]]] = {"choose": choosing, "fit": fitting}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="rows of the table whose name contains this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    wanted = [run for name, run in WORKLOADS.items() if given.only.startswith(name) or given.only in name]
    rows = [row for run in wanted or WORKLOADS.values() for row in run(given.rows, given.only)]
    put("steering", rows, write=given.write)


if __name__ == "__main__":
    main()
