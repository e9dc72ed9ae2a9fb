"""The torture by signals, in short: `python benchmarks/torture_kills.py` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "torture_kills.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not part of a package")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_nobody_disturbed() -> None:
    options = ["--only", "short", "--kills", "8", "--round", "8", "--fresh", "0", "--seconds", "60", "--seed", "3"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " kills, " in done.stdout and not done.stdout.startswith("0 kills")
