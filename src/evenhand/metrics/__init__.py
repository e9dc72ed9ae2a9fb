"""evenhand's numbers for predictions that you already have, with intervals and paired comparisons; no model is asked.

    import evenhand
    scores = evenhand.metrics.bbq(rows, predictions)
    scores.overall                     # metric -> value
    scores.by_group                    # a table, one line per group and metric
    scores.interval()                  # metric -> (low, high)
    scores.compare(other_predictions)  # a Report, as evenhand.compare returns it

There is a function for every registered benchmark, including those of plugins: `help(evenhand.metrics.mmlu)`. `measure`
takes a benchmark of any kind, such as one that is not registered. Values, intervals and p-values are those that
`evenhand.compare` gives for the same answers, as they come from the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from evenhand.core import registry
from evenhand.core.lazy_names import lazy_names
from evenhand.errors import suggest

if TYPE_CHECKING:
    from evenhand.metrics.measuring import measure as measure
    from evenhand.metrics.scores import Scores as Scores

    def __getattr__(name: str) -> Callable[..., Scores]: ...

else:
    _own, _own_names = lazy_names(
        __name__, {"evenhand.metrics.measuring": ["measure"], "evenhand.metrics.scores": ["Scores"]}
    )

    def __getattr__(name: str) -> Any:
        """The function of a registered benchmark."""
        if name.startswith("_") or name in _own_names():
            return _own(name)
        if name in registry.benchmarks.names():
            from evenhand.metrics.measuring import function_of

            return function_of(name)
        try:
            return _own(name)  # a module that has moved
        except AttributeError as error:
            raise AttributeError(f"{error}. {suggest(name, __dir__())}", name=name) from None

    def __dir__() -> list[str]:
        """Own names and those of all benchmarks."""
        return sorted([*_own_names(), *registry.benchmarks.names()])
