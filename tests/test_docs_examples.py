"""The Python of the how-to guides runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.documents import ROOT

import evenhand
from evenhand.core import registry


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The names of each block of docs/own_model.md after it has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.models, "_objects", {**registry.models._objects})  # put back what a block registers
    page = (ROOT / "docs" / "own_model.md").read_text(encoding="utf-8")
    found = []
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        found.append({"__name__": "docs_own_model"})
        exec(compile(code, "docs/own_model.md", "exec"), found[-1])  # our own page
    return found


@pytest.mark.filterwarnings("ignore")
def test_the_models_of_the_guide_are_compared(blocks: list[dict[str, Any]]) -> None:
    in_memory, first = blocks
    assert {record.method for record in in_memory["report"].records} == {"none", "self_debias"}
    assert first["model"].name == "first option"
    report = evenhand.compare(first["model"], methods="none", benchmarks="bbq(source=demo)", limit=24, replicates=200)
    shares = {record.metric: record.value for record in report.records if record.group == "overall"}
    assert shares["position_1"] == 1.0 and shares["unparsed"] == 0.0
