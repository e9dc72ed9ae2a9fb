"""steering.safetensors: what is saved comes back, and anything else is refused before it is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evenhand.errors import EvenhandError
from evenhand.methods.steering._fit import FILE, Fit

FIT = Fit(
    {0: torch.arange(8.0)[None], 1: torch.ones(2, 8)},
    {0: torch.full((8,), 2.0)},
    {1: (torch.arange(8.0) / 3, torch.tensor(0.25))},
    {1: (torch.arange(8.0) / 7, torch.tensor(-1.5))},
)


def test_a_fit_comes_back_bit_for_bit(tmp_path: Path) -> None:
    FIT.save(tmp_path)
    found = Fit.load(tmp_path, hidden=8, layers=2)
    for name in ("directions", "offsets"):
        one, other = getattr(FIT, name), getattr(found, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[layer], other[layer]) for layer in one)
    for mine, theirs in ((FIT.gates[1], found.gates[1]), (FIT.conditions[1], found.conditions[1])):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


def test_only_some_layers() -> None:
    assert list(FIT.only([0]).directions) == [0]
    assert not FIT.only([0]).gates


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"direction.0": torch.ones(1, 4)}, "hidden size is 8"),
        ({"direction.2": torch.ones(1, 8)}, "is of layer 2, but the model has 2"),
        ({"direction.0": torch.ones(1, 8, dtype=torch.float16)}, "is F16, not F32"),
        ({"direction.0": torch.ones(65, 8)}, "has 65 directions"),
        ({"direction.0": torch.ones(8)}, "has the shape"),
        ({"direction.x": torch.ones(1, 8)}, "is not known"),
        ({"weight.0": torch.ones(1, 8)}, "is not known"),
        ({"offset.0": torch.ones(8)}, "it has no direction"),
        ({"direction.0": torch.full((1, 8), torch.nan)}, "is not finite"),
        ({"direction.0": torch.ones(1, 8), "gate.weight.0": torch.ones(8)}, "not complete"),
        ({"direction.0": torch.ones(1, 8), "condition.0": torch.ones(8)}, "not complete"),
    ],
)
def test_what_evenhand_does_not_write_is_refused(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(EvenhandError, match=message):
        Fit.load(tmp_path, hidden=8, layers=2)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a tensor")
    with pytest.raises(EvenhandError, match="cannot read"):
        Fit.load(tmp_path, hidden=8, layers=2)
    (tmp_path / FILE).unlink()
    with pytest.raises(EvenhandError, match="cannot read"):
        Fit.load(tmp_path, hidden=8, layers=2)
