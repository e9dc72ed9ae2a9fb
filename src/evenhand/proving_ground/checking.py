"""`evenhand proving-ground check`: does every demo model have its planted quantities?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from evenhand.core.answer_cache import answer_cache
from evenhand.core.progress import track
from evenhand.evaluation.metrics import ifeval_checkers
from evenhand.interfaces import Model
from evenhand.models.demo_names import MASKED
from evenhand.proving_ground import probes
from evenhand.proving_ground.generator.planted import MAIN
from evenhand.proving_ground.generator.planted_x import PLANTED, SPILLOVER
from evenhand.proving_ground.generator.words import CONTROL
from evenhand.proving_ground.interventions import observed_once, observing
from evenhand.proving_ground.oracle import Oracle
from evenhand.proving_ground.probes import PROBES, Probe, Value
from evenhand.proving_ground.probes_spillover import SPILLOVER_PROBES
from evenhand.statistics import mean_interval


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One planted quantity with its measurement."""

    model: str
    quantity: str
    group: str
    planted: float
    measured: float
    low: float
    """Lower end of the measured value's 95 % interval, by a jackknife over clusters; nan for a single cluster."""
    high: float
    n: int
    tolerance: float
    ok: bool
    note: str = ""


def check(
    models: Sequence[str] = (), *, quantities: Sequence[str] = (), progress: Callable[[str], None] | None = None
) -> list[Finding]:
    """Measure the planted quantities of demo models.

    Args:
        models: Names, such as "demo-b"; empty means all.
        quantities: Names of probes; empty means all, and for demo-x those that the main model does not have.
        progress: Called with "model: quantity" before each measurement.

    Raises:
        SettingsError: A name is unknown.
    """
    from evenhand.errors import UnknownNameError
    from evenhand.models import load

    known, every = [*PLANTED, MASKED], (*PROBES, *SPILLOVER_PROBES)
    for name in models:
        if name not in known:
            raise UnknownNameError("demo model", name, known)
    for name in quantities:
        if name not in [p.name for p in every]:
            raise UnknownNameError("planted quantity", name, [p.name for p in every])
    findings: list[Finding] = []
    named = models or known
    with each_answer_once(), track(len(named), "demo models", lines_only=True) as measured:
        for name in named:
            model = load(name)
            wanted = _probes(name, model, quantities)
            with track(len(wanted), f"quantities of {name}", lines_only=True) as step:
                for probe in wanted:
                    if progress:
                        progress(f"{name}: {probe.name}")
                    findings += _compared(name, model, probe)
                    step(1)
            measured(1)
    return findings


@contextmanager
def each_answer_once() -> Iterator[None]:
    """Answer repeated questions from a temporary cache within the block, since probes share many questions.

    A cache that is already in use is kept, so that a caller can measure several things with one cache.
    """
    if observing():
        yield
        return
    with TemporaryDirectory() as folder, answer_cache(Path(folder) / "answers.sqlite"), observed_once():
        yield


def planted_values(name: str, probe: Probe) -> dict[str, float]:
    """Return the true values of a probe's quantities, by group, from the generator's parameters."""
    oracle = _oracle(name)
    values = probes.planted_multi_turn(oracle.planted) if probe.name == "multi turn" else probe.read(oracle)
    return {group: float(np.mean([v.value for v in values if v.group == group])) for group in _groups(values)}


@cache
def _oracle(name: str) -> Oracle:
    """Return the oracle of a model; it is cached, since its knowledge of the language takes time to compute."""
    return Oracle(PLANTED.get(name, MAIN))


def _probes(name: str, model: Model, quantities: Sequence[str]) -> list[Probe]:
    known = PROBES
    if name == SPILLOVER.name:  # after its further training it heeds prompts less than planted (docs/proving_ground.md)
        known = (*PROBES, *SPILLOVER_PROBES) if quantities else SPILLOVER_PROBES
    asked = [p for p in known if p.needs <= model.abilities and (not quantities or p.name in quantities)]
    if name == MASKED:
        asked = [p for p in asked if p.name in ("pronouns", "explicit gender")]
    return [p for p in asked if p.name != "instructions" or ifeval_checkers.available()]


def _compared(name: str, model: Model, probe: Probe) -> list[Finding]:
    values = probe.read(model)
    truth = planted_values(name, probe)
    findings = []
    for group in _groups(values):
        mine = [v for v in values if v.group == group]
        measured = float(np.mean([v.value for v in mine]))
        low, high = interval(mine)
        near = abs(measured - truth[group]) <= probe.tolerance
        control = probe.name == "ambiguous bias" and group == CONTROL
        zero = not control or low <= 0 <= high
        able = not (probe.name == "reading" and name == MAIN.name) or measured >= 0.90
        note = "" if near else "outside the tolerance"
        note = note if zero else "the control axis's interval leaves out zero"
        note = note if able else "below 0.90"
        findings.append(
            Finding(
                model=name,
                quantity=probe.name,
                group=group,
                planted=truth[group],
                measured=measured,
                low=low,
                high=high,
                n=len(mine),
                tolerance=probe.tolerance,
                ok=near and zero and able,
                note=note,
            )
        )
    return findings


def interval(values: Sequence[Value]) -> tuple[float, float]:
    """Return the 95 % interval of the mean over clusters; nan with fewer than two."""
    return mean_interval([v.value for v in values], [v.cluster for v in values])


def _groups(values: Sequence[Value]) -> list[str]:
    return list(dict.fromkeys(v.group for v in values))


def as_rows(findings: Sequence[Any]) -> list[dict[str, Any]]:
    """Convert findings to plain rows for JSON, in which undefined numbers are None."""
    from dataclasses import asdict

    return [{k: None if v != v else v for k, v in asdict(f).items()} for f in findings]
