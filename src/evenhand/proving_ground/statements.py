"""`evenhand proving-ground effects`: does a method move what it addresses, and leave the rest unchanged?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from evenhand.core import registry, yaml_reader
from evenhand.core.progress import track
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.experiment import training_data
from evenhand.interfaces import Method, Model
from evenhand.proving_ground.checking import each_answer_once, interval
from evenhand.proving_ground.controls import AlwaysUnknown, NoOp
from evenhand.proving_ground.probes import PROBES, Probe, Value

STATEMENTS = Path(__file__).with_name("effects.yaml")
CONTROLS: tuple[type[Method], ...] = (NoOp, AlwaysUnknown)
JUDGED_BY = "self_debias"
"""Statement that the controls are tested against; they must fail it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Moves(_Strict):
    """A quantity that must move."""

    quantity: str
    groups: list[str] = []
    at_least: float
    at_most: float = inf
    towards: float = 0.0


class Stays(_Strict):
    """A quantity that must not move, or must not fall."""

    quantity: str
    groups: list[str] = []
    within: float | None = None
    falls_at_most: float | None = None
    side_effect: str = ""

    @model_validator(mode="after")
    def _one_bound(self) -> Stays:
        if (self.within is None) == (self.falls_at_most is None):
            raise ValueError("give either within or falls_at_most")
        return self


class Statement(_Strict):
    """A method's statement about its own effects."""

    spec: str = ""
    models: list[str] = ["demo"]
    train: str = ""
    moves: list[Moves]
    stays: list[Stays]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One line of a statement, measured."""

    model: str
    method: str
    kind: Literal["moves", "stays"]
    quantity: str
    group: str
    before: float
    after: float
    change: float
    """Paired change: towards the aim if it must move, after minus before if it must stay."""
    low: float
    """Lower end of the 95 % interval of `change`, by a jackknife over clusters."""
    high: float
    bound: float
    ok: bool
    at_most: float = float("nan")
    """Upper bound of a move; nan if there is none."""
    must_fail: bool = False
    """Whether this is a control, whose method as a whole must fail."""
    note: str = ""


def statements(file: Path = STATEMENTS) -> dict[str, Statement]:
    """Read the statements.

    Raises:
        SettingsError: The file is invalid; the message says where.
    """
    try:
        content = yaml_reader.load(file.read_text(encoding="utf-8"))
        return {str(name): Statement(**given) for name, given in content.items()}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValidationError) as error:
        raise SettingsError(f"cannot read the statements in {file}: {error}") from error


def effects(
    methods: Sequence[str] = (), *, controls: bool = True, progress: Callable[[str], None] | None = None
) -> list[Effect]:
    """Apply methods to the demo models and test each against its statement.

    Args:
        methods: Names of statements; empty means all.
        controls: Whether a no-op and an always-unknown method take the same test, which they must fail.
        progress: Called with "model x method" before each test.

    Raises:
        UnknownNameError: A method has no statement.
    """
    known = statements()
    for name in methods:
        if name not in known:
            raise UnknownNameError("statement of a method", name, known)
    found: list[Effect] = []
    tried = [(model, name) for name in methods or known for model in known[name].models]
    beside = CONTROLS if controls else ()
    total = len(tried) + len(beside)
    with each_answer_once(), track(total, "methods on demo models", lines_only=True) as step:
        for model, name in tried:
            said = known[name]
            method = registry.build_method(said.spec or name)
            if progress:
                progress(f"{model} x {method.spec}")
            found += _held(model, method, said, must_fail=False)
            step(1)
        for control in beside:
            if progress:
                progress(f"demo x {control.name} (a control)")
            found += _held("demo", control(), known[JUDGED_BY], must_fail=True)
            step(1)
    return found


def verdicts(found: Sequence[Effect]) -> dict[str, bool]:
    """Return whether each "model x method" came out as it must; a control must fail at least one line."""
    out: dict[str, bool] = {}
    for key in dict.fromkeys((e.model, e.method, e.must_fail) for e in found):
        lines = [e.ok for e in found if (e.model, e.method, e.must_fail) == key]
        out[f"{key[0]} x {key[1]}"] = all(lines) != key[2]
    return out


def _held(name: str, method: Method, said: Statement, *, must_fail: bool) -> list[Effect]:
    from evenhand.models import load

    base = load(name)
    mitigated = method.apply(base, training_data.load(said.train).data if said.train else None)
    read = _Readings(base, mitigated)
    out: list[Effect] = []
    lines: list[Moves | Stays] = [*said.moves, *said.stays]
    for line in lines:
        for group, (before, after) in read.pairs(line.quantity, line.groups):
            out.append(_effect(name, method, line, group, before, after, must_fail=must_fail))
    return out


class _Readings:
    """Observations without and with the method; each probe is read once."""

    def __init__(self, base: Model, mitigated: Model) -> None:
        self.base, self.mitigated = base, mitigated
        self.known: dict[str, tuple[list[Value], list[Value]]] = {}

    def pairs(self, quantity: str, groups: Sequence[str]) -> list[tuple[str, tuple[list[Value], list[Value]]]]:
        """Return the observations of each group before and after, in the same order; pooled if no group is named."""
        if quantity not in self.known:
            probe = _probe(quantity)
            self.known[quantity] = probe.read(self.base), probe.read(self.mitigated)
        before, after = self.known[quantity]
        if not groups:
            return [("overall", (before, after))]
        present = {v.group for v in before}
        for group in groups:
            if group not in present:
                raise UnknownNameError(f"group of {quantity!r}", group, present)
        return [(g, ([v for v in before if v.group == g], [v for v in after if v.group == g])) for g in groups]


def _probe(quantity: str) -> Probe:
    found = [p for p in PROBES if p.name == quantity]
    if not found:
        raise UnknownNameError("planted quantity", quantity, [p.name for p in PROBES])
    return found[0]


def _mean(values: Sequence[Value]) -> float:
    return float(np.mean([v.value for v in values]))


def _paired(before: Sequence[Value], after: Sequence[Value], sign: float) -> tuple[float, float, float]:
    """Return the mean change times `sign`, with its interval."""
    change = [a._replace(value=sign * (a.value - b.value)) for b, a in zip(before, after, strict=True)]
    return _mean(change), *interval(change)


def _effect(
    name: str,
    method: Method,
    said: Moves | Stays,
    group: str,
    before: list[Value],
    after: list[Value],
    *,
    must_fail: bool,
) -> Effect:
    falls = isinstance(said, Moves) and _mean(before) > said.towards
    change, low, high = _paired(before, after, -1.0 if falls else 1.0)
    bound, ok = _judged(said, change, low)
    return Effect(
        model=name,
        method=method.spec,
        kind="moves" if isinstance(said, Moves) else "stays",
        quantity=said.quantity,
        group=group,
        before=_mean(before),
        after=_mean(after),
        change=change,
        low=low,
        high=high,
        bound=bound,
        ok=ok,
        at_most=said.at_most if isinstance(said, Moves) and said.at_most < inf else float("nan"),
        must_fail=must_fail,
        note=said.side_effect if isinstance(said, Stays) else "",
    )


def _judged(said: Moves | Stays, change: float, low: float) -> tuple[float, bool]:
    """Return the bound of a line, and whether a change respects it."""
    if isinstance(said, Moves):
        return said.at_least, said.at_least <= change <= said.at_most and low > 0
    if said.within is not None:
        return said.within, abs(change) <= said.within
    bound = said.falls_at_most or 0.0
    return bound, -change <= bound
