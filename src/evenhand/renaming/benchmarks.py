"""Benchmarks written for the previous release: their parts get their present names, and the old names still work.

`evenhand.interfaces.Benchmark` calls this for each of its subclasses.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, NamedTuple

from evenhand.renaming import warn, warn_in_module


def warn_of_old_form(cls: type, what: str) -> None:
    """Warn, in the name of its module, of a benchmark that is written for the previous release."""
    warn_in_module(cls, f"benchmark {cls.__name__}: {what}; the old form works for one release")


_FUNCTIONS = (FunctionType, staticmethod, classmethod)


class _OldMetrics:
    """The attribute `metrics` of a class: the declared metrics, which can also be called like the old function.

    The function is that of the class, not of the object, so that `super().metrics(sums)` is the base's.
    """

    def __init__(self, declared: Any, compute: Any, told: bool) -> None:
        self.declared, self.told, self._compute = declared, told, compute

    def __get__(self, instance: Any, owner: type) -> Any:
        declared = self.declared
        if isinstance(declared, property):
            if instance is None:
                return declared
            declared = declared.__get__(instance, owner)
        found = _CallableMetrics(declared)
        found.compute, found.told = self._compute.__get__(instance, owner), self.told
        return found


class _CallableMetrics(tuple[Any, ...]):
    compute: Callable[..., dict[str, Any]]
    told: bool

    def __call__(self, *arguments: Any) -> dict[str, Any]:
        if not self.told:  # a class that defines it as a function has been warned of once
            warnings.warn("metrics(sums) of a benchmark is now compute(sums)", DeprecationWarning, stacklevel=2)
        return self.compute(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


class OldInfo:
    """The attribute `metrics_info`, the old name of `metrics`."""

    def __get__(self, instance: Any, owner: Any) -> tuple[Any, ...]:
        """The metrics, with a warning that gives their present name."""
        warnings.warn(f"{owner.__name__}: metrics_info is now metrics", DeprecationWarning, stacklevel=2)
        metrics: tuple[Any, ...] = owner.metrics if instance is None else instance.metrics
        return metrics


def _old_items(load: Any) -> Callable[[Any], Sequence[Any]]:
    """Make the old function `items` from a class's own `load`, so that `super().items()` is the base's."""

    def items(self: Any) -> Sequence[Any]:
        """Old name of `load`; it works for one release."""
        warnings.warn(f"{self.name}: items() is now load()", DeprecationWarning, stacklevel=2)
        found: Sequence[Any] = load.__get__(self, type(self))()
        return found

    return items


def _old_marks(grades: Any) -> Callable[[Any, Sequence[Any], Sequence[Any]], Sequence[Any] | None]:
    """Make the old function `marks` from a class's own `grades`, so that `super().marks()` is the base's."""

    def marks(self: Any, items: Sequence[Any], answers: Sequence[Any]) -> Sequence[Any] | None:
        """Old name of `grades`; it works for one release."""
        warn(self.name, {"marks()": "grades()"})
        found: Sequence[Any] | None = grades.__get__(self, type(self))(items, answers)
        return found

    return marks


class _Found(NamedTuple):
    """A part of a class, and the position of its class in the order of bases: 0 is the class itself."""

    at: int
    part: Any


def _nearest(cls: type, name: str) -> _Found:
    found = (_Found(n, vars(base)[name]) for n, base in enumerate(cls.__mro__) if name in vars(base))
    return next(found, _Found(len(cls.__mro__), None))


def rename_old_parts(cls: Any, base: Any) -> None:
    """Give the parts of a class their present names, with a warning that lists them.

    Args:
        cls: A benchmark.
        base: `Benchmark`, whose `gold` asks the grades.
    """
    renamed = [*_rename_items(cls), *_rename_metrics(cls), *_rename_marks(cls)]
    if _nearest(cls, "grades").at < _nearest(cls, "gold").at:
        cls.gold = base.gold  # a base's `gold` would contradict these grades
    if renamed:
        warn_of_old_form(cls, "; ".join(renamed))


def _rename_items(cls: Any) -> list[str]:
    old, new = _nearest(cls, "items"), _nearest(cls, "load")
    if not isinstance(old.part, _FUNCTIONS):  # a setting of this name
        return []
    if old.at < new.at:
        cls.load = old.part
        return ["items() is now load()"]
    if new.at < old.at:
        cls.items = _old_items(new.part)
    return []


def _rename_metrics(cls: Any) -> list[str]:
    info, metrics, compute = (_nearest(cls, name) for name in ("metrics_info", "metrics", "compute"))
    function = metrics.part if isinstance(metrics.part, _FUNCTIONS) and metrics.at <= compute.at else None
    old_info = not isinstance(info.part, OldInfo) and info.at < metrics.at + (function is not None)
    if not old_info and info.at > metrics.at and not isinstance(info.part, OldInfo):
        cls.metrics_info = OldInfo()  # a base's would lack metrics of this class
    new = isinstance(metrics.part, tuple | list | property) or compute.at < metrics.at < len(cls.__mro__)
    if old_info or function is not None or new:
        declared = _declared_metrics(cls)
        told = function is not None or (isinstance(metrics.part, _OldMetrics) and metrics.part.told)
        if isinstance(declared, tuple | list | property):
            cls.metrics = _OldMetrics(declared, function or compute.part, told)
    if function is not None:
        cls.compute = function
    renamed = ["metrics_info is now metrics"] if old_info else []
    return [*renamed, "metrics() is now compute()"] if function is not None else renamed


def _declared_metrics(cls: Any) -> Any:
    """Return what the class or its nearest base declares, under the old name or the new one."""
    for base in cls.__mro__:
        for part in (vars(base).get("metrics_info"), vars(base).get("metrics")):
            if part is not None and not isinstance(part, (*_FUNCTIONS, OldInfo)):
                return part.declared if isinstance(part, _OldMetrics) else part
    return ()


def _rename_marks(cls: Any) -> list[str]:
    old, new = _nearest(cls, "marks"), _nearest(cls, "grades")
    if not callable(old.part) and not isinstance(old.part, (*_FUNCTIONS, property)):  # a setting of this name
        return []
    if old.at < new.at:
        cls.grades = old.part
        return ["marks() is now grades()"]
    if new.at < old.at:
        cls.marks = _old_marks(new.part)
    return []
