"""The table of presets: what it says, that every value has a source, and that the documentation has it as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand.cli import presets
from evenhand.core import registry
from evenhand.errors import SettingsError, UnknownNameError

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_documentation_has_the_table_as_it_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert presets.put(text) == text, "run: python -m evenhand.cli.presets docs/methods.md"


def test_every_value_of_a_preset_has_a_source() -> None:
    found = list(presets.rows())
    assert not [row for row in found if not row.source]
    assert {row.method for row in found} >= {"pcgu", "task_vector", "fair_distillation", "deep_to_shallow", "pride"}


@pytest.mark.parametrize("name", registry.BUILT_IN["methods"])
def test_sources_are_of_settings_that_their_preset_sets(name: str) -> None:
    method = registry.methods.get(name)
    assert not set(method.preset_sources) - set(method.presets)
    for preset, sources in method.preset_sources.items():
        assert not set(sources) - {"", *method.presets[preset]}, preset


def test_a_value_and_its_source() -> None:
    (row,) = (r for r in presets.rows("pcgu") if (r.preset, r.setting) == ("released_masked", "max_length"))
    assert (row.value, row.source) == ("24", "dataset.py, WGDataset: max_len")
    with pytest.raises(UnknownNameError):
        list(presets.rows("pcgus"))


def test_a_table_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    class Given:
        presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"rate": 0.5, "way": "up"}, "demo": {"rate": 1.0}}
        preset_sources: ClassVar[dict[str, dict[str, str]]] = {"paper": {"": "section 3", "way": "main.py"}}

    monkeypatch.setattr(registry.methods, "get", lambda name: Given)
    assert presets.table("given").splitlines() == [
        "| method | preset | setting | value | source |",
        "|---|---|---|---|---|",
        "| `given` | `paper` | `rate` | `0.5` | section 3 |",
        "|  |  | `way` | `up` | main.py |",
        "|  | `demo` | `rate` | `1.0` |  |",
    ]
    text = f"Before.\n{presets.BEGIN}\nold\n{presets.END}\nAfter.\n"
    assert presets.put(text).startswith(f"Before.\n{presets.BEGIN}\n\n| method |") and "old" not in presets.put(text)
    assert presets.put(text).endswith(f"\n\n{presets.END}\nAfter.\n")
    with pytest.raises(SettingsError, match="no marks"):
        presets.put("Before.")
