"""The Pareto front: the rows that no other row beats in bias, capability and cost at once, and the dominated rows.

A row is dominated only if a test shows it. Another row must be at least as good in everything as measured (bias,
capability, calls per item), and better in bias or capability by the paired difference, after Holm's adjustment over all
pairs of methods. If another row is at least as good as measured and no test shows that it is better, the row is
undecided. The number of calls alone never makes a row dominated, only undecided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Literal, NamedTuple

from evenhand.core import registry, specs
from evenhand.core.records import NAN, Record
from evenhand.errors import EvenhandError
from evenhand.report.rivals import Rival, adjusted
from evenhand.report.row_parts import row_parts
from evenhand.statistics.criteria import MIN_CLUSTERS, Criteria

Standing = Literal["front", "dominated", "undecided", ""]
ROUNDING = 1e-9


class Measure(NamedTuple):
    """A metric of a benchmark, over all items."""

    benchmark: str
    metric: str
    direction: str
    kind: str = ""

    @property
    def name(self) -> str:
        """Name of the metric as in `Report.leaderboard`."""
        return f"{self.benchmark}:{self.metric}"


class Placed(NamedTuple):
    """Standing of a row; `by` are the rows that dominate it, or, if it is undecided, those at least as good."""

    standing: Standing
    by: tuple[str, ...] = ()


class ParetoPoint(NamedTuple):
    """Bias, capability and cost of one row of a comparison; unknown values are nan."""

    model: str
    method: str
    baseline: str
    """Row that it is compared with; "" for a baseline."""
    settings: Mapping[str, object]
    """Settings in the method's spec, by "METHOD.SETTING" in a stack."""
    bias: float
    bias_low: float
    bias_high: float
    capability: float
    capability_low: float
    capability_high: float
    calls: float
    """Calls per item."""
    seconds: float
    """Seconds per item."""
    pareto: Standing
    dominated_by: tuple[str, ...]
    curve: str = ""
    """Name of the curve: its points differ in a single setting, and are joined in the order of `position`."""
    setting: str = ""
    """Name of the setting that varies along the curve."""
    position: float | None = None
    """Value of that setting."""


def placed(
    rows: Mapping[str, Mapping[Measure, Record]],
    calls: Mapping[str, float],
    rivals: Sequence[Rival],
    criteria: Criteria,
) -> dict[str, Placed]:
    """Return the standing of each row of one model.

    Args:
        rows: Records of bias and capability over all items, by row.
        calls: Calls per item by row; rows without a number are compared by bias and capability only.
        rivals: Pairs of methods of this model that were compared by these measures.
        criteria: Level of the tests.
    """
    known = {m: found for m, found in rows.items() if found and not any(isnan(r.value) for r in found.values())}
    better = set(_shown(known, rivals, criteria))
    places = {}
    for mine in rows:
        if mine not in known:
            places[mine] = Placed("")
            continue
        ahead = tuple(other for other in known if _as_good(known, calls, other, mine))
        shown = tuple(other for other in ahead if (other, mine) in better)
        standing: Standing = "dominated" if shown else "undecided" if ahead else "front"
        places[mine] = Placed(standing, shown or ahead)
    return places


def badness(value: float, direction: str) -> float:
    """Convert a value so that larger means worse, whatever the metric's direction."""
    if direction == "zero":
        return abs(value)
    return -value if direction == "higher" else value


def _as_good(rows: Mapping[str, Mapping[Measure, Record]], calls: Mapping[str, float], other: str, mine: str) -> bool:
    """Whether another row is measured to be at least as good in everything, and better in something."""
    if other == mine or rows[other].keys() != rows[mine].keys():
        return False
    own, its = ({m: badness(r.value, r.direction) for m, r in rows[name].items()} for name in (mine, other))
    losses = [own[m] - its[m] for m in own]
    costs = calls.get(mine, NAN) - calls.get(other, NAN)
    losses += [] if isnan(costs) else [costs]
    return all(loss >= -ROUNDING for loss in losses) and any(loss > ROUNDING for loss in losses)


def _shown(
    rows: Mapping[str, Mapping[Measure, Record]], rivals: Sequence[Rival], criteria: Criteria
) -> Iterator[tuple[str, str]]:
    """Yield every (better row, worse row) that a test shows, by any of the measures."""
    for name, found in rows.items():
        for record in found.values():
            if criteria.significant(record) and record.gain_low > 0:
                yield name, record.baseline
            if criteria.significant(record) and record.gain_high < 0:
                yield record.baseline, name
    for test in adjusted(rivals):
        for one in (test, test.turned):
            if one.p < criteria.alpha and one.gain_low > 0 and one.clusters >= MIN_CLUSTERS:
                yield one.method, one.against


def settings_of(method: str) -> dict[str, object]:
    """Read the settings in a spec; none if a row's name is not a spec, such as "none (generation, T=1)"."""
    parts = row_parts(method)
    several = len(parts) > 1
    return {(f"{p.name}.{k}" if several else k): v for p in parts for k, v in p.settings.items()}


def with_curves(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """Join points that differ in a single number, such as those of a sweep, to curves.

    A point whose spec does not give the number has its default.
    """
    curves: dict[tuple[str, ...], dict[int, float]] = {}
    for n, point in enumerate(points):
        for name, value in point.settings.items():
            if (position := _number(value)) is not None:
                curves.setdefault(_curve(point, name), {})[n] = position
    for key, members in curves.items():
        silent = [n for n, p in enumerate(points) if key[2] not in p.settings and _curve(p, key[2]) == key]
        defaults = {n: _default(points[n].method, key[2]) for n in silent}
        members.update({n: position for n, position in defaults.items() if position is not None})
    out = list(points)
    for (_, method, name, *rest), members in sorted(curves.items(), key=lambda item: len(item[1])):
        if len(members) > 1:  # a point on several curves belongs to the longest
            label = f"{method}({', '.join([*rest, name])})"
            for n, position in members.items():
                out[n] = points[n]._replace(curve=label, setting=name, position=position)
    return out


def _curve(point: ParetoPoint, name: str) -> tuple[str, ...]:
    """Return what all points of a curve share: model, methods, name of the varying setting, and all other settings."""
    rest = sorted(f"{k}={v}" for k, v in point.settings.items() if k != name)
    return (point.model, _names(point.method), name, *rest)


def _default(method: str, name: str) -> float | None:
    """Return the value of a setting that a spec leaves out; None if it is unknown, as for methods not installed."""
    for text in specs.split(method, "+"):
        part = specs.parse(text)
        setting = name.removeprefix(f"{part.name}.")
        try:
            built = registry.build_method(text)
        except EvenhandError:  # such as for a plugin that is not loaded
            continue
        if setting in built.settings and (setting != name) == ("+" in method):
            return _number(built.settings[setting])
    return None


def _names(method: str) -> str:
    """Return a spec's methods without settings; other names, such as of a baseline read differently, are unchanged."""
    return "+".join(part.name for part in row_parts(method)) or method


def _number(value: object) -> float | None:
    try:
        return None if isinstance(value, bool) else float(str(value))
    except ValueError:
        return None
