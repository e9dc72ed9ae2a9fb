"""Consent to run code that a run file names: given by an option, or asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from evenhand.experiment.config import RunConfig

AllowPlugins = Annotated[
    bool,
    typer.Option(
        "--allow-plugins",
        help="Run code that the run file names without asking: its plugins, and code that comes with models.",
    ),
]


def require(run: Path, config: RunConfig, named: Sequence[Path], *, allowed: bool) -> None:
    """Refuse a run file that executes code unless the user consents; a file without code needs no consent.

    Args:
        run: The run file.
        config: Its content.
        named: Plugins that the user named on the command line, and so allowed.
        allowed: Whether the user gave --allow-plugins.

    Raises:
        SettingsError: The file executes code, and the user did not allow it or cannot be asked.
    """
    from evenhand.experiment.code_of_run_file import code_of

    known = {file.resolve() for file in named}
    other = [file for file in config.plugins if Path(file).resolve() not in known]
    found = code_of(config.model_copy(update={"plugins": other}))
    if allowed or not found:
        return
    what = f"{run} would run code on this machine, with all of your rights: {'; '.join(found)}"
    if not _asked(what):
        raise SettingsError(
            f"{what}. Read it first. If you trust it, give --allow-plugins; in Python, call "
            "evenhand.core.registry.load_plugin(FILE), then evenhand.compare"
        )


def _asked(what: str) -> bool:
    """Ask the user; False if standard input or standard error is not a terminal."""
    from evenhand.core.text_output import visible

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{visible(what)}\nRun it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
