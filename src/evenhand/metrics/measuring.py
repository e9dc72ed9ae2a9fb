"""Provide `measure`, and the functions that measure predictions on one benchmark each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter, Signature, getdoc, signature
from numbers import Integral
from pathlib import Path
from textwrap import fill
from typing import Any

from evenhand import statistics
from evenhand.core import registry
from evenhand.core.registry import BenchmarkLike
from evenhand.errors import SettingsError
from evenhand.interfaces import Benchmark
from evenhand.metrics.answering import answers_of
from evenhand.metrics.given import by_item, items_of
from evenhand.metrics.scores import Scores

USUAL_LEVEL = 0.95
ARGUMENTS = """Args:
    rows: Items that were asked: items of the benchmark, their ids, rows as in the data set's file (dicts, a
        pandas or datasets table), a file or folder, or a mapping from names of your own to items or rows. None takes
        all items of the benchmark, from the source in its settings (`source="demo"` needs no data).
    predictions: One per row, in the same order, or a mapping by the names or the ids of the rows.
        {answers}
    label: Name of these predictions in tables.
    level: Level of the intervals.
    replicates: Number of bootstrap replicates, for metrics that need them.
    bootstrap_seed: Seed of the bootstrap.
    **settings: Settings of the benchmark, including `preset`.

Returns:
    `Scores`, with `overall`, `by_group`, `interval()` and `compare(others)`.

Raises:
    SettingsError: Rows and predictions do not fit each other, or one cannot be used; the message names the item.
    DataError: A row cannot be used, or the benchmark's own data are missing."""
FORMS = {
    "Choice": "For a question, the index of the chosen option (a number), its text or letter, a whole reply, "
    "probabilities of all options (with sum 1 within 0.001, by which they are then divided), or None for no answer; "
    "else a `Choice`.",
    "Reply": "The text of the reply, or None for no answer; else a `Reply`.",
    "score": "The log-probabilities (natural, summed over tokens) of the texts that the item asks for, in order, None "
    "for those without one, or pairs (log-probability, tokens) where the number of tokens counts; else {kind}s.",
    "choose": "One for each question of the item, in order: the index of the chosen option, its text or letter, or "
    "probabilities; else {kind}s.",
    "own": "{kind}s, or mappings of their fields as `answers/*.parquet` keeps them.",
}


def measure(
    benchmark: BenchmarkLike,
    rows: Any,
    predictions: Any,
    *,
    label: str = "predictions",
    level: float = USUAL_LEVEL,
    replicates: int = statistics.REPLICATES,
    bootstrap_seed: int = 0,
) -> Scores:
    """Measure predictions by any benchmark.

    Args:
        benchmark: A benchmark, or its specification as in `evenhand.compare`, such as "bbq(convention=helm)".
        rows: Rows as for the benchmark's own function; see `help(evenhand.metrics.bbq)`.
        predictions: Predictions as for that function.
        label: Name of these predictions in tables.
        level: Level of the intervals.
        replicates: Number of bootstrap replicates, for metrics that need them.
        bootstrap_seed: Seed of the bootstrap.

    Raises:
        SettingsError: Rows and predictions do not fit each other, or one cannot be used; the message names the item.
        DataError: A row cannot be used, or the benchmark's own data are missing.
    """
    if not _is_whole(replicates) or replicates < statistics.MIN_REPLICATES:
        raise SettingsError(f"replicates={replicates!r}: give at least {statistics.MIN_REPLICATES}; 2000 is usual")
    if not _is_whole(bootstrap_seed) or bootstrap_seed < 0:
        raise SettingsError(f"bootstrap_seed={bootstrap_seed!r}: give an integer of at least 0; 0 is usual")
    built = registry.build_benchmark(benchmark)
    given = items_of(built, rows)
    answers = answers_of(built, given.items, by_item(built, given, predictions))
    return Scores(built, given, answers, label=label, level=level, replicates=replicates, bootstrap_seed=bootstrap_seed)


def function_of(name: str) -> Callable[..., Scores]:
    """Return the function `evenhand.metrics.NAME`, with the benchmark's settings in its signature."""
    cls: type[Benchmark] = registry.benchmarks.get(name)

    def function(rows: Any, predictions: Any, **more: Any) -> Scores:
        own = {key: more.pop(key) for key in _OWN if key in more}
        if isinstance(rows, str | Path):
            rows, more = None, {**more, **_source(cls, rows, more)}
        return measure(cls.build(**more), rows, predictions, **own)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "evenhand.metrics"
    function.__doc__ = _doc(cls)
    vars(function)["__signature__"] = _signature(cls)  # which `inspect` and `help` show
    return function


_OWN = {
    "label": "predictions",
    "level": USUAL_LEVEL,
    "replicates": statistics.REPLICATES,
    "bootstrap_seed": 0,
}
"""Keyword arguments of `measure`, with their defaults."""


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _source(cls: type[Benchmark], rows: str | Path, settings: dict[str, Any]) -> dict[str, str]:
    """Return the setting for the data's location, if a file or folder was given for rows."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # `settings` has made it a dataclass
    if "source" not in known or "source" in settings:
        why = "source is given, too" if "source" in settings else "the benchmark has no setting `source`"
        raise SettingsError(f"{cls.name}: {str(rows)!r} was given for rows, but {why}; give None for rows, or items")
    return {"source": str(rows)}


def _doc(cls: type[Benchmark]) -> str:
    about = (getdoc(cls) or cls.name).strip().partition("\n")[0]
    kind = cls.answer_type.__name__
    form = kind if kind in FORMS else next((n for n in ("score", "choose") if cls.needs == {n}), "own")
    indent = " " * 8
    answers = fill(FORMS[form].format(kind=f"`{kind}`"), 112, initial_indent=indent, subsequent_indent=indent).strip()
    return f"Measure predictions on `{cls.name}`: {about}\n\n{ARGUMENTS.format(answers=answers)}"


def _signature(cls: type[Benchmark]) -> Signature:
    given = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("rows", "predictions")]
    own = [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in _OWN.items()]
    settings = [p for name, p in signature(cls).parameters.items() if name not in _OWN]
    return Signature([*given, *own, *settings], return_annotation=Scores)
