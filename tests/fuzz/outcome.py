"""What reading or parsing may end in: a result, or one of evenhand's errors whose message helps."""

from __future__ import annotations

import contextlib
import re
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from evenhand.errors import EvenhandError

LONGEST = 700
"""Characters of a message, without the folder of the test: where to get a data set takes half of them."""
SECONDS = 10.0
"""Processor seconds after which an input counts as a hang; the usual ones take thousandths of that."""


class Hung(BaseException):
    """A reader or parser that took more than `SECONDS`; no `Exception`, which code under test might catch."""


class Finding(NamedTuple):
    """What went wrong."""

    kind: str
    """The same for inputs that fail in the same way."""
    detail: str


def finding(call: Callable[[], object], root: Path | None = None) -> Finding | None:
    """Call a reader or parser, and judge how it ends.

    Args:
        call: Reads one input.
        root: The folder of the input: where it is given, an error must name a file in it or the folder.

    Returns:
        None where there is a result or a helpful error.
    """
    try:
        with warnings.catch_warnings(), limited(SECONDS):
            warnings.simplefilter("ignore")
            call()
    except EvenhandError as error:
        return _unhelpful(str(error), root)
    except Hung as error:
        return Finding(f"hang in {_place(error)}", f"more than {SECONDS:g} processor seconds")
    except Exception as error:
        return Finding(f"{type(error).__name__} in {_place(error)}", str(error)[:300])
    return None


def _unhelpful(message: str, root: Path | None) -> Finding | None:
    plain = message if root is None else message.replace(str(root), "")
    shape = re.sub(r"\d+", "0", re.sub(r"'[^']*'|\"[^\"]*\"|/\S+", "_", plain))[:60]
    if len(plain) > LONGEST:
        return Finding(f"message of more than {LONGEST} characters: {shape}", f"{len(plain)}: {plain[:300]}")
    if any(not (c.isprintable() or c == " ") for c in plain):
        return Finding(f"message with line breaks or control characters: {shape}", repr(plain[:300]))
    if root is not None and str(root) not in message:
        return Finding(f"message without a file: {shape}", plain[:300])
    return None


def _place(error: BaseException) -> str:
    """The last line of evenhand's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "evenhand" in f.filename.split("/tests/fuzz/")[0] and "/tests/" not in f.filename]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.name}"


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hung` inside after so many processor seconds, where the system has such a timer."""
    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
