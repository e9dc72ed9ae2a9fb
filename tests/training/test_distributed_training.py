"""Two processes train together what one trains alone; some ways to take the module apart are refused."""

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

from evenhand.errors import SettingsError
from evenhand.methods.unlearning import _fine_tuning
from evenhand.training.hidden import NODES
from evenhand.training.packing import Batch, pack
from evenhand.training.processes import SHARDING, _buckets, sharding_wanted

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def worker() -> Any:
    spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["whole", "sharded"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes ended with, each with the whole module or sharded by FSDP2."""
    folder = tmp_path_factory.mktemp("training")
    port = free_port()
    made = subprocess.run(
        [sys.executable, str(WORKER), str(folder), str(port)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=1800,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "FSDP_VERSION": "2"}
        | {"ACCELERATE_USE_FSDP": str(request.param == "sharded").lower()},
    )
    assert made.returncode == 0, made.stderr
    return [torch.load(folder / f"found{rank}.pt") for rank in range(2)]


def near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=1e-5, rtol=0), name


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(two: list[dict[str, Any]], worker: Any) -> None:
    alone, before = worker.small(), worker.net().state_dict()
    for found in two:
        near(found["small"]["weights"], alone["weights"])
        for row, expected in zip(found["small"]["curve"], alone["curve"], strict=True):
            assert row == pytest.approx(expected, abs=1e-5)
    moved = {n for n, w in alone["weights"].items() if not torch.allclose(w, before[n], atol=1e-3)}
    assert {"one.weight", "two.weight", "seldom"} <= moved
    for name in ("unused", "fixed"):  # not even decayed, as nothing has a gradient of them
        assert torch.equal(two[0]["small"]["weights"][name], before[name]), name


@pytest.mark.slow
def test_both_have_the_same_to_the_last_bit(two: list[dict[str, Any]]) -> None:
    for case in ("small", "resumed", "other"):
        one, other = (found[case]["weights"] for found in two)
        assert all(torch.equal(other[name], weight) for name, weight in one.items()), case
        assert two[0][case].get("curve") == two[1][case].get("curve")


@pytest.mark.slow
@pytest.mark.parametrize("fitted", ["lora", "full"])
def test_a_fine_tune_that_uses_weights_outside_of_the_forward_pass(
    two: list[dict[str, Any]], worker: Any, fitted: str
) -> None:
    alone = worker.language(fitted)
    assert alone["norm"] > 0.01
    for found in two:
        assert found[fitted]["norm"] == pytest.approx(alone["norm"], rel=1e-4)
        for row, expected in zip(found[fitted]["curve"], alone["curve"], strict=True):
            assert row == pytest.approx(expected, abs=1e-4)


def test_the_texts_of_that_fine_tune_share_their_beginnings(monkeypatch: pytest.MonkeyPatch, worker: Any) -> None:
    """So that what two processes are compared on above is what feeds a shared beginning once."""
    made: list[bool] = []

    def noted(*given: Any, **named: Any) -> list[Batch]:
        found = pack(*given, **named)
        made.extend(NODES in batch.inputs for batch in found)
        return found

    monkeypatch.setattr(_fine_tuning, "pack", noted)
    worker.language("lora")
    assert sum(made) > 0.5 * len(made) > 4


@pytest.mark.slow
def test_a_killed_training_of_two_goes_on_and_ends_the_same(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["resumed"]["asked"] == [2]
        assert found["resumed"]["curve"] == found["small"]["curve"]
        near(found["resumed"]["weights"], found["small"]["weights"])


@pytest.mark.slow
def test_the_first_ones_weights_are_what_all_begin_with(two: list[dict[str, Any]]) -> None:
    for found in two:
        near(found["other"]["weights"], two[0]["small"]["weights"])


@pytest.mark.slow
def test_all_end_where_one_has_lost_its_numbers(two: list[dict[str, Any]]) -> None:
    assert all("loss became nan in epoch 0" in found["refusals"][0] for found in two)


@pytest.mark.slow
def test_folders_that_are_not_shared_are_refused(two: list[dict[str, Any]]) -> None:
    """The main process alone writes, so that another one with a folder of its own begins anew."""
    assert all(found["refusals"][1] == "" and "different checkpoints" in found["refusals"][2] for found in two)


@pytest.mark.parametrize("variable", SHARDING)
def test_what_takes_the_module_apart_is_refused(monkeypatch: pytest.MonkeyPatch, worker: Any, variable: str) -> None:
    monkeypatch.setenv(variable, "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(SettingsError, match=rf"with {SHARDING[variable]}: launch with --use_fsdp --fsdp_version 2"):
        worker.small()
    monkeypatch.setenv(variable, "false")
    assert not sharding_wanted()


@pytest.mark.parametrize("version", ["1", ""])
def test_fsdp_of_version_1_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(SettingsError, match="with FSDP1: launch with --use_fsdp --fsdp_version 2"):
        sharding_wanted()
    monkeypatch.setenv("FSDP_VERSION", "2")
    for true in ("true", "1", "yes", "ON"):
        monkeypatch.setenv("ACCELERATE_USE_FSDP", true)
        assert sharding_wanted()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    assert not sharding_wanted()


def test_buckets_hold_neighbours_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evenhand.training.processes.BUCKET", 10)
    sizes = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (2, torch.float16), (30, torch.float16)]
    every = [torch.nn.Parameter(torch.zeros(n, dtype=kind)) for n, kind in sizes]
    assert [[p.numel() for p in bucket] for bucket in _buckets(every)] == [[4, 6], [1], [2], [30]]
    assert list(_buckets([])) == []
