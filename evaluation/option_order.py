"""`option_order`: how much the order of options affects answers to another multiple-choice benchmark's questions.

Every question is asked in several orders of its options (the permutations of Liusie et al. 2024, arXiv 2403.13590).
That gives the share of answers that flip, the bias towards positions with every right option at every position equally
(RStd, Zheng et al. 2024, arXiv 2309.03882), and what a model would score if the order were averaged out. A bias score
is split in two: its value over all orders, to which no position can add, and the rest, which the shown order made.

The other benchmark is built through the registry and does what only it can do: it reads its data, asks its own
questions (so that gated texts stay hidden), knows the right options and counts the statistics of its own scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from evenhand.core import registry, specs
from evenhand.errors import SettingsError
from evenhand.evaluation.metrics.label_bias import LabelColumns
from evenhand.interfaces import (
    Ability,
    Array,
    Benchmark,
    Choice,
    Form,
    Grade,
    Measured,
    Metric,
    Model,
    Question,
    QuestionItem,
    Tally,
    Usage,
    settings,
)
from evenhand.prompting.option_orders import Kind, Order, by_position, debias, flips, movable, orders_of, sensitivity
from evenhand.prompting.permutation_ensemble import WhichMean, WhichOrders, check, kind_of, mean_of
from evenhand.statistics.moments import ratio

COLUMNS = (
    "items",
    "orders",  # asked orders of all items
    "parsed",  # orders with a decision
    "unanswered",  # orders without a reply
    "incomplete",  # items that lack the decision of an order
    "right",  # items answered right in the asked order
    "right_mean",  # share of an item's orders answered right
    "right_debiased",
    "flippable",  # items with decisions in two or more orders
    "flipped",
    "spread_items",  # items with probabilities in two or more orders
    "spread",  # their sensitivity
)
"""Statistics of each item; those of the positions follow, then `BLOCKS` of the other benchmark's own statistics."""
AT = {name: i for i, name in enumerate(COLUMNS)}
BLOCKS = ("asked", "mean", "debiased", "asked_complete", "mean_complete")
"""The other benchmark's statistics in the asked order, averaged over orders, and of the debiased answer. The first two
are repeated over complete items whose options all move, in which every option was in every position equally often."""
TIE = 1e-9
"""Probabilities that differ by less than this are treated as equal."""

_OWN = (
    Metric(
        "flip_rate",
        "lower",
        "bias",
        "share of items whose chosen option is not the same in all orders, 0 to 1; more orders show more flips",
        True,
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "sensitivity",
        "lower",
        "bias",
        "mean half-L1 distance between the option probabilities in two orders of an "
        "item, 0 to 1; only where there are probabilities",
        True,
        form="smooth",
        range=(0, 1),
    ),
    Metric(
        "accuracy",
        "higher",
        "capability",
        "share of all items answered right in the asked order, 0 to 1",
        True,
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "accuracy_mean",
        "higher",
        "capability",
        "share of right answers, mean over the orders of each item",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "accuracy_debiased",
        "higher",
        "capability",
        "share of all items whose most probable option over all orders "
        "together is right, 0 to 1; options that tie share the answer",
        True,
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "unparsed",
        "lower",
        "validity",
        "share of asked orders without a decision: unparsed or unanswered",
        True,
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "unanswered",
        "lower",
        "validity",
        "share of asked orders that got no reply at all (part of unparsed)",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "incomplete",
        "lower",
        "validity",
        "share of items without a decision in at least one order",
        form="proportion",
        range=(0, 1),
    ),
)


@dataclass(frozen=True, slots=True)
class OrderItem:
    """One question with the orders it is asked in."""

    id: str
    cluster: str
    right: int
    """Identity of the right option."""
    kind: Kind
    orders: tuple[Order, ...]
    """The asked order, which is the question's own, followed by the others."""
    in_place: str
    """Why some options do not move; "" if all do."""
    unit: Any = field(repr=False)
    """The other benchmark's item."""

    @property
    def question(self) -> Question:
        """The question in the asked order."""
        found: Question = self.unit.question
        return found

    @property
    def first(self) -> int:
        """Index of the first averaged order: among drawn orders, the asked one would weigh too much and is left out."""
        return int(self.kind == "sampled")

    def turned(self) -> list[Any]:
        """Return the other benchmark's item in every order; an order that is drawn again is another draw."""
        seen: Counter[Order] = Counter()
        out = []
        for order in self.orders:
            shown = self.question.reordered(order)
            out.append(replace(self.unit, question=replace(shown, draw=shown.draw + seen[order])))
            seen[order] += 1
        return out


@dataclass(frozen=True, slots=True)
class OrderAnswer:
    """The answers to one question, in the item's orders."""

    choices: tuple[Choice, ...]

    @property
    def usage(self) -> Usage:
        """Tokens and calls of all of them together."""
        return sum((c.usage for c in self.choices), Usage())

    @property
    def status(self) -> str:
        """Unanswered if any order is, so that a resumed run asks it again."""
        return "unanswered" if any(c.status == "unanswered" for c in self.choices) else "answered"


@settings
class OptionOrder(Benchmark[OrderItem, OrderAnswer]):
    """How often another order of the options changes the answer, on the questions of another benchmark.

    In addition to the metrics listed here a run reports the label metrics over positions, and, for a benchmark with a
    signed bias score, its main metrics in the asked order, over all orders (`_mean`; `_social` for the bias) and for
    the debiased answer (`_debiased`); `_position` is what the asked order adds to the bias.
    """

    name: ClassVar[str] = "option_order"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    answer_type: ClassVar[type] = OrderAnswer
    metrics: ClassVar[tuple[Metric, ...]] = _OWN

    of: str = "bbq"
    """Benchmark whose questions are asked: bbq, mmlu, gpqa or a plugin's, with settings in quotes, such as
    of='mmlu(shots=0)'. It may need only `choose`, and has to know the right answers (`grades`)."""
    source: str = "auto"
    """Where that benchmark's data comes from; auto leaves it to the benchmark."""
    orders: WhichOrders = "auto"
    """Orders in which each question is asked. full: all orders. cyclic: the rotations. sampled: the asked one and
    `draws` drawn ones; means are taken over the drawn ones, which removes the position only on average. auto: full with
    up to three options that can move, else cyclic."""
    mean: WhichMean = "auto"
    """How the debiased answer averages probabilities: arithmetic or geometric. auto is geometric over cyclic orders,
    where the arithmetic mean may favour another option than over all orders."""
    draws: int = 8
    """Number of drawn orders, with orders=sampled."""
    seed: int = 0
    """Seed of the drawn orders."""

    def __post_init__(self) -> None:
        """Take over what the other benchmark declares about itself.

        Raises:
            SettingsError: The other benchmark cannot be asked in other orders, or settings contradict one another.
        """
        check(decisions="probabilities", orders=self.orders, mean=self.mean, draws=self.draws)
        inner = self._inner
        if inner.needs != {"choose"} or inner.answer_type is not Choice or type(inner).grades is Benchmark.grades:
            raise SettingsError(
                f"option_order: of={inner.spec} does not consist of multiple-choice questions with right answers that "
                f"need `choose` only (it needs {', '.join(sorted(inner.needs))}); set of=bbq, mmlu or gpqa"
            )
        object.__setattr__(self, "quotable", inner.quotable)
        labels = self._labels.info if self._labels else ()
        own = tuple(m._replace(main=m.main and not (self._carried and m.kind == "capability")) for m in _OWN)
        if any(m.part == "" for m in inner.metrics):  # otherwise grades are by part, and this is over all parts
            own = tuple(m._replace(part="" if m.name == "accuracy" else None) for m in own)
        object.__setattr__(self, "metrics", (*own, *labels, *self._carried_info))

    @cached_property
    def _inner(self) -> Benchmark:
        part = specs.parse(self.of)
        if self.source == "auto":
            return registry.build_benchmark(self.of)
        if "source" in part.settings:
            raise SettingsError(f"option_order: source={self.source} and of={self.of} name two sources; set one")
        return registry.build_benchmark({part.name: {**part.settings, "source": self.source}})

    @cached_property
    def _labels(self) -> LabelColumns | None:
        """Columns of the positions, if the other benchmark has a fixed number of them."""
        count = sum(m.name.removeprefix("position_").isdecimal() for m in self._inner.metrics)
        return LabelColumns(count, "position") if count else None

    @cached_property
    def _carried(self) -> tuple[Metric, ...]:
        """The other benchmark's main metrics, if a signed bias score is among them; an exam's are reported anyway."""
        found = tuple(m for m in self._inner.metrics if m.main and m.name not in {own.name for own in _OWN})
        return found if any(_is_split(m) for m in found) else ()

    @property
    def _carried_info(self) -> list[Metric]:
        first = next((m for m in self._carried if _is_split(m)), None)
        return [view for m in self._carried for view in _views(m, splits=m is first)]

    @cached_property
    def _loaded(self) -> list[OrderItem]:
        units = self._inner.load()
        gold = self._inner.gold(units) or [None] * len(units)
        return [self._item(unit, right) for unit, right in zip(units, gold, strict=True)]

    def _item(self, unit: Any, right: int | None) -> OrderItem:
        question = unit.question if isinstance(unit, QuestionItem) else None
        if not (isinstance(question, Question) and is_dataclass(type(unit))):
            raise SettingsError(
                f"option_order: an item of {self._inner.name} is not a dataclass with a field `question`, so it cannot "
                "be asked in another order"
            )
        kind = kind_of(question, "probabilities", self.orders)
        orders = orders_of(question, kind, count=self.draws, seed=self.seed)
        asked = [question.order] if kind == "sampled" else []
        if right is None:
            raise SettingsError(f"option_order: {question.id} has 0 right options; it needs exactly one")
        return OrderItem(
            id=unit.id,
            cluster=unit.cluster,
            right=right,
            kind=kind,
            orders=(*asked, *orders),
            in_place=movable(question).note,
            unit=unit,
        )

    def load(self) -> list[OrderItem]:
        """Return the other benchmark's items, in its order."""
        return self._loaded

    @property
    def original(self) -> Benchmark:
        """Return the other benchmark."""
        return self._inner

    def stratum(self, item: OrderItem) -> str:
        """Return the other benchmark's stratum."""
        return self._inner.stratum(item.unit)

    def facts(self) -> dict[str, Any]:
        """Return the other benchmark's facts, the number of orders, and how many items have immovable options."""
        inner = self._inner.facts()
        stay = sum(bool(i.in_place) for i in self._loaded)
        lengths = Counter(len(i.orders) for i in self._loaded)
        notes = list(inner.get("notes", []))
        if stay:
            notes.append(
                f"{stay} items have options that refer to positions; these options keep their places, and the items "
                "are left out of the metrics by position"
            )
        count = self._labels.classes if self._labels else 0
        other = sum(len(i.question.options) != count for i in self._loaded) if count else 0
        if other:
            notes.append(f"{other} items do not have {count} options, and are left out of the metrics by position")
        return {
            **inner,
            **Benchmark.facts(self),
            "of": inner.get("settings", {}),
            "items_by_orders": {str(n): lengths[n] for n in sorted(lengths)},
            "items_with_options_in_place": stay,
            "notes": notes,
        }

    def ask(self, model: Model, items: Sequence[OrderItem]) -> list[OrderAnswer]:
        """Ask all orders of all items in one call, so that what they share is computed once."""
        answers = iter(self._inner.ask(model, [unit for item in items for unit in item.turned()]))
        return [OrderAnswer(tuple(islice(answers, len(item.orders)))) for item in items]

    def grades(self, items: Sequence[OrderItem], answers: Sequence[OrderAnswer]) -> list[Grade]:
        """Return the other benchmark's grades in the asked order."""
        return list(self._inner.grades([i.unit for i in items], [a.choices[0] for a in answers]) or ())

    def tally(self, items: Sequence[OrderItem], answers: Sequence[OrderAnswer]) -> Tally:
        """Sum per cluster; clusters, strata and groups are the other benchmark's."""
        like = self._inner.tally([i.unit for i in items], [a.choices[0] for a in answers])
        cluster, group = ({name: n for n, name in enumerate(names)} for names in (like.clusters, like.groups))
        rows = [self._statistics(i, a) for i, a in zip(items, answers, strict=True)]
        sums = np.zeros((len(cluster), len(group), len(rows[0]) if rows else 0))
        for item, row, grade in zip(items, rows, self.grades(items, answers), strict=True):
            for name in grade.groups:
                sums[cluster[item.cluster], group[name]] += row
        return Tally(like.clusters, like.strata, like.groups, sums)

    def gold(self, items: Sequence[OrderItem]) -> list[int | None]:
        """Return the other benchmark's right options."""
        return [item.right for item in items]

    def compute(self, sums: Array) -> dict[str, Measured]:
        """Compute all metrics; `nan` where nothing was counted."""
        s = {name: sums[..., at] for name, at in AT.items()}
        items, orders = s["items"], s["orders"]
        out = {
            "flip_rate": Measured(ratio(s["flipped"], s["flippable"]), s["flippable"]),
            "sensitivity": Measured(ratio(s["spread"], s["spread_items"]), s["spread_items"]),
            "accuracy": Measured(ratio(s["right"], items), items),
            "accuracy_mean": Measured(ratio(s["right_mean"], items), items),
            "accuracy_debiased": Measured(ratio(s["right_debiased"], items), items),
            "unparsed": Measured(ratio(orders - s["parsed"], orders), orders),
            "unanswered": Measured(ratio(s["unanswered"], orders), orders),
            "incomplete": Measured(ratio(s["incomplete"], items), items),
        }
        at = len(COLUMNS)
        if self._labels:
            out |= self._labels.metrics(sums[..., at : at + self._labels.width])
            at += self._labels.width
        return out | self._carried_metrics(sums[..., at:]) if self._carried else out

    def _carried_metrics(self, sums: Array) -> dict[str, Measured]:
        blocks = np.split(sums, len(BLOCKS), axis=-1)
        by = {name: self._inner.compute(block) for name, block in zip(BLOCKS, blocks, strict=True)}
        out = {}
        for name, split in ((m.name, _is_split(m)) for m in self._carried):
            out[name], out[f"{name}_debiased"] = by["asked"][name], by["debiased"][name]
            if split:
                social, whole = by["mean_complete"][name], by["asked_complete"][name]
                out[f"{name}_social"] = social
                out[f"{name}_position"] = Measured(whole.value - social.value, whole.n)
            else:
                out[f"{name}_mean"] = by["mean"][name]
        return out

    def _statistics(self, item: OrderItem, answer: OrderAnswer) -> Array:
        """Return the item's row of the tally, [columns]."""
        best, units = _debiased(item, answer, self.mean), item.turned()
        rows = [np.array(_own(item, answer, best))]
        if self._labels:
            rows.append(self._by_position(item, units, answer, self._labels))
        if self._carried:
            rows += self._inside(item, units, answer, best)
        return np.concatenate(rows)

    def _by_position(self, item: OrderItem, units: Sequence[Any], answer: OrderAnswer, labels: LabelColumns) -> Array:
        """Average the position columns over orders, so that an item has weight one."""
        if item.in_place or len(item.question.options) != labels.classes:
            return np.zeros(labels.width)
        shown = zip(units[item.first :], answer.choices[item.first :], strict=True)
        return np.asarray(np.mean([labels.answer_row(u.question, item.right, c) for u, c in shown], axis=0))

    def _inside(self, item: OrderItem, units: Sequence[Any], answer: OrderAnswer, best: Sequence[int]) -> list[Array]:
        """Return the other benchmark's own statistics of this item, one row for each of `BLOCKS`."""
        asked = self._mean_row(units[:1], answer.choices[:1])
        mean = self._mean_row(units[item.first :], answer.choices[item.first :])
        given = [Choice(o) for o in best] or [replace(answer.choices[0], decision=None, probabilities=None)]
        debiased = self._mean_row([item.unit] * len(given), given)
        whole = float(not item.in_place and all(c.decision is not None for c in answer.choices))
        return [asked, mean, debiased, whole * asked, whole * mean]

    def _mean_row(self, units: Sequence[Any], choices: Sequence[Choice]) -> Array:
        tally = self._inner.tally(units, choices)
        return np.asarray(tally.total[tally.groups.index("overall")] / len(units))


def _is_split(metric: Metric) -> bool:
    """Whether a metric is a signed bias score, which splits into a social and a position part."""
    return metric.kind == "bias" and metric.direction == "zero"


def _views(m: Metric, splits: bool) -> list[Metric]:
    """Return the metric in its reported versions; `splits` shows the parts of a bias in the short table."""
    asked = m._replace(about=f"{m.about}; in the asked order")
    rest = m._replace(main=False, part=None)  # grades exist for the asked order only
    best = rest._replace(name=f"{m.name}_debiased", about=f"{m.about}; of the most probable option over all orders")
    if not _is_split(m):
        return [asked, rest._replace(name=f"{m.name}_mean", about=f"{m.about}; over all orders"), best]
    parts = (
        ("social", "over all orders, to which no position can add; of items whose options all move, all decided"),
        ("position", "of the same items in the asked order, less its social part: what that order adds to it"),
    )
    low, high = m.range
    ranges = {"social": m.range, "position": (low - high, high - low)}
    form: Form = "resampled" if m.form == "resampled" else "smooth"
    shown = [
        Metric(f"{m.name}_{n}", "zero", "bias", f"{m.name} {about}", splits, form=form, range=ranges[n])
        for n, about in parts
    ]
    return [asked, *shown, best]


def _own(item: OrderItem, answer: OrderAnswer, best: Sequence[int]) -> list[float]:
    """Return the item's `COLUMNS`."""
    choices, averaged = answer.choices, answer.choices[item.first :]
    decided = [c.decision for c in choices if c.decision is not None]
    unlike = {order: c for order, c in zip(reversed(item.orders), reversed(choices), strict=True)}
    taken = [c.decision for c in unlike.values() if c.decision is not None]
    known = [c.probabilities for c in unlike.values() if c.probabilities is not None]
    values = {
        "items": 1.0,
        "orders": len(choices),
        "parsed": len(decided),
        "unanswered": sum(c.status == "unanswered" for c in choices),
        "incomplete": len(decided) < len(choices),
        "right": choices[0].decision == item.right,
        "right_mean": sum(c.decision == item.right for c in averaged) / len(averaged),
        "right_debiased": (item.right in best) / max(1, len(best)),
        "flippable": len(taken) > 1,
        "flipped": flips(taken),
        "spread_items": len(known) > 1,
        "spread": sensitivity(np.array(known)) if len(known) > 1 else 0.0,
    }
    return [float(values[name]) for name in COLUMNS]


def _debiased(item: OrderItem, answer: OrderAnswer, mean: WhichMean) -> list[int]:
    """Return the most probable options over all orders together: several if they tie, none if nothing was decided.

    If an order has no probabilities, decisions are counted instead.
    """
    orders, choices = item.orders[item.first :], answer.choices[item.first :]
    shown = [
        by_position(c.probabilities, o) for o, c in zip(orders, choices, strict=True) if c.probabilities is not None
    ]
    if len(shown) == len(orders):
        p = debias(np.array(shown), orders, mean_of(item.kind, mean))
    else:
        votes = [c.decision for c in choices if c.decision is not None]
        if not votes:
            return []
        p = np.bincount(votes, minlength=len(item.question.options)) / len(votes)
    return [int(o) for o in np.flatnonzero(p > p.max() - TIE)]
