"""Private parts of other libraries: they are probed, and without them the results are the same."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evenhand.errors import SettingsError
from evenhand.models.tiny import tiny_model
from evenhand.training import accelerate_support, dtensor_support, trl_support
from evenhand.training import trl as through_trl
from evenhand.training.accelerate_support import OneProcess
from evenhand.training.loop import Schedule, Training
from evenhand.training.lora import Adapter, lora_config

X = torch.linspace(-1, 1, 24)[:, None]
Y = 3 * X - 0.5


@pytest.fixture
def probed_anew() -> Iterator[None]:
    """Probes are made once a process."""
    probes = (accelerate_support.supported, dtensor_support.supported, trl_support.supported)
    for probe in probes:
        probe.cache_clear()
    yield
    for probe in probes:
        probe.cache_clear()


# ------------------------------------------------------------------------------------------------------ accelerate


def trained_line(precision: str) -> list[Tensor]:
    torch.manual_seed(0)
    line = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    def loss(module: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        made = module(batch[0])
        assert made.dtype == torch.float32, "casts are taken back"
        return ((made - batch[1]) ** 2).mean()  # type: ignore[no-any-return]

    Training(
        module=line,
        batches=lambda epoch, random: [(X[n : n + 8], Y[n : n + 8]) for n in range(0, 24, 8)],
        loss=loss,
        evaluate=lambda module: {"error": float(loss(module, (X, Y)))},
        watched="error",
        schedule=Schedule(epochs=3, learning_rate=0.05, device="cpu", precision=precision),
    ).run()
    assert torch.equal(line(X), line[2](line[1](line[0](X)))), "the casts are taken off"
    return [p.detach().clone() for p in line.parameters()]


def test_accelerate_is_probed(probed_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.state import AcceleratorState

    assert accelerate_support.supported()
    accelerate_support.supported.cache_clear()
    monkeypatch.delattr(AcceleratorState, "_reset_state")
    assert not accelerate_support.supported()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_without_accelerates_reset_a_training_is_the_same(
    precision: str, probed_anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained_line(precision)
    trained_line("bf16" if precision == "no" else "no")  # accelerate now holds another precision
    monkeypatch.setattr(accelerate_support, "supported", lambda: False)
    made: list[OneProcess] = []
    begin = OneProcess.__init__
    monkeypatch.setattr(OneProcess, "__init__", lambda self, *given: (made.append(self), begin(self, *given))[1])
    found = trained_line(precision)
    assert made, "the fall-back was taken"
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_fall_back_refuses_what_it_cannot_do() -> None:
    with pytest.raises(SettingsError, match=r"precision=fp16 within a process: start a new process"):
        OneProcess("cpu", "fp16")


# --------------------------------------------------------------------------------------------------------- DTensor


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_rows_are_chunked_as_torch_chunks(ranks: int) -> None:
    for size in (1, 2, 3, 7, 12):
        chunks = torch.arange(size).chunk(ranks)
        found = [dtensor_support.chunk(size, ranks, rank) for rank in range(ranks)]
        expected = [(int(c[0]), int(c[-1]) + 1) for c in chunks] + [(size, size)] * (ranks - len(chunks))
        assert found == expected, size


def test_sharded_rows_are_the_same_without_torchs_function(probed_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    assert dtensor_support.supported()
    assert dtensor_support.rows_here(torch.zeros(4, 2)) == (0, 4) and dtensor_support.rows_here(torch.tensor(1.0)) == (
        0,
        1,
    )
    for rank in range(3):
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=3)  # type: ignore[no-untyped-call]
        try:
            mesh = init_device_mesh("cpu", (3,))
            for size in (1, 2, 3, 7, 12):
                first, last = dtensor_support.chunk(size, 3, rank)
                p = DTensor.from_local(
                    torch.zeros(last - first, 2), mesh, [Shard(0)], shape=torch.Size((size, 2)), stride=(2, 1)
                )
                with monkeypatch.context() as patched:
                    told = dtensor_support.rows_here(p)
                    patched.setattr(dtensor_support, "supported", lambda: False)
                    assert dtensor_support.rows_here(p) == told == (first, last), (rank, size)
        finally:
            dist.destroy_process_group()


def test_torchs_function_is_probed(probed_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.distributed.tensor._utils", types.ModuleType("without"))
    assert not dtensor_support.supported()


# ------------------------------------------------------------------------------------------------------------- TRL


def preferred(folder: Path) -> tuple[dict[str, Tensor], list[Any]]:
    model = tiny_model()
    module, tokenizer = model.weights
    rows = [{"prompt_ids": [1, n, n + 1], "chosen_ids": [n + 2, n + 3], "rejected_ids": [n + 4]} for n in range(5, 21)]
    recipe = through_trl.Recipe(
        objective="dpo", epochs=2, learning_rate=1e-2, warmup=0.1, batch_size=4, seed=3, cpu=True
    )
    adapter = lora_config(module, Adapter(2, 4))
    made = through_trl.train(module, tokenizer, rows[2:], recipe, folder, held=rows[:2], adapter=adapter)
    weights = {n: p.detach().clone() for n, p in made.module.named_parameters() if p.requires_grad}
    return weights, [{k: v for k, v in row.items() if k in ("loss", "eval_loss", "epoch")} for row in made.history]


def test_trl_is_probed(probed_anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl")
    assert trl_support.supported()
    trl_support.supported.cache_clear()
    monkeypatch.delattr(trl.DPOTrainer, "_prepare_dataset")
    assert not trl_support.supported()


def test_without_trls_preparation_step_a_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    expected, told = preferred(tmp_path / "one")
    monkeypatch.setattr(trl_support, "supported", lambda: False)
    found, also = preferred(tmp_path / "two")
    assert told == also and any("eval_loss" in row for row in told)
    assert all(torch.equal(found[name], p) for name, p in expected.items())
    assert any(bool(p.abs().sum() > 0) for name, p in found.items() if "lora_B" in name), "it learned something"
