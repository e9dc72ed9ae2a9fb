"""`evenhand sweep`: one method at several values of a setting, bias against cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli import signals
from evenhand.cli.output import Json, Plugins, facts, load_plugins, show_rich, write

if TYPE_CHECKING:
    from rich.table import Table

    from evenhand.experiment.sweep import Point, Swept


def sweep(
    method: Annotated[
        str, typer.Option("--method", help="The method, with the settings that all steps share: 'pcgu(epochs=5)'.")
    ] = "self_debias_decoding",
    vary: Annotated[
        str | None,
        typer.Option(
            "--vary",
            help="A setting and its values, such as edit_fraction=0.1,0.2; default: as `evenhand methods NAME` shows.",
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Hub name, folder, endpoint:URL#name or demo.")] = "demo",
    bias: Annotated[
        str | None, typer.Option("--bias", help="Benchmark of bias; default: bbq, or the demo's for a demo model.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option("--cost", help="Benchmark of the cost, such as perplexity; default: the benchmark of bias."),
    ] = None,
    bias_metric: Annotated[
        str | None,
        typer.Option("--bias-metric", help="Metric of the bias benchmark; default: its main metric of bias."),
    ] = None,
    cost_metric: Annotated[
        str | None,
        typer.Option(
            "--cost-metric",
            help="Metric of the cost benchmark; default: its first main metric, of bbq accuracy_disambiguated.",
        ),
    ] = None,
    group: Annotated[str, typer.Option("--group", help="Group that the bias is read from, such as Age.")] = "overall",
    control: Annotated[
        list[str] | None,
        typer.Option("--control", help="Changed settings to compare with, such as 'select=random'; repeatable."),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option("--train", help="Training data, as for compare; default on a demo model: the demo's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder; a run that was stopped is resumed from it.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Maximum number of items per benchmark.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the selection of items and of the bootstrap.")] = 0,
    replicates: Annotated[int | None, typer.Option("--replicates", help="Number of bootstrap replicates.")] = None,
    answer_by: Annotated[
        str | None, typer.Option("--answer-by", help="How questions are answered, as for compare.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Temperature of generated answers.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Number of independent draws per sampled answer.")
    ] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="Share one answer cache between runs.")] = None,
    plugin: Plugins = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16 or auto.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")] = None,
    as_json: Json = False,
) -> None:
    """Compare one method at several values of a setting: bias against cost, as a table and a plot.

    Without options, it sweeps a method on the embedded demo.
    What does not depend on the setting, such as the fine-tuned model of a task vector, is trained once.
    """
    from evenhand.core.hashing import json_hash
    from evenhand.experiment import sweep as core
    from evenhand.experiment import sweep_defaults

    load_plugins(plugin or [])
    vary = vary or sweep_defaults.values(method)
    train = train or sweep_defaults.training(model, method)
    plan = {
        "bias": bias,
        "cost": cost,
        "bias_metric": bias_metric,
        "cost_metric": cost_metric,
        "group": group,
        "train": train,
        "limit": limit,
        "seed": seed,
        "replicates": replicates,
        "dtype": dtype,
        "device": device,
        "answer_by": answer_by,
        "temperature": temperature,
        "samples": samples,
        "cache": None if cache is None else str(cache),
    }
    plan = {key: value for key, value in plan.items() if value is not None}
    setting, steps, controls = core.varied(method, vary, control or [])
    place = out or Path("runs") / json_hash([model, method, vary, control, plan])[:10]  # the same command resumes
    with signals.working_in(place):
        found = core.sweep(model, steps, controls=controls, setting=setting, out=place, **plan)  # type: ignore[arg-type]
    if as_json:
        facts(_plain(found), as_json)
        return
    show_rich(_table(found))
    write(f"written to {place}: sweep.csv, sweep.png, and the files that compare writes")


def _plain(found: Swept) -> dict[str, Any]:
    steps = [{**s._asdict(), "bias": _numbers(s.bias), "cost": _numbers(s.cost)} for s in found.steps]
    return {**found._asdict(), "steps": steps}


def _numbers(point: Point) -> dict[str, float | None]:
    from evenhand.core.text_output import for_json

    return {key: for_json(value) for key, value in point._asdict().items()}


def _table(found: Swept) -> Table:
    from rich.table import Table
    from rich.text import Text

    from evenhand.core.text_output import number, visible

    title = Text(visible(f"{found.bias}; {found.cost}"))
    table = Table(box=None, padding=(0, 1), title=title, title_justify="left")
    table.add_column(Text(visible(found.setting)))
    for name in ("bias", "difference, 95 %", "cost", "difference, 95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in found.steps:
        shown = [(number(p.value), "" if step.untouched else _difference(p)) for p in (step.bias, step.cost)]
        cells = [text for pair in shown for text in pair]
        table.add_row(Text(visible(step.label.replace(", ", "\n"))), *cells)
    return table


def _difference(point: Point) -> str:
    from rich.markup import escape

    from evenhand.core.text_output import interval, number

    bounds = interval(point.difference_low, point.difference_high, signed=True)
    return f"{number(point.difference, signed=True)} {escape(bounds)}".rstrip()
