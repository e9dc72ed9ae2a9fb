"""A checksum of tensors changes with every element of them, on the CPU and in the form for accelerators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from evenhand.models import checksum

TYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.uint8,
    torch.bool,
    torch.int64,
    torch.complex64,
]
STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda t: t,
    "transposed": lambda t: t.t(),
    "gaps": lambda t: t[:, 1:-2],
    "offset by one": lambda t: t.reshape(-1)[1:],
    "steps": lambda t: t[::2, ::3],
    "expanded": lambda t: t[:1, :1].expand(1, 40)[:, :, None],
}


def sums(*tensors: Tensor) -> bytes:
    """What an accelerator computes."""
    return checksum.row_sums([checksum._bytes(t) for t in tensors]).numpy().tobytes()


def of(*tensors: Tensor) -> str:
    return checksum.of_tensors(tensors)


WAYS = pytest.mark.parametrize("way", [of, sums])


def made(kind: torch.dtype) -> Tensor:
    drawn = torch.randint(0, 200, (60, 301), generator=torch.Generator().manual_seed(0))
    return (drawn > 99) if kind == torch.bool else drawn.to(kind)


@WAYS
@pytest.mark.parametrize("strides", STRIDES.values(), ids=list(STRIDES))
@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_every_element_counts(
    way: Callable[..., object], kind: torch.dtype, strides: Callable[[Tensor], Tensor]
) -> None:
    tensor = strides(made(kind))
    before = way(tensor)
    seen = {before}
    places = [*torch.randint(0, tensor.numel(), (20,)).tolist(), 0, tensor.numel() - 1]
    for place in places:
        at = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), tensor.shape))
        kept = tensor[at].clone()
        tensor[at] = ~kept if kind == torch.bool else (kept.to(torch.complex64).real + 64).to(kind)
        assert way(tensor) != before
        seen.add(way(tensor))
        tensor[at] = kept
    assert way(tensor) == before
    if 0 not in tensor.stride():
        assert len(seen) == 1 + len({*places}), "no two edits look alike"


EDITS: dict[str, Callable[[Tensor], object]] = {
    "rows swapped": lambda t: t.copy_(t[[1, 0, *range(2, len(t))]]),
    "columns swapped": lambda t: t.copy_(t[:, [1, 0, *range(2, t.shape[1])]]),
    "blocks swapped": lambda t: t.copy_(t.roll(t.shape[0] // 2, 0)),
    "elements sorted": lambda t: t.copy_(t.flatten().sort().values.view_as(t)),
    "one up, one down": lambda t: t[0, :2].add_(torch.tensor([1, -1])),
    "all signs": lambda t: t.mul_(-1),
    "every other sign": lambda t: t[:, 1::2].mul_(-1),
    "every fourth sign": lambda t: t[:, 3::4].mul_(-1),
    "two signs of one row": lambda t: t[0, 1:4:2].mul_(-1),
    "signs of a block": lambda t: t[:4, 1:9:2].mul_(-1),
}


@WAYS
@pytest.mark.parametrize("edit", EDITS.values(), ids=list(EDITS))
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_edits_of_many_elements_do_not_cancel(
    way: Callable[..., object], kind: torch.dtype, edit: Callable[[Tensor], object]
) -> None:
    tensor = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)).to(kind)
    before = way(tensor)
    edit(tensor)
    assert way(tensor) != before


@WAYS
def test_tensors_without_elements_or_dimensions_and_of_inference_mode(way: Callable[..., object]) -> None:
    with torch.inference_mode():
        inference = torch.ones(5)
    assert way(inference) == way(torch.ones(5)), "asked outside of that mode"
    assert way(torch.tensor(1.0)) != way(torch.tensor(2.0))
    assert way(torch.ones(0, 3), torch.ones(1)) == way(torch.ones(1))
    assert way(torch.ones(3, requires_grad=True)) == way(torch.ones(3))
    assert way(torch.ones(2), torch.zeros(2)) != way(torch.zeros(2), torch.ones(2)), "the order counts"


def test_tensors_that_are_not_loaded_are_left_out() -> None:
    assert of(torch.ones(2), torch.ones(2, device="meta")) == of(torch.ones(2))


def test_long_tensors_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(100, 1000)
    whole = sums(tensor)
    monkeypatch.setattr(checksum, "BLOCK", 2 * checksum.ROW)
    assert sums(tensor) == whole


def test_random_numbers_of_others_are_left_alone() -> None:
    state = torch.get_rng_state()
    checksum._weights.cache_clear()
    sums(torch.ones(3))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_accelerator_sees_what_the_same_sums_see_here() -> None:
    tensor = torch.randn(300, 4097)
    assert checksum.row_sums([checksum._bytes(tensor.cuda())]).cpu().numpy().tobytes() == sums(tensor)
    there = tensor.cuda()
    before = of(there, tensor)
    there.data[7, 9] += 1
    assert of(there, tensor) != before
