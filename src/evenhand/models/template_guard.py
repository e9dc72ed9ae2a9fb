"""A chat template is a program by the tokenizer's author; one that would run or grow without bounds is refused.

Jinja's sandbox, in which transformers renders it, protects attributes, files and functions, but not time and
memory. A template that only iterates over the turns is accepted after parsing. Any other is rendered once
in a process of its own, with limits. A template that misbehaves only for certain texts is not detected.
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
"""Limit of processor time in seconds for three short dialogues, which normally take milliseconds."""
WAIT = 30
"""Limit of wall-clock time in seconds, for a busy machine."""
BYTES = 2**30
LONGEST = 200_000
"""Maximum length of the text rendered from a short dialogue, in characters; tool descriptions take a few thousand."""
SOURCE = 1_000_000
"""Maximum length of a template in characters."""
TRIED, TOO_LONG = 0, 3
"""Exit statuses of a trial that ended by itself; see `template_trial.main`."""


def check(tokenizer: Any, label: str) -> None:
    """Refuse a tokenizer whose chat template uses too much time, memory or text.

    Args:
        tokenizer: A transformers tokenizer; it may have several templates, or none.
        label: Its folder or name, for the message.

    Raises:
        SettingsError: It does; the message says which limit is exceeded.
    """
    found = getattr(tokenizer, "chat_template", None)
    for text in found.values() if isinstance(found, Mapping) else [found]:
        if isinstance(text, str) and (reason := _too_much(text)):
            raise SettingsError(
                f"the chat template of {label} {reason}. It is a program that whoever wrote the tokenizer put there: "
                "remove it (chat_template in tokenizer_config.json, chat_template.jinja), or use the publisher's"
            )


@lru_cache(maxsize=64)
def _too_much(text: str) -> str:
    """Return which limit a template exceeds; "" if none."""
    if len(text) > SOURCE:
        return f"is too long: {len(text):,} characters, more than {SOURCE:,}"
    return "" if template_growth.is_tame(text) else _tried(text)


def _tried(text: str) -> str:
    """Return which limit rendering a template exceeds; "" also, with a warning, if it could not be tried."""
    try:
        status = _trial(text)
    except subprocess.TimeoutExpired:
        return f"runs for more than {WAIT} seconds on short dialogues"
    except OSError as error:
        return _untried(f"{type(error).__name__}: {error}")
    if status < 0:
        return f"takes more than {SECONDS} seconds of processor time, or too much memory, for short dialogues"
    if status == TOO_LONG:
        return f"renders too long a text for short dialogues, or needs more memory than {BYTES / 2**30:g} GiB for it"
    return "" if status == TRIED else _untried(f"status {status}")


def _trial(text: str) -> int:
    """Return the exit status of a process that renders a template; negative if a limit ended it."""
    if not sys.executable:  # in a program that embeds Python
        raise FileNotFoundError("the Python executable is unknown")
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
    """Accept a template whose trial did not start, with a warning: nothing is known about it, and most are sound."""
    warnings.warn(
        f"a chat template could not be tried in a process with limits ({sys.executable}: {why}), and is used as it is; "
        "if you do not trust the tokenizer's author, read its chat_template first",
        stacklevel=2,
    )
    return ""
