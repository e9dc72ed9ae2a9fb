"""Defaults of what a sweep varies and measures, so that `evenhand sweep` runs without options."""

from __future__ import annotations

from typing import Any, NamedTuple

from evenhand.core import catalogue, registry, specs
from evenhand.core.registry import BenchmarkLike, build_benchmark
from evenhand.errors import SettingsError
from evenhand.interfaces import Benchmark, Method
from evenhand.models.demo_names import is_demo

METHOD = "self_debias_decoding"
BIAS, DEMO_BIAS = "bbq", "bbq(source=demo)"
COST_METRIC = "accuracy_disambiguated"
"""Cost of less bias on BBQ: right answers where the context states them. It needs no further data."""
NO_SWEEP = ("seed", "device", "precision")
"""Numeric settings that do not trade bias against cost."""


class Sides(NamedTuple):
    """Benchmarks of bias and of cost, and the metric of the cost."""

    bias: Benchmark
    cost: Benchmark
    cost_metric: str | None


def sides(model: Any, bias: BenchmarkLike | None, cost: BenchmarkLike | None, cost_metric: str | None) -> Sides:
    """Choose the two benchmarks: BBQ (the demo's for a demo), and as the cost its accuracy where the context answers.

    Args:
        model: The model to be swept.
        bias: The benchmark of bias, if it was named.
        cost: The benchmark of the cost, if it was named.
        cost_metric: Its metric, if it was named.
    """
    one = build_benchmark(bias if bias is not None else DEMO_BIAS if is_demo(model) else BIAS)
    if cost is not None:
        return Sides(one, build_benchmark(cost), cost_metric)
    known = [metric.name for metric in one.metrics]
    return Sides(one, one, cost_metric or (COST_METRIC if COST_METRIC in known else None))


def values(method: str) -> str:
    """Return the usual setting of a method for a sweep, with its values.

    Args:
        method: A method with or without settings.

    Raises:
        SettingsError: The method has no usual setting; the message lists its numeric settings.
    """
    parts = specs.stack(method)
    usual = [vary for part in parts if (vary := catalogue.method_facts(part.name).vary)]
    if usual:
        return usual[0]
    names = [name for part in parts for name in _numeric(registry.build_method(part.name))]
    told = f"one of its numbers: {', '.join(names)}" if names else "a setting of it"
    raise SettingsError(f"{method}: say what varies with --vary (vary= in Python), {told}; such as seed=0,1,2")


def training(model: Any, method: str) -> str | None:
    """Return the demo's training data for a method that needs some, if a demo model is swept; None otherwise."""
    if not is_demo(model):
        return None
    parts = specs.stack(method)
    found = [train for part in parts if (train := catalogue.method_facts(part.name).train)]
    return " & ".join(dict.fromkeys(found)) or None


def _numeric(method: Method) -> list[str]:
    given = method.settings.items()
    return [n for n, v in given if isinstance(v, int | float) and not isinstance(v, bool) and n not in NO_SWEEP]
