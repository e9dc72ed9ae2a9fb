"""`RowBenchmark`: named statistics of answers become sums per cluster and group, and metrics become their formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any, ClassVar

import numpy as np
import pytest

from evenhand.errors import SettingsError
from evenhand.evaluation.base import QuestionBenchmark, Row, RowBenchmark, formula, mean, share
from evenhand.evaluation.loading import Loaded, first_names, in_part, known_names
from evenhand.evaluation.metrics import row_sums
from evenhand.evaluation.metrics.formulas import Formula
from evenhand.evaluation.metrics.label_bias import LabelColumns
from evenhand.evaluation.metrics.row_sums import RowSums
from evenhand.evaluation.metrics.sums import Sums
from evenhand.interfaces import Benchmark, Choice, Measured, Metric, Model, Question, settings


@dataclass(frozen=True)
class Word:
    """A word with what was answered to it."""

    id: str
    cluster: str
    values: Row
    axis: str = ""
    part: str = "all"


@settings
class Words(RowBenchmark[Word, Choice]):
    """Answers come with the items."""

    name: ClassVar[str] = "words"
    needs = frozenset()
    statistics = ("asked", "right", "loss")
    parts = ("all", "rare")
    formulas = (
        share("accuracy", "right", "asked", "higher", "capability", "share right", main=True),
        share("wrong", "asked - right", "asked", "lower", "capability", "share wrong"),
        mean("loss", "loss", "right", "lower", "capability", "mean loss", n="asked"),
        formula("double", lambda s: 2 * s["loss"] / s["asked"], "asked", "none", "validity", "twice the loss"),
        formula("rare", lambda s: s.part("rare")["right"], "asked", "none", "validity", "right rare ones"),
    )

    def load(self) -> list[Word]:
        return []

    def ask(self, model: Model, items: Sequence[Word]) -> list[Choice]:
        return []

    def row(self, item: Word, answer: Choice) -> Row:
        return item.values

    def groups_of(self, item: Word) -> tuple[str, ...]:
        return item.axis, item.axis, "overall"

    def part_of(self, item: Word) -> str:
        return item.part


WORDS = [
    Word("a", "x", {"asked": 1, "right": True, "loss": 0.5}, "age"),
    Word("b", "y", {"asked": 1}, "sex"),
    Word("c", "x", {"asked": 2.0, "right": np.float64(1), "loss": 0.25}, "", "rare"),
    Word("d", "y", {}, "age"),
]


def tallied(items: Sequence[Word], bench: Any = None) -> Any:
    return (bench or Words()).tally(items, [Choice(0)] * len(items))


@pytest.mark.parametrize("few", [0, 10**9], ids=["at once", "one by one"])
def test_rows_are_summed_by_cluster_group_and_part(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_sums, "FEW", few)
    tally = tallied(WORDS)
    assert (tally.clusters, tally.strata, tally.groups) == (("x", "y"), ("", ""), ("overall", "age", "sex"))
    x, y = tally.sums
    assert x.tolist() == [[1, 1, 0.5, 2, 1, 0.25], [1, 1, 0.5, 0, 0, 0], [0] * 6]
    assert y.tolist() == [[1, 0, 0, 0, 0, 0], [0] * 6, [1, 0, 0, 0, 0, 0]], "a group that is named twice counts once"
    assert tallied([]).sums.shape == (0, 1, 6)


def test_both_ways_of_adding_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    words = [
        Word(f"{n}", f"{n % 7}", dict(zip(("asked", "right", "loss"), draw.normal(size=3), strict=True)), f"{n % 3}")
        for n in range(400)
    ]
    found, free = [], type("Free", (Words,), {"formulas": (mean("m", "right", "asked", "none", "bias", ""),)})()
    for few in (0, 10**9):
        monkeypatch.setattr(row_sums, "FEW", few)
        found.append(tallied(words, free).sums)
    assert np.array_equal(*found) and found[0].any()


def test_formulas_are_computed_over_any_leading_dimensions() -> None:
    tally = tallied(WORDS)
    values = Words().compute(tally.total)
    assert list(values) == [m.name for m in Words.metrics] == ["accuracy", "wrong", "loss", "double", "rare"]
    assert values["accuracy"].value.tolist()[:2] == [0.5, 1] and values["accuracy"].n.tolist() == [4, 1, 1]
    assert values["wrong"].value.tolist() == [0.5, 0, 1]
    assert values["loss"].value[0] == 0.375 and np.isnan(values["loss"].value[2]), "nothing right: no mean"
    assert values["loss"].n.tolist() == [4, 1, 1]
    assert values["double"].value.tolist() == [0.375, 1, 0] and values["rare"].value.tolist() == [1, 0, 0]
    stacked = Words().compute(np.stack([tally.total, 0 * tally.total]))
    assert all(np.array_equal(stacked[k].value[0], v.value, equal_nan=True) for k, v in values.items())
    assert np.isnan(stacked["double"].value[1]).all(), "0 / 0 is nan, without a warning"


def test_metrics_are_declared_with_their_formulas() -> None:
    assert Words.metrics[0] == Metric(
        "accuracy", "higher", "capability", "share right", True, form="proportion", range=(0, 1)
    )
    assert Words.metrics[2] == Metric("loss", "lower", "capability", "mean loss")
    graded = share("a", "x", "y", "higher", "capability", "", grades="")
    assert graded.metrics == (Metric("a", "higher", "capability", "", form="proportion", range=(0, 1), part=""),)


def test_metrics_of_rows_alone() -> None:
    values = Words().of_rows([{"asked": 1, "right": 1}, {"asked": 3, "right": 1}])
    assert values["accuracy"] == 0.5 and values["rare"] == 0


def test_infinite_values_are_added_up() -> None:
    assert Words().compute(tallied([Word("a", "x", {"asked": 1, "right": 1, "loss": inf})]).total)["loss"].value == inf


@pytest.mark.parametrize("count", [1, 300], ids=["one by one", "at once"])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"rigth": 1}, r"words: row\(\) of item 'odd' gives the statistic 'rigth', .* Did you mean 'right'"),
        ({"asked": 1, "loss": nan}, r"words: row\(\) of item 'odd' gives loss=nan, which is not a number; leave out"),
        ({"loss": None}, r"words: row\(\) of item 'odd' gives loss=None"),
        ({"loss": "0.5"}, r"words: row\(\) of item 'odd' gives loss='0.5'"),
    ],
)
def test_a_wrong_row_is_named_with_the_remedy(row: Any, said: str, count: int) -> None:
    words = [Word(f"w{n}", "x", {"asked": 1, "right": 1}) for n in range(count)]
    with pytest.raises(SettingsError, match=said):
        tallied([*words, Word("odd", "x", row), *words])


@pytest.mark.parametrize("count", [0, 300], ids=["one by one", "at once"])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"asked": 1, "right": 2}, "the share 'accuracy' counts right of asked, .* 'odd' gives 2 of 1, which is not"),
        ({"asked": 1, "right": -1}, "the share 'accuracy' counts right of asked, .* 'odd' gives -1 of 1"),
        ({"asked": -1}, "the share 'accuracy' counts right of asked, .* 'odd' gives 0 of -1"),
        ({"right": 1}, "the share 'accuracy' counts right of asked, .* 'odd' gives 1 of 0"),
    ],
)
@pytest.mark.parametrize("part", ["all", "rare"])
def test_a_part_beyond_its_whole_is_named_with_its_item(row: Row, said: str, count: int, part: str) -> None:
    words = [Word(f"w{n}", "x", {"asked": 1, "right": 1}) for n in range(count)]
    with pytest.raises(SettingsError, match=rf"words: {said}"):
        tallied([*words, Word("odd", "x", row, part=part), *words])
    with pytest.raises(SettingsError, match=r"the share 'accuracy' .* item '1' gives"):
        Words().of_rows([{"asked": 1}, row])


def test_a_sum_of_names_that_is_negative_is_refused_and_rounding_is_not() -> None:
    only = type("Only", (Words,), {"formulas": (share("wrong", "asked - right", "asked", "lower", "bias", ""),)})()
    with pytest.raises(SettingsError, match=r"'wrong' counts asked - right of asked, .* item 'a' gives -1 of 1"):
        tallied([Word("a", "x", {"asked": 1, "right": 2})], only)
    rounded = Word("a", "x", {"asked": 1 - 1e-12, "right": 1})
    assert tallied([rounded]).sums[0, 0, 1] == 1


@pytest.mark.parametrize("row", [None, ("right", 1), [1, 1], 1])
def test_a_row_that_is_not_a_mapping_is_named(row: Any) -> None:
    with pytest.raises(SettingsError, match=r"words: row\(\) of item 'odd' gives .* not a mapping; return the numbers"):
        tallied([WORDS[0], Word("odd", "x", row)])


@pytest.mark.parametrize("cluster", ["", None, 3])
def test_an_item_without_a_cluster_is_named(cluster: Any) -> None:
    with pytest.raises(SettingsError, match=r"words: item 'b' has cluster=.*; give every item a `cluster`"):
        tallied([WORDS[0], Word("b", cluster, {})])


def test_an_item_class_without_clusters_is_named() -> None:
    @dataclass(frozen=True)
    class Bare:
        id: str

    with pytest.raises(SettingsError, match="words: item 'b' has cluster=''"):
        Words().tally([Bare("b")], [Choice(0)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (
            share("a", "rigth", "asked", "higher", "bias", ""),
            "Bad, metric a: unknown statistic 'rigth'. Did you mean",
        ),
        (mean("a", "right - lost", "asked", "higher", "bias", ""), "metric a: unknown statistic 'lost'"),
        (formula("a", lambda s: s["rigth"], "asked", "higher", "bias", ""), "metric a: unknown statistic 'rigth'"),
        (formula("a", lambda s: s.part("x")["right"], "asked", "higher", "bias", ""), "unknown part of the items 'x'"),
        (Formula((Metric("a", "none", "bias", ""),), lambda s: {"b": Measured(s["right"], s["asked"])}), "computes"),
    ],
)
def test_a_formula_of_unknown_names_is_refused_as_the_class_is_defined(declared: Formula, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        type("Bad", (Words,), {"formulas": (declared,)})


def test_a_statistic_that_is_named_twice_is_refused() -> None:
    with pytest.raises(SettingsError, match="benchmark Bad: `statistics` names 'asked' twice"):
        type("Bad", (Words,), {"statistics": ("asked", "right", "loss", "asked")})


@pytest.mark.parametrize("term", ["", "asked -", "asked right", "- asked", "asked * right"])
def test_a_term_that_is_no_sum_of_names_is_refused(term: str) -> None:
    with pytest.raises(SettingsError, match="write names joined by plus and minus"):
        share("a", term, "asked", "higher", "bias", "")


def test_terms_are_added_from_left_to_right() -> None:
    sums = Sums(np.array([1.0, 10.0, 100.0]), ("a", "b", "c"))
    found = formula("x", "c - a+b -a", "a", "none", "bias", "").compute(sums)["x"]
    assert found.value == 108 and found.n == 1


def test_sums_by_part() -> None:
    sums = Sums(np.arange(12.0).reshape(2, 6), ("a", "b", "c"), ("one", "two"))
    assert sums["b"].tolist() == [5, 17] and sums.by_part("b").tolist() == [[1, 4], [7, 10]]
    assert sums.part("two")["b"].tolist() == [4, 10] and sums.stacked(["c", "a"]).tolist() == [[7, 3], [19, 15]]
    assert Sums.nothing(("a",), ("one", "two"))["a"] == 0


def test_a_part_that_is_not_declared_and_groups_that_are_one_text_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"words: part_of\(\) of item 'a' gives 'x'.* Known: all, rare"):
        tallied([Word("a", "x", {}, part="x")])
    text = type("Text", (Words,), {"groups_of": lambda self, item: "age"})()
    with pytest.raises(SettingsError, match=r"groups_of\(\) of item 'a' gives the text 'age'; give .*\('age',\)"):
        tallied(WORDS, text)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (None, "gives None; give a tuple of texts"),
        (("age", 3), r"gives \('age', 3\); give a tuple"),
        ("age", "the text"),
    ],
)
def test_groups_of_a_later_item_are_checked_too(groups: Any, said: str) -> None:
    def groups_of(self: Any, item: Word) -> Any:
        return groups if item.id == "d" else ()

    odd = type("Odd", (Words,), {"groups_of": groups_of})()
    with pytest.raises(SettingsError, match=rf"words: groups_of\(\) of item 'd' {said}" if said[0] == "g" else said):
        tallied(WORDS, odd)
    with pytest.raises(SettingsError, match=r"groups_of\(\) of item 'd'"):
        type("Loads", (type(odd),), {"load": lambda self: WORDS})().load()


@pytest.mark.parametrize("by", ["load", "read"])
@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (Word("a", "y", {}), "words: two items have the id 'a'; every id has to be unique"),
        (Word("e", "", {}), "words: item 'e' has cluster=''; give every item a `cluster`"),
        (Word("", "y", {}), "words: item number 4 has id=''; give every item an `id`"),
        (Word(5, "y", {}), "words: item number 4 has id=5; give every item an `id`"),  # type: ignore[arg-type]
    ],
)
def test_items_are_checked_as_they_are_loaded(by: str, odd: Word, said: str) -> None:
    def made(items: list[Word]) -> Any:
        given = {"load": lambda self: items}
        if by == "read":
            given = {"load": RowBenchmark.load, "read": lambda self: Loaded(items, {})}
        return type("Made", (Words,), given)()

    assert made(WORDS).load() == WORDS
    with pytest.raises(SettingsError, match=said):
        made([*WORDS, odd]).load()


def test_facts_are_those_of_read_where_there_is_one() -> None:
    read = type("Read", (Words,), {"load": RowBenchmark.load, "read": lambda self: Loaded([WORDS[0]], {"rows": 1})})()
    assert read.load() == [WORDS[0]] and read.load() is read.load()
    assert read.facts() == {**Benchmark.facts(read), "rows": 1}
    assert Words().facts() == Benchmark.facts(Words())
    with pytest.raises(NotImplementedError, match=r"words: define read\(\), or load\(\)"):
        type("None_", (Words,), {"load": RowBenchmark.load})().load()


def test_questions_with_a_right_option_have_grades_and_gold() -> None:
    @dataclass(frozen=True)
    class Asked:
        id: str
        cluster: str
        question: Question
        right: int

    class Exam(QuestionBenchmark[Asked]):
        name: ClassVar[str] = "exam"

        def row(self, item: Asked, answer: Choice) -> Row:
            return {}

        def groups_of(self, item: Asked) -> tuple[str, ...]:
            return item.cluster, ""

    items = [Asked("a", "x", Question("a", "?", ("p", "q")), 1)]
    exam = Exam()
    assert exam.gold(items) == [1] and exam.needs == {"choose"}
    assert [(g.right, g.groups) for g in exam.grades(items, [Choice(1)])] == [(True, ("overall", "x"))]
    assert not exam.grades(items, [Choice(0)])[0].right


@pytest.mark.parametrize("shown", [None, (2, 0, 1)])
@pytest.mark.parametrize("answer", [Choice(1, (0.2, 0.5, 0.3)), Choice(2), Choice(None, status="unparsed")])
def test_label_columns_by_name_are_those_by_number(shown: tuple[int, ...] | None, answer: Choice) -> None:
    columns, question = LabelColumns(3), Question("q", "?", ("a", "b", "c"), shown=shown)
    row = columns.named_row(question, 1, answer)
    assert [row.get(name, 0.0) for name in columns.names] == columns.answer_row(question, 1, answer)
    assert len(set(columns.names)) == columns.width
    drawn = np.random.default_rng(1).integers(1, 9, columns.width).astype(float)
    named = columns.formula.compute(Sums(drawn, columns.names))
    assert {k: float(m.value) for k, m in named.items()} == {
        k: float(m.value) for k, m in columns.metrics(drawn).items()
    }


def test_row_sums_of_nothing_are_zeros() -> None:
    assert RowSums("b", ("a", "b"), ("overall",)).total(3).tolist() == [[[0, 0]]] * 3


def test_clusters_parts_and_names_of_loading() -> None:
    assert first_names([("x", "1"), ("y", "2"), ("x", "3")]) == ["1", "2", "1"]
    halves = [in_part(part, WORDS, lambda w: "") for part in ("fit", "test", "all")]
    assert {w.cluster for w in halves[0]}.isdisjoint({w.cluster for w in halves[1]})
    assert len(halves[0]) == len(halves[1]) == 2 and halves[2] == WORDS
    known_names("b", "axis", ["age"], ["sex", "age"], "there")
    with pytest.raises(SettingsError, match=r"b: no axis 'aeg' in there\. Did you mean 'age'\? There are age, sex"):
        known_names("b", "axis", ["aeg"], ["sex", "age"], "there")
