"""Attention by parts: the same cells as the mask leaves, each once, with the same gradients."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evenhand.inference import blocks, stems
from evenhand.inference.prefix_trie import Pack
from evenhand.training import trie_attention
from evenhand.training.shared_prefixes import Fed, fed, tries
from evenhand.training.trie_attention import Part, attended_by_parts, supported
from evenhand.training.trie_mask import TrieMask


@pytest.fixture(params=["as they are", "short beginnings"])
def always(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are always used, and beginnings of a few tokens are attended to by all that continue them."""
    monkeypatch.setattr(trie_attention, "PART_CELLS", -(10**6))
    if request.param == "short beginnings":
        monkeypatch.setattr(stems, "SHORTEST", 4)
        monkeypatch.setattr(blocks, "ALONE", 8)


def rows_of_tries() -> list[list[Pack]]:
    """Two rows of unequal length: branches within branches, long shared beginnings, and texts that share nothing."""
    rng = random.Random(0)

    def some(count: int) -> list[int]:
        return [rng.randrange(50) for _ in range(count)]

    start, other = some(140), some(9)
    one = [start + some(n) for n in (5, 40, 1)]
    one += [[*one[1][:160], *some(6)], start[:90] + some(7), start[:90] + some(20), one[1] + some(3)]
    two = [other + some(4), other + some(2), [60, *some(5)], [61, *some(8)]]
    return [tries(one, 1000), tries(two, 1000)]


def made(dtype: torch.dtype = torch.float32) -> Fed:
    return fed(rows_of_tries(), dtype)


def mask_of(found: Fed) -> TrieMask:
    assert isinstance(found.mask, TrieMask) and found.mask.valid_parts
    return found.mask


def plain(mask: Tensor) -> Tensor:
    """The same numbers without any parts."""
    return mask.as_subclass(Tensor).clone()


def table(part: Part, length: int) -> Tensor:
    """[length, length] how often a part computes each cell."""
    places = torch.arange(length)
    queries, keys = places[part.queries], places[part.keys]
    seen = torch.ones(len(queries), len(keys)) if part.allowed is None else part.allowed.float()
    whole = torch.zeros(length, length)
    whole[queries[:, None], keys] = seen.tril() if part.causal else seen
    return whole


@pytest.mark.usefixtures("always")
def test_parts_cover_what_the_mask_leaves_each_cell_once() -> None:
    found = made()
    mask, length = mask_of(found), found.ids.shape[1]
    for row in range(2):
        cells = sum(table(part, length) for part in mask.parts if part.row == row)
        nodes = sum(len(trie.tokens) for trie in rows_of_tries()[row])
        expected = (plain(mask)[row, 0] == 0).float()
        expected[nodes:] = 0  # padding is in no part
        assert isinstance(cells, Tensor) and torch.equal(cells, expected)


def attended(given: Sequence[Tensor], mask: Tensor, above: Tensor) -> list[Tensor]:
    out = scaled_dot_product_attention(given[0], given[1], given[2], attn_mask=mask, scale=0.3)
    return [out, *torch.autograd.grad(out, given, above)]


def drawn(count: int, found: Fed, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    shape = (2, found.ids.shape[1], 3, 8)  # heads and places are swapped, as in models
    return [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(count)]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_results_and_gradients_are_those_of_the_mask(dtype: torch.dtype, tolerance: float) -> None:
    found = made(dtype)
    given, above = drawn(3, found, dtype), drawn(1, found, dtype)[0].detach().clone()
    for row, tries_ in enumerate(rows_of_tries()):
        above[row, :, sum(len(trie.tokens) for trie in tries_) :] = 0  # nothing reads padding
    ours, theirs = attended(given, mask_of(found), above), attended(given, plain(found.mask), above)
    length = sum(len(trie.tokens) for trie in rows_of_tries()[1])
    assert (ours[0][1, :, length:] == 0).all() and length < found.ids.shape[1]
    ours[0], theirs[0] = (out.masked_fill(above == 0, 0) for out in (ours[0], theirs[0]))
    for mine, wanted in zip(ours, theirs, strict=True):
        assert float((mine - wanted).detach().norm()) < tolerance * float(wanted.detach().norm())


@pytest.mark.usefixtures("always")
def test_a_part_left_out_would_show() -> None:
    """Negative control of the comparison above."""
    found = made(torch.float64)
    q, k, v = drawn(3, found, torch.float64)
    merged = [part for part in mask_of(found).parts if part.merged]
    assert merged, "a long beginning is attended to by all that continue it"
    less = [part for part in mask_of(found).parts if not part.merged]
    ours = attended_by_parts(q, k, v, less, 0.3)
    wanted = scaled_dot_product_attention(q, k, v, attn_mask=plain(found.mask), scale=0.3)
    assert float((ours - wanted)[0].detach().norm()) > 1e-2 * float(wanted[0].detach().norm())


def test_cells_grow_with_what_is_attended_to_and_not_with_the_square_of_the_row() -> None:
    """32 questions after solved examples: their number of cells is about 32 times that of one."""
    start = list(range(280))
    found = fed([tries([start + [1000 + n] * 55 for n in range(32)], 4000)], torch.float32)
    parts = mask_of(found).parts
    needed = 280 * 281 // 2 + 32 * 55 * 280 + 32 * 55 * 56 // 2
    assert found.ids.shape == (1, 2040) and len(parts) <= 34
    assert needed <= sum(part.cells for part in parts) < 1.2 * needed < 0.2 * 2040**2


def test_small_rows_keep_the_mask() -> None:
    assert mask_parts([[1, 2, 3, 4], [1, 2, 3, 5]]) == 0


def mask_parts(sequences: list[list[int]]) -> int:
    mask = fed([tries(sequences, 1000)], torch.float32).mask
    assert isinstance(mask, TrieMask)
    return len(mask.parts)


# ---------------------------------------------------------------------------------------------- the mask itself


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parts each attention that went by parts had."""
    seen: list[int] = []
    monkeypatch.setattr(trie_attention, "PART_CELLS", -(10**6))

    def counted(*given: object) -> Tensor:
        seen.append(len(given[3]))  # type: ignore[arg-type]
        return attended_by_parts(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("evenhand.training.trie_mask.attended_by_parts", counted)
    return seen


def test_the_mask_keeps_its_parts_where_it_is_cast_and_forgets_them_where_it_is_changed(calls: list[int]) -> None:
    mask = mask_of(made())
    wider = mask.to(torch.float64)
    assert isinstance(wider, TrieMask) and wider.parts == mask.parts and wider.dtype == torch.float64
    assert mask.to(torch.float32) is mask
    for other in (mask + 0, mask[:, :, :5], mask.expand(-1, 3, -1, -1)):
        assert type(other) is Tensor
    kept = TrieMask.of(plain(mask), mask.parts)
    kept[:, :, 0] += 1
    assert not kept.valid_parts and mask.valid_parts
    found = made()
    given, above = drawn(3, found, torch.float32), drawn(1, found, torch.float32)[0].detach()
    attended(given, kept, above)
    assert calls == []


@pytest.mark.parametrize(
    "how", ["dropout", "keys of several heads", "some of the queries", "autocast", "another width"]
)
def test_what_parts_cannot_do_goes_by_the_mask(how: str, calls: list[int]) -> None:
    found = made()
    mask = mask_of(found)
    q, k, v = drawn(3, found, torch.float32)
    scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert calls == [len(mask.parts)]
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        if how == "dropout":
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=0.1)
        elif how == "keys of several heads":
            out = scaled_dot_product_attention(q, k[:, :1], v[:, :1], attn_mask=mask, enable_gqa=True)
        elif how == "some of the queries":
            out = scaled_dot_product_attention(q[:, :, :5], k, v, attn_mask=mask[:, :, :5])
        else:
            width = 4 if how == "another width" else 8
            out = scaled_dot_product_attention(q, k, v[..., :width], attn_mask=mask)
    assert out.isfinite().all() and calls == [len(mask.parts)]


def test_this_torch_has_the_kernels() -> None:
    assert supported()
