"""`evenhand data`: list, check and fetch the data of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenhand.cli.output import Json, facts, write

data = typer.Typer(no_args_is_help=True, help="List, check and fetch the benchmarks' data.")


@data.command("list")
def data_list(as_json: Json = False) -> None:
    """List the data sets: what each is for, where it was found, its licence, and how to get it."""
    from evenhand.cli import catalogue

    facts(catalogue.data_sets(), as_json)


@data.command("check")
def data_check(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets to check; default: all that were found.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the files with the published ones, and name those that have no published hash.

    Exits with 1 if a file differs or is missing, or nothing was found.
    """
    from evenhand.cli import catalogue

    found = catalogue.data_check(names or [])
    facts(found, as_json)
    if any(facts["differs"] or facts["missing"] for facts in found.values()):
        raise typer.Exit(1)


@data.command("fetch")
def data_fetch(
    names: Annotated[list[str], typer.Argument(help="Data sets to fetch, such as mmlu.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder that contains the data sets; default: $EVENHAND_DATA.")
    ] = None,
) -> None:
    """Fetch data sets from their repositories or the hub and compare every file with its published hash."""
    from evenhand.cli import catalogue

    for name in names:
        write(f"{name}: {catalogue.fetch(name, to)}")
