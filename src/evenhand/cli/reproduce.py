"""`evenhand reproduce`: reproduce a published row with one command, and show our figure next to the published one.

`python -m evenhand.cli.reproduce docs/results.md` rewrites the table of recipes in that file, between its marks.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli import marked_tables, signals
from evenhand.cli.output import Json, facts, fail, show_rich, write

if TYPE_CHECKING:
    from rich.table import Table

    from evenhand.experiment.recipe_checks import Check
    from evenhand.experiment.recipes import Recipe
    from evenhand.experiment.reproduction import Outcome
    from evenhand.report import Report

BEGIN, END = "<!-- recipes: written by python -m evenhand.cli.reproduce -->", "<!-- end of recipes -->"
GB = 1e9
SHOWN = 3
"""Maximum number of figures per recipe in the table of recipes."""
NOTES = "notes on the data"
STATED = ("revision", "dtype", "prompt_format", "answer_by", "fingerprint")
"""Facts of a model that a figure depends on."""


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="A recipe, or a .yaml file of your own; without it, all recipes are listed.")
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Run it on a demo model and a few items; the figures mean nothing.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only check settings, data and memory; with --smoke, the settings of the small form."
        ),
    ] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Run even if a check of settings, data or memory fails.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A copy of the recipe's model, as a folder.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder; a run that was stopped is resumed from it.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.")] = None,
    device_map: Annotated[
        str | None, typer.Option("--device-map", help="How to place the model, such as auto: spread over all GPUs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run the recipe of a published figure and print the published figure, ours and the difference.

    Settings, data and memory are checked first. Exits with 1 if a figure is outside what is accepted, or was not
    run.
    """
    if name is None:
        _list(as_json)
        return
    from evenhand.core.hashing import json_hash
    from evenhand.experiment import recipes, reproduction

    recipe = recipes.read(name)
    found = _checks(recipe, smoke, device, device_map)
    if check:
        facts({c.what: f"{'ok' if c.ok else 'NOT OK'}: {c.found}" for c in found}, as_json)
        raise typer.Exit(0 if all(c.ok for c in found) else 1)
    if not unchecked and (wrong := [c for c in found if not c.ok]):
        said = _sentence(f"{wrong[0].what}: {wrong[0].found}")
        fail(said if wrong[0].what == "settings" else f"{said} (`--unchecked` runs it anyway)", 2)
    asked = reproduction.plan(recipe, smoke=smoke, model=model)
    place = out or Path("runs") / f"{Path(name).stem}-{json_hash([*asked])[:10]}"  # so that the same command resumes
    loading: dict[str, Any] = {k: v for k, v in {"device": device, "device_map": device_map}.items() if v is not None}
    with signals.working_in(place):
        report = reproduction.run(asked, out=place, **({} if smoke else loading))
    rows = reproduction.outcomes(recipe, asked, report.records, smoke=smoke)
    _show(recipe, rows, report, smoke, found, as_json)
    if not as_json:
        write(f"written to {place}: report.html and the other files that compare writes")
    if any(row.within in ("no", "not run") for row in rows):
        raise typer.Exit(1)


def _checks(recipe: Recipe, smoke: bool, device: str | None, device_map: str | None) -> list[Check]:
    from evenhand.experiment import recipe_checks

    settings = recipe_checks.settings_checks(recipe, smoke=smoke)
    return settings if smoke else [*settings, *_data_and_memory(recipe, device, device_map)]


def _data_and_memory(recipe: Recipe, device: str | None, device_map: str | None) -> list[Check]:
    import torch

    from evenhand.experiment import recipe_checks
    from evenhand.inference.memory_budget import free_bytes
    from evenhand.models.hugging_face import require_device

    wanted = require_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device_map is not None and wanted.type == "cuda":
        count = torch.cuda.device_count()
        free = sum(free_bytes(torch.device("cuda", n)) for n in range(count))
        return recipe_checks.checks(recipe, free=free, device=f"{count} GPUs")
    return recipe_checks.checks(recipe, free=free_bytes(wanted), device=str(wanted))


def _list(as_json: bool) -> None:
    from evenhand.experiment import recipes
    from evenhand.experiment.estimates import estimate

    read = {name: recipes.read(name) for name in recipes.names()}
    if as_json:
        facts({name: {**recipe.model_dump(), **estimate(recipe)._asdict()} for name, recipe in read.items()}, True)
        return
    facts({name: f"{_kind(recipe)}{_sentence(recipe.title)} {_needs(recipe)}" for name, recipe in read.items()}, False)


def _show(recipe: Recipe, rows: list[Outcome], report: Report, smoke: bool, found: list[Check], as_json: bool) -> None:
    conditions = _conditions(report)
    wrong = [f"{c.what}: {c.found}" for c in found if not c.ok]
    if as_json:
        plain = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in r._asdict().items()} for r in rows
        ]
        facts(
            {
                "title": recipe.title,
                "smoke": smoke,
                "unchecked": wrong,
                "rows": plain,
                **conditions,
                NOTES: data_notes(report),
            },
            True,
        )
        return
    show_rich(outcome_table(recipe, rows, smoke))
    for row in rows:
        write(f"{row.name}: {row.note}" if row.note else f"{row.name}: no published figure")
    facts(conditions, False)
    for note in recipe.notes:
        write(f"note: {note}")
    for name, said in data_notes(report).items():
        write(f"note on the data of {name}: {'; '.join(said)}")
    for line in wrong:
        write(f"CHECK FAILED: {line}")


def outcome_table(recipe: Recipe, rows: list[Outcome], smoke: bool) -> Table:
    """Make the table of published and our figures, with differences and verdicts."""
    from rich.markup import escape
    from rich.table import Table

    from evenhand.core.sinks import one_line
    from evenhand.core.text_output import interval, number

    title = f"SMOKE on {recipe.smoke.model}, whose figures mean nothing: {recipe.title}" if smoke else recipe.title
    head = "" if recipe.kind == "published" else "Demonstration, without a published figure: "
    table = Table(
        box=None, padding=(0, 1), title=escape(one_line(f"{head}{title} ({recipe.paper})")), title_justify="left"
    )
    table.add_column("")
    for name in ("published", "ours", "95 %", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("within", no_wrap=True)
    for row in rows:
        ours = "not run" if row.within == "not run" else number(row.ours)
        bounds = escape(interval(row.low, row.high))
        published = "none" if row.published is None else number(row.published)
        off = number(row.difference, signed=True)
        table.add_row(escape(one_line(row.name)), published, ours, bounds, off, row.within)
    return table


def recipe_table() -> str:
    """Render every shipped recipe as a Markdown table: its model, its rows, memory and hours by the formula."""
    from evenhand.core.text_output import number
    from evenhand.experiment import recipes
    from evenhand.experiment.estimates import estimate

    rows = []
    for name in recipes.names():
        recipe = recipes.read(name)
        needs = estimate(recipe)
        figures = [f"{r.name} {number(r.published)}" for r in recipe.rows if r.published is not None]
        more = f"; {len(figures) - SHOWN} more" if len(figures) > SHOWN else ""
        shown = "; ".join(figures[:SHOWN]).replace("|", "\\|") + more or "none: a demonstration"
        needed = (f"{needs.memory / GB:.1f}", _hours(needs.hours))
        rows.append((f"`{name}`", recipe.paper, recipe.model.name, shown, *needed))
    return marked_tables.table(("recipe", "source", "model", "published", "memory, GB", "hours"), rows)


def put(text: str) -> str:
    """Rewrite the table of recipes between the marks of a document.

    Raises:
        SettingsError: The document lacks one of the marks.
    """
    return marked_tables.put(text, BEGIN, END, recipe_table(), "recipes")


def _conditions(report: Report) -> dict[str, Any]:
    """Return what a figure depends on: the model as it was read, and the hashes of the data."""
    models = {
        name: {key: known[key] for key in STATED if key in known} for name, known in report.manifest["models"].items()
    }
    data = {name: known.get("contents", "") for name, known in report.manifest["benchmarks"].items()}
    return {"model": models, "hash of the items": data}


def data_notes(report: Report) -> dict[str, list[str]]:
    """Collect the benchmarks' notes on their data, such as that it is not the published version, by benchmark."""
    said = {name: known.get("notes", []) for name, known in report.manifest["benchmarks"].items()}
    return {name: list(notes) for name, notes in said.items() if notes}


def _sentence(text: str) -> str:
    """End a text with one full stop, unless it ends with a question or exclamation mark."""
    plain = text.rstrip(". ")
    return plain if plain.endswith(("?", "!")) else f"{plain}."


def _kind(recipe: Recipe) -> str:
    return "" if recipe.kind == "published" else "demonstration: "


def _needs(recipe: Recipe) -> str:
    from evenhand.experiment.estimates import estimate

    needs = estimate(recipe)
    return f"About {needs.memory / GB:.0f} GB and {_hours(needs.hours)} h on one H100, by the formula"


def _hours(hours: float) -> str:
    return "under 0.1" if hours < 0.1 else f"{hours:.1f}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(put(file.read_text(encoding="utf-8")), encoding="utf-8")
