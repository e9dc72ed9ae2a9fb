"""The losses of `pairwise`, each computed again in plain PyTorch, one sequence at a time and with masks of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from evenhand.interfaces import Pair, TrainData
from evenhand.methods.unlearning._pairwise.reading import Lesson
from evenhand.methods.unlearning._pairwise.run import Run
from evenhand.methods.unlearning.pairwise import Pairwise
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.training.lora import Adapter, adapted, lora_config

STATES = ("late", "very tired", "here and there again", "sad")
JOBS = ("nurse", "old doctor", "pilot", "baker of bread", "clerk", "guard")
PAIRS = tuple(
    Pair(f" he was {state}", f" she was {other}", f"the {job} said that", axis="ab"[n % 2], suffix=" today" * (n % 3))
    for n, job in enumerate(JOBS)
    for state, other in zip(STATES, (*STATES[1:], STATES[0]), strict=True)
)
TEXTS = tuple(f"the {job} was {state}" for job in JOBS[:3] for state in STATES)
EVERY = ("lm", "swapped_lm", "dpo", "npo", "simnpo", "ga", "margin", "gap", "retain_lm", "retain_kl")


@pytest.fixture
def model() -> LocalModel:
    words = tiny_tokenizer(
        [f"{p.prompt}{p.stereotyped}{p.counter_stereotyped}{p.suffix}" for p in PAIRS],  # type: ignore[arg-type]
        chat=False,
    )
    return LocalModel(tiny_module(len(words), scale=1.0), words, name="tiny")


def begun(model: LocalModel, **given: Any) -> tuple[Run, Lesson]:
    """A run whose adapter does something, with dropout in it that the comparison has switched off."""
    method = Pairwise.build(
        **{"dpo_weight": 0.0, "dropout": 0.5, "validation_fraction": 0.2, "batch_size": 12, **given}
    )
    lesson = method.prepared(model, TrainData(pairs=PAIRS, texts=TEXTS))
    base = model.weights.module
    tuned = adapted(base, lora_config(base, Adapter(4, 16, 0.5, targets="all")), 0)
    tuned.train()
    run = Run(tuned, model.weights.tokenizer, lesson, method._plan(lesson, "cpu"))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    tuned.eval()
    return run, lesson


def nlls(network: Any, ids: Sequence[int], start: int) -> list[float]:
    """Of every token from `start` on, in a forward pass of this sequence alone."""
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([list(ids)])).logits[0].double()
    chances = torch.log_softmax(logits, dim=-1)
    return [-float(chances[at - 1, ids[at]]) for at in range(start, len(ids))]


def divergence(network: Any, ids: Sequence[int]) -> float:
    with torch.no_grad():
        now = torch.log_softmax(network(input_ids=torch.tensor([list(ids)])).logits[0, :-1].double(), -1)
        with network.disable_adapter():
            before = torch.log_softmax(network(input_ids=torch.tensor([list(ids)])).logits[0, :-1].double(), -1)
    return float((before.exp() * (before - now)).sum())


def sides(run: Run, lesson: Lesson, pairs: Sequence[int], swapped: bool) -> list[dict[str, list[float]]]:
    out = []
    for n in pairs:
        row = lesson.train[n].swapped if swapped else lesson.train[n]
        found = {}
        for name, ids in (("w", row.chosen), ("l", row.rejected)):
            found[name] = nlls(run.tuned, row.prompt + ids, len(row.prompt))
            with run.tuned.disable_adapter():
                found[f"ref_{name}"] = nlls(run.tuned, row.prompt + ids, len(row.prompt))
        out.append(found)
    return out


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def minus_log_sigmoid(value: float) -> float:
    return -float(logsigmoid(torch.tensor(value, dtype=torch.float64)))


BY_HAND: dict[str, Callable[[dict[str, list[float]]], float]] = {
    "dpo": lambda s: minus_log_sigmoid(0.1 * ((sum(s["ref_w"]) - sum(s["w"])) - (sum(s["ref_l"]) - sum(s["l"])))),
    "npo": lambda s: 20 * minus_log_sigmoid(0.1 * (sum(s["l"]) - sum(s["ref_l"]))),
    "simnpo": lambda s: 2 / 4.5 * minus_log_sigmoid(4.5 * (mean(s["l"]) - 0.5)),
    "ga": lambda s: -mean(s["l"]),
    "margin": lambda s: minus_log_sigmoid(mean(s["l"]) - mean(s["w"]) - 0.25),
    "gap": lambda s: (mean(s["l"]) - mean(s["w"])) ** 2,
}


def by_hand(name: str, run: Run, lesson: Lesson, number: int, swapped: bool) -> float:
    parts = run.batches(number, None)  # type: ignore[arg-type]
    texts = [lesson.texts[n] for part in parts for n in part.texts]
    if name == "retain_lm":
        every = [value for ids in texts for value in nlls(run.tuned, ids, 1)]
        return mean(every)
    if name == "retain_kl":
        return sum(divergence(run.tuned, ids) for ids in texts) / sum(len(ids) - 1 for ids in texts)
    rows = sides(run, lesson, [n for part in parts for n in part.pairs], swapped)
    if name in ("lm", "swapped_lm"):
        return mean([value for row in rows for value in row["w" if name == "lm" else "l"]])
    return mean([BY_HAND[name](row) for row in rows])


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_each_loss_is_what_plain_pytorch_makes_of_each_sequence(name: str, parts: int, model: LocalModel) -> None:
    given = {"simnpo_delta": 0.5, "margin": 0.25, "batch_tokens": 40, "retain_batch_size": 6, "check_steps": 1}
    pair_loss = {"gap_weight": 1e-30} if name.startswith("retain") else {}  # texts alone are refused
    run, lesson = begun(model, **{f"{name}_weight": 1.0}, **pair_loss, **given, gradient_accumulation_steps=parts)
    with torch.no_grad():
        found = mean([float(run.loss(run.tuned, part)) for part in run.batches(1, None)])  # type: ignore[arg-type]
    assert found == pytest.approx(by_hand(name, run, lesson, 1, swapped=False), rel=2e-5, abs=1e-6)


def test_an_axis_that_is_turned_around_has_its_sides_exchanged_in_every_loss(model: LocalModel) -> None:
    weights = {"dpo_weight": 1.0, "margin_weight": 1.0, "lm_weight": 1.0}
    run, lesson = begun(model, **weights, margin=0.25, check_steps=1)
    run.turn = run.turn and run.turn._replace(axis="b", swapped=True)
    parts = run.batches(0, None)  # type: ignore[arg-type]
    assert {lesson.train[n].axis for part in parts for n in part.pairs} == {"b"}
    with torch.no_grad():
        found = mean([float(run.loss(run.tuned, part)) for part in parts])
    wanted = sum(by_hand(name, run, lesson, 0, swapped=True) for name in ("dpo", "margin", "lm"))
    assert found == pytest.approx(wanted, rel=2e-5)
