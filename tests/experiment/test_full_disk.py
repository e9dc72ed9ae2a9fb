"""A disk that is full at any moment of a comparison: one error that says where, nothing lost, and the same end."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import evenhand
from evenhand.errors import EvenhandError, RunError
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model

resource = pytest.importorskip("resource", reason="limits of files are of POSIX systems")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return tiny_model(name="m")


def compare(model: LocalModel, folder: Path) -> list[Any]:
    """The records without times."""
    method = "pcgu(epochs=2,validation_fraction=0)"
    asked = {"train": "demo:pairs:Age:12", "limit": 4, "replicates": 200, "show_progress": False}
    report = evenhand.compare(model, ["instruction", method], "bbq(source=demo)", out=folder, **asked)  # type: ignore[arg-type]
    assert {r.status for r in report.records} == {"ok"}, {r.note for r in report.records}
    return [r for r in report.records if "seconds" not in r.metric]


@pytest.fixture(scope="module")
def whole(model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return compare(model, tmp_path_factory.mktemp("whole") / "run")


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.method, a.metric, a.group, a.n) == (b.method, b.metric, b.group, b.n)
        assert a.value == pytest.approx(b.value, abs=1e-6, nan_ok=True)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX systems")
@pytest.mark.parametrize("size", [300, 40_000, 300_000])
def test_no_file_can_grow_beyond_a_size(size: int, model: LocalModel, whole: list[Any], tmp_path: Path) -> None:
    """Writes of every library end as on a full disk: of SQLite, Arrow, safetensors, torch and Python."""
    folder = tmp_path / "run"
    with files_up_to(size), pytest.raises(EvenhandError) as raised:
        compare(model, folder)
    assert isinstance(raised.value, RunError), raised.value
    assert str(tmp_path) in str(raised.value) and "free some space" in str(raised.value)
    same(compare(model, folder), whole)
    assert not [f for f in folder.rglob("*") if f.name.endswith(".part")]


@pytest.mark.parametrize("at", [4, 14])
def test_a_disk_that_is_full_at_one_moment(
    at: int, model: LocalModel, whole: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is put on the disk by one call, which fails for the n-th of them."""
    folder, calls, real = tmp_path / "run", [0], os.fsync

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    try:
        compare(model, folder)
    except RunError as error:
        assert str(tmp_path) in str(error) and "free some space" in str(error)
    assert calls[0] >= at, "there are so many moments"
    monkeypatch.undo()
    same(compare(model, folder), whole)
