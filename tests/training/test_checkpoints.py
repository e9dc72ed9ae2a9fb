"""A checkpoint that is damaged is never continued from: the one before it is, or the training begins anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evenhand.errors import RunError
from evenhand.training.checkpoints import Checkpoints, state_of, weights_of

FILES = ("weights.safetensors", "best.safetensors", "optimizer.pt", "progress.json", "checksums.sha256")


def module(value: float) -> nn.Linear:
    made = nn.Linear(1, 1)
    with torch.no_grad():
        for p in made.parameters():
            p.fill_(value)
    return made


def stored(folder: Path, epochs: int = 1) -> Checkpoints:
    made, store = module(float(epochs)), Checkpoints(folder, {"epochs": 3})
    adam = torch.optim.AdamW(made.parameters())
    curve = [{"epoch": n} for n in range(epochs)]
    store.keep(curve, weights_of(made), weights_of(made), state_of(adam))
    return store


def test_the_last_one_is_continued_from(tmp_path: Path) -> None:
    stored(tmp_path)
    found = module(0)
    curve, best = stored(tmp_path, 2).resume(found)
    assert [row["epoch"] for row in curve] == [0, 1] and float(best["bias"]) == 2 == float(found.bias.detach())
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint-00002"]
    assert sorted(f.name for f in (tmp_path / "checkpoint-00002").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_one_is_moved_aside_and_the_training_begins_anew(tmp_path: Path, name: str) -> None:
    store = stored(tmp_path)
    file = tmp_path / "checkpoint-00001" / name
    whole = file.read_bytes()
    for number, broken in enumerate((whole[:-1], bytes([whole[0] ^ 1]) + whole[1:], b""), 1):
        file.write_bytes(broken)
        said = rf"checkpoint-00001 is damaged \({name}.*it is now checkpoint-00001.damaged-{number}, and the training"
        found = module(0)
        with pytest.warns(UserWarning, match=said):
            assert store.resume(found) == ([], {})
        store.resume_optimizer(torch.optim.AdamW(found.parameters()))
        assert float(found.bias.detach()) == 0
        assert (tmp_path / f"checkpoint-00001.damaged-{number}" / name).read_bytes() == broken
        stored(tmp_path)
    assert len(store.resume(module(0))[0]) == 1


def test_the_one_before_a_damaged_one_is_continued_from(tmp_path: Path) -> None:
    store = stored(tmp_path)
    shutil.copytree(tmp_path / "checkpoint-00001", tmp_path / "checkpoint-00002")
    (tmp_path / "checkpoint-00002" / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint-00002 is damaged"):
        assert len(store.resume(module(0))[0]) == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "progress.json"])
def test_a_damaged_one_of_an_earlier_version_has_no_checksums_and_is_told_all_the_same(
    tmp_path: Path, name: str
) -> None:
    store = stored(tmp_path)
    (tmp_path / "checkpoint-00001" / "checksums.sha256").unlink()
    assert len(store.resume(module(0))[0]) == 1
    (tmp_path / "checkpoint-00001" / name).write_bytes(b"{")
    with pytest.warns(UserWarning, match="checkpoint-00001 is damaged"):
        assert store.resume(module(0)) == ([], {})


def test_an_optimizer_of_an_earlier_version_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    store = stored(tmp_path)
    (tmp_path / "checkpoint-00001" / "checksums.sha256").unlink()
    (tmp_path / "checkpoint-00001" / "optimizer.pt").write_bytes(b"no archive")
    with pytest.raises(RunError, match=r"checkpoint-00001 is damaged .*remove it to start again"):
        store.resume_optimizer(torch.optim.AdamW(module(0).parameters()))


def test_a_full_disk_leaves_the_one_before_it_and_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"cannot write the checkpoint .*checkpoint-00002 .*No space left.*free some"):
        stored(tmp_path, 2)
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint-00001"]
    assert len(store.resume(module(0))[0]) == 1


def test_those_that_were_moved_aside_are_removed_with_the_others(tmp_path: Path) -> None:
    store = stored(tmp_path)
    (tmp_path / "checkpoint-00001" / "progress.json").write_bytes(b"")
    (tmp_path / "checkpoint-notes.damaged-1").mkdir()
    with pytest.warns(UserWarning, match=r"checkpoint-00001\.damaged-1"):
        store.resume(module(0))
    stored(tmp_path, 2).remove()
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint-notes.damaged-1"]


@pytest.mark.parametrize(
    ("trouble", "raised"),
    [
        (OSError(24, "Too many open files"), OSError),
        (OSError("no number"), OSError),
        (MemoryError(), MemoryError),
        (RuntimeError("can't allocate memory"), RunError),
    ],
)
def test_a_sound_one_that_cannot_be_read_for_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception, raised: type[Exception]
) -> None:
    store = stored(tmp_path)

    def refused(*_: Any, **__: Any) -> None:
        raise trouble

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.load_file", refused)
        patched.setattr(torch, "load", refused)
        with pytest.raises(raised):
            store.resume(module(0))
        with pytest.raises(raised):
            store.resume_optimizer(torch.optim.AdamW(module(0).parameters()))
    assert [f.name for f in tmp_path.iterdir()] == ["checkpoint-00001"]
    assert len(store.resume(module(0))[0]) == 1
