"""Whether code that a run file names may be run: by an option, or by asking."""

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
        help="Run the code that the run file names without asking: its plugins, and code of models.",
    ),
]


def require(run: Path, config: RunConfig, named: Sequence[Path], *, allowed: bool) -> None:
    """Let a run file execute code only where the user says so; one that executes none needs no word.

    Args:
        run: The run file.
        config: Its content.
        named: Plugins that the user has named on the command line, which are allowed by that.
        allowed: Whether the user gave --allow-plugins.

    Raises:
        SettingsError: It executes code, and the user did not allow it, or cannot be asked.
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
    """Whether the user says yes; False where there is nobody to be asked."""
    from evenhand.core.text_output import visible

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{visible(what)}\nRun it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
