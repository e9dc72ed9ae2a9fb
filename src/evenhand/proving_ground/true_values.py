"""`truth`: the planted values of a benchmark's metrics, computed from the generator's parameters."""

from __future__ import annotations

from dataclasses import replace

from evenhand.core import registry
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.interfaces import Method, Stack
from evenhand.proving_ground.generator.planted_x import PLANTED
from evenhand.proving_ground.oracle import Oracle


def truth(
    model: str = "demo", benchmark: str = "bbq(source=demo)", method: str = "none"
) -> dict[str, dict[str, float]]:
    """Compute what a benchmark would report for a demo model with exactly the planted quantities.

    The benchmark is run on the oracle, which answers from the parameters without a network. So a method that only asks
    has a known true effect too.

    Args:
        model: A causal demo model.
        benchmark: A benchmark on the demo's files.
        method: A method that needs no weights. If it asks a second demo model, that one answers as planted too.

    Returns:
        Group ("overall", "Age", ...) -> metric -> value.

    Raises:
        SettingsError: A name is unknown, or the method needs weights, which an oracle does not have.
    """
    if model not in PLANTED:
        raise UnknownNameError("demo model", model, list(PLANTED))
    built, bench = _planted(registry.build_method(method)), registry.build_benchmark(benchmark)
    oracle = Oracle(PLANTED[model], refuses=False)
    reason = built.unsupported_reason(oracle)
    if reason:
        raise SettingsError(reason)
    items = bench.load()
    tally = bench.tally(items, bench.ask(built.apply(oracle), items))
    values = bench.compute(tally.total)
    return {group: {name: float(m.value[g]) for name, m in values.items()} for g, group in enumerate(tally.groups)}


def _planted(method: Method) -> Method:
    """Return the method with the oracle in place of every demo model that a setting names."""
    if isinstance(method, Stack):
        return Stack(tuple(_planted(part) for part in method.parts))
    asked = {name: f"oracle:{value}" for name, value in method.settings.items() if value in list(PLANTED)}
    return replace(method, **asked) if asked else method  # type: ignore[type-var]
