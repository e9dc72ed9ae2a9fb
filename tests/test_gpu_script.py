"""benchmarks/gpu.py runs anywhere at toy size, and its measures are right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    return gpu


def lines(gpu: Any, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> list[dict[str, Any]]:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--toy", "--device", "cpu", "--out", str(out), *more])
    gpu.main()
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_lines_are_written_and_equal_plain_forwards(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lines(gpu, tmp_path / "lines.jsonl", monkeypatch, "--only", "equality")
    assert [line["section"] for line in found] == ["card", *["equality"] * 4, "end"]
    assert all(line["ok"] for line in found[1:5]) and found[-1]["failed"] == 0
    assert 0 <= found[1]["nats"] <= gpu.NATS


def test_speed_says_how_much_is_shared(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lines(gpu, tmp_path / "lines.jsonl", monkeypatch, "--only", "MMLU")[1]
    assert "error" not in found
    assert found["sharing"] == pytest.approx(found["naive_tokens"] / found["nodes"], abs=0.01) and found["sharing"] > 3
    assert found["ratio_of_sharing"] == pytest.approx(found["ratio"] / found["sharing"], abs=0.01)
    assert found["nats_ours_peer"] < 0.2


def test_an_exception_is_written_down_and_the_rest_goes_on(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(device: str) -> list[float]:
        raise RuntimeError("CUDA error: not today")

    monkeypatch.setattr(gpu.gpu_smoke, "CHECKS", {"broken": (broken, 0), "scores": gpu.gpu_smoke.CHECKS["scores"]})
    _, first, second, end = lines(gpu, tmp_path / "lines.jsonl", monkeypatch, "--only", "smoke")
    assert first["error"] == "RuntimeError('CUDA error: not today')" and "in broken" in first["traceback"]
    assert second["ok"] and (end["ok"], end["failed"]) == (1, 1)


def test_no_line_is_begun_that_no_time_is_left_for(gpu: Any) -> None:
    setting = gpu.Setting(gpu.Card("cpu", gpu.torch.bfloat16, 1.0, 1.0), gpu.TOY, "toy", "toy")
    assert sum(line.needs for line in gpu.lines(setting)) < 600


@pytest.mark.parametrize("other, count", [([1.0, 2.0], 0.0), ([1.0, 2.5], 0.5), ([1.0], float("inf"))])
def test_difference(gpu: Any, other: list[float], count: float) -> None:
    assert gpu.gpu_smoke.difference([1.0, 2.0], other) == count


@contextmanager
def room_for(tokens: int) -> Iterator[None]:
    """A device that has no memory for more tokens at once."""

    def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and inputs[0].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")

    handle = torch.nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("tokens", [4_000, 1_000, 10**9])
def test_too_little_memory_is_told_from_enough(gpu: Any, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = gpu.gpu_smoke
    monkeypatch.setattr(smoke, "LONG", smoke.LONG[:8])
    plenty = smoke.crowded("cpu")
    monkeypatch.setattr(smoke, "on_device", lambda model, device: model)
    monkeypatch.setattr(smoke, "half_of", lambda device, work: room_for(tokens))
    if tokens == 10**9:
        with pytest.raises(RuntimeError, match="the memory sufficed"):
            smoke.crowded("a card")
    else:
        assert smoke.crowded("a card") == pytest.approx(plenty, abs=1e-3)
    assert len(plenty) == len(set(smoke.LONG)) == 8


ONE, TWO = (3, 4, 5), (3, 4, 6)
"""Two sequences."""
TRUE = {ONE: {(2, 7): -1.0, (2, 8): -2.0}, TWO: {(2, 7): -3.0, (2, 8): -0.5}}


def test_rounding_against_the_truth(gpu: Any) -> None:
    made = {ONE: {(2, 8): -1.5, (2, 7): -1.5}, TWO: {(2, 7): -0.25, (2, 8): -0.5}}
    found = gpu.rounding(made, TRUE)
    assert found["rms"] == pytest.approx((((0.5**2) * 2 + 2.75**2) / 4) ** 0.5, abs=1e-6)
    # a tie goes to the first in order of position and token, in whatever order they were read
    assert (found["largest"], found["flips"], found["ties"]) == (2.75, 1, 1)
    assert gpu.rounding(TRUE, TRUE) == {"rms": 0.0, "largest": 0.0, "flips": 0, "ties": 0}


@pytest.mark.parametrize(
    "rms, only, rms_met, flips_met",
    [(0.1, (0, 0), True, True), (0.12, (0, 0), False, True), (0.1, (10, 4), True, True), (0.1, (45, 4), True, False)],
)
def test_no_worse_than_the_peer(gpu: Any, rms: float, only: tuple[int, int], rms_met: bool, flips_met: bool) -> None:
    found = gpu._no_worse({"rms": rms}, {"rms": 0.1}, only)
    assert found["met"] == {"rms": rms_met, "flips": flips_met} and found["ok"] == (rms_met and flips_met)


def test_wrong_decisions_are_counted_by_pairs(gpu: Any) -> None:
    turned = {ONE: {(2, 7): -2.0, (2, 8): -1.0}, TWO: TRUE[TWO]}
    assert gpu._discordant(turned, TRUE, TRUE) == (1, 0)
    assert gpu._discordant(TRUE, turned, TRUE) == (0, 1)
    assert gpu._discordant(turned, turned, TRUE) == (0, 0)


def test_a_causal_mask_and_an_exact_head_change_nothing_in_float32(gpu: Any) -> None:
    tokenizer = gpu.gpu_smoke.tiny_tokenizer()
    module = gpu.model_of("toy", tokenizer, "cpu", torch.float32).weights.module
    asked = [(tuple(range(3, 3 + n)), [(n - 1, 9), (0, 5)]) for n in (2, 5, 9)]
    usual = gpu.plain(module, asked, 2)
    for options in ({"masked": True}, {"exact_head": True}):
        assert gpu.furthest(usual, gpu.plain(module, asked, 2, **options)) < 1e-5


def toy(gpu: Any) -> Any:
    return gpu.model_of("toy", gpu.gpu_smoke.tiny_tokenizer(), "cpu", torch.float32)


def toy_card(gpu: Any) -> Any:
    return gpu.Card("cpu", torch.bfloat16, 1.0, 1.0)


def test_a_kernel_that_does_not_run_leaves_the_others(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("evenhand.inference.tree_kernels.FlexTree", broken)
    model = toy(gpu)
    with pytest.warns(UserWarning, match="no compiler"):
        line = gpu.gpu_kernels.compared(toy_card(gpu), gpu.bbq(4), model)
    assert "no compiler" in line["flex"]["error"] and line["gathered"]["wall_s"] > 0
    assert (line["best"], line["met"], line["ok"]) == ("gathered", {"gathered": True, "flex": False}, False)
    assert model.engine.tree_kernel == "gathered" and model.engine.tried.finish is not None


@pytest.mark.parametrize(
    ("nats", "dtype", "ok"),
    [(1e-4, torch.float32, True), (1e-3, torch.float32, False), (1e-3, torch.bfloat16, True)],
)
def test_the_fastest_kernel_is_named(gpu: Any, nats: float, dtype: torch.dtype, ok: bool) -> None:
    found = {"gathered": {"wall_s": 2.0}, "flex": {"wall_s": 1.0, "nats": nats}}
    line = gpu.gpu_kernels._verdict(found, dtype)
    assert (line["best"], line["ok"]) == ("flex", ok)


def test_flash_attention_is_left_out_where_keys_would_be_gathered_instead(gpu: Any) -> None:
    usable = gpu.gpu_kernels.usable
    assert usable("cuda", torch.bfloat16) == ["gathered", "flex", "cascade"]
    assert usable("cuda", torch.float32) == usable("cpu", torch.bfloat16) == ["gathered", "flex"]


@pytest.mark.parametrize("mistake", [False, True])
def test_attention_alone_shows_a_wrong_mask(gpu: Any, mistake: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.inference import tree_attention

    grouped = tree_attention._group

    def unmasked(found: Any) -> Any:
        group = grouped(found)
        group.allowed.fill_(True)
        return group

    monkeypatch.setattr(gpu.gpu_kernels, "usable", lambda device, dtype: ["gathered"])
    if mistake:
        monkeypatch.setattr(tree_attention, "_group", unmasked)
    line = gpu.gpu_kernels.one_layer(toy_card(gpu), 30)
    assert line["ok"] != mistake and not line["errors"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_everything_at_toy_size(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.gpu_smoke, "LONG", gpu.gpu_smoke.LONG[:8])  # what is told from enough is tested above
    found = lines(gpu, tmp_path / "lines.jsonl", monkeypatch)
    assert not [line for line in found if "error" in line]
    assert all(line["ok"] for line in found if line["section"] in ("smoke", "equality", "kernels"))
    assert [line["section"] for line in found[:3]] == ["card", "equality", "equality"], "the most telling ones first"
