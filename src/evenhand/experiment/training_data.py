"""What methods fit on: read from a file, a benchmark or the proving ground, and kept apart from what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.answer_cache import key
from evenhand.core.training_record import without_passwords
from evenhand.errors import SettingsError
from evenhand.experiment.decontamination import Asked
from evenhand.experiment.training_sources import Clusters as Clusters
from evenhand.experiment.training_sources import Loaded as Loaded
from evenhand.experiment.training_sources import TrainLike as TrainLike
from evenhand.experiment.training_sources import load as load
from evenhand.experiment.training_sources import named
from evenhand.interfaces import Benchmark, OverlapRemoved, Pair, Question, TrainData


class Kept(NamedTuple):
    """Training data without what is asked."""

    data: TrainData
    out: dict[str, int]
    """Questions, texts and pairs that are asked too, or that share a template with what is asked; by kind."""

    @property
    def left_out(self) -> int:
        """Of all kinds."""
        return sum(self.out.values())


def digest(data: TrainData) -> str:
    """Hash of training data."""
    parts: list[Any] = [[_plain(q) for q in data.questions], data.answers, data.texts]
    if data.pairs:  # data without pairs keeps the hash under which what was trained on it was saved
        parts.append([_plain_pair(pair) for pair in data.pairs])
    return key(*parts)[:32]


def without(loaded: Loaded, asked: Sequence[tuple[Benchmark, Sequence[Any]]]) -> Kept:
    """Training data without what any benchmark asks: the same text, or a template of the same benchmark.

    What counts as the same text is told in `evenhand.experiment.decontamination`.

    Raises:
        SettingsError: Of the questions, the texts or the pairs none is left, although there were some.
    """
    found, (data, clusters) = Asked(asked), loaded
    checks = {
        "questions": (data.questions, clusters.questions, found.has_question),
        "texts": (data.texts, clusters.texts, found.has_text),
        "pairs": (data.pairs, clusters.pairs, found.has_pair),
    }
    rows: dict[str, list[int]] = {}
    for kind, (items, names, leaks) in checks.items():
        own = zip(items, named(names, items), strict=True)
        rows[kind] = [i for i, (item, c) in enumerate(own) if c not in found.clusters and not leaks(item)]  # type: ignore[operator]
        if items and not rows[kind]:
            raise SettingsError(_nothing(kind, len(items), asked))
    if not any(rows.values()):
        raise SettingsError("the training data is empty; give a file, a benchmark or demo")
    answers = data.answers or (None,) * len(data.questions)
    out = {kind: len(items) - len(rows[kind]) for kind, (items, _, _) in checks.items()}
    kept = TrainData(
        tuple(data.questions[i] for i in rows["questions"]),
        tuple(answers[i] for i in rows["questions"]),
        tuple(data.texts[i] for i in rows["texts"]),
        tuple(data.pairs[i] for i in rows["pairs"]),
        OverlapRemoved(**out),
    )
    return Kept(kept, out)


def facts(kept: Kept) -> dict[str, Any]:
    """Plain facts for the manifest."""
    data = kept.data
    counts = {"questions": len(data.questions), "texts": len(data.texts), "pairs": len(data.pairs)}
    return {**counts, "left_out": kept.left_out, "left_out_by_kind": kept.out, "sha256": digest(data)}


def source_of(what: TrainLike | None) -> str:
    """Where training data comes from, for the manifest: as it was named, without passwords; "" for none."""
    if what is None:
        return ""
    if isinstance(what, TrainData):
        return "TrainData given from Python"
    if isinstance(what, Benchmark):
        return what.spec
    if isinstance(what, str | Path):
        return str(without_passwords(str(what)))
    return " & ".join(map(source_of, what))


def _nothing(kind: str, count: int, asked: Sequence[tuple[Benchmark, Sequence[Any]]]) -> str:
    cut = [b.name for b, _ in asked if "part" in b.settings]
    halves = "".join(f", or ask {n}(part=test) and train on its other half, part=fit" for n in dict.fromkeys(cut))
    return (
        f"nothing is left to train on of {count:,} {kind}: all of them are asked too, or share a template with what is "
        f"asked; give other training data, ask fewer items (limit){halves}"
    )


def _plain(question: Question) -> tuple[Any, ...]:
    return question.id, question.preamble, question.context, question.question, question.options, question.order


def _plain_pair(pair: Pair) -> tuple[Any, ...]:
    prompt = pair.prompt
    said = prompt if isinstance(prompt, str) else [(m.role, m.content) for m in prompt.messages]
    return *pair._replace(prompt=""), said
