"""Shared fixtures: tiny models, the real data and models where the environment names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: processes that share the cores, a thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model

LONGEST = (
    "tests/experiment/test_comparison.py",
    "tests/test_notebooks.py",
    "tests/proving_ground/test_check_and_effects.py",
    "tests/methods/unlearning/test_pairwise.py",
    "tests/methods/distillation/test_fair_distillation.py",
    "tests/proving_ground/test_demo_x.py",
    "tests/cli/test_new.py",
    "tests/test_metrics_equal_compare.py",
    "tests/report/test_differences.py",
)
"""Files that take the longest, longest first; a file is one process's work (`--dist loadfile`)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first where processes share the tests, so that none of them is one process's last."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = longest_first(items)


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """All items, those of `LONGEST` at the front; the others keep their order."""
    places = {file: place for place, file in enumerate(LONGEST)}
    return sorted(items, key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


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
