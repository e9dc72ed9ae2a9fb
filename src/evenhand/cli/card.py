"""`evenhand card`: the model card of a saved folder, with the numbers of a run before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.output import Plugins, load_plugins, write

if TYPE_CHECKING:
    from evenhand.report import Report

Run = Annotated[
    Path | None,
    typer.Option("--run", help="Run folder in which the method was compared on the same base; its numbers are added."),
]


def card(
    folder: Annotated[Path, typer.Argument(help="A folder that debias wrote.")],
    run: Run = None,
    method: Annotated[
        str, typer.Option("--method", help="Row of the run with the method, if the folder names it differently.")
    ] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Model of the run, if that is ambiguous.")] = "",
    train: Annotated[
        str,
        typer.Option("--train", help="Training data as given to debias, if the folder does not name it."),
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a README.md that evenhand did not write.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Write the model card of a saved folder: what was done, on which data, numbers before and after, limits."""
    from evenhand.report import Report
    from evenhand.report.model_card import write_card

    load_plugins(plugin or [])
    report = None if run is None else Report.load(run)
    file = write_card(folder, report, method=method, model=model, train_source=train, overwrite=overwrite)
    without = "" if run else "\nit has no numbers: give --run RUN, in which the method was compared on the same base"
    write(f"written: {file}{without}")


def write_new_card(folder: Path, train: str | None, report: Report | None, *, keep: bool) -> None:
    """Write the card of a newly saved folder, and print where it is.

    Args:
        folder: The saved model.
        train: Training data, as given on the command line.
        report: A run whose numbers are added.
        keep: Whether a README.md that evenhand did not write was there before the model was saved, and stays.
    """
    from evenhand.report.model_card import FILE, write_card

    if keep:
        write(f"{folder / FILE} stays as it was; `evenhand card {folder} --overwrite` replaces it with a model card")
        return
    write(f"its model card: {write_card(folder, report, train_source=train or '', overwrite=True)}")
