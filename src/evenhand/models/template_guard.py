"""A chat template is a program by whoever wrote the tokenizer: one that would run or grow without end is refused.

Jinja's sandbox, in which transformers renders it, keeps it from attributes, files and functions, and not from time and
memory. A template that walks over the turns and nothing else is let through as it is read. Any other is rendered once
in a process of its own, with limits. A template that behaves until it sees a certain text is not found so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from evenhand.errors import SettingsError
from evenhand.models import template_growth

SECONDS = 2
"""Of processor time for three short dialogues, which take milliseconds."""
WAIT = 30
"""Seconds by the clock, on a machine that does much else."""
BYTES = 2**30
LONGEST = 200_000
"""Characters that a template may make of short dialogues; tools' descriptions take a few thousand."""
SOURCE = 1_000_000
"""Characters of a template."""
TRIED, TOO_LONG = 0, 3
"""How a trial ends that came to an end of its own: `template_trial.main`."""


def check(tokenizer: Any, label: str) -> None:
    """Refuse a tokenizer whose chat template takes too much.

    Args:
        tokenizer: Of transformers; it may have several templates, or none.
        label: Its folder or name, for the message.

    Raises:
        SettingsError: It does; the message says of what.
    """
    found = getattr(tokenizer, "chat_template", None)
    for text in found.values() if isinstance(found, Mapping) else [found]:
        if isinstance(text, str) and (reason := _too_much(text)):
            raise SettingsError(
                f"the chat template of {label} {reason}. It is a program that whoever wrote the tokenizer put there: "
                "remove it (chat_template in tokenizer_config.json, chat_template.jinja), or take the publisher's"
            )


@lru_cache(maxsize=64)
def _too_much(text: str) -> str:
    """What a template takes too much of; "" where it does not."""
    if len(text) > SOURCE:
        return f"is too long: {len(text):,} characters, more than {SOURCE:,}"
    return "" if template_growth.is_tame(text) else _tried(text)


def _tried(text: str) -> str:
    """What came of rendering a template with limits; "" also where it could not be tried, with a warning."""
    try:
        status = _trial(text)
    except subprocess.TimeoutExpired:
        return f"runs for more than {WAIT} seconds on short dialogues"
    except OSError as error:
        return _untried(f"{type(error).__name__}: {error}")
    if status < 0:
        return f"takes more than {SECONDS} seconds of processor time, or too much memory, for short dialogues"
    if status == TOO_LONG:
        return f"makes too long a text of short dialogues, or needs more memory than {BYTES / 2**30:g} GiB for it"
    return "" if status == TRIED else _untried(f"status {status}")


def _trial(text: str) -> int:
    """The status of a process that renders a template; negative where a limit ended it."""
    if not sys.executable:  # in a program that has Python within it
        raise FileNotFoundError("the program of Python is not known")
    program = Path(__file__).with_name("template_trial.py")
    path = [os.path.abspath(folder) for folder in sys.path]
    given = {"template": text, "seconds": SECONDS, "bytes": BYTES, "longest": LONGEST, "path": path}
    return subprocess.run(
        [sys.executable, "-I", str(program)],
        input=json.dumps(given).encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=WAIT,
        check=False,
    ).returncode


def _untried(why: str) -> str:
    """Let a template through whose trial did not start: nothing is known of it, and most are sound."""
    warnings.warn(
        f"a chat template could not be tried in a process with limits ({sys.executable}: {why}), and is used as it is; "
        "where you do not trust whoever wrote the tokenizer, look at its chat_template first",
        stacklevel=2,
    )
    return ""
