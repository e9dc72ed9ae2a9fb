"""What trainings on tiny models come to: a change of the shared parts that changes weights changes these numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evenhand.interfaces import Pair, TrainData
from evenhand.methods.unlearning._fine_tuning import Plan, fit, text_examples
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models.tiny import tiny_model
from evenhand.training import trl as through_trl
from evenhand.training.loop import Schedule
from evenhand.training.lora import Adapter, lora_config

TEXTS = [f"There was {a} little {b} upon the time" for a in "abcdefgh" for b in ("dog", "cat")]
HEADS = ("Who was there", "There was a", "Explain which")


def size(module: Any) -> float:
    """Norm of what was trained, in float64."""
    every = torch.cat([p.detach().double().flatten() for p in module.parameters() if p.requires_grad])
    return float(every.norm())


@pytest.mark.parametrize(("kind", "expected"), [("lora", 0.7093467), ("full", 1.5072363)])
def test_a_fine_tune(kind: Any, expected: float) -> None:
    module, words = tiny_model().weights
    examples = text_examples(TEXTS, words, 64)
    schedule = Schedule(epochs=2, learning_rate=5e-3, weight_decay=0.1, device="cpu")
    plan = Plan(kind, Adapter(4, 8, 0.1), 4, 512, 1.0, schedule)
    made = fit(module, examples[4:], examples[:4], plan, None, "")
    assert made.vector.norm() == pytest.approx(expected, rel=1e-4)


def test_an_edit() -> None:
    data = TrainData(pairs=tuple(Pair(" dog", " cat", f"{h} {w}") for h in HEADS for w in ("in", "at", "of")))
    model = tiny_model("gpt2")
    method: PCGU = PCGU.build(epochs=2, batch_size=4, validation_fraction=0, retain_kl_weight=0.5)
    made = method.apply(model, data._replace(texts=tuple(TEXTS)))
    pairs = zip(made.weights.module.parameters(), model.weights.module.parameters(), strict=True)
    changed = torch.cat([(a - b).detach().double().flatten() for a, b in pairs])
    assert float(changed.norm()) == pytest.approx(0.2351301, rel=1e-4)


@pytest.mark.parametrize(("objective", "expected"), [("dpo", 3.2833715), ("sft", 3.3177703)])
def test_an_adapter_through_trl(objective: Any, expected: float, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    module, words = tiny_model().weights
    rows: list[dict[str, list[int]]] = [
        {"prompt_ids": [1, n, n + 1], "chosen_ids": [n + 2, n + 3], "rejected_ids": [n + 4]}
        if objective == "dpo"
        else {"input_ids": [1, n, n + 1, n + 2], "completion_mask": [0, 0, 1, 1]}
        for n in range(5, 21)
    ]
    recipe = through_trl.Recipe(
        objective=objective, epochs=2, learning_rate=1e-2, warmup=2, batch_size=4, max_length=8, seed=3, cpu=True
    )
    made = through_trl.train(module, words, rows, recipe, tmp_path, adapter=lora_config(module, Adapter(2, 4)))
    assert size(made.module) == pytest.approx(expected, rel=1e-4)
