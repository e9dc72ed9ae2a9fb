"""Scoring compared with lm-evaluation-harness: same model, same rows, one run, results compared.

make bench        or        python benchmarks/bench_scoring.py --only BBQ --rows 0.5

`--processor` counts the processor's seconds of one thread, for machines that are busy with other work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from breakdown import breakdown, told
from measuring import count_processor_seconds, in_turns, largest_difference, multiplications, products, timed
from tables import put
from transformers import PreTrainedTokenizerFast
from workloads import WORKLOADS, Pair, llama_135m, shuffled, tokenizer_for

from evenhand.interfaces import Passage
from evenhand.models.local import LocalModel

BATCHES = (4, 16)
"""Batch sizes of the harness; its best one counts."""
TIMES = 2
"""Number of timed runs of the harness and of evenhand; the fastest counts."""


def harness(module: torch.nn.Module, tokenizer: object, pairs: list[Pair], batch: int) -> Callable[[], list[float]]:
    """Scores with lm-evaluation-harness, with its own sorting and its cache of one-token continuations."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=batch, device="cpu", add_bos_token=True)

    def run() -> list[float]:
        asked = [Instance("loglikelihood", {}, tuple(pair), n) for n, pair in enumerate(pairs)]
        return [value for value, _ in lm.loglikelihood(asked, disable_tqdm=True)]

    return run


def engine(model: LocalModel, pairs: list[Pair]) -> list[float]:
    """Score pairs with evenhand's engine."""
    return [s.logprob for s in model.score([Passage(p.continuation, p.context) for p in pairs])]


def positions_read(tokenizer: PreTrainedTokenizerFast, pairs: list[Pair]) -> int:
    """Count the distinct beginnings after which something is read."""
    read = set()
    for pair in pairs:
        head, whole = (tuple(tokenizer(text).input_ids) for text in (pair.context, pair.context + pair.continuation))
        read |= {whole[:end] for end in range(len(head), len(whole))}
    return len(read)


def measure(name: str, share: float, *, peers: bool) -> dict[str, object]:
    """Measure one row of the table; without peers their columns are empty."""
    make, rows, dtype = WORKLOADS[name]
    pairs = shuffled(make(max(1, int(rows * share))))
    tokenizer = tokenizer_for(["".join(p) for p in pairs])
    module = llama_135m(dtype)
    model = LocalModel(module, tokenizer, name="bench", answer_by="text")
    prepared = timed(lambda: engine(model, pairs[:1]))  # the support probe runs, and weights are laid out
    before = model.engine.tokens
    timed(lambda: engine(model, pairs))  # counts what is fed, and warms up
    fed = model.engine.tokens - before
    least = products(multiplications(module, fed, positions_read(tokenizer, pairs)), module.dtype)
    ways: dict[str, Callable[[], list[float] | None]] = {"evenhand": lambda: engine(model, pairs), "floor": least}
    ways |= {str(batch): harness(module, tokenizer, pairs, batch) for batch in BATCHES if peers}
    times = in_turns(ways, TIMES)
    ours, floor = times.pop("evenhand"), times.pop("floor").seconds
    best = min(times, key=lambda b: times[b].seconds, default="")
    theirs = times.get(best)
    ratio = f"{theirs.seconds / ours.seconds:.1f}" if theirs else ""
    share = f"floor {floor / ours.seconds:.1%}" + (f", {ratio} times the harness's rate" if ratio else "")
    print(f"{name}: {told(breakdown(lambda: engine(model, pairs)))}; {share}", flush=True)
    return {
        "workload": name,
        "requests": len(pairs),
        "tokens fed": fed,
        "harness, s": f"{theirs.seconds:.1f} (batch {best})" if theirs else "",
        "evenhand, s": f"{ours.seconds:.1f}",
        "prepared, s": f"{prepared.seconds:.1f}",
        "ratio": ratio,
        "floor, s": f"{floor:.1f} ({floor / ours.seconds:.0%})",
        "harness, MB": f"{theirs.memory:.0f}" if theirs else "",
        "evenhand, MB": f"{ours.memory:.0f}",
        "largest difference": f"{largest_difference(ours.values, theirs.values):.1e}" if theirs else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--rows", type=float, default=0.25, help="share of the rows; 1 takes an hour with the harness")
    parser.add_argument("--alone", action="store_true", help="leave out the harness, which takes most of the time")
    parser.add_argument("--processor", action="store_true", help="count processor seconds of one thread")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    if given.processor:
        count_processor_seconds()
    rows = []
    for name in WORKLOADS:
        if given.only in name:
            rows.append(measure(name, given.rows, peers=not given.alone))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    put("scoring", rows, write=given.write)


if __name__ == "__main__":
    main()
