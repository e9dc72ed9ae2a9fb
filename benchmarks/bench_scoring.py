"""Scoring beside lm-evaluation-harness: same model, same rows, one run, results compared.

make bench        or        python benchmarks/bench_scoring.py --only BBQ --rows 0.5
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from measuring import multiplications_per_second, timed
from tables import put
from transformers import PreTrainedTokenizerFast
from workloads import WORKLOADS, Pair, llama_135m, shuffled, tokenizer_for

from evenhand.interfaces import Passage
from evenhand.models.local import LocalModel

BATCHES = (4, 16)
"""Batch sizes of the harness; its best one counts."""


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


def floor(module: torch.nn.Module, fed: int, read: int) -> float:
    """Seconds that nothing but the matrix products takes, at the rate that one large product reaches here.

    Args:
        module: The model; its input embedding is looked up, not multiplied.
        fed: Tokens that go through the layers.
        read: Positions that the output embedding is multiplied at.
    """
    head = module.get_output_embeddings().weight
    layers = sum(p.numel() for p in module.parameters()) - head.numel()
    return (layers * fed + head.numel() * read) / multiplications_per_second(head.dtype)


def positions_read(tokenizer: PreTrainedTokenizerFast, pairs: list[Pair]) -> int:
    """Distinct beginnings after which something is read."""
    read = set()
    for pair in pairs:
        head, whole = (tuple(tokenizer(text).input_ids) for text in (pair.context, pair.context + pair.continuation))
        read |= {whole[:end] for end in range(len(head), len(whole))}
    return len(read)


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
    least = floor(module, fed, positions_read(tokenizer, pairs))
    return {
        "workload": name,
        "requests": len(pairs),
        "tokens fed": fed,
        "harness, s": f"{theirs.seconds:.1f} (batch {best})",
        "evenhand, s": f"{ours.seconds:.1f}",
        "ratio": f"{theirs.seconds / ours.seconds:.1f}",
        "floor, s": f"{least:.1f} ({least / ours.seconds:.0%})",
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
