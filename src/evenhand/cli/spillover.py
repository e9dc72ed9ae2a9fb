"""`evenhand spillover`: a method fitted on one axis at a time, and measured on every axis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli import signals
from evenhand.cli.output import Json, Plugins, facts, load_plugins, show_rich, write

if TYPE_CHECKING:
    from evenhand.report.spillover_matrix import Spillover


def spillover(
    method: Annotated[
        str, typer.Argument(help="The method; {axis} in it is replaced by each axis: 'instruction(axis={axis})'.")
    ],
    axes: Annotated[str, typer.Option("--axes", help="Axes to fit the method on, one at a time: Age,Religion.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Hub name, folder, endpoint:URL#name or demo.")] = "demo",
    benchmarks: Annotated[
        str | None,
        typer.Option("--benchmarks", help="Benchmarks; default: bbq(part=test), or the demo's for a demo model."),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            help="Training data with {axis} for the axis; default: bbq(axes=('{axis}',),part=fit), or the demo's.",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Metric; default: the first main bias metric of each benchmark.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the runs; stopped runs are resumed from it.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Maximum number of items per benchmark.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the selection of items and of the bootstrap.")] = 0,
    form: Annotated[str, typer.Option("--format", help="text or csv.")] = "text",
    plugin: Plugins = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16 or auto.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")] = None,
    as_json: Json = False,
) -> None:
    """Fit a method on one axis of bias at a time, and show its effect on every axis of every benchmark."""
    from evenhand.core import specs
    from evenhand.core.hashing import json_hash
    from evenhand.errors import SettingsError
    from evenhand.experiment.spillover import spillover as run
    from evenhand.report.exports import frame_csv

    if form not in ("text", "csv"):
        raise SettingsError(f"--format {form!r} is not known; give text or csv")
    load_plugins(plugin or [])
    given = {"limit": limit, "seed": seed, "dtype": dtype, "device": device}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    asked = benchmarks if benchmarks is None else specs.split(benchmarks, ",")
    chosen = [axis.strip() for axis in specs.split(axes, ",")]
    plan = [model, method, asked, train, options]
    place = out or Path("runs") / f"spillover-{json_hash(plan)[:10]}"  # so that the same command resumes
    with signals.working_in(place):
        found = run(model, method, chosen, benchmarks=asked, train=train, metric=metric, out=place, **options)
    if as_json:
        facts(_plain(found), as_json)
    elif form == "csv":
        write(frame_csv(found.frame()).rstrip("\n"))
    else:
        show_rich(found)
        write(f"written to {place}: a run folder per axis")


def _plain(found: Spillover) -> dict[str, Any]:
    from evenhand.core.text_output import for_json

    cells = [{str(k): for_json(v) for k, v in line.items()} for line in found.frame().to_dict("records")]
    return {"cells": cells, "worse": found.worse._asdict(), "summary": found.summary(), "notes": found.notes()}
