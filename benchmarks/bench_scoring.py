"""Scoring beside lm-evaluation-harness: same model, same rows, one run, results compared.

make bench        or        python benchmarks/bench_scoring.py --only BBQ --rows 0.5
"""

from __future__ import annotations

import argparse
import gc
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import psutil
import torch
from tables import put
from workloads import WORKLOADS, Pair, llama_135m, shuffled, tokenizer_for

from evenhand.interfaces import Passage
from evenhand.models.local import LocalModel

BATCHES = (4, 16)
"""Batch sizes of the harness; its best one counts."""


class Timed(NamedTuple):
    """One way of scoring."""

    values: list[float]
    seconds: float
    memory: float
    """Peak above what was there before, MB."""


def timed(run: Callable[[], list[float]]) -> Timed:
    """Run with the peak of resident memory watched."""
    gc.collect()
    process, stop = psutil.Process(), threading.Event()
    start = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    values = run()
    seconds = time.perf_counter() - begun
    stop.set()
    watcher.join()
    return Timed(values, seconds, (peak - start) / 1e6)


def harness(module: torch.nn.Module, tokenizer: object, pairs: list[Pair], batch: int) -> list[float]:
    """What lm-evaluation-harness gives, with its own sorting and its cache of one-token continuations."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=batch, device="cpu", add_bos_token=True)
    asked = [Instance("loglikelihood", {}, tuple(pair), n) for n, pair in enumerate(pairs)]
    return [value for value, _ in lm.loglikelihood(asked, disable_tqdm=True)]


def engine(model: LocalModel, pairs: list[Pair]) -> list[float]:
    """What our engine gives."""
    return [s.logprob for s in model.score([Passage(p.continuation, p.context) for p in pairs])]


def measure(name: str, share: float) -> dict[str, object]:
    """One row of the table."""
    make, rows, dtype = WORKLOADS[name]
    pairs = shuffled(make(max(1, int(rows * share))))
    tokenizer = tokenizer_for(["".join(p) for p in pairs])
    module = llama_135m(dtype)
    model = LocalModel(module, tokenizer, name="bench", answer_by="text")
    engine(model, pairs[:1])  # the model is tried out and its weights are laid out once, not for every list
    before = model.engine.tokens
    first = timed(lambda: engine(model, pairs))
    fed = model.engine.tokens - before
    peers = {batch: timed(partial(harness, module, tokenizer, pairs, batch)) for batch in BATCHES}
    second = timed(lambda: engine(model, pairs))
    best = min(peers, key=lambda b: peers[b].seconds)
    theirs, ours = peers[best], min(first, second, key=lambda t: t.seconds)
    return {
        "workload": name,
        "requests": len(pairs),
        "tokens fed": fed,
        "harness, s": f"{theirs.seconds:.1f} (batch {best})",
        "evenhand, s": f"{ours.seconds:.1f}",
        "ratio": f"{theirs.seconds / ours.seconds:.1f}",
        "harness, MB": f"{theirs.memory:.0f}",
        "evenhand, MB": f"{ours.memory:.0f}",
        "largest difference": f"{np.abs(np.subtract(ours.values, theirs.values)).max():.1e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    rows = []
    for name in WORKLOADS:
        if given.only in name:
            rows.append(measure(name, given.rows))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    put("scoring", rows, write=given.write)


if __name__ == "__main__":
    main()
