"""Cost of hashing the weights for one question: in full at every call, and kept while a checksum is unchanged.

make bench        or        python benchmarks/bench_fingerprint.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from tables import put
from transformers import LlamaConfig, LlamaForCausalLM

from evenhand.interfaces import Question
from evenhand.models.kept_hash import WeightHash
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_tokenizer

RUNS = 25


def model_of_100m() -> LocalModel:
    """Make a small language model with 100 million random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20_000, hidden_size=768, intermediate_size=2048, num_hidden_layers=10, num_attention_heads=12
    )
    return LocalModel(LlamaForCausalLM(config).eval(), tiny_tokenizer(), name="100M")


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Measure processor and wall-clock seconds of a call."""
    begun, clock = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - begun, time.perf_counter() - clock


def in_full(self: WeightHash) -> str:
    """Hash everything, as earlier versions of `now` did."""
    self.recheck()
    return _kept(self)


_kept = WeightHash.now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    model = model_of_100m()
    ask = partial(model.choose, [Question("q", "Who was there?", ("a dog", "a cat"))])
    ways: dict[str, Callable[[WeightHash], str]] = {
        "without any hash": lambda _: "fixed",
        "kept, with a checksum of all elements": _kept,
        "in full at every call": in_full,
    }
    ask()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(RUNS):  # in turn, so that other load on the machine affects all of them
        for name, now in ways.items():
            with mock.patch.object(WeightHash, "now", now):
                found[name].append(seconds(ask))
    alone = {name: min(seconds(partial(now, model._hash))[0] for _ in range(RUNS)) for name, now in ways.items()}
    best = {name: [min(times) for times in zip(*some, strict=True)] for name, some in found.items()}
    without = best["without any hash"][0]
    rows: list[dict[str, object]] = [
        {
            "hash of 100M weights": name,
            "alone, processor s": f"{alone[name]:.3f}",
            "with a question, processor s": f"{processor:.3f}",
            "clock, s": f"{clock:.3f}",
            "question and hash, by the question": f"{1 + alone[name] / without:.2f}",
        }
        for name, (processor, clock) in best.items()
    ]
    put("fingerprint", rows, write=given.write)


if __name__ == "__main__":
    main()
