"""Refusal, before anything is asked, of methods and benchmarks that cannot be used as they were named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from evenhand.core import catalogue, registry
from evenhand.core.repeats import parts_of, variants_of
from evenhand.errors import SettingsError
from evenhand.experiment.training_data import TrainLike
from evenhand.interfaces import Benchmark, Method, Model, Pair, Question, TrainData

PLENTY = 1_000
"""Items of made-up training data: as many as any method asks for."""
SOURCES = {
    "questions": "demo, or a multiple-choice benchmark",
    "texts": "demo:texts, or a .txt file",
    "pairs": "demo:pairs",
}
"""Sources of training data of each kind, as `--train` takes them."""


def training_reasons(methods: Iterable[Method], train: TrainLike | None, data: TrainData | None) -> list[str]:
    """Return why methods cannot be trained with what was given; one reason for each method that cannot.

    Args:
        methods: The methods, some of them perhaps `Repeated`.
        train: The training data as they were named; None if there are none.
        data: The same, read.
    """
    found = [(method, method.unsupported_reason(None, data)) for method in methods]
    return [f"{reason}{advice(method, train, data)}" for method, reason in found if reason]


def model_reasons(
    model: Model, methods: Iterable[Method], benchmarks: Iterable[Benchmark], data: TrainData | None
) -> list[str]:
    """Return why methods cannot be applied to a model, and benchmarks cannot be asked of it; one reason for each."""
    found = [method.unsupported_reason(model, data) for method in methods]
    for benchmark in benchmarks:
        if lacking := sorted(benchmark.needs - model.abilities):
            found.append(f"{benchmark.name} needs {', '.join(lacking)}, which {model.name} lacks")
    return [reason for reason in found if reason]


def refuse(reasons: Sequence[str]) -> None:
    """Raise an error if there is any reason.

    Raises:
        SettingsError: There is at least one; the message has all reasons.
    """
    if not reasons:
        return
    head = reasons[0] if len(reasons) == 1 else "\n".join(["these cannot be used here:", *(f"- {r}" for r in reasons)])
    raise SettingsError(head)


def advice(method: Method, train: TrainLike | None, data: TrainData | None) -> str:
    """Say what the training data contain, and what to give the method instead; begins with a full stop."""
    own = variants_of(method)[0, 0]
    first = next((part for part in parts_of(own) if part.unsupported_reason(None, data)), own)
    text = "" if data is None else f". {_name(train)} contains {contents(data)}"
    if first.name in registry.BUILT_IN["methods"] and (fitting := catalogue.method_facts(first.name).train):
        return f"{text}. On the demo, pass --train {fitting}"
    kinds = [kind for kind, made in _made_up().items() if not first.unsupported_reason(None, made)]
    told = "; ".join(f"{kind}: {SOURCES[kind]}" for kind in kinds)
    return f"{text}. Pass {told}" if told else text


def contents(data: TrainData) -> str:
    """Say how many questions, texts and pairs training data contain."""
    counts = {"questions": len(data.questions), "texts": len(data.texts), "pairs": len(data.pairs)}
    there = [f"{n:,} {kind}" for kind, n in counts.items() if n]
    missing = [f"no {kind}" for kind, n in counts.items() if not n]
    return ", ".join([*there, *missing])


def _name(train: TrainLike | None) -> str:
    return f"--train {train}" if isinstance(train, str | Path) else "The training data"


def _made_up() -> dict[str, TrainData]:
    """Make up plenty of data of each kind, to find out which a method can learn from."""
    questions = tuple(Question(str(n), f"Which is {n}?", ("one", "two", "three")) for n in range(PLENTY))
    pairs = tuple(Pair(f"one {n}", f"two {n}", id=str(n)) for n in range(PLENTY))
    return {
        "questions": TrainData(questions, (0,) * PLENTY),
        "texts": TrainData(texts=tuple(f"Text {n}." for n in range(PLENTY))),
        "pairs": TrainData(pairs=pairs),
    }
