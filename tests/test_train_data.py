"""What methods fit on: how it is read, and that nothing of it is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evenhand import registry, train_data
from evenhand.comparison import compare
from evenhand.data.proving_ground.practice import KINDS, practice
from evenhand.errors import DataError, SettingsError
from evenhand.interfaces import Choice, Method, Model, Question, TrainData, settings
from evenhand.models import Mitigated
from evenhand.train_data import digest, load, without

RED = {"question": "Which?", "options": ["red", "blue"], "answer": "blue", "context": "A sky.", "id": "one"}


def lines(folder: Path, *rows: Any) -> Path:
    file = folder / "train.jsonl"
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return file


def test_a_file_of_questions_and_texts(tmp_path: Path) -> None:
    file = lines(tmp_path, RED, {"question": "Who?", "options": ["a", "b", "c"]}, "", {"text": "A text."})
    data = load(file).data
    assert data.questions[0] == Question("one", "Which?", ("red", "blue"), context="A sky.")
    assert data.questions[1].id == f"{file}:2"
    assert data.answers == (1, None)
    assert data.texts == ("A text.",)
    (tmp_path / "texts.txt").write_text("One\nline.\n\nTwo.\n\n\n")
    assert load(tmp_path / "texts.txt").data.texts == ("One\nline.", "Two.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "train.jsonl:1 is no JSON"),
        ([1], "an object"),
        ({**RED, "answr": 1}, "unknown key 'answr'"),
        ({**RED, "options": ["red"]}, "at least two texts"),
        ({**RED, "answer": "green"}, "'green': neither"),
        ({**RED, "answer": 2}, "2: neither"),
        ({**RED, "answer": True}, "True: neither"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(lines(tmp_path, row))


def test_what_is_no_training_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than once"):
        load(lines(tmp_path, RED, RED))
    with pytest.raises(DataError, match="no training file"):
        load("missing.jsonl")
    with pytest.raises(SettingsError, match="no practice questions of kind 'bbc'"):
        load("demo:bbc")
    with pytest.raises(SettingsError, match="no multiple-choice questions"):
        load("perplexity(source=demo)")


@pytest.mark.parametrize("name", ["bbq(source=demo)", "mmlu(source=demo)", "gpqa(source=demo)"])
def test_a_benchmark_gives_its_questions_with_the_right_answers(name: str) -> None:
    benchmark = registry.build_benchmark(name)
    items, data = benchmark.items(), load(name).data
    assert data.questions == tuple(i.question for i in items)
    answers = [Choice(a) for a in data.answers]
    assert all(m.right for m in benchmark.marks(items, answers) or ())


@pytest.mark.parametrize("kind", KINDS)
def test_practice_is_like_a_benchmark_and_asks_none_of_it(kind: Any) -> None:
    data = practice(kind, 400)
    assert len({(q.context, q.question, frozenset(q.options)) for q in data.questions}) == 400
    asked = [
        (b, b.items())
        for b in (registry.build_benchmark(f"{n}(source=demo)") for n in ("bbq", "mmlu", "gpqa"))
    ]  # fmt: skip
    assert without(train_data.Loaded(data), asked).left_out == 0
    assert practice(kind, 50) == TrainData(data.questions[:50], data.answers[:50])
    assert practice(kind, 50, seed=1) != practice(kind, 50)


def test_what_is_asked_is_left_out_by_text_and_by_template() -> None:
    benchmark = registry.build_benchmark("bbq(source=demo)")
    items = list(benchmark.items())
    asked = [(benchmark, items[:1])]
    loaded = load("bbq(source=demo)")
    kept = without(loaded, asked)
    same = sum(i.cluster == items[0].cluster for i in items)
    assert 1 < same < 100
    assert kept.left_out == same
    question = items[0].question
    spelled = replace(question, id="x", context=f" {question.context.upper()}", options=question.options[::-1])
    other = replace(question, id="y", options=("Someone", "Nobody", "Anybody"))
    text = f"{question.context} {question.question}"
    found = without(train_data.Loaded(TrainData((spelled, other), (0, None), (text, "another"))), asked)
    assert (found.data, found.left_out) == (TrainData((other,), (None,), ("another",)), 2)
    with pytest.raises(SettingsError, match="nothing is left"):
        without(loaded, [(benchmark, items)])


def test_the_digest_covers_questions_answers_and_texts() -> None:
    question = Question("q", "Which?", ("a", "b"))
    some = [
        TrainData((question,), (0,)),
        TrainData((question,), (1,)),
        TrainData((question.reordered((1, 0)),), (0,)),
        TrainData((), (), ("q",)),
    ]
    assert len({digest(data) for data in some}) == 4


@settings
class Memory(Method):
    """Answers questions of training as they were answered there."""

    name = "memory"
    needs_data = True

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        assert data is not None
        seen.append(data)
        return Mitigated(model, self, depends_on=[digest(data)])


seen: list[TrainData] = []


def test_compare_hands_training_data_to_a_method_once(tmp_path: Path) -> None:
    seen.clear()
    options: dict[str, Any] = {"limit": 20, "replicates": 5, "show_progress": False}
    benchmarks = "bbq(source=demo),mmlu(source=demo)"
    with pytest.warns(UserWarning, match="training items out"):
        report = compare(
            "demo", [Memory()], benchmarks, out=tmp_path, train=TrainData((*_one_asked(), RED_QUESTION)), **options
        )
    assert seen == [TrainData((RED_QUESTION,), (None,))]
    assert report.manifest["train"] == {"questions": 1, "texts": 0, "left_out": 1, "sha256": digest(seen[0])}
    assert [a["method"] for a in report.manifest["applied"]] == ["none", "memory"]
    without_data = compare("demo", [Memory()], "bbq(source=demo)", **options)
    refused = [r for r in without_data.records if r.method == "memory"]
    assert refused
    assert all(r.status == "not applicable" and "--train" in r.note for r in refused)


RED_QUESTION = Question("one", "Which?", ("red", "blue"), context="A sky.")


def _one_asked() -> tuple[Question, ...]:
    from evenhand.comparison import subsample

    items = registry.build_benchmark("bbq(source=demo)").items()
    return (subsample(items, 20, 0)[0].question,)


def test_so_many_practice_questions_of_a_kind() -> None:
    assert load("demo:gpqa:40").data == practice("gpqa", 40)
    for wrong in ("demo:gpqa:0", "demo:gpqa:many"):
        with pytest.raises(SettingsError, match="no number of questions"):
            load(wrong)
