"""`sweep`: a method at several settings, as a table and a plot."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand import Method, Mitigated, Model, TrainData, settings
from evenhand.cli import app
from evenhand.cli.sweep import _plain
from evenhand.errors import SettingsError
from evenhand.experiment.sweep import Point, Step, Swept, sweep, varied
from evenhand.interfaces import Stack
from evenhand.methods.unlearning.task_vector import TaskVectorNegation
from evenhand.testing import ScriptedModel, tiny_model


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


ASKED: dict[str, Any] = {"limit": 24, "replicates": 200, "show_progress": False}


def test_bias_and_cost_of_every_setting_beside_the_untouched_model(tmp_path: Path) -> None:
    model = tiny_model(name="tiny", too_long="skip")
    specs = [(f"{n} marks", Shouted(marks=n)) for n in (1, 4)]
    found = sweep(
        model,
        specs,
        bias="bbq(source=demo)",
        cost="bbq(source=demo)",
        bias_metric="abstention_ambiguous",
        out=tmp_path,
        **ASKED,
    )
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
    assert [float(y) for y in left.lines[0].get_ydata()] == [s.bias.value for s in found.steps]  # type: ignore[union-attr, arg-type]
    drawn = left.collections[0].get_segments()
    level = found.steps[0].bias.value
    for line, step in zip(drawn, found.steps[1:], strict=True):
        assert [y - level for y in line[:, 1]] == pytest.approx([step.bias.difference_low, step.bias.difference_high])
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


def test_settings_are_varied_by_text() -> None:
    name, steps, controls = varied(
        "pcgu(epochs=2,axes=('Age',))",
        "edit_fraction=0.1, 0.25",
        ["select=random,edit_fraction=0.3", "axes=('Age','SES')"],
    )
    assert name == "edit_fraction" and [label for label, _ in steps] == ["0.1", "0.25"]
    made: Any = [m for _, m in steps]
    assert [m.edit_fraction for m in made] == [0.1, 0.25] and all(m.epochs == 2 and m.axes == ("Age",) for m in made)
    assert [label for label, _ in controls] == ["select=random, edit_fraction=0.3", "axes=('Age','SES')"]
    beside: Any = [m for _, m in controls]
    assert (beside[0].select, beside[0].edit_fraction) == ("random", 0.3) and beside[1].axes == ("Age", "SES")


def test_a_setting_of_a_stack_is_that_of_the_method_that_has_it() -> None:
    _, steps, _ = varied("task_vector+instruction", "wording=low_2,high_1")
    made: Any = [m for _, m in steps]
    assert all(isinstance(m, Stack) for m in made)
    assert [m.spec for m in made] == [
        "task_vector+instruction(wording=low_2)",
        "task_vector+instruction(wording=high_1)",
    ]
    made = [m for _, m in varied("pcgu+task_vector", "task_vector.seed=1,2")[1]]
    assert [m.spec for m in made] == ["pcgu+task_vector(seed=1)", "pcgu+task_vector(seed=2)"]
    made = [m for _, m in varied("task_vector", "preset=paper,default")[1]]
    assert [m.epochs for m in made] == [10, 3]


@pytest.mark.parametrize(
    ("method", "vary", "controls", "said"),
    [
        ("pcgu", "edit_fractio=0.1,0.2", [], "pcgu has no setting 'edit_fractio'. Did you mean 'edit_fraction'"),
        ("none", "edit_fraction=0.1,0.2", [], "none has no setting 'edit_fraction'"),
        ("pcgu", "edit_fraction=0.1", [], "at least two values"),
        ("pcgu", "edit_fraction", [], "a setting and at least two values"),
        ("pcgu", "edit_fraction=0.1,many", [], "edit_fraction='many'"),
        ("pcgu", "edit_fraction=0.1,1.5", [], "edit_fraction=1.5"),
        ("pcgu+task_vector", "seed=1,2", [], "write pcgu.seed=..."),
        ("pcgu+task_vector", "pcgu.strength=1,2", [], "pcgu has no setting 'strength'"),
        ("pcgu", "edit_fraction=0.1,0.2", ["select"], "give changed settings"),
        ("pcgu", "edit_fraction=0.1,0.2", ["select=rand"], "select='rand'"),
        ("pcgus", "edit_fraction=0.1,0.2", [], "pcgu"),
    ],
)
def test_what_cannot_be_varied_is_said_before_anything_is_loaded(
    method: str, vary: str, controls: list[str], said: str
) -> None:
    with pytest.raises(SettingsError) as found:
        varied(method, vary, controls)
    assert said in str(found.value)


def test_a_method_that_cannot_be_applied_is_refused_before_the_model_is_asked() -> None:
    def asked(_: Any) -> int:
        pytest.fail("asked")

    given: dict[str, Any] = {"bias": "bbq(source=demo)", "cost": "mmlu(source=demo)", **ASKED}
    _, steps, _ = varied("pcgu", "edit_fraction=0.1,0.2")
    with pytest.raises(SettingsError, match="pcgu needs pairs of texts"):
        sweep(ScriptedModel(decide=asked), steps, **given)
    with pytest.raises(SettingsError, match="weights"):
        sweep(ScriptedModel(decide=asked), steps, train="demo:pairs:20", **given)


def test_a_fine_tune_is_made_once_for_all_strengths_and_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.methods.unlearning import _fine_tuning as fine_tuning

    count, fit = [0], fine_tuning.fit

    def counted(*given: Any) -> Any:
        count[0] += 1
        return fit(*given)

    monkeypatch.setattr(fine_tuning, "fit", counted)
    file = tmp_path / "texts.txt"
    few = [f"there was a {'little ' * n}{animal}" for n in range(12) for animal in ("dog", "cat")]
    file.write_text("\n\n".join(few))
    base = TaskVectorNegation(text=str(file), epochs=1, rank=1)
    steps = [(str(s), replace(base, strength=s)) for s in (0.5, 2.0)]
    controls = [("random", replace(base, control="random"))]
    model = tiny_model(too_long="skip")
    found = sweep(
        model, steps, controls=controls, bias="bbq(source=demo)", cost="bbq(source=demo)", setting="strength", **ASKED
    )
    assert count == [1]
    assert [(s.label, s.control) for s in found.steps] == [
        ("none", False),
        ("0.5", False),
        ("2.0", False),
        ("random", True),
    ]
    assert [row["control"] for row in csv.DictReader(found.table().splitlines())] == ["0", "0", "0", "1"]
    left = found.plot().axes[0]
    assert len(left.lines[0].get_xdata()) == 3, "the control is not joined to the settings"  # type: ignore[arg-type]
    assert left.get_xlabel() == "strength"
    frame = found.frame()
    assert list(frame.label) == [step.label for step in found.steps]
    assert list(frame.bias) == pytest.approx([step.bias.value for step in found.steps], abs=1e-5)
    assert "<td>random</td>" in found._repr_html_()
    assert repr(found).startswith("Swept(strength: none, 0.5, 2.0, random; bias ambiguous")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "sweep",
        "--method",
        "instruction",
        "--vary",
        "wording=low_1,high_2",
        "--bias",
        "bbq(source=demo)",
        "--cost",
        "perplexity(source=demo)",
        "--limit",
        "20",
        "--replicates",
        "200",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", ["evenhand", *(w.replace("wording=", "words=") for w in words)])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 2 and "instruction has no setting 'words'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["evenhand", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    out = capsys.readouterr().out
    assert not end.value.code and "high_2" in out and "written to" in out
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == ["none", "low_1", "high_2"]


def test_numbers_that_do_not_exist_are_null_in_json() -> None:
    nan = float("nan")
    bare, full = Point(0.5, nan, nan, nan, nan, nan), Point(0.25, 0.1, 0.3, -0.25, -0.3, -0.1)
    plain = _plain(Swept((Step("none", "none", bare, full),), "bias", "cost", True, "share"))
    assert json.loads(json.dumps(plain, allow_nan=False))["steps"][0]["bias"]["difference"] is None
    assert plain["steps"][0]["cost"]["value"] == 0.25 and plain["setting"] == "share"
