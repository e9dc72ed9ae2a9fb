"""For plugin authors: tiny models, and the conformance suites that every built-in method and benchmark passes.

Example:
    from evenhand.testing import check_method, tiny_model
    def test_my_method():
        check_method(MyMethod())
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evenhand.core import registry
from evenhand.core.hashing import digest
from evenhand.core.run_folder import from_plain
from evenhand.errors import EvenhandError, SettingsError
from evenhand.experiment.contracts import (
    CHANGED,
    NonconformingError,
    check_answers,
    check_ids,
    check_mitigated,
    checked,
)
from evenhand.experiment.contracts import demand as _demand
from evenhand.interfaces import (
    Ability,
    Benchmark,
    Choice,
    Dialogue,
    Measured,
    Method,
    Metric,
    Model,
    Pair,
    Passage,
    Question,
    QuestionItem,
    Reply,
    Sampling,
    TrainData,
    Usage,
)
from evenhand.models.loading import load
from evenhand.models.tiny import tiny_model

__all__ = ["NonconformingError", "ScriptedModel", "check_benchmark", "check_method", "questions", "tiny_model"]


class ScriptedModel(Model):
    """A fake model that answers by a script and keeps what it was asked, for exact tests of transcripts."""

    def __init__(
        self,
        reply: Callable[[Dialogue], str | None] = lambda dialogue: "A",
        decide: Callable[[Question], int | None] = lambda question: 0,
        abilities: frozenset[Ability] = frozenset({"choose", "generate"}),
    ) -> None:
        """Take the script.

        Args:
            reply: From a dialogue to the reply; None is a reply that never came.
            decide: From a question to the chosen identity; None is unparsed.
            abilities: What it claims to be able to do.
        """
        self.name = "scripted"
        self.reply, self.decide, self._abilities = reply, decide, abilities
        self.dialogues: list[Dialogue] = []
        """Everything that `generate` was asked, in order."""
        self.questions: list[Question] = []
        """Everything that `choose` was asked, in order."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """As claimed."""
        return self._abilities

    @property
    def fingerprint(self) -> str:
        """Of nothing but the name: a script has no content to hash."""
        return digest("scripted")

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Decide by script."""
        self.questions += questions
        out = []
        for q in questions:
            decision = self.decide(q)
            out.append(Choice(decision, status="unparsed" if decision is None else "answered", usage=Usage(1)))
        return out

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Reply by script."""
        self.dialogues += dialogues
        return [Reply(self.reply(d), Usage(1)) for d in dialogues]

    def save(self, folder: Any) -> Any:
        """Not possible."""
        raise EvenhandError("a scripted model cannot be saved")


def questions(count: int = 5) -> list[Question]:
    """A few questions with two to four options, made of words that the tiny models know."""
    words = ("dog", "cat", "letter", "question")
    return [
        Question(
            f"q{i}", "Who was there?", words[: 2 + i % 3], context=f"There was a {words[i % 4]} and a {words[i % 3]}."
        )
        for i in range(count)
    ]


def check_method(method: Method, model: Model | None = None, data: TrainData | None = None) -> Model:
    """Check that a method keeps its contract; returns the mitigated model for further tests.

    It must not change the model it is given; be rebuilt from its spec; answer every question with a distribution over
    the options or an honest lack of one; be deterministic; and, where it is registered, survive saving and loading.

    Raises:
        NonconformingError: It does not; the message says where.
    """
    model = model or tiny_model(source="demo")
    reason = method.unsupported_reason(model, data)
    _demand(not reason, f"cannot be applied to {model.name}: {reason}")
    before = model.fingerprint
    mitigated = check_mitigated(method.apply(model, data))
    with checked(mitigated, model):
        answers = _answers(mitigated)
    model.rehash()
    _demand(model.fingerprint == before, CHANGED)
    _demand(_answers(method.apply(model, data)) == answers, "the same settings and model gave different answers")
    if any(method.name == name for name in registry.methods.names()):
        again = registry.build_method(method.spec)
        _demand(again == method, f"its spec {method.spec!r} does not build it again")
        with tempfile.TemporaryDirectory() as folder:
            loaded = load(mitigated.save(folder), trust_folder=True)  # its base may lie anywhere
            _demand(_answers(loaded) == answers, "saving and loading changed its answers")
    return mitigated


def _answers(model: Model) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if "choose" in model.abilities:
        asked["choose"] = model.choose(questions())
    if "generate" in model.abilities:
        dialogue = Dialogue(()).user("Who was there?")
        asked["generate"] = model.generate([dialogue, dialogue.user("Who?")], Sampling(max_new_tokens=4))
    if "score" in model.abilities:
        asked["score"] = model.score([Passage("a dog"), Passage("cat", "a ")])
    return asked


def check_benchmark(benchmark: Benchmark, model: Model | None = None, limit: int = 40) -> None:
    """Check that a benchmark keeps its contract, on its first `limit` items.

    Items have unique, stable ids; answers survive storage; the tally is additive over items; every metric is described,
    and vectorised; marks, where there are any, fit the items and the tally's groups; the right options that it names
    are options, and are marked as right; its pairs differ, and belong to one item each.

    Raises:
        NonconformingError: It does not; the message says where.
    """
    model = model or tiny_model(texts=[], too_long="skip")
    items = list(benchmark.load())[:limit]
    _demand(len(items) > 1, "load() must give at least two items")
    ids = [item.id for item in items]
    check_ids(items)
    _demand([i.id for i in list(benchmark.load())[:limit]] == ids, "load() must give the same list each time")
    answers = benchmark.ask(model, items)
    check_answers(benchmark, items, answers)
    stored = [from_plain(benchmark.answer_type, json.loads(json.dumps(dataclasses.asdict(a)))) for a in answers]
    _demand(stored == list(answers), f"answers of type {benchmark.answer_type.__name__} do not survive storage as JSON")
    _check_tally(benchmark, items, answers)
    _check_marks(benchmark, items, answers)
    _check_gold(benchmark, items)
    _check_pairs(benchmark, items)


def _check_tally(benchmark: Benchmark, items: list[Any], answers: Sequence[Any]) -> None:
    tally = benchmark.tally(items, answers)
    shape = (len(tally.clusters), len(tally.groups))
    _demand(tally.sums.shape[:2] == shape, f"tally sums are {tally.sums.shape}, clusters and groups {shape}")
    _demand(set(tally.clusters) == {i.cluster for i in items}, "the tally's clusters are not those of the items")
    _demand("overall" in tally.groups, "groups must hold 'overall'")
    half = len(items) // 2
    parts = [benchmark.tally(items[:half], answers[:half]), benchmark.tally(items[half:], answers[half:])]
    overall = tally.total[tally.groups.index("overall")]
    added = sum(p.total[p.groups.index("overall")] for p in parts)
    _demand(np.allclose(overall, added), "the tally is not additive: halves do not sum to the whole")
    values = benchmark.compute(tally.total)
    described = [m.name for m in benchmark.metrics]
    _demand(sorted(values) == sorted(described), f"metrics {sorted(values)} but described {sorted(described)}")
    stacked = benchmark.compute(np.stack([tally.total, tally.total]))
    for name, measured in values.items():
        _demand(np.shape(measured.value) == (len(tally.groups),), f"{name} is not one value per group")
        same = np.allclose(stacked[name].value[1], measured.value, equal_nan=True)
        _demand(same, f"{name} is not vectorised over leading dimensions")
    for info in benchmark.metrics:
        _check_form(info, values[info.name], benchmark.compute(tally.sums)[info.name])


def _check_form(info: Metric, whole: Measured, clusters: Measured) -> None:
    """Values keep to the metric's range, and a proportion is a count over n: those of the clusters add up."""
    for value in (*np.ravel(whole.value), *np.ravel(clusters.value)):
        inside = np.isnan(value) or info.range[0] - 1e-9 <= value <= info.range[1] + 1e-9
        _demand(bool(inside), f"{info.name} is {value:g}, outside its range {info.range}")
    if info.form == "proportion":
        counts = np.where(clusters.n > 0, clusters.value, 0.0) * clusters.n
        total = np.where(whole.n > 0, whole.value, 0.0) * whole.n
        adds = np.allclose(counts.sum(axis=0), total) and np.allclose(clusters.n.sum(axis=0), whole.n)
        _demand(bool(adds), f"{info.name} is no proportion: value * n of the clusters do not add up; use form='smooth'")


def _check_marks(benchmark: Benchmark, items: list[Any], answers: Sequence[Any]) -> None:
    marks = benchmark.marks(items, answers)
    if marks is None:
        return
    groups = set(benchmark.tally(items, answers).groups)
    _demand(len(marks) == len(items), f"marks() gave {len(marks)} for {len(items)} items")
    for item, mark in zip(items, marks, strict=True):
        _demand("overall" in mark.groups, f"{item.id}: its mark is not in the group 'overall'")
        _demand(groups >= set(mark.groups), f"{item.id}: its mark is in {mark.groups}, the tally has {sorted(groups)}")
    parts = [m.part for m in marks]
    empty = [dataclasses.replace(a, decision=None) for a in answers if isinstance(a, Choice)]
    if len(empty) == len(items):
        again = benchmark.marks(items, empty) or ()
        _demand([m.part for m in again] == parts, "an item's part must not depend on the answer")
        _demand(all(m.decision is None for m in again), "an answer without a decision must have none in its mark")


def _check_gold(benchmark: Benchmark, items: list[Any]) -> None:
    gold = benchmark.gold(items)
    if gold is None:
        return
    _demand(len(gold) == len(items), f"gold() gave {len(gold)} for {len(items)} items")
    asked = [item.question for item in items if isinstance(item, QuestionItem) and isinstance(item.question, Question)]
    counts = [len(question.options) for question in asked] if len(asked) == len(items) else [None] * len(items)
    for item, right, count in zip(items, gold, counts, strict=True):
        whole = right is None or (isinstance(right, int) and not isinstance(right, bool) and right >= 0)
        _demand(whole, f"{item.id}: gold() gave {right!r}, which is neither the index of an option nor None")
        fits = right is None or count is None or right < count
        _demand(fits, f"{item.id}: gold() gave option {right} of {count}; indices begin at 0")
    known = [(item, Choice(right)) for item, right in zip(items, gold, strict=True) if right is not None]
    if known and benchmark.answer_type is Choice:
        marks = benchmark.marks([item for item, _ in known], [answer for _, answer in known])
        for (item, answer), mark in zip(known, marks or (), strict=marks is not None):
            _demand(
                mark.right, f"{item.id}: gold() gave option {answer.decision}, which marks() does not count as right"
            )


def _check_pairs(benchmark: Benchmark, items: list[Any]) -> None:
    try:
        of_nothing, pairs = benchmark.pairs([]), benchmark.pairs(items)
    except SettingsError:  # a set that nobody should train on
        return
    _demand((of_nothing is None) == (pairs is None), "pairs([]) must be None where pairs(items) is, and nowhere else")
    _demand(not of_nothing, "pairs([]) must be empty")
    for pair in pairs or ():
        _demand(isinstance(pair, Pair), f"pairs() gave {type(pair).__name__}, not Pair")
        _demand(bool(pair.stereotyped.strip() and pair.other.strip()), f"{pair.id}: a side of the pair is empty")
        _demand(pair.stereotyped != pair.other, f"{pair.id}: both sides of the pair are {pair.other!r}")
    by_item = [pair for item in items for pair in benchmark.pairs([item]) or ()]
    _demand(by_item == list(pairs or ()), "pairs() of all items must be those of each item, in the items' order")
