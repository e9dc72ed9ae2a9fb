"""One, two, three and four processes edit alike; layouts that cut rows are refused."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.ports import free_port
from torch import nn

from evenhand.errors import SettingsError
from evenhand.methods.unlearning._pcgu.fsdp import World, launched, refuse_launch, refuse_layout
from evenhand.models.tiny import tiny_model

WORKER = Path(__file__).with_name("pcgu_worker.py")
WORLDS = (2, 3, 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What four processes, started once, made in worlds of two, three and four, and one process alone."""
    folder = tmp_path_factory.mktemp("pcgu")
    port = free_port()
    command = [sys.executable, str(WORKER), str(folder), str(port)]
    made = subprocess.run(
        command,
        stderr=subprocess.PIPE,
        text=True,
        timeout=1800,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert made.returncode == 0, made.stderr
    names = [*json.loads((folder / "names.json").read_text()), *(f"method{rank}" for rank in range(4))]
    names += [f"{what}{size}of{rank}" for what in ("halted", "large") for size in (1, *WORLDS) for rank in range(size)]
    return {name: torch.load(folder / f"{name}.pt") for name in names}


def cases(runs: dict[str, Any]) -> list[str]:
    return sorted({name.rpartition("-")[0] for name in runs if "-" in name})


@pytest.mark.slow
def test_every_world_has_the_same_weights_with_uneven_shards_and_tied_embeddings(runs: dict[str, Any]) -> None:
    assert len(cases(runs)) == 3
    for case in cases(runs):
        alone = runs[f"{case}-1"]
        for size in WORLDS:
            found = runs[f"{case}-{size}"]
            assert found["chosen"] == alone["chosen"], (case, size)
            for name, weight in alone["weights"].items():
                assert torch.allclose(found["weights"][name], weight, atol=1e-6, rtol=0), (case, size, name)


@pytest.mark.slow
def test_the_edit_is_not_nothing_and_is_sparse(runs: dict[str, Any]) -> None:
    for case in cases(runs):
        alone = runs[f"{case}-1"]
        moved = max(float((w - alone["before"][n]).abs().max()) for n, w in alone["weights"].items())
        assert moved > 1e-3, case
        assert 0 < alone["changed"] < alone["vectors"], case


@pytest.mark.slow
def test_the_scores_that_are_reported_are_of_all_ranks(runs: dict[str, Any]) -> None:
    for case in cases(runs):
        curves = [runs[f"{case}-{size}"]["curve"] for size in (1, *WORLDS)]
        for curve in curves[1:]:
            assert [row["gap"] for row in curve] == pytest.approx([row["gap"] for row in curves[0]], abs=1e-5)


@pytest.mark.slow
def test_shards_were_uneven(runs: dict[str, Any]) -> None:
    rows = runs["row-4"]["rows"]
    assert len({last - first for first, last in rows}) > 1
    assert rows[0][0] == 0 and all(a[1] == b[0] for a, b in itertools.pairwise(rows))


@pytest.mark.slow
def test_the_method_gives_every_process_the_same_model_and_keeps_it(runs: dict[str, Any]) -> None:
    found = [runs[f"method{rank}"][0] for rank in range(4)]
    assert all(f == found[0] and f[0] == f[1] and f[0][1] > 0 for f in found)
    before = tiny_model().weights.module.state_dict()
    after = runs["method0"][1]
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.slow
def test_all_ranks_stop_where_one_has_a_weight_that_is_not_finite(runs: dict[str, Any]) -> None:
    alone = runs["halted1of0"]
    assert alone["epochs"] == 2 and alone["changed"] > 0
    assert alone["halted"].startswith("diverged: 1 weights are not finite in float32 in epoch 3")
    for size in WORLDS:
        found = [runs[f"halted{size}of{rank}"] for rank in range(size)]
        assert all((f["epochs"], f["halted"], f["chosen"]) == (2, alone["halted"], alone["chosen"]) for f in found)
        assert found[0]["changed"] == alone["changed"] and not any(f["changed"] for f in found[1:])


@pytest.mark.slow
def test_all_ranks_stop_where_the_model_in_half_precision_gives_no_scores(runs: dict[str, Any]) -> None:
    alone = runs["large1of0"]
    assert alone["epochs"] == 1 and alone["changed"] > 0
    assert "4 of 4 texts are not finite in float16 with this edit in epoch 2" in alone["halted"]
    for size in WORLDS:
        found = [runs[f"large{size}of{rank}"] for rank in range(size)]
        assert all((f["epochs"], f["halted"]) == (1, alone["halted"]) for f in found)
        assert found[0]["changed"] and not any(f["changed"] for f in found[1:])


# ---------------------------------------------------------------------------------------------- refusals


def test_fsdp1_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    class Wrapped(FullyShardedDataParallel):  # type: ignore[misc]
        def __init__(self) -> None:  # its own needs a process group
            nn.Module.__init__(self)

    with pytest.raises(SettingsError, match=r"FSDP1.*fully_shard"):
        refuse_layout(Wrapped())


def test_zero_3_is_refused() -> None:
    module = nn.Linear(2, 2)
    module.weight.ds_id = 0  # type: ignore[assignment]  # as DeepSpeed marks what it has taken apart
    with pytest.raises(SettingsError, match="ZeRO-3"):
        World(module)


def test_quantised_weights_are_refused() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(SettingsError, match="quantised"):
        refuse_layout(module)


def test_launches_that_would_cut_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(SettingsError, match="fsdp_version 2"):
        launched()
    monkeypatch.setenv("FSDP_VERSION", "2")
    refuse_launch()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(SettingsError, match="DeepSpeed"):
        launched()


def test_one_process_is_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched() is None


def test_texts_are_shared_out_and_the_last_micro_batch_weighs_its_share() -> None:
    from evenhand.methods.unlearning._pcgu.gradients import spread

    for count, size, micro in [(8, 3, 2), (1, 4, 2), (7, 2, 3), (5, 1, 2)]:
        shares = [spread(count, SimpleNamespace(rank=r, size=size), micro) for r in range(size)]  # type: ignore[arg-type]
        assert len({len(s) for s in shares}) == 1  # sharded layers need all ranks, every time
        taken = sorted(n for s in shares for group, weights in s for n, w in zip(group, weights, strict=True) if w)
        assert taken == list(range(count))
