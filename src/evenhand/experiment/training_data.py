"""Decontamination and facts of training data, which methods fit on."""

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
    """Training data without what is asked, and what was removed."""

    data: TrainData
    out: dict[str, int]
    """Number of questions, texts and pairs that overlap with what is asked, or share a template with it; by kind."""

    @property
    def left_out(self) -> int:
        """Number left out, of all kinds."""
        return sum(self.out.values())


def digest(data: TrainData) -> str:
    """Return the hash of training data."""
    parts: list[Any] = [[_plain(q) for q in data.questions], data.answers, data.texts]
    if data.pairs:  # data without pairs keeps the hash under which what was trained on it was saved
        parts.append([_plain_pair(pair) for pair in data.pairs])
    return key(*parts)[:32]


def without(loaded: Loaded, asked: Sequence[tuple[Benchmark, Sequence[Any]]]) -> Kept:
    """Remove from training data what any benchmark asks: the same text, or a template of the same benchmark.

    `evenhand.experiment.decontamination` says what counts as the same text.

    Raises:
        SettingsError: There is no training data, or no question, text or pair is left although there were some.
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
    """Return plain facts for the manifest."""
    data = kept.data
    counts = {"questions": len(data.questions), "texts": len(data.texts), "pairs": len(data.pairs)}
    return {**counts, "left_out": kept.left_out, "left_out_by_kind": kept.out, "sha256": digest(data)}


def source_of(what: TrainLike | None) -> str:
    """Name the source of training data for the manifest, as it was given, without passwords; "" for none."""
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
        f"nothing is left to train on of {count:,} {kind}: all of them overlap with what is asked, or share a template "
        f"with it; give other training data, ask fewer items (limit){halves}"
    )


def _plain(question: Question) -> tuple[Any, ...]:
    return question.id, question.preamble, question.context, question.question, question.options, question.order


def _plain_pair(pair: Pair) -> tuple[Any, ...]:
    prompt = pair.prompt
    said = prompt if isinstance(prompt, str) else [(m.role, m.content) for m in prompt.messages]
    return *pair._replace(prompt=""), said
