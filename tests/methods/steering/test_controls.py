"""`controls=true` gives a comparison the rows that steering should be read next to, all of one fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import evenhand
from evenhand.core.registry import build_method
from evenhand.core.repeats import Repeated
from evenhand.errors import SettingsError
from evenhand.experiment.sweep import _with_controls, varied
from evenhand.interfaces import Method
from evenhand.methods.steering._steered import Steered
from evenhand.methods.steering.fairsteer import FairSteer
from evenhand.methods.steering.steering import Steering

from .steering_pairs import DATA, tiny


def specs(method: Method) -> dict[str, str]:
    return {label: row.spec for label, row in method.comparison_rows().items()}


@pytest.mark.parametrize("name", ["steering", "fairsteer"])
def test_a_method_declares_its_controls_when_it_is_asked_to(name: str) -> None:
    assert specs(build_method(f"{name}(layer=0)")) == {"": f"{name}(layer=0)"}
    assert specs(build_method(f"{name}(layer=0,controls=true)")) == {
        "": f"{name}(layer=0)",
        "control=random": f"{name}(layer=0,control=random)",
        "control=flipped": f"{name}(layer=0,control=flipped)",
    }


def test_a_stack_has_the_controls_of_its_parts() -> None:
    assert specs(build_method("steering(layer=0,controls=true)+self_debias")) == {
        "": "steering(layer=0)+self_debias",
        "steering.control=random": "steering(layer=0,control=random)+self_debias",
        "steering.control=flipped": "steering(layer=0,control=flipped)+self_debias",
    }
    twice = specs(build_method("steering(layer=0,controls=true)+steering(layer=1,controls=true)"))
    assert len(twice) == len({*twice.values()}) == 5
    assert twice["steering 2.control=random"] == "steering(layer=0)+steering(layer=1,control=random)"


def test_repetitions_are_those_of_every_row() -> None:
    rows = build_method("steering(layer=0,controls=true,seeds=2)").comparison_rows()
    assert [type(row) for row in rows.values()] == [Repeated] * 3
    unseeded = build_method("steering(layer=0,controls=true,validation_fraction=0,seed=0)")
    assert [row.seeded for row in unseeded.comparison_rows().values()] == [False, True, False]


def test_a_sweep_shows_controls_next_to_every_setting() -> None:
    _, steps, _ = varied("steering(layer=0,controls=true)", "strength=1,2")
    own, beside = _with_controls(steps, [("mine", "steering(layer=0,scope=all)")])
    assert [(label, method.spec) for label, method in own] == [
        ("1", "steering(layer=0)"),
        ("2", "steering(layer=0,strength=2.0)"),
    ]
    assert [label for label, _ in beside] == [
        "mine",
        "1, control=random",
        "1, control=flipped",
        "2, control=random",
        "2, control=flipped",
    ]


def test_a_comparison_has_a_row_for_each_control_and_fits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    fitted = Steering.learned
    monkeypatch.setattr(Steering, "learned", lambda self, *given: fits.append(self.control) or fitted(self, *given))
    report = evenhand.compare(
        tiny(),
        "steering(layer=0,strength=1000,controls=true)",
        "bbq(source=demo)",
        train=DATA,
        limit=2,
        out=tmp_path,
        show_progress=False,
    )
    own = "steering(layer=0,strength=1000.0{})"
    rows = {record.method for record in report.records}
    assert rows == {"none", *(own.format(more) for more in ("", ",control=random", ",control=flipped"))}
    assert fits == ["none"]


def test_applied_alone_it_is_the_model_without_controls() -> None:
    model = tiny()
    made = Steering.build(layer=0, controls=True).apply(model, DATA)
    plain = Steering.build(layer=0).apply(model, DATA)
    assert (made.name, made.fingerprint) == (plain.name, plain.fingerprint)


def test_controls_of_a_control_are_refused() -> None:
    with pytest.raises(SettingsError, match="set one of the two"):
        FairSteer.build(controls=True, control="random")


def test_one_direction_at_all_layers_has_one_random_direction_as_its_control() -> None:
    made = Steering.build(layer="all", direction_layer=0, control="random").apply(tiny(), DATA)
    assert isinstance(made, Steered)
    one, other = (edits[0].directions for edits in made.edit.layers.values())
    assert torch.equal(one, other)
    own = Steering.build(layer="all", control="random").apply(tiny(), DATA)
    assert isinstance(own, Steered)
    one, other = (edits[0].directions / edits[0].directions.norm() for edits in own.edit.layers.values())
    assert not torch.allclose(one, other, atol=0.1)
