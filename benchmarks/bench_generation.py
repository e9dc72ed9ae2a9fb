"""Generation compared with lm-evaluation-harness, and conversations with and without the KV cache of earlier turns.

make bench        or        python benchmarks/bench_generation.py --rows 0.5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch
from bench_scoring import BATCHES
from measuring import timed
from tables import put
from workloads import bbq_prompts, few_shot_prompts, llama_135m, shuffled, tokenizer_for

from evenhand import Sampling
from evenhand.inference import Engine, Generated, Prompt
from evenhand.prompting.sessions import conversation

NEW = 25
"""Number of tokens of each reply; random weights never end one sooner."""
WORKLOADS = {
    # name: how its prompts are made, rows, dtype
    "BBQ, replies of 25 tokens": (bbq_prompts, 64, "float32"),
    "BBQ, replies of 25 tokens, bf16": (bbq_prompts, 64, "bfloat16"),
    "MMLU, 5 shots, replies of 25 tokens": (few_shot_prompts, 24, "float32"),
}
TURNS, TALKS = 8, 24


def harness(module: torch.nn.Module, tokenizer: object, texts: Sequence[str], batch: int) -> list[str]:
    """Generate with lm-evaluation-harness."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=batch, device="cpu", add_bos_token=True)
    asked = [Instance("generate_until", {}, (t, {"until": [], "max_gen_toks": NEW}), n) for n, t in enumerate(texts)]
    made: list[str] = lm.generate_until(asked, disable_tqdm=True)
    return made


def engine(made_by: Engine, prompts: Sequence[Prompt]) -> list[Generated]:
    """Generate with evenhand's engine."""
    return made_by.generate(prompts, Sampling(max_new_tokens=NEW), "bench")


def measure(name: str, share: float) -> dict[str, object]:
    """Measure one row of the table."""
    make, rows, dtype = WORKLOADS[name]
    texts = shuffled(make(max(1, int(rows * share))))
    tokenizer = tokenizer_for(texts)
    module = llama_135m(dtype)
    module.generation_config.eos_token_id = None
    prompts = [Prompt(tuple(tokenizer(t).input_ids)) for t in texts]
    ours = Engine(module, tokenizer)
    engine(ours, prompts[:1])
    before = ours.tokens
    first = timed(partial(engine, ours, prompts))
    fed = ours.tokens - before
    peers = {batch: timed(partial(harness, module, tokenizer, texts, batch)) for batch in BATCHES}
    second = timed(partial(engine, ours, prompts))
    best = min(peers, key=lambda b: peers[b].seconds)
    mine, theirs = min(first, second, key=lambda t: t.seconds), peers[best]
    same = sum(a.text.strip() == b.strip() for a, b in zip(mine.values, theirs.values, strict=True))
    return {
        "workload": name,
        "prompts": len(texts),
        "tokens fed": fed,
        "harness, s": f"{theirs.seconds:.1f} (batch {best})",
        "evenhand, s": f"{mine.seconds:.1f}",
        "ratio": f"{theirs.seconds / mine.seconds:.1f}",
        "harness, MB": f"{theirs.memory:.0f}",
        "evenhand, MB": f"{mine.memory:.0f}",
        "same replies": f"{same} of {len(texts)}",
    }


def talk(made_by: Engine, prompts: Sequence[Prompt], *, kept: bool) -> list[tuple[int, ...]]:
    """Hold conversations of several turns, all advancing together."""
    texts = [p.ids for p in prompts]
    with conversation() if kept else nullcontext():
        for _ in range(TURNS):
            said = engine(made_by, [Prompt(ids) for ids in texts])
            texts = [(*ids, *m.ids, *p.ids) for ids, m, p in zip(texts, said, prompts, strict=True)]
    return texts


def conversations() -> dict[str, object]:
    """Measure what keeping the cache between turns saves."""
    texts = [t[-200:] for t in bbq_prompts(TALKS)]
    tokenizer = tokenizer_for(texts)
    module = llama_135m()
    module.generation_config.eos_token_id = None
    made_by, prompts = Engine(module, tokenizer), [Prompt(tuple(tokenizer(t).input_ids)) for t in texts]
    engine(made_by, prompts[:1])
    fed = []
    timings = []
    for kept in (False, True):
        before = made_by.tokens
        timings.append(timed(partial(talk, made_by, prompts, kept=kept)))
        fed.append(made_by.tokens - before)
    without, with_ = timings
    same = sum(a == b for a, b in zip(without.values, with_.values, strict=True))
    return {
        "what": f"{TALKS} conversations of {TURNS} turns",
        "read anew, s": f"{without.seconds:.1f}",
        "kept, s": f"{with_.seconds:.1f}",
        "ratio": f"{without.seconds / with_.seconds:.1f}",
        "tokens fed": f"{fed[0]} / {fed[1]}",
        "kept, MB": f"{with_.memory:.0f}",
        "same texts": f"{same} of {TALKS}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    given = parser.parse_args()
    rows = []
    for name in WORKLOADS:
        if given.only in name:
            rows.append(measure(name, given.rows))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    if rows:
        put("generation", rows, write=given.write)
    if not given.only:
        put("conversations", [conversations()], write=given.write)


if __name__ == "__main__":
    main()
