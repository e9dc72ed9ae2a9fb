"""Scoring: the engine beside a plain one-by-one Hugging Face forward, same rows, one run.

make bench        or        python benchmarks/bench_scoring.py --rows 200
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from evenhand.data.demo import bbq_rows
from evenhand.engine.requests import continuation_request
from evenhand.evaluation.bbq import items_from_rows
from evenhand.models.tiny import tiny_model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200)
    rows = parser.parse_args().rows
    questions = [i.question for i in items_from_rows(bbq_rows()[:rows])]
    texts = [" ".join([q.context, q.question, *q.options]) for q in questions]
    model = tiny_model(texts=texts, chat=False)
    module = model.weights.module
    prompts = [f"{q.context} {q.question}" for q in questions for _ in q.options]
    pairs = model._encoder.pairs(prompts, [f" {o}" for q in questions for o in q.options])
    requests = [continuation_request(*pair) for pair in pairs]

    times: dict[str, list[float]] = {"one by one": [], "engine": []}
    for _ in range(3):  # interleaved, so that a noisy machine is noisy for both
        begun = time.perf_counter()
        plain = []
        with torch.inference_mode():
            for r in requests:
                logprobs = torch.log_softmax(module(torch.tensor([r.ids])).logits[0].float(), -1)
                plain.append(sum(float(logprobs[p, t]) for p, t in r.reads))
        times["one by one"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        ours = [sum(v) for v in model.engine.read(requests, "bench")]
        times["engine"].append(time.perf_counter() - begun)
    base = min(times["one by one"])
    machine = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    print(f"{len(requests)} option texts of {rows} BBQ-format rows, {machine}")
    for name, seconds in times.items():
        print(f"{name:12} {min(seconds):7.3f} s   {base / min(seconds):5.1f}x")
    print(f"largest difference of a log-probability: {np.abs(np.array(plain) - np.array(ours)).max():.1e}")


if __name__ == "__main__":
    main()
