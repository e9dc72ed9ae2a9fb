"""Commands in processes started by torchrun or accelerate launch: only the first process prints."""

from __future__ import annotations

import os

from evenhand.core.one_process import launched
from evenhand.errors import SettingsError

ALONE = frozenset({"reproduce", "serve", "spillover", "sweep"})
"""Commands that every process would run in full, writing the same files."""


def is_silent() -> bool:
    """Whether this process prints nothing, because the first process of the launch prints everything."""
    return launched() and int(os.environ.get("RANK", "0")) > 0


def is_said() -> bool:
    """Whether this process is silent, and the first one has ended and reports the error."""
    if not is_silent():
        return False
    from evenhand.inference.team import latest

    team = latest()
    return team is not None and team.first_ended


def refuse_alone(command: str | None) -> None:
    """Refuse a command of `ALONE` if several processes were launched.

    Raises:
        SettingsError: The command is in `ALONE`, and several processes were launched.
    """
    if command in ALONE and launched():
        raise SettingsError(
            f"evenhand {command} runs in one process, but {os.environ['WORLD_SIZE']} were launched: start it without "
            "torchrun or accelerate launch, which compare, evaluate and debias support"
        )
