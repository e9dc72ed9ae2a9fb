"""`evenhand diff`: two runs compared row by row, on the items that both answered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.output import Json, Plugins, load_plugins, show_rich, write, write_records
from evenhand.errors import SettingsError


def diff(
    run_a: Annotated[Path, typer.Argument(help="A run folder: the values before.")],
    run_b: Annotated[Path, typer.Argument(help="Another one, or the same: the values after.")],
    model: Annotated[str, typer.Option("--model", help="Only this model.")] = "",
    methods: Annotated[
        str,
        typer.Option(
            "--methods", help="Compare only these methods: one for both runs, or one per run ('self_debias,pride')."
        ),
    ] = "",
    benchmark: Annotated[
        str, typer.Option("--benchmark", help="Only this benchmark, such as 'bbq(source=demo)'.")
    ] = "",
    form: Annotated[str, typer.Option("--format", help="text or csv.")] = "text",
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Compare two runs: what changes from the first to the second, paired on the items that both answered.

    Rows with the same model and method are compared; if each run has only one model, these are, even if they differ.
    """
    from evenhand.core import specs
    from evenhand.report import Report
    from evenhand.report.differences import between
    from evenhand.report.exports import frame_csv
    from evenhand.report.paired_numbers import Bootstrap

    chosen = specs.split(methods, ",") if methods else ["", ""]
    if len(chosen) > 2:
        raise SettingsError(f"--methods {methods!r}: give one method for both runs, or one of each")
    if form not in ("text", "csv"):
        raise SettingsError(f"--format {form!r} is not known; give text or csv")
    load_plugins(plugin or [])
    first, second = Report.load(run_a), Report.load(run_b)
    rows = (chosen[0], chosen[-1])
    found = between(
        first.cells(),
        second.cells(),
        first.criteria,
        model=model,
        methods=rows,
        benchmark=benchmark,
        bootstrap=Bootstrap.of(first.manifest),
    )
    if as_json:
        write_records(found.records)
    elif form == "csv":
        write(frame_csv(found.frame(main_only=False, group="")).rstrip("\n"))
    else:
        show_rich(found)
