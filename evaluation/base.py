"""Bases of benchmarks whose metrics come from named sums: `RowBenchmark`, and `QuestionBenchmark` on top of it.

A benchmark names its statistics, returns those of one answer in `row`, and declares each metric with its formula. The
base sums and computes, so that a benchmark needs no arrays. If its statistics are arrays by nature, a benchmark
defines `tally` and `compute` itself, as described in `evenhand.interfaces.Benchmark`. There is an example in
docs/benchmarks.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, wraps
from typing import Any, ClassVar, Protocol

import numpy as np
from typing_extensions import TypeVar

from evenhand.errors import SettingsError, suggest
from evenhand.evaluation.loading import Loaded, read_rows, unnamed
from evenhand.evaluation.metrics.formulas import Formula, beyond_whole, formula, mean, share
from evenhand.evaluation.metrics.row_sums import Row, RowSums
from evenhand.evaluation.metrics.sums import Sums
from evenhand.interfaces import (
    Ability,
    Array,
    Benchmark,
    Choice,
    Grade,
    Item,
    Measured,
    Metric,
    Model,
    QuestionItem,
    Tally,
)

__all__ = [
    "Loaded",
    "QuestionBenchmark",
    "RightItem",
    "Row",
    "RowBenchmark",
    "formula",
    "mean",
    "read_rows",
    "share",
]

OVERALL = "overall"


class RightItem(QuestionItem, Protocol):
    """A multiple-choice question with one right option."""

    @property
    def right(self) -> int:
        """Identity of the right option."""


ItemT = TypeVar("ItemT", bound=Item, default=Any)
AnswerT = TypeVar("AnswerT", default=Any)
RightT = TypeVar("RightT", bound=RightItem, default=Any)


class RowBenchmark(Benchmark[ItemT, AnswerT]):
    """A benchmark whose metrics are functions of named sums over its answers.

    A subclass declares `statistics` and `formulas`, and defines `load` (or `read`), `ask` and `row`. `groups_of` and
    `stratum` are optional; items that share a `cluster` are resampled together.
    """

    statistics: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers that are summed over answers; `row` returns their values."""
    formulas: ClassVar[tuple[Formula, ...]] = ()
    """The metrics, each with the way it is computed from the sums: `share`, `mean` or `formula`. `metrics` is derived
    from them."""
    parts: ClassVar[tuple[str, ...]] = ("",)
    """Parts of the items whose sums are kept apart because a metric combines them; `part_of` assigns the items."""

    def __init_subclass__(cls, **more: Any) -> None:
        """Derive `metrics` from the formulas, and check that these use declared statistics only.

        Raises:
            SettingsError: A formula uses a statistic that `statistics` does not name, or computes other metrics than
                it declares.
        """
        if "formulas" in vars(cls):
            cls.metrics = _metrics_of(cls.formulas)
        super().__init_subclass__(**more)
        for name in {"load"} & vars(cls).keys():
            setattr(cls, name, _checking(vars(cls)[name]))
        if {"formulas", "statistics"} & vars(cls).keys():
            _check(cls)

    def _compute_by(self, formulas: tuple[Formula, ...]) -> None:
        """Replace the class's formulas if settings decide which apply; `metrics` follows. For `__post_init__`."""
        object.__setattr__(self, "formulas", formulas)
        object.__setattr__(self, "metrics", _metrics_of(formulas))

    # ------------------------------------------------------------------------------------------ what a subclass gives

    def read(self) -> Loaded[ItemT]:
        """Read the items, with facts for reports; called once. A class without facts defines `load` instead."""
        raise NotImplementedError(f"{self.name}: define read(), or load() if there is nothing to report about the data")

    @abstractmethod
    def row(self, item: ItemT, answer: AnswerT) -> Row:
        """Return the statistics of one answer by name; omitted ones are 0. Pure."""

    def groups_of(self, item: ItemT) -> Sequence[str]:
        """Return the groups of an item besides "overall", such as its axis; "" stands for none. Pure."""
        return ()

    def rows(self, item: ItemT, answer: AnswerT) -> Iterable[tuple[Row, tuple[str, ...]]]:
        """Return an answer's rows, each with the groups it counts in; one row in all groups unless overridden. Pure."""
        return [(self.row(item, answer), (OVERALL, *self._groups_of(item)))]

    def joint_rows(self, items: Sequence[ItemT], answers: Sequence[AnswerT]) -> Iterable[tuple[ItemT, Row]]:
        """Return rows for several answers of one cluster together, such as those to a question and its counterpart.

        Each is counted where the item that comes with it is: in its cluster, its groups and its part. Which item that
        is must not depend on the order of the items, nor may a row need an item that is not among them. None unless
        overridden. Pure.
        """
        return ()

    def groups(self, items: Sequence[ItemT]) -> Sequence[str]:
        """Return the groups to report besides "overall", in order; all, by name, unless overridden. Pure."""
        return sorted({group for item in items for group in self._groups_of(item)} - {"", OVERALL})

    def strata(self, items: Sequence[ItemT]) -> Mapping[str, str]:
        """Return the stratum in which each cluster is resampled; its items' `stratum` unless overridden. Pure."""
        return {item.cluster: self.stratum(item) for item in items}

    def part_of(self, item: ItemT) -> str:
        """Return the entry of `parts` that an item belongs to. Pure."""
        return self.parts[0]

    def items_of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[ItemT]:
        """Make items of raw rows in the format of the data set's file, as `evenhand.metrics` needs them. Pure.

        Raises:
            SettingsError: The benchmark cannot make items of single rows.
            DataError: A row cannot be used.
        """
        raise SettingsError(
            f"{self.name}: its items cannot be made of single rows. Give the file or folder, the ids of items, or "
            f"items themselves, such as those of evenhand.evaluation.{type(self).__name__}().load()"
        )

    @property
    def per_token(self) -> bool:
        """Whether a log-probability is divided by its number of tokens, so that the sum alone is not enough."""
        return "score" in self.needs

    # --------------------------------------------------------------------------------------------- what the base does

    @cached_property
    def _loaded(self) -> Loaded[ItemT]:
        loaded = self.read()
        self._check_loaded(loaded.items)
        return loaded

    def load(self) -> list[ItemT]:
        """Return the items of `read` in order, after checking them; a class's own `load` is checked in the same way.

        Raises:
            SettingsError: Two items have the same id, an item has no id or cluster, or its groups are not texts.
        """
        return self._loaded.items

    def facts(self) -> dict[str, Any]:
        """Return name and settings; with `read` also where the data comes from and what was dropped."""
        known = {} if type(self).read is RowBenchmark.read else self._loaded.facts
        return {**Benchmark.facts(self), **known}

    def tally(self, items: Sequence[ItemT], answers: Sequence[AnswerT]) -> Tally:
        """Sum all rows per cluster and group.

        Raises:
            SettingsError: An item has no cluster, or a row cannot be used, such as one with more right answers than
                answers in a `share`; the message names the item.
        """
        self._check_items(items)
        strata, groups = self.strata(items), (OVERALL, *self.groups(items))
        clusters, parts = ({name: n for n, name in enumerate(names)} for names in (strata, self.parts))
        sums = RowSums(self.name, self.statistics, groups, len(parts))
        for item, answer in zip(items, answers, strict=True):
            cluster, part = clusters[item.cluster], parts.get(self.part_of(item), -1)
            if part < 0:
                raise self._unknown_part(item)
            for row, members in self.rows(item, answer):
                sums.add(item.id, row, cluster, tuple(members), part)
        for item, row in self.joint_rows(items, answers):
            members = (OVERALL, *self._groups_of(item))
            sums.add(item.id, row, clusters[item.cluster], members, parts[self.part_of(item)])
        self._check_shares(sums)
        return Tally(tuple(strata), tuple(strata.values()), groups, sums.total(len(clusters)))

    def _check_items(self, items: Sequence[ItemT]) -> None:
        for number, item in enumerate(items):
            lacking = unnamed(item)
            if lacking.startswith("cluster"):
                raise SettingsError(
                    f"{self.name}: item {item.id!r} has {lacking}; give every item a `cluster`, the name of what it "
                    "shares with items that are not independent of it, or its own id"
                )
            if lacking:
                raise SettingsError(
                    f"{self.name}: item number {number} has {lacking}; give every item an `id`, a text that no other "
                    "item has and that is the same in every run"
                )

    def _check_loaded(self, items: Sequence[ItemT]) -> None:
        """Check the items for everything that would stop the tally, before a model is asked."""
        self._check_items(items)
        names: set[str] = set()
        for item in items:
            if item.id in names:
                raise SettingsError(
                    f"{self.name}: two items have the id {item.id!r}; every id has to be unique: leave one of the "
                    "items out, or give each an id of its own"
                )
            names.add(item.id)
            self._groups_of(item)

    def _groups_of(self, item: ItemT) -> Sequence[str]:
        """Return what `groups_of` gives, after checking that it is a sequence of texts and not one text."""
        groups: object = self.groups_of(item)
        if isinstance(groups, str):
            raise SettingsError(
                f"{self.name}: groups_of() of item {item.id!r} gives the text {groups!r}; give a tuple of groups: "
                f"({groups!r},)"
            )
        named = tuple(groups) if isinstance(groups, Iterable) else (None,)
        if not all(isinstance(group, str) for group in named):
            raise SettingsError(
                f"{self.name}: groups_of() of item {item.id!r} gives {groups!r}; give a tuple of texts, or () for an "
                "item without groups"
            )
        return named

    def _check_shares(self, sums: RowSums) -> None:
        shares = [(declared.metrics[0].name, declared.counted) for declared in self.formulas if declared.counted]
        if not shares:
            return
        ids, values = sums.rows()
        rows = Sums(values, self.statistics)
        for name, counted in shares:
            if bad := beyond_whole(counted, rows):
                n, part, whole = bad
                raise SettingsError(
                    f"{self.name}: the share {name!r} counts {counted[0]} of {counted[1]}, but row() of item "
                    f"{ids[n]!r} gives {part:g} of {whole:g}, which is not from 0 to {counted[1]}; correct row(), or "
                    "declare the metric as a mean() if it is not a share"
                )

    def _unknown_part(self, item: ItemT) -> SettingsError:
        part = self.part_of(item)
        return SettingsError(
            f"{self.name}: part_of() of item {item.id!r} gives {part!r}, which `parts` does not name. "
            f"{suggest(part, self.parts)}"
        )

    def compute(self, sums: Array) -> dict[str, Measured]:
        """Compute all formulas from the sums [..., parts * statistics]."""
        return _computed(self.formulas, Sums(sums, self.statistics, self.parts))

    def of_rows(self, rows: Iterable[Row]) -> dict[str, float]:
        """Compute the metrics of rows of the first part taken together, without items, groups or intervals."""
        sums = RowSums(self.name, self.statistics, (OVERALL,), len(self.parts))
        for number, row in enumerate(rows):
            sums.add(str(number), row, 0, (OVERALL,))
        self._check_shares(sums)
        found = self.compute(sums.total(1)[0, 0])
        return {name: float(measured.value) for name, measured in found.items()}


class QuestionBenchmark(RowBenchmark[RightT, Choice]):
    """Base of benchmarks of multiple-choice questions with one right option: items have `question` and `right`.

    A subclass defines `load` (or `read`) and `row`. The base adds answer changes in reports and labelled training data.
    """

    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})

    def ask(self, model: Model, items: Sequence[RightT]) -> list[Choice]:
        """Ask one question per item, all in one call."""
        return model.choose([item.question for item in items])

    def grades(self, items: Sequence[RightT], answers: Sequence[Choice]) -> list[Grade]:
        """Grade the answers against the right options, in the groups of each item."""
        return [
            Grade(a.decision, a.decision == i.right, tuple(dict.fromkeys((OVERALL, *filter(None, self._groups_of(i))))))
            for i, a in zip(items, answers, strict=True)
        ]

    def gold(self, items: Sequence[RightT]) -> list[int | None]:
        """Return the right options."""
        return [item.right for item in items]


def _checking(load: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """Wrap a class's own `load` so that its items are checked like those of `read`."""

    @wraps(load)
    def checked(self: RowBenchmark[Any, Any]) -> list[Any]:
        items = load(self)
        self._check_loaded(items)
        return items

    return checked


def _check(cls: type[RowBenchmark[Any, Any]]) -> None:
    """Compute every formula of no answers at all.

    Raises:
        SettingsError: A formula uses an unknown statistic or part, or does not compute what it declares.
    """
    doubled = [name for n, name in enumerate(cls.statistics) if name in cls.statistics[:n]]
    if doubled:
        raise SettingsError(f"benchmark {cls.__name__}: `statistics` names {doubled[0]!r} twice")
    nothing = Sums.nothing(cls.statistics, cls.parts)
    for declared in cls.formulas:
        names = [metric.name for metric in declared.metrics]
        try:
            found = list(_computed((declared,), nothing))
        except SettingsError as error:
            raise SettingsError(f"benchmark {cls.__name__}, metric {', '.join(names)}: {error}") from error
        if found != names:
            raise SettingsError(f"benchmark {cls.__name__}: a formula of {names} computes {found}")


def _metrics_of(formulas: Iterable[Formula]) -> tuple[Metric, ...]:
    return tuple(metric for declared in formulas for metric in declared.metrics)


def _computed(formulas: Iterable[Formula], sums: Sums) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    # 0 / 0 is reported as nan; a value that overflows, such as a broken model's perplexity, is infinite
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for declared in formulas:
            found |= declared.compute(sums)
    return found
