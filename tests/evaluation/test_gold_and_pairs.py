"""Right options and contrast pairs, which a benchmark names itself: for training data, and for other orders."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from evenhand import interfaces
from evenhand.core import registry
from evenhand.data.pairs import apart, question_pair, stereoset_pair, winobias_pair, winogender_pair
from evenhand.errors import SettingsError
from evenhand.evaluation.option_order import OptionOrder, OrderAnswer
from evenhand.experiment.decontamination import Asked
from evenhand.experiment.training_data import load
from evenhand.interfaces import (
    Ability,
    Array,
    Benchmark,
    Choice,
    Grade,
    Measured,
    Metric,
    Model,
    Pair,
    Question,
    QuestionItem,
    Tally,
    settings,
)
from evenhand.testing import NonconformingError, check_benchmark

WITH_GOLD = (
    "bbq",
    "mmlu",
    "gpqa",
    "option_order",
    "multiple_choice_file",
    "kobbq",
    "esbbq",
    "cabbq",
    "difference_awareness",
    "gg_bbq",
    "mbbq",
    "cbbq",
)
HITS = Metric("hits", "higher", "capability", "share answered right, 0 to 1", True, "proportion", (0, 1))


def built(name: str) -> Benchmark:
    return registry.build_benchmark(f"{name}(source=demo)")


def marked_right(benchmark: Benchmark, items: Sequence[Any]) -> list[int | None]:
    """The options that `grades` counts as right, found by putting every possible answer to it."""
    found: list[int | None] = [None] * len(items)
    for option in range(max(len(item.question.options) for item in items)):
        answer: Any = Choice(option) if benchmark.answer_type is Choice else OrderAnswer((Choice(option),))
        for i, grade in enumerate(benchmark.grades(items, [answer] * len(items)) or ()):
            found[i] = option if grade.right else found[i]
    return found


@pytest.mark.parametrize("name", WITH_GOLD)
def test_the_right_options_are_those_that_are_marked_right(name: str) -> None:
    benchmark = built(name)
    items = benchmark.load()
    assert all(isinstance(item, QuestionItem) for item in items)
    assert benchmark.gold(items) == marked_right(benchmark, items)
    assert benchmark.gold([]) == []


@pytest.mark.parametrize("name", sorted(set(registry.BUILT_IN["benchmarks"]) - {*WITH_GOLD, "b_score"}))
def test_no_other_benchmark_has_right_options(name: str) -> None:
    benchmark = registry.build_benchmark(name)
    assert benchmark.gold([]) is None and benchmark.grades([], []) is None


def test_questions_of_opinion_have_no_right_option() -> None:
    items = built("b_score").load()
    gold = built("b_score").gold(items) or ()
    options = [None if right is None else i.question.options[right] for i, right in zip(items, gold, strict=True)]
    assert options == [i.truth for i in items] and None in options and set(options) != {None}


def _bbq(item: Any) -> Iterator[Pair | None]:
    if not item.disambiguated and item.target is not None and item.unknown is not None:
        yield question_pair(item.question, item.target, item.unknown)


def _winogender(item: Any) -> Iterator[Pair | None]:
    for schema in item.schemas:
        name = f"winogender {schema.occupation}.{schema.participant}.{int(not schema.about_occupation)}"
        yield winogender_pair(schema, item.shares, name)


def _winobias(item: Any) -> Iterator[Pair | None]:
    yield winobias_pair(item.twins, f"winobias {item.id}")


def _stereoset(item: Any) -> Iterator[Pair | None]:
    for n, example in enumerate(item.examples):
        yield stereoset_pair(example, f"stereoset {item.id} {n}")


def _crows_pairs(item: Any) -> Iterator[Pair | None]:
    yield apart(item.pair.more, item.pair.less, item.pair.bias_type, f"crows_pairs {item.id}")


BY_ITEM: dict[str, Callable[[Any], Iterator[Pair | None]]] = {
    "bbq": _bbq,
    "winogender": _winogender,
    "winobias": _winobias,
    "stereoset": _stereoset,
    "crows_pairs": _crows_pairs,
}


@pytest.mark.parametrize("name", BY_ITEM)
def test_the_pairs_are_those_of_each_item_in_order(name: str) -> None:
    benchmark = built(name)
    items = benchmark.load()
    wanted = [(pair, item.cluster) for item in items for pair in BY_ITEM[name](item) if pair is not None]
    assert benchmark.pairs(items) == [pair for pair, _ in wanted] and wanted
    loaded = load(f"pairs:{name}(source=demo)")
    assert loaded.data.pairs == tuple(pair for pair, _ in wanted)
    assert loaded.clusters.pairs == tuple(f"{name}/{cluster}" for _, cluster in wanted)


@pytest.mark.parametrize("name", sorted(set(registry.BUILT_IN["benchmarks"]) - set(BY_ITEM)))
def test_no_other_benchmark_has_pairs(name: str) -> None:
    assert registry.build_benchmark(name).pairs([]) is None


def test_questions_asked_in_other_orders_are_the_other_benchmarks() -> None:
    order, bbq = registry.build_benchmark("option_order(of='bbq(source=demo)')"), built("bbq")
    assert order.original == bbq and bbq.original is bbq
    assert load(order.spec).data == load(bbq.spec).data
    asked = Asked([(order, order.load()[:1])])
    assert {f"bbq/{bbq.load()[0].cluster}", f"option_order/{bbq.load()[0].cluster}"} == asked.clusters


# ------------------------------------------------------------------------------------------ plugins


@dataclass(frozen=True)
class Riddle:
    id: str
    cluster: str
    question: Question


RIDDLES = tuple(
    Riddle(f"r{n}", f"c{n // 2}", Question(f"r{n}", f"Who was there {n}?", ("dog", "cat"))) for n in range(6)
)


@settings
class Riddles(Benchmark[Riddle, Choice]):
    """Riddles; the dog is right where the number is even, and nobody is in the last one."""

    name: ClassVar[str] = "riddles"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    metrics: ClassVar[tuple[Metric, ...]] = (HITS,)
    wrong: str = ""

    def load(self) -> Sequence[Riddle]:
        return RIDDLES

    def ask(self, model: Model, items: Sequence[Riddle]) -> list[Choice]:
        return model.choose([i.question for i in items])

    def tally(self, items: Sequence[Riddle], answers: Sequence[Choice]) -> Tally:
        clusters = tuple(dict.fromkeys(i.cluster for i in items))
        sums = np.zeros((len(clusters), 1, 2))
        for item, grade in zip(items, self.grades(items, answers), strict=True):
            sums[clusters.index(item.cluster), 0] += (grade.right, 1)
        return Tally(clusters, ("",) * len(clusters), ("overall",), sums)

    def compute(self, sums: Array) -> dict[str, Measured]:
        with np.errstate(invalid="ignore"):
            return {"hits": Measured(sums[..., 0] / sums[..., 1], sums[..., 1])}

    def grades(self, items: Sequence[Riddle], answers: Sequence[Choice]) -> list[Grade]:
        return [Grade(a.decision, a.decision == _right(i)) for i, a in zip(items, answers, strict=True)]

    def gold(self, items: Sequence[Riddle]) -> list[int | None]:
        gold = [_right(i) for i in items]
        broken: dict[str, list[Any]] = {
            "short": gold[1:],
            "bool": [True, *gold[1:]],
            "letter": ["A", *gold[1:]],
            "from 1": [g if g is None else g + 1 for g in gold],
            "turned": [g if g is None else 1 - g for g in gold],
        }
        return broken.get(self.wrong, gold)

    def pairs(self, items: Sequence[Riddle]) -> list[Pair]:
        pairs = [Pair(f" dog {i.id}", f" cat {i.id}", "There was a", id=i.id) for i in items]
        broken: dict[str, list[Any]] = {
            "always": [*pairs, Pair("a", "b")],
            "tuple": [(p.stereotyped, p.counter_stereotyped) for p in pairs],
            "same": [p._replace(counter_stereotyped=p.stereotyped) for p in pairs],
            "empty": [p._replace(counter_stereotyped=" ") for p in pairs],
            "backwards": pairs[::-1],
        }
        return broken.get(self.wrong, pairs)


def _right(item: Riddle) -> int | None:
    number = int(item.id[1:])
    return number % 2 if number < 5 else None


@pytest.fixture
def riddles() -> Iterator[None]:
    registry.benchmarks.register(Riddles)
    yield
    registry.benchmarks._objects.pop("riddles")


@pytest.mark.usefixtures("riddles")
def test_a_plugin_is_training_data() -> None:
    loaded = load("riddles")
    assert loaded.data.questions == tuple(i.question for i in RIDDLES)
    assert loaded.data.answers == (0, 1, 0, 1, 0, None)
    assert loaded.clusters.questions[:3] == ("riddles/c0", "riddles/c0", "riddles/c1")
    loaded = load("pairs:riddles")
    assert [p.id for p in loaded.data.pairs] == [i.id for i in RIDDLES]
    assert loaded.clusters.pairs == tuple(f"riddles/{i.cluster}" for i in RIDDLES)
    with pytest.raises(SettingsError, match=r"pairs:mmlu: no pairs.*pairs:riddles"):
        load("pairs:mmlu(source=demo)")
    with pytest.raises(SettingsError, match="r5 has 0 right options"):
        OptionOrder.build(of="riddles").load()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("short", "gold() gave 5 for 6 items"),
        ("bool", "r0: gold() gave True, which is neither the index of an option nor None"),
        ("letter", "r0: gold() gave 'A', which is neither the index of an option nor None"),
        ("from 1", "r1: gold() gave option 2 of 2"),
        ("turned", "r0: gold() gave option 1, which grades() does not count as right"),
        ("always", "pairs([]) must be empty"),
        ("tuple", "pairs() gave tuple, not Pair"),
        ("same", "r0: both sides of the pair are ' dog r0'"),
        ("empty", "r0: a side of the pair is empty"),
        ("backwards", "pairs() of all items must be those of each item"),
    ],
)
def test_wrong_gold_and_pairs_break_the_contract(wrong: str, said: str) -> None:
    with pytest.raises(NonconformingError, match=re.escape(said)):
        check_benchmark(Riddles(wrong=wrong))


def test_right_gold_and_pairs_keep_the_contract() -> None:
    check_benchmark(Riddles())


# ------------------------------------------------------------- benchmarks written for the previous release


def old_form() -> Any:
    @settings
    class Old(Benchmark):
        """As it was written before."""

        name: ClassVar[str] = "old"
        needs = frozenset({"choose"})
        metrics_info = (HITS,)

        def items(self) -> Any:
            return RIDDLES

        def ask(self, model: Model, items: Any) -> Any:
            return Riddles().ask(model, items)

        def tally(self, items: Any, answers: Any) -> Tally:
            return Riddles().tally(items, answers)

        def metrics(self, sums: Array) -> Any:  # type: ignore[override]
            return Riddles().compute(sums)

        def marks(self, items: Any, answers: Any) -> Any:
            return Riddles().grades(items, answers)

    return Old


def test_a_benchmark_in_the_old_form_works_and_is_told_the_new_names() -> None:
    with pytest.warns(
        DeprecationWarning, match=r"Old: items\(\) is now load\(\); metrics_info .* metrics; metrics\(\) "
    ):
        cls = old_form()
    with pytest.warns(DeprecationWarning, match=r"Old: right options are now what gold\(\) returns"):
        check_benchmark(cls())
    old: Any = cls()
    assert old.metrics == cls.metrics == (HITS,) == old.metrics_info
    assert old.load() == old.items() == RIDDLES
    sums = np.array([[1.0, 4.0]])
    assert old.compute(sums) == old.metrics(sums) == Riddles().compute(sums), "its own code may still call it"
    with pytest.warns(DeprecationWarning, match="gold"):
        assert old.gold(RIDDLES) == [0, 1, 0, 1, 0, None]
    assert old.pairs(RIDDLES) is None
    answers = [Choice(0)] * len(RIDDLES)
    assert old.grades(RIDDLES, answers) == old.marks(RIDDLES, answers) == Riddles().grades(RIDDLES, answers)


def test_half_an_old_form_on_top_of_a_new_one() -> None:
    with pytest.warns(DeprecationWarning, match=r"metrics\(\) is now compute\(\)") as seen:

        class More(Riddles):
            def metrics(self, sums: Array) -> Any:  # type: ignore[override]
                return {"hits": super().compute(sums)["hits"]}

    assert len(seen) == 1 and "items" not in str(seen[0].message)
    made: Any = More()
    assert made.metrics == (HITS,) and made.compute(np.array([[1.0, 4.0]]))["hits"].value == 0.25


def test_callers_of_the_old_name_are_told() -> None:
    with pytest.warns(DeprecationWarning, match=r"riddles: items\(\) is now load\(\)") as seen:
        assert Riddles().items() == RIDDLES
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Riddles().load()


def test_subclasses_in_the_old_form_reach_the_parts_of_a_new_base() -> None:
    with pytest.warns(DeprecationWarning, match=r"Riddles: metrics_info is now metrics") as seen:
        base: Any = Riddles
        infos = (*base.metrics_info, HITS._replace(name="misses"))
    assert seen[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"Half: items\(\) .*; metrics_info .*; metrics\(\) "):

        @settings
        class Half(Riddles):
            """Every other riddle."""

            name: ClassVar[str] = "half"
            metrics_info = infos

            def items(self) -> Any:
                return super().items()[::2]

            def metrics(self, sums: Array) -> Any:  # type: ignore[override]
                hits = super().metrics(sums)["hits"]  # type: ignore[operator]
                return {"hits": hits, "misses": Measured(1 - hits.value, hits.n)}

    made: Any = Half()
    with pytest.warns(DeprecationWarning, match=r"half: items\(\) is now load\(\)"):
        assert made.load() == made.items() == RIDDLES[::2]
    with pytest.warns(DeprecationWarning, match=r"metrics\(sums\) of a benchmark is now compute"):
        assert made.compute(np.array([[1.0, 4.0]]))["misses"].value == 0.75
    assert made.metrics == Half.metrics == infos and Riddles.metrics == (HITS,)
    assert pickle.loads(pickle.dumps(made.metrics)) == copy.deepcopy(made.metrics) == infos
    with pytest.warns(DeprecationWarning, match=r"super|compute|load"):
        check_benchmark(made)


def test_a_subclass_in_the_new_form_of_one_in_the_old_form() -> None:
    with pytest.warns(DeprecationWarning):
        old = old_form()
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class New(old):  # type: ignore[misc]
            metrics = (HITS._replace(main=False),)

            def load(self) -> Any:
                return super().load()[:2]

            def compute(self, sums: Array) -> Any:
                return super().compute(sums)

        made: Any = New()
        assert made.load() == RIDDLES[:2] and made.compute(np.array([[1.0, 4.0]]))["hits"].value == 0.25
    with pytest.warns(DeprecationWarning):
        assert made.items() == RIDDLES[:2]
    with pytest.warns(DeprecationWarning):
        assert made.metrics_info == New.metrics != old.metrics


def test_parts_in_the_old_form_may_stand_in_a_mixin() -> None:
    class Mixin:
        def items(self) -> Any:
            return RIDDLES[:2]

        def metrics(self, sums: Array) -> Any:
            return {"hits": Measured(sums[..., 0], sums[..., 1])}

    with pytest.warns(DeprecationWarning, match=r"items\(\) is now load\(\); metrics\(\) is now compute\(\)"):

        class Mixed(Mixin, Riddles):  # type: ignore[misc]
            pass

    made: Any = Mixed()
    assert made.load() == RIDDLES[:2] and made.metrics == (HITS,)
    assert made.compute(np.array([[1.0, 4.0]]))["hits"].value == 1


@settings
class Rekeyed(Riddles):
    """Option 0 is always right, as its marks (the old form of grades) say; what the base says is right is not."""

    name: ClassVar[str] = "riddles"

    def marks(self, items: Sequence[Riddle], answers: Sequence[Choice]) -> list[Grade]:
        given = super().marks(items, answers)
        return [g._replace(right=a.decision == 0) for g, a in zip(given, answers, strict=True)]


@pytest.mark.filterwarnings("ignore:riddles. marks:evenhand.renaming.RenamedWarning")  # it asks super().marks()
def test_marks_of_a_subclass_go_before_the_gold_of_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.benchmarks._objects, "riddles", Rekeyed)
    with pytest.warns(DeprecationWarning, match=r"Rekeyed: right options are now what gold\(\) returns"):
        assert load("riddles").data.answers == (0,) * 6
    with pytest.warns(DeprecationWarning, match=r"Rekeyed: right options"):
        order = OptionOrder.build(of="riddles")
        assert [item.right for item in order.load()] == [0] * 6

    class Right(Rekeyed):
        def gold(self, items: Sequence[Riddle]) -> list[int | None]:
            return [1] * len(items)

    assert Right().gold(RIDDLES) == [1] * 6


def test_other_answers_cannot_be_asked_for_marks() -> None:
    class Order(OptionOrder):
        def marks(self, items: Any, answers: Any) -> Any:
            return super().marks(items, answers)

    order = Order.build(of="mmlu(source=demo)")
    with pytest.raises(SettingsError, match=r"Order changes grades\(\), so it must define gold\(\)"):
        order.gold(order.load())


def test_the_old_name_of_a_type_is_found() -> None:
    with pytest.warns(DeprecationWarning, match="Answers"):
        assert interfaces.__getattr__("Answers") == Sequence[Any]
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        interfaces.__getattr__("Nothing")
