"""Option orders: stubs whose dependence on the order is known, bias split by hand, gaps, and what stays hidden."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import pytest

from evenhand.core import registry
from evenhand.errors import SettingsError
from evenhand.evaluation.bbq import BBQ, items_from_rows
from evenhand.evaluation.metrics.label_bias import LabelColumns
from evenhand.evaluation.mmlu import MMLU
from evenhand.evaluation.option_order import OptionOrder, OrderAnswer, OrderItem
from evenhand.interfaces import (
    Ability,
    Array,
    Benchmark,
    Choice,
    Grade,
    Measured,
    Metric,
    Model,
    Question,
    Tally,
    settings,
)
from evenhand.prompting.permutation_ensemble import debiased
from evenhand.proving_ground.generator.bbq_questions import all_rows
from evenhand.proving_ground.generator.planted import FAMILY
from evenhand.proving_ground.oracle import Oracle
from evenhand.testing import ScriptedModel, check_benchmark

ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
Content = Callable[[Question], Sequence[float]]


class Factorising(Model):
    """p(position) ~ prior[position] * content[option there]; it counts how often it is asked."""

    name = "factorising"
    abilities = frozenset({"choose"})  # type: ignore[assignment]
    fingerprint = "factorising"  # type: ignore[assignment]

    def __init__(self, prior: Sequence[float], content: Content, *, decisions_only: bool = False) -> None:
        self.prior, self.content, self.decisions_only = prior, content, decisions_only
        self.calls: list[list[Question]] = []

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.calls.append(list(questions))
        return [self._choice(q) for q in questions]

    def _choice(self, q: Question) -> Choice:
        raw = {o: self.prior[j] * self.content(q)[o] for j, o in enumerate(q.order)}
        p = [raw[o] / sum(raw.values()) for o in range(len(raw))]
        decision = int(np.argmax(p))
        return Choice(decision) if self.decisions_only else Choice(decision, tuple(p))

    def save(self, folder: Any) -> Path:
        raise NotImplementedError


def bench(**given: Any) -> OptionOrder:
    made: OptionOrder = OptionOrder.build(**{"source": "demo", **given})
    return made


def scores(
    made: OptionOrder, items: Sequence[OrderItem], answers: Sequence[OrderAnswer]
) -> dict[str, dict[str, float]]:
    tally = made.tally(items, answers)
    values = made.compute(tally.total)
    return {g: {name: float(m.value[n]) for name, m in values.items()} for n, g in enumerate(tally.groups)}


def overall(made: OptionOrder, model: Model, items: Sequence[OrderItem] | None = None) -> dict[str, float]:
    items = made.load()[:120] if items is None else items
    return scores(made, items, made.ask(model, items))["overall"]


# ------------------------------------------------------------------------------------------ models whose order is known


@pytest.mark.parametrize("of", ["bbq", "mmlu"])
def test_an_order_blind_model_never_flips(of: str) -> None:
    made = bench(of=of)
    blind = Factorising([1] * 4, lambda q: [1 + crc32(o.encode()) % 1009 for o in q.options])
    got = overall(made, blind, made.load()[::7])
    assert got["flip_rate"] == 0 and got["sensitivity"] == pytest.approx(0, abs=1e-12)
    assert got["accuracy"] == pytest.approx(got["accuracy_mean"]) == pytest.approx(got["accuracy_debiased"])
    assert 0 < got["accuracy"] < 1
    assert got["rstd"] == pytest.approx(0, abs=1e-12), "each right option stood at each position as often"
    if of == "bbq":
        assert got["bias_ambiguous_position"] == pytest.approx(0, abs=1e-12)
        assert got["bias_ambiguous_social"] == pytest.approx(got["bias_ambiguous"])
        assert got["bias_ambiguous"] != 0


@pytest.mark.parametrize(("of", "k"), [("bbq", 3), ("mmlu", 4), ("gpqa", 4)])
def test_a_model_that_always_says_a_flips_everything(of: str, k: int) -> None:
    made = bench(of=of, orders="cyclic")
    got = overall(made, Factorising([1] + [0] * (k - 1), lambda q: [1.0] * k), made.load()[:60])
    assert got["flip_rate"] == 1 and got["sensitivity"] == pytest.approx(1)
    assert got["accuracy_mean"] == pytest.approx(1 / k)
    assert got["accuracy_debiased"] == pytest.approx(1 / k), "all options tie, and share the answer"
    assert got["rstd"] == pytest.approx(math.sqrt(k - 1) / k), "recall 1 at A, 0 elsewhere"
    assert [got[f"position_{n + 1}"] for n in range(k)] == [1] + [0] * (k - 1)


def test_all_orders_of_three_hold_pairs_that_show_the_same_option_first() -> None:
    got = overall(bench(), Factorising([1, 0, 0], lambda q: [1.0] * 3))
    assert got["sensitivity"] == pytest.approx(12 / 15)


def test_a_bias_that_is_only_of_the_position_has_no_social_part() -> None:
    made = bench()
    first = [i for i in made.load() if not i.unit.disambiguated and i.unit.target == 0]
    others = [i for i in made.load() if not i.unit.disambiguated and i.unit.unknown == 0]
    got = overall(made, Factorising([1, 0, 0], lambda q: [1.0] * 3), [*first[:30], *others[:10]])
    # 10 of 40 right (unknown first), the other 30 with the bias
    assert got["bias_ambiguous"] == pytest.approx(0.75)
    assert got["bias_ambiguous_social"] == pytest.approx(0, abs=1e-12)
    assert got["bias_ambiguous_position"] == pytest.approx(0.75)
    assert got["bias_ambiguous_debiased"] == pytest.approx(0, abs=1e-12)
    assert got["accuracy_ambiguous"] == 0.25 and got["accuracy_ambiguous_mean"] == pytest.approx(1 / 3)


def planted(made: OptionOrder, d: Sequence[float]) -> Content:
    """d[0] to the right option, d[1] and d[2] to the next two."""
    right = {i.question.id: i.right for i in made.load()}
    return lambda q: [d[(o - right[q.id]) % 3] for o in range(3)]


def test_a_factorising_model_by_hand() -> None:
    made = bench(orders="cyclic")
    items = [i for i in made.load() if i.right == 1][:20]
    got = overall(made, Factorising([0.6, 0.3, 0.1], planted(made, [0.5, 0.3, 0.2])), items)
    # d by identity is (.2, .5, .3): the orders (0,1,2), (1,2,0), (2,0,1) give, by position,
    # (.12, .15, .03)/.30 -> option 1;  (.30, .09, .02)/.41 -> option 1;  (.18, .06, .05)/.29 -> option 2
    assert got["flip_rate"] == 1
    assert got["accuracy"] == 1 and got["accuracy_mean"] == pytest.approx(2 / 3) and got["accuracy_debiased"] == 1
    first_second = 0.12 / 0.30 - 0.02 / 0.41
    first_third = (0.12 / 0.30 - 0.06 / 0.29) + (0.15 / 0.30 - 0.05 / 0.29)
    second_third = 0.30 / 0.41 - 0.05 / 0.29
    assert got["sensitivity"] == pytest.approx((first_second + first_third + second_third) / 3)
    # the right option stands at B, A, C: right at B and A, not at C
    assert got["rstd"] == pytest.approx(math.sqrt(2) / 3)
    assert got["position_1"] == pytest.approx(2 / 3) and got["position_2"] == pytest.approx(1 / 3)


def test_the_geometric_mean_recovers_what_the_arithmetic_one_over_rotations_does_not() -> None:
    prior, d = [0.02, 0.11, 0.87], [0.47, 0.40, 0.13]
    got = {}
    for mean in ("auto", "geometric", "arithmetic"):
        made = bench(orders="cyclic", mean=mean)
        got[mean] = overall(made, Factorising(prior, planted(made, d)))["accuracy_debiased"]
    assert got == {"auto": 1.0, "geometric": 1.0, "arithmetic": 0.0}


def test_the_oracle_is_what_is_planted() -> None:
    made = bench(of="mmlu")
    got = overall(made, Oracle(FAMILY["demo"]), made.load())
    subjects = {i.unit.subject for i in made.load()}
    # by hand for one unknown fact: content 1/4 each, letters exp(1.6, 0, 0, -.5): A in every order
    p = np.exp([1.6, 0, 0, -0.5])
    p /= p.sum()
    assert len(subjects) > 1 and got["position_1"] > got["position_2"]
    unknown = [
        i
        for i, s in zip(made.load(), made.ask(Oracle(FAMILY["demo"]), made.load()), strict=True)
        if s.choices[0].probabilities == pytest.approx(tuple(p))
    ]
    only = overall(made, Oracle(FAMILY["demo"]), unknown)
    assert unknown and only["flip_rate"] == 1 and only["accuracy_mean"] == only["accuracy_debiased"] == 0.25
    turned = [np.roll(p, n) for n in range(4)]
    pairs = [0.5 * np.abs(turned[a] - turned[b]).sum() for a in range(4) for b in range(a)]
    assert only["sensitivity"] == pytest.approx(np.mean(pairs))


# ---------------------------------------------------------------------------------------------- bias split by hand


def ambiguous(category: str, count: int) -> list[OrderItem]:
    rows = [r for r in all_rows() if r["category"] == category and r["context_condition"] == "ambig"][:count]
    return [OrderItem(u.id, u.cluster, u.label, "cyclic", ORDERS, "", u) for u in items_from_rows(rows)]


def said(item: OrderItem, *plan: str) -> OrderAnswer:
    """Decisions by role; "lost" is a reply that never came, "odd" one that could not be read."""
    unknown, target = item.unit.unknown, item.unit.target
    at = {"unknown": unknown, "target": target, "other": 3 - unknown - target}
    status = {"lost": "unanswered", "odd": "unparsed"}
    return OrderAnswer(tuple(Choice(at.get(w), status=status.get(w, "answered")) for w in plan))  # type: ignore[arg-type]


def test_bias_is_split_in_groups_of_unequal_size() -> None:
    items = [*ambiguous("Age", 2), *ambiguous("SES", 1)]
    answers = [
        said(items[0], "target", "unknown", "unknown"),
        said(items[1], "target", "other", "target"),
        said(items[2], "target", "target", "target"),
    ]
    got = scores(bench(orders="cyclic"), items, answers)
    # Age: asked, both with the bias: 1. Over orders 1 with it, 1/3 against, 2/3 unknown, of 2: (1 - 1/3)(2 * 3/4 - 1)
    assert got["Age"]["bias_ambiguous"] == 1
    assert got["Age"]["bias_ambiguous_social"] == pytest.approx(1 / 3)
    assert got["Age"]["bias_ambiguous_position"] == pytest.approx(2 / 3)
    # debiased: unknown, target: (1 - 1/2) * 1
    assert got["Age"]["bias_ambiguous_debiased"] == pytest.approx(0.5)
    assert got["Age"]["accuracy_debiased"] == 0.5 and got["Age"]["accuracy"] == 0
    assert (got["SES"]["bias_ambiguous_social"], got["SES"]["bias_ambiguous_position"]) == (1, 0)
    # overall: 2 with the bias, 1/3 against, 2/3 unknown, of 3: not the mean of the groups
    assert got["overall"]["bias_ambiguous_social"] == pytest.approx((1 - 2 / 9) * (2 * 6 / 7 - 1))
    assert [got[g]["flip_rate"] for g in ("overall", "Age", "SES")] == [pytest.approx(2 / 3), 1, 0]
    assert got["overall"]["accuracy_mean"] == pytest.approx(2 / 9)
    assert math.isnan(got["overall"]["sensitivity"]), "decisions only"
    assert math.isnan(got["overall"]["bias_disambiguated_social"]), "no row of that kind"


def test_a_lost_order_leaves_the_item_out_of_the_split_and_nothing_else() -> None:
    items = ambiguous("Age", 3)
    answers = [
        said(items[0], "target", "unknown", "unknown"),
        said(items[1], "target", "other", "lost"),
        said(items[2], "odd", "odd", "odd"),
    ]
    got = scores(bench(orders="cyclic"), items, answers)["overall"]
    assert got["unparsed"] == pytest.approx(4 / 9) and got["unanswered"] == pytest.approx(1 / 9)
    assert got["incomplete"] == pytest.approx(2 / 3)
    assert got["flip_rate"] == 1, "of the two items with two decisions"
    assert got["bias_ambiguous"] == 1, "as bbq scores the asked order"
    assert got["bias_ambiguous_social"] == pytest.approx((1 - 2 / 3) * 1), "of the first item alone"
    assert got["bias_ambiguous_position"] == pytest.approx(1 - 1 / 3)
    # the second item's two decisions tie: half an answer each; the third has none
    assert got["accuracy_ambiguous_debiased"] == 0.5 and got["bias_ambiguous_debiased"] == 0
    assert got["accuracy_debiased"] == pytest.approx(1 / 3) and got["accuracy_mean"] == pytest.approx(2 / 9)
    assert [a.status for a in answers] == ["answered", "unanswered", "answered"], "a resumed run asks the second again"


def test_options_that_stay_leave_the_item_out_of_the_split() -> None:
    items = ambiguous("Age", 2)
    items[1] = replace(items[1], in_place="options stay")
    answers = [said(items[0], "target", "unknown", "unknown"), said(items[1], "other", "other", "other")]
    got = scores(bench(orders="cyclic"), items, answers)["overall"]
    assert got["bias_ambiguous"] == 0 and got["incomplete"] == 0
    assert got["bias_ambiguous_social"] == pytest.approx(1 / 3), "of the first item alone"


def test_ties_up_to_rounding_are_ties() -> None:
    made = bench()
    got = overall(made, Factorising([0.61, 0.28, 0.11], lambda q: [0.3, 0.3, 0.3]))
    assert got["accuracy_debiased"] == pytest.approx(1 / 3)
    assert got["accuracy_debiased"] != got["accuracy"]


def test_raw_bias_is_that_of_bbq() -> None:
    made, plain = bench(), BBQ(source="demo")
    model = Factorising([0.5, 0.3, 0.2], lambda q: [len(o) for o in q.options])
    got = overall(made, model, made.load())
    tally = plain.tally(plain.load(), plain.ask(model, plain.load()))
    values = plain.compute(tally.total)
    for name in ("bias_ambiguous", "accuracy_ambiguous", "bias_disambiguated", "accuracy_disambiguated"):
        assert got[name] == pytest.approx(float(values[name].value[0]))
    assert got["bias_ambiguous_social"] + got["bias_ambiguous_position"] == pytest.approx(got["bias_ambiguous"])


# ------------------------------------------------------------------------------------------------------ asking


def test_all_orders_are_asked_in_one_call_the_asked_one_first() -> None:
    made = bench()
    model = Factorising([1, 1, 1], lambda q: [1, 2, 3])
    answers = made.ask(model, made.load()[:5])
    (asked,) = model.calls
    assert [len(a.choices) for a in answers] == [6] * 5 and len(asked) == 30
    assert [q.order for q in asked[:6]] == [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    assert len({q.id for q in asked[:6]}) == 1


def test_black_boxes_are_counted() -> None:
    made = bench(of="mmlu")
    got = overall(made, ScriptedModel(decide=lambda q: q.order[0]))
    assert math.isnan(got["sensitivity"]) and math.isnan(got["position_evenness"])
    assert got["flip_rate"] == 1 and got["accuracy_debiased"] == pytest.approx(0.25)
    right = {i.question.id: i.right for i in made.load()}
    seldom = ScriptedModel(decide=lambda q: (right[q.id] + (q.order[0] == right[q.id])) % 4)  # right in 3 of 4 orders
    got = overall(made, seldom)
    assert got["accuracy_mean"] == pytest.approx(0.75) and got["accuracy_debiased"] == 1


@pytest.mark.parametrize("of", ["bbq", "mmlu"])
def test_the_debiased_answer_is_the_teachers(of: str) -> None:
    made = bench(of=of)
    items = made.load()[::5]
    model = Factorising([0.5, 0.25, 0.15, 0.1], lambda q: [1 + crc32(o.encode()) % 101 for o in q.options])
    right = [d.decision == i.right for d, i in zip(debiased(model, [i.question for i in items]), items, strict=True)]
    alone = [len({crc32(o.encode()) % 101 for o in i.question.options}) == len(i.question.options) for i in items]
    kept = [i for i, a in zip(items, alone, strict=True) if a]  # a tie is shared here, and goes to the lowest there
    assert len(kept) > 10
    share = np.mean([r for r, a in zip(right, alone, strict=True) if a])
    assert overall(made, model, kept)["accuracy_debiased"] == pytest.approx(share)


def test_drawn_orders_stand_beside_the_asked_one() -> None:
    made = bench(orders="sampled", draws=12, seed=3)
    item = made.load()[0]
    assert len(item.orders) == 13 and item.orders[0] == (0, 1, 2)
    assert bench(orders="sampled", draws=12, seed=4).load()[0].orders != item.orders
    asked = [(u.question.order, u.question.draw) for u in item.turned()]
    assert len(set(asked)) == 13, "an order that is drawn again is another draw of the answer"
    model = Factorising([1, 0, 0], lambda q: [1.0] * 3)
    answers = made.ask(model, [item])
    got = scores(made, [item], answers)["overall"]
    drawn = [order[0] for order in item.orders[1:]]
    assert got["accuracy_mean"] == pytest.approx(drawn.count(item.right) / 12), "the asked order is not among them"
    assert got["accuracy"] == float(item.right == 0)


def test_gated_texts_stay_hidden() -> None:
    made = bench(of="gpqa")
    assert not made.quotable and bench(of="mmlu").quotable
    item = made.load()[0]
    assert item.question.question not in repr(item)

    class Talks(ScriptedModel):
        def choose(self, questions: Sequence[Question]) -> list[Choice]:
            return [
                replace(c, reply=q.question, note=q.question)
                for c, q in zip(super().choose(questions), questions, strict=True)
            ]

    assert item.question.question not in repr(made.ask(Talks(), [item]))


def test_positional_options_stay_where_they_are_and_the_facts_say_so(tmp_path: Path) -> None:
    lines = [b"Which?,one,two,three,all of the above,A\n", b"What?,one,two,three,four,B\n"]
    for split in ("test", "dev"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"anatomy_{split}.csv").write_bytes(b"".join(lines))
    made = bench(of="mmlu(shots=0)", source=str(tmp_path))
    first, second = made.load()
    assert {order[3] for order in first.orders} == {3} and len(first.orders) == 6
    assert len(second.orders) == 4
    facts = made.facts()
    assert facts["items_with_options_in_place"] == 1 and facts["items_by_orders"] == {"4": 1, "6": 1}
    assert any("keep their places" in note for note in facts["notes"])
    assert facts["of"]["shots"] == 0
    answers = made.ask(Factorising([1, 0, 0, 0], lambda q: [1.0] * 4), [first, second])
    values = made.compute(made.tally([first, second], answers).total)
    assert values["accuracy_mean"].value[0] == pytest.approx((1 / 3 + 1 / 4) / 2), "an item weighs one"
    assert (values["rstd"].n[0], values["flip_rate"].n[0]) == (1, 2), "by position only the second, which moves whole"


# ------------------------------------------------------------------------------------------------ other benchmarks


@dataclass(frozen=True)
class Unit:
    id: str
    right: int
    question: Question

    @property
    def cluster(self) -> str:
        return self.id


@settings
class Uneven(Benchmark):
    """Items with two and with four options."""

    name: ClassVar[str] = "uneven"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "higher", "capability", "", True),
        *LabelColumns(4).info,
    )

    two_right: bool = False

    def load(self) -> list[Unit]:
        ks = (2, 4, 4)
        return [Unit(f"u{n}", 1, Question(f"u{n}", "?", tuple("wxyz"[:k]))) for n, k in enumerate(ks)]

    def ask(self, model: Model, items: Sequence[Any]) -> list[Choice]:
        return model.choose([i.question for i in items])

    def tally(self, items: Sequence[Any], answers: Sequence[Any]) -> Tally:
        hits = [[1.0, a.decision == i.right] for i, a in zip(items, answers, strict=True)]
        names = tuple(i.cluster for i in items)
        return Tally(names, ("all",) * len(names), ("overall",), np.array(hits)[:, None])

    def grades(self, items: Sequence[Any], answers: Sequence[Any]) -> Any:
        found = [Grade(a.decision, a.decision == i.right) for i, a in zip(items, answers, strict=True)]
        return [m._replace(right=m.right or m.decision == 0) for m in found] if self.two_right else found

    def compute(self, sums: Array) -> dict[str, Measured]:
        return {"accuracy": Measured(sums[..., 1] / sums[..., 0], sums[..., 0])}


@pytest.fixture
def uneven() -> Iterator[None]:
    registry.benchmarks.register(Uneven)
    yield
    registry.benchmarks._objects.pop("uneven")


@pytest.mark.usefixtures("uneven")
def test_items_with_another_number_of_options_are_left_out_of_positions_only() -> None:
    made: OptionOrder = OptionOrder.build(of="uneven", orders="cyclic")
    model = Factorising([1, 0, 0, 0], lambda q: [1.0] * len(q.options))
    tally = made.tally(made.load(), made.ask(model, made.load()))
    values = made.compute(tally.total)
    assert (values["position_1"].value[0], values["position_1"].n[0]) == (1, 2)
    assert (values["flip_rate"].value[0], values["flip_rate"].n[0]) == (1, 3)
    assert values["accuracy_mean"].value[0] == pytest.approx((1 / 2 + 1 / 4 + 1 / 4) / 3)
    assert any("1 items do not have 4 options" in note for note in made.facts()["notes"])


@pytest.mark.usefixtures("uneven")
def test_what_cannot_be_turned_is_refused() -> None:
    for of, message in (
        ("perplexity", "does not consist of multiple-choice"),
        ("mmlu(reading=score)", "needs score"),
        ("gpqa(asked=zero_shot)", "needs generate"),
        ("option_ordre", "option_ordre"),
        ("uneven(two_right=True)", "2 right options"),
    ):
        with pytest.raises(SettingsError, match=message):
            OptionOrder.build(of=of).load()
    with pytest.raises(SettingsError, match="two sources"):
        bench(of="bbq(source=demo)")
    with pytest.raises(SettingsError, match="at least 1"):
        bench(orders="sampled", draws=0)


def test_its_spec_builds_it_again() -> None:
    made = bench(of="mmlu(shots=0,subjects=('Physics',))", orders="full")
    from evenhand.core import specs

    assert OptionOrder.build(**specs.parse(made.spec).settings) == made
    assert isinstance(made._inner, MMLU) and made._inner.shots == 0


@pytest.mark.parametrize("given", [{}, {"orders": "sampled"}, {"of": "mmlu"}, {"of": "gpqa"}])
def test_keeps_the_contract(given: dict[str, Any]) -> None:
    check_benchmark(bench(**given), Oracle(FAMILY["demo"]), limit=60)
    check_benchmark(bench(**given), limit=6)
