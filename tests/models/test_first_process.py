"""Of several processes that save the same model the first one writes, and the others wait for the whole folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

WORKER = Path(__file__).with_name("saving_worker.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found, and the names of what they wrote themselves."""
    folder = tmp_path_factory.mktemp("saving")
    port = str(free_port())
    env = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen([sys.executable, str(WORKER), str(folder), str(rank), port], stderr=subprocess.PIPE, env=env)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=600)[1].decode() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_one_writes_and_all_can_open_it(found: list[dict[str, Any]]) -> None:
    assert all(mine[name] is True for mine in found for name in ("plain", "again", "stack"))


@pytest.mark.slow
def test_the_others_write_nothing(found: list[dict[str, Any]]) -> None:
    """A stack's base is part of its folder; the first process alone may save what it likes."""
    assert found[1]["written"] == []
    assert found[0]["written"] == ["plain", "plain", "base", "alone"]


@pytest.mark.slow
def test_a_failure_of_the_first_is_one_of_all(found: list[dict[str, Any]]) -> None:
    assert found[0]["failed"] and found[1]["failed"] == f"{found[0]['failed']} (in the first process)"
    assert "did not write it within 0:00:01" in found[1]["elsewhere"]


@pytest.mark.slow
def test_an_export_of_pcgu_is_whole_in_every_process(found: list[dict[str, Any]]) -> None:
    assert [mine["exported"] for mine in found] == [True, True]
