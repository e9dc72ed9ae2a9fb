"""Checks before a recipe runs: settings that can be used, data as published, and memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from evenhand.core import registry
from evenhand.core.text_output import size
from evenhand.data import wikitext
from evenhand.data.io import locate
from evenhand.data.io.checksums import check as check_files
from evenhand.data.sets import DATASETS
from evenhand.errors import DataError, EvenhandError, suggest
from evenhand.experiment.estimates import estimate
from evenhand.experiment.recipes import DATA, DataNeed, Recipe
from evenhand.experiment.reproduction import plan
from evenhand.interfaces import Benchmark

NOT_FINITE = re.compile(r"(?<![\w./-])-?(nan|inf)(?=\s*[,)\]])")
"""A number that is not finite, in a specification: settings given as text, such as "1e999", show only when built."""


class Check(NamedTuple):
    """Check of one thing that a run needs."""

    what: str
    ok: bool
    found: str
    """What was found; if it is not ok, what to do as well."""


def checks(recipe: Recipe, *, free: float, device: str) -> list[Check]:
    """Check that the data is there and as published, and that the memory suffices.

    Args:
        recipe: The recipe.
        free: Free memory in bytes.
        device: The device with that memory, for the message.
    """
    needed = estimate(recipe).memory
    short = "" if needed <= free else "; take a larger device, or `--device-map auto` over several"
    memory = Check("memory", not short, f"about {size(int(needed))} of {size(int(free))} free on {device}{short}")
    return [*(_data_check(need) for need in recipe.data), memory]


def settings_checks(recipe: Recipe, *, smoke: bool = False) -> list[Check]:
    """Check that the methods and benchmarks of a recipe can be built, and that its rows name metrics that they have.

    Nothing is read and no model is asked.

    Args:
        recipe: The recipe.
        smoke: Whether its small form is checked instead.
    """
    try:
        asked = plan(recipe, smoke=smoke)
        methods = [registry.build_method(m).spec for m in asked.methods.values()]
        benchmarks = {key: registry.build_benchmark(b) for key, b in asked.benchmarks.items()}
    except EvenhandError as error:
        return [Check("settings", False, str(error))]
    specs = [*methods, *(b.spec for b in benchmarks.values())]
    if endless := [spec for spec in specs if NOT_FINITE.search(spec)]:
        return [Check("settings", False, f"{endless[0]}: nan and inf are not settings; give a finite number")]
    where = f" on {asked.model}" if smoke else ""
    return [Check("settings", True, ", ".join(specs) + where), _rows_check(recipe, benchmarks)]


def _rows_check(recipe: Recipe, benchmarks: Mapping[str, Benchmark]) -> Check:
    """Check that the metrics of all rows are known; a benchmark that declares none until it is asked is left out."""
    known = {key: [m.name for m in b.metrics] for key, b in benchmarks.items()}
    for row in recipe.rows:
        names = known[row.benchmark]
        if names and row.metric not in names:
            near = suggest(row.metric, names)
            return Check("rows", False, f"row {row.name!r}: {row.benchmark} has no metric {row.metric!r}. {near}")
    return Check("rows", True, f"{len(recipe.rows)}, each of a metric that its benchmark has")


def _data_check(need: DataNeed) -> Check:
    base = os.environ.get(locate.FOLDER_VARIABLE)
    if need.file is not None:
        path = None if base is None else Path(base).expanduser() / need.file
        there = path is not None and path.exists()
        found = str(path) if there else f"there is no {DATA}/{need.file}: {need.how}"
        return Check(need.file, there, found)
    dataset = DATASETS[str(need.name)]
    folder = locate.folder_of(dataset)
    if folder is None or not folder.is_dir():
        hub = folder is None and bool(dataset.hub)
        return Check(dataset.name, hub, "from the hub, when it runs" if hub else locate.how_to_get(dataset))
    verdicts = check_files(dataset.name, folder)
    differs = sorted(path for path, verdict in verdicts.items() if verdict == "differs")
    if differs:
        return Check(dataset.name, False, f"{folder}/{differs[0]} is not the published file; fetch it again")
    if dataset.name == wikitext.DATASET.name and (wrong := _unlike_published(folder)):
        return Check(dataset.name, False, wrong)
    official = sum(verdict == "official" for verdict in verdicts.values())
    hashes = f"{official} of {len(verdicts)} published files" if verdicts else "no published hashes to check"
    return Check(dataset.name, True, f"{folder} ({hashes})")


def _unlike_published(folder: Path) -> str:
    """Say why perplexities of a copy of WikiText-2 cannot be compared with published ones; "" if they can."""
    try:
        notes = wikitext.load("test", str(folder)).facts["notes"]
    except DataError as error:
        return str(error)
    return f"{folder}: not comparable with published perplexities: {'; '.join(notes)}" if notes else ""
