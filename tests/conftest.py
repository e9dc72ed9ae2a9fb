"""Shared fixtures: tiny models, the real data and models where the environment names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: processes that share the cores, a thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model


@pytest.fixture(scope="session")
def tiny() -> LocalModel:
    """A random Llama with a chat template; tests must not edit it."""
    return tiny_model()


def _folder(variable: str, name: str) -> Path:
    base = os.environ.get(variable)
    if not base:
        pytest.skip(f"{variable} is not set")
    folder = Path(base) / name
    if not folder.exists():
        pytest.skip(f"{folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def real_bbq() -> Path:
    """Folder with the official BBQ files."""
    return _folder("EVENHAND_DATA", "bbq")


@pytest.fixture(scope="session")
def real_difference_awareness() -> Path:
    """Folder with the published sets of difference awareness but N1."""
    return _folder("EVENHAND_DATA", "difference_awareness")


@pytest.fixture(scope="session")
def real_model() -> Path:
    """Folder of a tiny real language model."""
    return _folder("EVENHAND_MODELS", "tinystories-656k")


@pytest.fixture(autouse=True)
def _no_stray_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
