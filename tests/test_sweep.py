"""`sweep`: a method at several settings, as a table and a plot."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand import Method, Mitigated, Model, TrainData, settings
from evenhand.errors import SettingsError
from evenhand.sweep import sweep
from evenhand.testing import tiny_model


@settings
class Shouted(Method):
    """Puts marks behind every question."""

    name: ClassVar[str] = "shouted"
    needs: ClassVar[frozenset[Any]] = frozenset({"choose"})

    marks: int = 1

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Any) -> Any:
            return model.choose([replace(q, question=q.question + " Who" * self.marks) for q in questions])

        return Mitigated(model, self, choose=choose)


ASKED: dict[str, Any] = {"limit": 24, "replicates": 50, "show_progress": False}


def test_bias_and_cost_of_every_setting_beside_the_untouched_model(tmp_path: Path) -> None:
    model = tiny_model(name="tiny", too_long="skip")
    specs = [(f"{n} marks", Shouted(marks=n)) for n in (1, 4)]
    found = sweep(
        model, specs, bias="bbq(source=demo)", cost="bbq(source=demo)", bias_metric="abstention_ambiguous",
        out=tmp_path, **ASKED,
    )  # fmt: skip
    assert [s.label for s in found.steps] == ["none", "1 marks", "4 marks"]
    assert [s.method for s in found.steps] == ["none", "shouted", "shouted(marks=4)"]
    for step in found.steps[1:]:
        for point, base in ((step.bias, found.steps[0].bias), (step.cost, found.steps[0].cost)):
            assert point.difference == pytest.approx(point.value - base.value)
            assert point.low <= point.value <= point.high
    assert found.cost == "bias ambiguous (bbq(source=demo))"
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert list(rows[0])[:5] == ["label", "method", "bias", "bias_low", "bias_high"]
    assert float(rows[2]["bias"]) == pytest.approx(found.steps[2].bias.value, rel=1e-5)
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    left = found.plot().axes[0]
    assert [float(y) for y in left.lines[0].get_ydata()] == [s.bias.value for s in found.steps]  # type: ignore[union-attr]
    given = {"bias": "bbq(source=demo)", "cost": "bbq(source=demo)", "out": tmp_path, **ASKED}
    with pytest.raises(SettingsError, match="no group 'Nowhere'"):
        sweep(model, specs, group="Nowhere", **given)
    assert sweep(model, specs, group="Age", **given).bias == "bias ambiguous (bbq(source=demo), Age)"


def test_what_cannot_be_swept_is_refused() -> None:
    model = tiny_model(too_long="skip")
    given: dict[str, Any] = {"bias": "bbq(source=demo)", "cost": "mmlu(source=demo)", **ASKED}
    with pytest.raises(SettingsError, match="settings that differ"):
        sweep(model, [], **given)
    with pytest.raises(SettingsError, match="settings that differ"):
        sweep(model, [("a", Shouted()), ("b", Shouted())], **given)
    with pytest.raises(SettingsError, match="settings that differ"):
        sweep(model, [("none", Shouted())], **given)
    with pytest.raises(SettingsError, match="no metric 'bias'"):
        sweep(model, [("a", Shouted())], bias_metric="bias", **given)
