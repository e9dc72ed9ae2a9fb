"""Known numbers of predictions, every form that they may have, and what is refused."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

import evenhand
from evenhand.core import registry
from evenhand.data.io.content import read_bytes
from evenhand.data.io.delimited import read_delimited
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.locate import Problems, read_jsonl
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation import BBQ, GPQA, IFEval
from evenhand.evaluation.base import QuestionBenchmark, Row, RowBenchmark, mean, share
from evenhand.interfaces import (
    Array,
    Benchmark,
    Choice,
    Measured,
    Model,
    Passage,
    Question,
    Reply,
    Score,
    Tally,
    settings,
)
from evenhand.metrics import Scores, measure


@dataclass(frozen=True)
class Asked:
    id: str
    cluster: str
    group: str
    question: Question
    right: int = 0


@settings
class Exam(QuestionBenchmark[Asked]):
    """Questions of two groups."""

    name: ClassVar[str] = "exam_of_two"
    statistics = ("asked", "right")
    formulas = (share("accuracy", "right", "asked", "higher", "capability", "share right", main=True, grades=""),)

    def load(self) -> list[Asked]:
        """20 questions of the one, 5 of the other."""
        names = [f"large {n}" for n in range(20)] + [f"<b>small</b> {n}" for n in range(5)]
        options = ("yes", "no", "can't say")
        return [Asked(n, n, n.split()[0], Question(n, "Is it?", options, shown=(2, 0, 1))) for n in names]

    def row(self, item: Asked, answer: Choice) -> Row:
        """Right or not."""
        return {"asked": 1, "right": answer.decision == item.right}

    def groups_of(self, item: Asked) -> tuple[str]:
        """The group."""
        return (item.group,)


@dataclass(frozen=True)
class Text:
    id: str
    text: str

    @property
    def cluster(self) -> str:
        """Itself."""
        return self.id


@settings
class Loss(RowBenchmark[Text, Score]):
    """Mean loss, per token or of the whole."""

    name: ClassVar[str] = "loss_of_two"
    needs = frozenset({"score"})
    answer_type = Score
    statistics = ("n", "loss")
    formulas = (mean("loss", "loss", "n", "lower", "capability", "mean loss", main=True),)
    whole: bool = False

    @property
    def per_token(self) -> bool:
        """Unless it is of the whole."""
        return not self.whole

    def load(self) -> list[Text]:
        """Two texts."""
        return [Text("a", "one two"), Text("b", "three")]

    def ask(self, model: Model, items: Sequence[Text]) -> list[Any]:
        """Both in one call, each with a list around it, so that answers are no plain scores."""
        return model.score([Passage(i.text) for i in items])

    def row(self, item: Text, answer: Score) -> Row:
        """Of scored texts."""
        if math.isnan(answer.logprob):
            return {}
        return {"n": 1, "loss": -answer.logprob / (1 if self.whole else answer.tokens)}


def told(scores: Scores) -> list[str]:
    """All numbers, as texts, in which nan equals itself."""
    return [repr(record) for record in scores.records]


EXAM = Exam()
HALF = [0] * 10 + [1] * 10 + [0, 0, 0, 0, 1]
"""10 of 20 right, and 4 of 5."""


def test_groups_of_unequal_size() -> None:
    scores = measure(EXAM, None, HALF)
    assert scores.overall == {"accuracy": 14 / 25}
    table = scores.by_group.set_index("group")
    assert table["value"].to_dict() == {"large": 0.5, "<b>small</b>": 0.8}
    assert table["n"].to_dict() == {"large": 20, "<b>small</b>": 5}
    assert set(table["metric"]) == {"accuracy"}
    low, high = scores.interval()["accuracy"]
    assert 0.3 < low < 14 / 25 < high < 0.8
    assert scores.interval(group="large")["accuracy"] == (table["low"]["large"], table["high"]["large"])


def test_extremes_have_intervals_within_the_range() -> None:
    low, high = measure(EXAM, None, [0] * 25).interval()["accuracy"]
    # none of 25 wrong: the exact lower bound of a binomial share is (alpha / 2) ** (1 / n)
    assert high == 1 and low == pytest.approx(0.025 ** (1 / 25), abs=1e-3)
    assert measure(EXAM, None, [2] * 25).interval()["accuracy"] == pytest.approx((0, 1 - low))


def test_without_any_answer_there_are_no_numbers() -> None:
    scores = measure(EXAM, None, [None] * 25)
    assert math.isnan(scores.overall["accuracy"])
    assert scores.records[0].status == "failed" and "25 of 25 unanswered" in scores.records[0].note
    assert scores.by_group.empty and list(scores.by_group) == [
        "group",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "clusters",
        "main",
        "note",
    ]
    compared = measure(EXAM, None, HALF).compare([None] * 25)
    assert all(math.isnan(r.difference) for r in compared.records)


def test_a_missing_answer_counts_as_compare_counts_it() -> None:
    assert measure(EXAM, None, [None] * 5 + [0] * 20).overall == {"accuracy": 20 / 25}


def test_the_difference_is_of_the_others_minus_these() -> None:
    compared = measure(EXAM, None, HALF).compare([0] * 25, label="better")
    found = {(r.method, r.metric, r.group): r for r in compared.records}
    better = found["better", "accuracy", "overall"]
    assert better.difference == pytest.approx(11 / 25) and better.baseline == "none"
    assert 0 < better.difference_low < 11 / 25 < better.difference_high and better.p < 0.01
    assert found["better", "became_right", "overall"].value == pytest.approx(11 / 25)
    same = measure(EXAM, None, HALF).compare(measure(EXAM, None, HALF))
    assert {r.status for r in same.records if r.method == "other"} == {"no effect"}


def test_levels_nest_and_are_those_of_the_whole() -> None:
    scores = measure(EXAM, None, HALF)
    (low, high), (wide_low, wide_high) = scores.interval(0.9)["accuracy"], scores.interval(0.99)["accuracy"]
    assert wide_low < low < high < wide_high
    assert measure(EXAM, None, HALF, level=0.9).interval() == scores.interval(0.9)
    with pytest.raises(SettingsError, match=r"level=95: give the level"):
        scores.interval(95)
    with pytest.raises(SettingsError, match="no group 'smal' here; there are overall, "):
        scores.interval(group="smal")


PROBABILITIES = [[0.8, 0.1, 0.1] if p == 0 else [0.1, 0.8, 0.1] for p in HALF]


@pytest.mark.parametrize(
    "predictions",
    [
        [Choice(p) for p in HALF],
        ["yes" if p == 0 else "no" for p in HALF],
        ["B" if p == 0 else "c" for p in HALF],  # the order that was shown is "can't say", "yes", "no"
        [f"<think>A?</think>The answer is ({'B' if p == 0 else 'C'})." for p in HALF],
        np.array(HALF),
        np.array(HALF, dtype=np.float32),
        torch.tensor(HALF),
        pd.Series(HALF, index=range(5, 30)),
        pd.DataFrame({"answer": HALF}),
        PROBABILITIES,
        np.array(PROBABILITIES),
        pd.DataFrame(PROBABILITIES),
        [{"yes": p[0], "C": p[1], 2: p[2]} for p in PROBABILITIES],
        {item.id: p for item, p in reversed(list(zip(EXAM.load(), HALF, strict=True)))},
    ],
    ids=str.split("choices texts letters replies ints floats tensor column table probabilities array wide named by_id"),
)
def test_every_form_of_a_prediction_gives_the_same(predictions: Any) -> None:
    scores = measure(EXAM, None, predictions)
    assert [a.decision for a in scores.answers] == HALF
    assert told(scores) == told(measure(EXAM, None, HALF))


def test_missing_in_every_form() -> None:
    for nothing in ([None] * 24, [float("nan")] * 24, [np.nan] * 24, [[np.nan] * 3] * 24, [pd.NA] * 24):
        answers = measure(EXAM, None, [*nothing, 0]).answers
        assert [a.status for a in answers] == ["unanswered"] * 24 + ["answered"]
    refused = measure(EXAM, None, ["I would rather not."] * 24 + ["A"]).answers
    assert [a.status for a in refused] == ["unparsed"] * 24 + ["answered"] and refused[-1].decision == 2


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([0] * 24, "24 predictions for 25 rows; give one per row"),
        ([0] * 26, "26 predictions for 25 rows"),
        ("yes", "predictions are the text 'yes'; give a list"),
        (7, "predictions are of type int"),
        ([3] + [0] * 24, "item 'large 0': option 3 of 3; give 0 to 2"),
        ([-1] + [0] * 24, "item 'large 0': option -1 of 3"),
        ([0.5] + [0] * 24, "item 'large 0': 0.5 is not an answer"),
        ([True] + [0] * 24, "item 'large 0': True is not an answer"),
        ([float("inf")] + [0] * 24, "item 'large 0': inf is not an answer"),
        ([-np.float32("inf")] + [0] * 24, "item 'large 0': -inf is not an answer"),
        (["0"] * 25, "the predictions that are texts, such as '0', are numbers, and no options' texts; give indices"),
        ([0, " 1.0 "] + [0] * 23, "such as ' 1.0 ', are numbers"),
        ({*range(25)}, "predictions are a set, which has no order"),
        (frozenset(range(25)), "predictions are a set, which has no order"),
        (["D."] + [0] * 24, "item 'large 0': letter 'D', but there are 3 options, the last of which is 'C'"),
        (["(e)"] + [0] * 24, "item 'large 0': letter 'E', but there are 3 options"),
        ([[0.5, 0.4985, 0.0]] + [0] * 24, "item 'large 0': probabilities sum to 0.9985, not 1; divide them"),
        ([Choice(0, (0.5, 0.4985, 0.0))] + [0] * 24, "item 'large 0': probabilities sum to 0.9985, not 1"),
        (["D"] + [0] * 24, "item 'large 0': letter 'D', but there are 3 options, the last of which is 'C'"),
        ([[0.5, 0.5, 0.1]] + [0] * 24, "item 'large 0': probabilities sum to 1.1, not 1; divide them"),
        ([[0.5, 0.5]] + [0] * 24, "item 'large 0': 2 probabilities for 3 options"),
        ([[-1.2, -0.4, -3.0]] + [0] * 24, "not all between 0 and 1; of log-probabilities or logits take the softmax"),
        ([{"yes": 0.5, "perhaps": 0.5}] + [0] * 24, "a key 'perhaps' of the probabilities names no option"),
        ([{"yes": 0.5, 0: 0.5}] + [0] * 24, "a key 0 of the probabilities names an option for the second time"),
        ([Choice(None)] + [0] * 24, "status 'answered' with decision None"),
        ([Choice(5)] + [0] * 24, "option 5 of 3"),
        ({"large 0": 0}, r"no prediction for 'large 1' \(24 of 25 rows have none\)"),
        ({"larg 0": 0}, "predictions name 'larg 0', which no row is called. Did you mean 'large 0'"),
    ],
)
def test_what_does_not_fit_is_refused(predictions: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        measure(EXAM, None, predictions)


def test_missing_values_of_a_nullable_column() -> None:
    column = pd.Series([pd.NA, *HALF[1:]], dtype="Int64")
    assert [a.decision for a in measure(EXAM, None, column).answers] == [None, *HALF[1:]]


def test_an_index_as_text_is_the_option_where_an_option_has_that_text() -> None:
    rows = [replace(item, question=replace(item.question, options=("2", "1", "0"))) for item in EXAM.load()[:2]]
    assert [a.decision for a in measure(EXAM, rows, ["0", "2"]).answers] == [2, 0]


@pytest.mark.parametrize(
    "probabilities",
    [
        (0.3334, 0.3334, 0.3333),
        tuple(float(v) for v in np.array([0.7, 0.2, 0.1004], dtype=np.float16)),
        np.array([0.7, 0.2, 0.1], dtype=np.float16),
    ],
)
def test_rounded_probabilities_are_divided_by_their_sum(probabilities: Any) -> None:
    values = [float(v) for v in probabilities]
    assert 1e-6 < abs(sum(values) - 1) < 1e-3
    expected = [v / sum(values) for v in values]
    for given in (probabilities, Choice(0, tuple(values))):
        answer = measure(EXAM, None, [given] + [0] * 24).answers[0]
        assert answer.decision == 0 and answer.probabilities == pytest.approx(expected, abs=1e-15)
    exact = (0.5, 0.25, 0.25 - 5e-7)
    assert measure(EXAM, None, [exact] + [0] * 24).answers[0].probabilities == exact


def test_texts_none_of_which_is_an_answer_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="exam_of_two: none of the 24 predictions that are texts could be read"):
        measure(EXAM, None, [0] + ["I would rather not."] * 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(EXAM, None, ["yes"] + ["I would rather not."] * 24)
        measure(EXAM, None, [None] * 25)


def test_twins_in_the_data_of_a_benchmark_are_refused() -> None:
    @settings
    class Twins(Benchmark[Text, Score]):
        """Has an item twice; its base class looks at nothing."""

        name: ClassVar[str] = "plain_twins"
        needs = frozenset({"score"})
        answer_type = Score
        metrics = ()

        def load(self) -> list[Text]:
            return [Text("a", "one"), Text("a", "two")]

        def ask(self, model: Model, items: Sequence[Text]) -> list[Score]:
            raise AssertionError("asked")

        def tally(self, items: Sequence[Text], answers: Sequence[Score]) -> Tally:
            raise AssertionError("tallied")

        def compute(self, sums: Array) -> dict[str, Measured]:
            raise AssertionError("computed")

    with pytest.raises(SettingsError, match="plain_twins: item 'a' is there twice; its data must have every id once"):
        measure(Twins(), None, [Score(-1.0, 1)] * 2)


def test_rows_are_items_ids_or_a_mapping_of_them() -> None:
    few = EXAM.load()[18:22]
    expected = measure(EXAM, few, [0, 1, 1, 1])
    assert expected.overall == {"accuracy": 1 / 4}
    for rows in ([i.id for i in few], pd.Series([i.id for i in few]), tuple(few)):
        assert told(measure(EXAM, rows, [0, 1, 1, 1])) == told(expected)
    named = dict(zip("abcd", few, strict=True))
    assert told(measure(EXAM, named, {"d": 1, "a": 0, "b": 1, "c": 1})) == told(expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows are empty"),
        ({"large 0", "large 1"}, "rows are a set, which has no order"),
        (["large 0", "large 0"], "item 'large 0' is there twice"),
        (["large 0", "large 77"], "no item 'large 77' in its data"),
        ([1, 2], "row 0 is of type int; give items throughout"),
        ([EXAM.load()[0], "large 1"], "row 1 is the text 'large 1'; give items throughout"),
        ("large 0", "rows are the text 'large 0'"),
        ([{"id": 1}, {"id": 2}], "exam_of_two: its items cannot be made of single rows"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        measure(EXAM, rows, [0, 0])


def test_log_probabilities_with_and_without_tokens() -> None:
    assert measure(Loss(), None, [(-4, 2), Score(-3.0, 1)]).overall == {"loss": 2.5}
    assert measure(Loss(whole=True), None, [-4.0, np.float32(-3)]).overall == {"loss": 3.5}
    assert measure(Loss(whole=True), None, np.array([-4.0, np.nan])).overall == {"loss": 4.0}
    for wrong, message in (
        (-4.0, r"loss_of_two, item 'a': .* give pairs \(log-probability, tokens\)"),
        ((-4.0, 0), "0 is not a number of tokens"),
        ((-4.0, math.inf), "loss_of_two, item 'a': inf is not a number of tokens"),
        ((0.5, 2), "0.5 is not a log-probability"),
        ("x", "'x' is not a log-probability"),
    ):
        with pytest.raises(SettingsError, match=message):
            measure(Loss(), None, [wrong, (-3, 1)])


def test_texts_that_are_asked_twice_have_one_score() -> None:
    rows = [Text("a", "same"), Text("b", "same")]
    assert measure(Loss(whole=True), rows, [-2.0, -2.0]).overall == {"loss": 2.0}
    with pytest.raises(SettingsError, match="item 'b': a text or question is asked for the second time"):
        measure(Loss(whole=True), rows, [-2.0, -3.0])


def test_a_wrong_number_of_log_probabilities_is_refused() -> None:
    bench = registry.build_benchmark("crows_pairs(source=demo)")
    items = bench.load()
    good: list[Any] = [(-1.0, -2.0)] * len(items)
    assert measure(bench, None, good).overall["stereotyped"] == 1
    for wrong, message in (((-1.0,), "asks for 2 log-probabilities, and 1 were given"), (-1.0, "and float was given")):
        with pytest.raises(SettingsError, match=f"crows_pairs, item '{items[0].id}': it {message}|{message}"):
            measure(bench, None, [wrong, *good[1:]])


def _rows(name: str, folder: str) -> list[dict[str, Any]]:

    files = sorted(f for f in demo_folder(folder).rglob("*") if {".jsonl", ".csv"} & {*f.suffixes})
    if name == "crows_pairs":
        return [row for f in files for _, row in read_delimited(f, read_bytes(f), (), Problems())]
    return [row for f in files for _, row in read_jsonl(f, read_bytes(f), Problems())]


@pytest.mark.parametrize("name", ["bbq", "ifeval", "crows_pairs"])
def test_raw_rows_are_the_items_of_the_files(name: str) -> None:
    bench = registry.build_benchmark(f"{name}(source=demo)")
    items, rows = list(bench.load()), _rows(name, name)
    forms: list[Any] = [rows, {f"mine {n}": row for n, row in enumerate(rows)}]
    if name != "ifeval":  # a table fills up its nested arguments
        forms += [pd.DataFrame(rows), datasets.Dataset.from_list(rows)]
    nothing: list[Any] = [None] * len(items)
    for form in forms:
        made = measure(bench, form, nothing).items
        assert sorted(map(repr, made)) == sorted(map(repr, items))
    with pytest.raises(DataError, match="row 1: "):
        measure(bench, [rows[0], {"key": 1}], [None, None])


def test_rows_of_the_hubs_copy_of_mmlu() -> None:
    bench = registry.build_benchmark("mmlu(source=demo)")
    items = bench.load()
    rows = [
        {"subject": i.subject, "question": i.question.question, "choices": list(i.question.options), "answer": i.right}
        for i in items
    ]
    right = measure(bench, pd.DataFrame(rows), [i.right for i in items])
    assert right.overall["accuracy"] == 1
    assert told(right) == told(measure(bench, None, [i.right for i in items]))


def test_a_file_for_rows_is_the_source(tmp_path: Path) -> None:

    file = next(demo_folder("bbq").rglob("Age.jsonl*"))
    items = BBQ(source=str(file)).load()
    scores = evenhand.metrics.bbq(file, [i.label for i in items])
    assert scores.overall["accuracy_ambiguous"] == 1 and scores.benchmark.settings["source"] == str(file)
    with pytest.raises(SettingsError, match="source is given, too"):
        evenhand.metrics.bbq(file, [], source="demo")


def test_written_replies_of_gpqa_are_read_by_the_official_patterns() -> None:
    items = GPQA(source="demo").load()
    said = [f"The correct answer is ({'ABCD'[i.right]})" for i in items]
    for asked in ("zero_shot", "zero_shot_cot"):
        scores = evenhand.metrics.gpqa(None, said, source="demo", asked=asked)
        assert scores.overall["accuracy"] == 1
    with pytest.warns(UserWarning, match="none of the .* predictions that are texts could be read"):
        loose = evenhand.metrics.gpqa(None, ["ABCD"[i.right] for i in items], source="demo", asked="zero_shot")
    assert loose.overall["accuracy"] == 0, "a bare letter has not the official format"
    assert evenhand.metrics.gpqa(None, ["ABCD"[i.right] for i in items], source="demo").overall["accuracy"] == 1


def test_replies_of_ifeval() -> None:
    items = IFEval(source="demo").load()
    assert evenhand.metrics.ifeval(None, [Reply("")] * len(items), source="demo").overall["blank"] == 1
    with pytest.raises(SettingsError, match=r"ifeval, item '.*': 1 is not a reply"):
        evenhand.metrics.ifeval(None, [1] * len(items), source="demo")


def test_every_registered_benchmark_has_a_function() -> None:
    assert {*registry.benchmarks.names(), "measure", "Scores"} <= {*dir(evenhand.metrics)}
    for name in registry.BUILT_IN["benchmarks"]:
        function = getattr(evenhand.metrics, name)
        known = inspect.signature(function).parameters
        assert list(known)[:3] == ["rows", "predictions", "label"]
        assert {*registry.benchmarks.get(name)().settings} <= known.keys(), name
        assert f"`{name}`" in function.__doc__ and max(map(len, function.__doc__.splitlines()[2:])) <= 120
    with pytest.raises(AttributeError, match="no attribute 'no_such_benchmark'"):
        _ = evenhand.metrics.no_such_benchmark
    with pytest.raises(AttributeError, match=r"no attribute 'mmluu'. Did you mean 'mmlu'"):
        _ = evenhand.metrics.mmluu
    with pytest.raises(AttributeError, match=r"no attribute 'measur'. Did you mean 'measure'"):
        _ = evenhand.metrics.measur
    with pytest.raises(SettingsError, match="unknown setting 'sauce'"):
        evenhand.metrics.bbq(None, [], sauce="demo")


def test_a_benchmark_of_your_own_has_one_once_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.benchmarks, "_objects", {**registry.benchmarks._objects})
    registry.benchmarks.register(Exam)
    assert evenhand.metrics.exam_of_two(None, HALF).overall == {"accuracy": 14 / 25}
    with pytest.raises(SettingsError, match="the benchmark has no setting `source`"):
        evenhand.metrics.exam_of_two("a.csv", [])


def test_it_shows_itself_and_escapes_names() -> None:
    scores = measure(EXAM, None, HALF, label="<script>mine</script>")
    assert isinstance(scores, Scores)
    assert "accuracy: 0.560 [" in repr(scores) and "25 items, 95 % intervals" in repr(scores)
    page = scores._repr_html_()
    assert "&lt;script&gt;mine" in page and "<script>mine" not in page and "<b>small" not in page
    assert "0.560" in page


def test_settings_of_the_bootstrap_and_labels_are_checked() -> None:
    with pytest.raises(SettingsError, match="replicates=1"):
        measure(EXAM, None, HALF, replicates=1)
    for wrong in ({"replicates": "many"}, {"level": "x"}, {"bootstrap_seed": -1}, {"bootstrap_seed": 0.5}):
        ((name, value),) = wrong.items()
        with pytest.raises(SettingsError, match=f"{name}={value!r}: give"):
            measure(EXAM, None, HALF, **wrong)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(SettingsError, match=r"level='0\.9': give the level"):
        measure(EXAM, None, HALF).interval("0.9")  # type: ignore[arg-type]  # likewise
    with pytest.raises(SettingsError, match="level=0: give the level"):
        measure(EXAM, None, HALF).interval(0)
    with pytest.raises(SettingsError, match="label='none'"):
        measure(EXAM, None, HALF).compare(HALF, label="none")
    with pytest.raises(SettingsError, match="other items or settings"):
        measure(EXAM, None, HALF).compare(measure(EXAM, EXAM.load()[:2], [0, 0]))


def test_the_example_of_the_documentation_runs() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "evenhand.metrics.bbq" in block
    )
    names: dict[str, Any] = {}
    exec(compile(code, "docs/benchmarks.md", "exec"), names)
    assert names["scores"].overall["accuracy_ambiguous"] == pytest.approx(1 / 3)
    low, high = names["scores"].interval()["accuracy_ambiguous"]
    assert f"({low:.3f}, {high:.3f})" in code
    assert names["report"].verdicts()[0].text.partition(";")[0] in code
