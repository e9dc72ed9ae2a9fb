"""The longest test files are started first, and xdist leaves it at that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def conftest(pytestconfig: pytest.Config) -> Any:
    """The module with the list of files."""
    return pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))


def test_the_longest_files_come_first_and_nothing_is_lost(conftest: Any) -> None:
    first, second = conftest.LONGEST[:2]
    names = ["tests/a.py::one", f"{second}::two", "tests/a.py::three", f"{first}::four", f"{second}::five"]
    ordered = conftest.longest_first([SimpleNamespace(nodeid=name) for name in names])
    assert [item.nodeid for item in ordered] == [names[3], names[1], names[4], names[0], names[2]]


def test_every_listed_file_exists(conftest: Any) -> None:
    assert [file for file in conftest.LONGEST if not (ROOT / file).is_file()] == []


def test_xdist_keeps_the_order() -> None:
    """By default it starts files with many tests first, and the longest have few."""
    assert "--dist loadfile --no-loadscope-reorder" in (ROOT / "Makefile").read_text(encoding="utf-8")
