"""The torture of a run folder, in short: `python benchmarks/torture_storage.py` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "torture_storage.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not part of a package")
def test_no_damage_is_taken_for_results_or_ends_in_another_library_s_error() -> None:
    options = ["--model", "tiny", "--flips", "80", "--cuts", "20", "--show", "50", "--rounds", "1", "--seed", "7"]
    options += ["--limit", "8"]
    done = subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "80 flipped bits, 20 files" in done.stdout
