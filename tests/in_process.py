"""The command line within the process of the tests, which has imported already what a new process would import first.

A process costs seconds before it does anything. Tests of signals, of disks and of how a process begins and ends start
one nevertheless, and so does a test of each of the main commands.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from subprocess import CompletedProcess
from unittest.mock import patch

from evenhand.cli import app


def run_here(*arguments: str, **environment: str) -> CompletedProcess[str]:
    """`evenhand ARGUMENTS` with what it prints and its exit status; arguments, variables and warnings are put back."""
    out, said = StringIO(), StringIO()
    env = {"NO_COLOR": "1", "COLUMNS": "200", **environment}
    with (
        patch.object(sys, "argv", ["evenhand", *arguments]),
        patch.dict(os.environ, env),
        warnings.catch_warnings(),
        redirect_stdout(out),
        redirect_stderr(said),
    ):
        warnings.resetwarnings()
        warnings.simplefilter("default")
        status = _status()
    return CompletedProcess(["evenhand", *arguments], status, out.getvalue(), said.getvalue())


def _status() -> int:
    try:
        app.main()
    except SystemExit as ended:
        assert ended.code is None or isinstance(ended.code, int), ended.code
        return ended.code or 0
    return 0
