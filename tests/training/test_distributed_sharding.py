"""Two processes that hold a model together, or each of them the whole, end with the weights of one alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tests.ports import free_port

WORKER = Path(__file__).with_name("distributed_sharding_worker.py")
LAYOUTS = ("whole", "sharded")
Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def worker() -> Any:
    spec = importlib.util.spec_from_file_location("distributed_sharding_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, worker: Any) -> Path:
    """Has checkpoints of a training that one process began, for each layout."""
    made = tmp_path_factory.mktemp("sharding")
    for layout in LAYOUTS:
        worker.stopped(worker.Case("llama", "full", 2), made / f"{layout}-one")
    return made


@pytest.fixture(scope="module")
def two(folder: Path) -> list[Found]:
    """What each of two processes ended with, by layout."""
    port = free_port()
    made = subprocess.run(
        [sys.executable, str(WORKER), str(folder), str(port)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=500,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert made.returncode == 0, made.stderr
    return [torch.load(folder / f"found{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(worker: Any) -> dict[str, Any]:
    """One process: with two batches per step at least, as two processes have."""
    cases = {case.name: case._replace(accumulation=max(2, case.accumulation)) for case in worker.CASES}
    found = {name: worker.trained(case) for name, case in cases.items()}
    found["float32"] = worker.trained(worker.Case("llama", "lora", 2), double=False)
    found["llama-full-2"] = worker.trained(worker.Case("llama", "full", 2))
    return found


def near(found: dict[str, Any], expected: dict[str, Any], atol: float = 1e-5) -> None:
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        assert torch.allclose(found["weights"][name].double(), weight.double(), atol=atol, rtol=0), name
    for row, other in zip(found["curve"], expected["curve"], strict=True):
        assert row == pytest.approx(other, abs=atol)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_end_with_the_weights_of_one(
    two: list[Found], alone: dict[str, Any], worker: Any, layout: str
) -> None:
    compared = two[0][layout].keys() & alone.keys()
    assert len(compared) == (8 if layout == "sharded" else 4)
    for name in compared:
        for found in two:
            near(found[layout][name], alone[name])


@pytest.mark.slow
def test_all_that_is_trained_has_moved_and_nothing_else(two: list[Found], worker: Any) -> None:
    for case in worker.CASES:
        now = two[0]["sharded"][case.name]["weights"]
        for name, p in worker.model(case).named_parameters():
            still = not p.requires_grad or name == "unused"  # not even decayed, as nothing has a gradient of it
            assert torch.equal(p, now[name]) is still, (case.name, name)


@pytest.mark.slow
def test_a_block_is_sharded_and_the_head_gathered_while_a_loss_is_computed(two: list[Found]) -> None:
    for found in two:
        seen = found["sharded"]["seen"]
        assert seen["block"] == 0.5 and seen["head"] == (True, (24, 32))


@pytest.mark.slow
def test_a_process_that_calls_the_model_less_often_repeats_its_call(two: list[Found]) -> None:
    """Four steps of two calls each; the hook that counts is taken off before the first process repeats its own."""
    assert [found["sharded"]["seen"]["runs"] for found in two] == [4, 8]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_a_step_are_those_of_its_mean_loss(two: list[Found], worker: Any, layout: str) -> None:
    module = worker.model(worker.Case("llama", "full", 3))
    some = worker.batches(0, Random(0))[:3]
    (sum(worker.loss(module, batch) for batch in some) / 3).backward()
    for found in two:
        made = found[layout]["gradients"]
        assert made.keys() == {name for name, _ in module.named_parameters()}
        for name, p in module.named_parameters():
            assert torch.allclose(made[name], p.grad, atol=1e-9, rtol=0), name


@pytest.mark.slow
def test_gradients_are_clipped_by_their_norm_over_all_processes(two: list[Found]) -> None:
    for found in two:
        assert found["sharded"]["clipped"] == pytest.approx([1.5, 2.0, 6.0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_resume_what_one_began(two: list[Found], alone: dict[str, Any], layout: str) -> None:
    for found in two:
        near(found[layout]["resumed"], alone["llama-full-2"])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_process_resumes_what_two_began(
    two: list[Found], alone: dict[str, Any], worker: Any, folder: Path, layout: str
) -> None:
    asked: list[int] = []

    def counted(epoch: int, random: Any) -> Any:
        asked.append(epoch)
        return worker.batches(epoch, random)

    resumed = worker.trained(worker.Case("llama", "full", 2), folder=folder / layout, batches=counted)
    assert asked == [1]
    near(resumed, alone["llama-full-2"])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_checkpointing_changes_nothing(two: list[Found], alone: dict[str, Any], layout: str) -> None:
    for found in two:
        near(found[layout]["checkpointed"], alone["llama-full-2"], atol=1e-6)


@pytest.mark.slow
def test_the_first_ones_weights_are_what_all_begin_with(two: list[Found], alone: dict[str, Any]) -> None:
    for found in two:
        near(found["sharded"]["other"], alone["mixed-full-2"])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_end_where_one_has_lost_its_numbers(two: list[Found], layout: str) -> None:
    assert all("loss became nan in epoch 0" in found[layout]["refused"] for found in two)


@pytest.mark.slow
def test_half_precision_is_of_the_products_alone(two: list[Found], alone: dict[str, Any]) -> None:
    made, expected = two[0]["sharded"]["half"], alone["llama-full-2"]
    assert all(w.dtype == torch.float32 for w in made["weights"].values())
    assert made["curve"][-1]["error"] == pytest.approx(expected["curve"][-1]["error"], abs=0.02)
    assert made["curve"][-1]["error"] != pytest.approx(expected["curve"][-1]["error"], abs=1e-6)
    assert "take precision=bf16" in two[0]["sharded"]["fp16"]
