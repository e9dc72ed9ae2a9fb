"""Two processes that call a method together both get the model that one process alone gets."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.ports import free_port

WORKER = Path(__file__).with_name("shared_artifacts_worker.py")
CASES = ("copied", "unnamed base", "masked")
QUICK = "whole", "copied"
WAYS = [f"{layout}{kept}" for layout in ("whole", "sharded") for kept in ("", ", kept", ", found")]


@pytest.fixture(scope="module")
def worker() -> Any:
    spec = importlib.util.spec_from_file_location("shared_artifacts_worker", WORKER)
    assert spec is not None and spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    return worker


@pytest.fixture(scope="module")
def alone(worker: Any) -> dict[str, Any]:
    """What one process gets, by case."""
    return {case: worker.trained(case) for case in CASES}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes gets, in every way and case."""
    return launched(tmp_path_factory.mktemp("shared"))


def launched(folder: Path, *only: str) -> list[dict[str, Any]]:
    """What each of two processes gets, in one layout and case alone if these are given."""
    port = free_port()
    made = subprocess.run(
        [sys.executable, str(WORKER), str(folder), str(port), *only],
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert made.returncode == 0, made.stderr
    return [torch.load(folder / f"found{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", WAYS)
def test_both_processes_get_the_model_of_one(
    two: list[dict[str, Any]], alone: dict[str, Any], way: str, case: str
) -> None:
    check_alike([found[way][case] for found in two], alone[case])


def test_both_processes_get_whole_weights(tmp_path: Path, worker: Any) -> None:
    layout, case = QUICK
    check_alike([found[layout][case] for found in launched(tmp_path, layout, case)], worker.trained(case))


def check_alike(both: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    first, second = both
    assert first["fingerprint"] == second["fingerprint"]
    assert first["record"] == second["record"]
    for name, weight in expected["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        if name.endswith("key.bias"):  # attention does not depend on it: its gradient is rounding, which AdamW enlarges
            continue
        assert torch.allclose(first["weights"][name], weight, atol=1e-5, rtol=0), name


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["whole", "sharded"])
def test_what_was_kept_is_found_again(two: list[dict[str, Any]], layout: str) -> None:
    for case in CASES:  # the record has the seconds of the training
        assert two[1][f"{layout}, found"][case]["record"] == two[1][f"{layout}, kept"][case]["record"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["whole", "sharded"])
def test_a_failure_of_the_first_process_ends_both(two: list[dict[str, Any]], layout: str) -> None:
    first, second = (found[f"{layout}, refused"] for found in two)
    assert first == ["DivergedError: no finite scores", "OSError: no space is left"]
    assert second == [
        "DivergedError: no finite scores (in the first process)",
        "EvenhandError: no space is left (in the first process)",
    ]
