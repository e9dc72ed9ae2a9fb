"""`compare` finds what breaks a contract, names it, and lets it cost nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from evenhand import Choice, Mitigated, Model, TrainData, settings
from evenhand.errors import SettingsError
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Array, Benchmark, Measured, Method, Metric, Question, Tally
from evenhand.models.tiny import tiny_model
from evenhand.testing import NonconformingError, ScriptedModel, check_method

QUIET: dict[str, Any] = {"show_progress": False, "replicates": 200}


@dataclass(frozen=True)
class Item:
    question: Question
    right: int = 0

    @property
    def id(self) -> str:
        return self.question.id

    @property
    def cluster(self) -> str:
        return self.question.id


ITEMS = tuple(
    Item(Question(f"q{i}", "Who was there?", ("dog", "cat", "letter")[: 2 + i % 2], context=f"{i} letters."), i % 2)
    for i in range(12)
)


@settings
class Hits(Benchmark):
    """Share of right answers; may be told to go wrong."""

    name: ClassVar[str] = "hits"
    needs = frozenset({"choose"})
    metrics = (Metric("hits", "higher", "capability", "share right", True, "proportion", (0, 1)),)
    wrong: str = ""

    def load(self) -> Any:
        return ITEMS if self.wrong != "ids" else (*ITEMS[:3], replace(ITEMS[3], question=ITEMS[1].question))

    def ask(self, model: Model, items: Any) -> list[Choice]:
        answers: Any = model.choose([i.question for i in items])
        return {"none": None, "short": answers[:-1], "type": [a.decision for a in answers]}.get(self.wrong, answers)

    def tally(self, items: Any, answers: Any) -> Tally:
        if self.wrong == "tally":
            raise KeyError("no such group")
        right = [[[float(a.decision == i.right), 1.0]] for i, a in zip(items, answers, strict=True)]
        return Tally(tuple(i.cluster for i in items), ("",) * len(items), ("overall",), np.array(right))

    def compute(self, sums: Array) -> dict[str, Measured]:
        if self.wrong == "metrics":
            raise ZeroDivisionError("no such sum")
        with np.errstate(invalid="ignore"):
            return {"hits": Measured(sums[..., 0] / sums[..., 1], sums[..., 1])}


@settings
class Odd(Method):
    """A method whose `choose` is any function of the model and the questions."""

    name: ClassVar[str] = "odd"
    label: str = "odd"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        if self.label == "returns nothing":
            return None  # type: ignore[return-value]
        return Mitigated(model, self, choose=lambda questions: WRONG[self.label](model, questions))


def backwards(model: Model, questions: Any) -> list[Choice]:
    """By length, as batches are made, and never put back."""
    return model.choose(sorted(questions, key=lambda q: -int(q.id[1:])))


WRONG: dict[str, Callable[[Model, Any], Any]] = {
    "short": lambda model, questions: model.choose(questions)[:-1],
    "returns None": lambda model, questions: None,
    "type": lambda model, questions: [c.decision for c in model.choose(questions)],
    "range": lambda model, questions: [Choice(2) for _ in questions],
    "negative": lambda model, questions: [Choice(-1) for _ in questions],
    "undecided": lambda model, questions: [Choice(None) for _ in questions],
    "nan": lambda model, questions: [Choice(0, (float("nan"),) * len(q.options)) for q in questions],
    "order": backwards,
    "fine": lambda model, questions: [replace(c, note="seen") for c in model.choose(questions)],
}
SAID = {
    "short": "choose() did not answer every question",
    "returns None": "choose() returned NoneType, not a list of Choice",
    "type": "choose() returned int, not Choice",
    "range": "q0: decision 2 of 2 options",
    "negative": "q0: decision -1 of 2 options",
    "undecided": "q0: status 'answered' with decision None",
    "nan": "q0: probabilities sum to nan",
    "order": "choose() did not answer in the order of the questions: at q0 stands the answer to q",
    "returns nothing": "apply() returned NoneType, not a Model",
}


def scripted() -> ScriptedModel:
    return ScriptedModel(decide=lambda q: int(q.id[1:]) % 2)


@pytest.mark.parametrize("label", SAID)
def test_a_method_that_breaks_its_contract_fails_its_cell_in_check_methods_words(label: str) -> None:
    report = compare(scripted(), [Odd(label=label), Odd(label="fine")], Hits(), **QUIET)
    found = {r.method: r for r in report.records if r.group == "overall" and r.kind in ("capability", "validity")}
    failed = found[Odd(label=label).spec]
    assert failed.status == "failed" and failed.note.startswith(SAID[label]), failed.note
    assert found["none"].value == 1.0 and found[Odd(label="fine").spec].value == 1.0
    with pytest.raises(NonconformingError) as raised:
        check_method(Odd(label=label), scripted())
    assert str(raised.value).startswith(SAID[label])


def test_an_answer_shared_by_questions_that_are_equal_but_for_their_id_is_no_wrong_order() -> None:
    alike = tuple(Item(Question(f"q{i}", "Who?", ("dog", "cat"), context=f"{i // 2} letters.")) for i in range(8))

    class Twins(Hits):
        def load(self) -> Any:
            return alike

    def once(model: Model, questions: Any) -> list[Choice]:
        unique = {(q.context, q.question, q.options): q for q in questions}
        return [
            dict(zip(unique, model.choose(list(unique.values())), strict=True))[q.context, q.question, q.options]
            for q in questions
        ]

    WRONG["once"] = once
    report = compare(ScriptedModel(), Odd(label="once"), Twins(), **QUIET)
    assert {r.status for r in report.records} == {"no effect", "ok"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ids", "ids must be unique: 'q1' is there twice"),
        ("none", "ask() returned NoneType, not a list"),
        ("short", "ask() gave 11 answers for 12 items"),
        ("type", "ask() gave int for q0, not Choice"),
    ],
)
def test_a_benchmark_that_breaks_its_contract_fails_its_cell(wrong: str, said: str, tmp_path: Path) -> None:
    report = compare(scripted(), "none", [Hits(wrong=wrong), Hits()], out=tmp_path, **QUIET)
    bad, good = [r for r in report.records if r.kind != "cost"]
    assert (bad.status, bad.note) == ("failed", said) and good.value == 1.0
    assert len(list((tmp_path / "answers").iterdir())) == 1, "wrong answers are not kept"


@pytest.mark.parametrize(("wrong", "said"), [("tally", "no such group"), ("metrics", "no such sum")])
def test_a_benchmark_whose_numbers_fail_costs_no_other(wrong: str, said: str, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match=said):
        report = compare(scripted(), Odd(label="fine"), [Hits(wrong=wrong), Hits()], out=tmp_path, **QUIET)
    lost = [r for r in report.records if r.benchmark == Hits(wrong=wrong).spec]
    assert {(r.method, r.status) for r in lost} == {("none", "failed"), (Odd(label="fine").spec, "failed")}
    assert all(said in r.note for r in lost)
    assert [r.value for r in report.records if r.benchmark == "hits" and r.metric == "hits"] == [1.0, 1.0]
    for file in ("report.html", "summary.md"):
        assert said in (tmp_path / file).read_text()


# ------------------------------------------------------------------------------------ a method that edits its model


@settings
class Spoiler(Method):
    """Edits the weights that it was given, and may forget to say so."""

    name: ClassVar[str] = "spoiler"
    raises: bool = False
    asking: bool = False

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        if self.asking:
            model.answer_by = "text"
        else:
            model.weights.module.get_input_embeddings().weight.data.mul_(-3)
        if self.raises:
            raise SettingsError("halfway")
        return Mitigated(model, self, choose=lambda questions: model.choose(questions))


@settings
class Later(Method):
    """Comes after; changes nothing."""

    name: ClassVar[str] = "zz_later"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self, choose=lambda questions: model.choose(questions))


@pytest.mark.parametrize("spoiler", [Spoiler(), Spoiler(raises=True), Spoiler(asking=True)])
def test_a_method_that_edits_its_model_is_named_and_spoils_no_other(spoiler: Method, tmp_path: Path) -> None:
    folder = tiny_model(texts=[], too_long="skip").save(tmp_path / "m")
    with pytest.warns(RuntimeWarning, match="changed m, the model that it was given; it was loaded again"):
        report = compare(folder, [spoiler, Later()], Hits(), **QUIET)
    status = {r.method: r for r in report.records if r.kind != "cost"}
    assert status[spoiler.spec].status == "failed"
    assert "apply() or an answer changed the model that it was given" in status[spoiler.spec].note
    (base, later) = (r.value for r in report.records if r.metric == "hits")
    assert base == later and status["zz_later"].status == "no effect"


def test_after_an_object_was_edited_nothing_else_is_asked(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="the methods that follow are not asked"):
        report = compare(tiny_model(texts=[], name="m"), [Spoiler(), Later()], Hits(), out=tmp_path, **QUIET)
    found = {r.method: r for r in report.records}
    assert found["none"].status == "ok" and found["spoiler"].status == found["zz_later"].status == "failed"
    assert found["zz_later"].note == (
        "not asked: spoiler changed m, the model that it was given, and one given as an object cannot be loaded again; "
        "give its folder or name"
    )


# ----------------------------------------------------------------------------------------------- unknown keywords


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"limt": 3}, "unknown option 'limt'. Did you mean 'limit'"),
        ({"sample": 3}, "unknown option 'sample'. Did you mean 'samples'"),
        ({"dtype": "float32"}, "dtype='float32': the models are objects, which are loaded already"),
        ({"batch_tokens": 8}, "batch_tokens=8: the models are objects"),
    ],
)
def test_keywords_that_would_do_nothing_are_refused(option: dict[str, Any], said: str) -> None:
    model = ScriptedModel()
    with pytest.raises(SettingsError, match=said):
        compare(model, "none", Hits(), show_progress=False, **option)
    assert model.questions == [], "nothing was asked"
