"""On a GPU the host waits for nothing while it queues packs, and fetches each pack's values once.

Tensors on the device `meta` have no values: whatever reads one raises, so that a pack which is queued there without an
error has read none. Copies to it are counted, those that would wait apart from those that would not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from evenhand.core.answer_cache import answer_cache
from evenhand.inference import Engine, Request, transfers, tree_forward
from evenhand.inference import engine as engine_module
from evenhand.inference.prefix_trie import Pack, packs
from evenhand.inference.scoring import evaluating
from evenhand.models.tiny import tiny_model, tiny_module

META = torch.device("meta")
ASKED = [Request((7, 8, 9, 10 + n, 11), ((4, 20), (2, 21), (4, 22))) for n in range(40)] + [
    Request((12 + n, 7, 8), ((2, 20), (0, 9))) for n in range(40)
]
"""Many sequences that share a beginning, and many that stand alone."""


class Copies(TorchFunctionMode):
    """Counts copies from the host to the device `meta`."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = self.queued = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        made = func(*args, **kwargs)
        if name in ("tensor", "as_tensor"):
            self.waiting += made.device == META
        elif name in ("to", "copy_"):
            here, there = (args[1], args[0]) if name == "copy_" else (args[0], made)
            if there.device == META != here.device:
                self.waiting += not kwargs.get("non_blocking")
                self.queued += bool(kwargs.get("non_blocking"))
        elif name in ("__getitem__", "__setitem__") and args[0].device == META:
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.waiting += any(isinstance(p, list) or (isinstance(p, Tensor) and p.device != META) for p in parts)
        return made


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model without values on a device that is treated like a GPU."""
    monkeypatch.setattr(transfers, "ASYNCHRONOUS", {"meta"})
    monkeypatch.setattr(tree_forward, "input_device", lambda module: META)
    monkeypatch.setattr(tree_forward, "download", lambda values: fetched.append(values) or (lambda: values))
    fetched: list[Tensor] = []
    return tiny_module(60).to(META), fetched


def pack_of(asked: list[Request]) -> Pack:
    return next(packs([r.ids for r in asked], 10**6))


@pytest.mark.parametrize("chunk", [16, 256])
def test_a_pack_is_queued_without_reading_a_value_or_waiting_for_a_copy(
    chunk: int, on_meta: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_forward, "CHUNK", chunk)
    module, fetched = on_meta
    with evaluating(module), Copies() as copies:
        tree_forward.score_pack(module, pack_of(ASKED), ASKED, lambda logits: logits)
    # tokens, positions and read nodes; indices of the groups, and what they may see; places of the reads
    assert (copies.waiting, copies.queued) == (0, 4)
    assert [tuple(values.shape) for values in fetched] == [(sum(len(r.reads) for r in ASKED),)]


@pytest.mark.parametrize(
    "reads",
    [
        lambda t: t[0].item(),
        lambda t: t.tolist(),
        lambda t: int(t[0]),
        lambda t: bool((t == t).all()),
        lambda t: t.cpu(),
        lambda t: t[t > 0],
        lambda t: torch.nonzero(t),
    ],
)
def test_whatever_reads_a_value_would_be_noticed(reads: Callable[[Tensor], object]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        reads(torch.zeros(3, device=META))


@pytest.mark.parametrize(
    "copies",
    [
        lambda t: torch.tensor([1], device=META),
        lambda t: torch.zeros(3).to(META),
        lambda t: t.copy_(torch.zeros(3)),
        lambda t: t[[0, 1]],
    ],
)
def test_a_copy_that_waits_would_be_noticed(copies: Callable[[Tensor], object]) -> None:
    device = torch.zeros(3, device=META)
    with Copies() as counted:
        copies(device)
    assert (counted.waiting, counted.queued) == (1, 0)


def test_uploaded_tensors_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "ASYNCHRONOUS", {"cpu"})
    here = [torch.arange(6).view(2, 3), torch.tensor([True, False]), torch.empty(0, dtype=torch.long), torch.arange(2)]
    there = transfers.upload(here, torch.device("cpu"))
    assert [(t.dtype, t.shape) for t in there] == [(t.dtype, t.shape) for t in here]
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert there[0].untyped_storage().data_ptr() == there[3].untyped_storage().data_ptr(), "one copy for a type"


class Event:
    """A CUDA event without CUDA."""

    log: list[str]

    def record(self, stream: object) -> None:
        self.log.append("record")

    def synchronize(self) -> None:
        self.log.append("wait")


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Treat the CPU like a GPU; what happens is logged."""
    log: list[str] = []
    monkeypatch.setattr(Event, "log", log, raising=False)
    monkeypatch.setattr(transfers, "ASYNCHRONOUS", {"cpu"})
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    real = engine_module.score_pack
    count = iter(range(100))

    def logged(*given: Any) -> Callable[[], list[list[float]]]:
        number, fetch = next(count), real(*given)
        log.append(f"queued {number}")
        return lambda: log.append(f"fetch {number}") or fetch()

    monkeypatch.setattr(engine_module, "score_pack", logged)
    return log


def engine_of(pack_nodes: int) -> Engine:
    engine = tiny_model().engine
    engine.pack_nodes = pack_nodes
    assert engine.tried.finish is not None
    return engine


def test_each_pack_is_fetched_when_the_next_one_is_queued(like_a_gpu: list[str]) -> None:
    expected = tiny_model().engine.read(ASKED, "f")  # one pack
    assert like_a_gpu == ["record", "queued 0", "fetch 0", "wait"]
    like_a_gpu.clear()
    assert engine_of(70).read(ASKED, "f") == [pytest.approx(row, abs=1e-5) for row in expected]
    assert [line for line in like_a_gpu if line not in ("record", "wait")] == [
        "queued 1",
        "queued 2",
        "fetch 1",
        "queued 3",
        "fetch 2",
        "fetch 3",
    ]
    assert (like_a_gpu.count("record"), like_a_gpu.count("wait")) == (3, 3)


def test_on_a_cpu_each_pack_is_handed_over_at_once(like_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "ASYNCHRONOUS", set())
    engine_of(70).read(ASKED, "f")
    assert like_a_gpu == [f"{what} {n}" for n in range(3) for what in ("queued", "fetch")]


@pytest.mark.parametrize("message", ["CUDA out of memory", "device-side assert"])
def test_what_was_queued_before_an_error_is_not_lost(
    message: str, like_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    expected, real, calls = tiny_model().engine.read(ASKED, "f"), engine_module.score_pack, iter(range(100))

    def broken(*given: Any) -> Any:
        if next(calls) == 1:
            raise RuntimeError(message)
        return real(*given)

    monkeypatch.setattr(engine_module, "score_pack", broken)
    engine = engine_of(70)
    with answer_cache(tmp_path / "answers.sqlite"):
        if message == "CUDA out of memory":
            assert engine.read(ASKED, "f") == [pytest.approx(row, abs=1e-5) for row in expected]
        else:
            with pytest.raises(RuntimeError, match=message):
                engine.read(ASKED, "f")
            fed = engine.tokens
            assert engine.read(ASKED, "f") == [pytest.approx(row, abs=1e-5) for row in expected]
            assert engine.tokens - fed < len(pack_of(ASKED).tokens) - 60, "the first pack is not fed again"
