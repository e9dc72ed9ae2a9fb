"""`evenhand.spillover` on the demo: fitted on one axis at a time, measured on all."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import evenhand
from evenhand.core import registry
from evenhand.errors import EvenhandError, SettingsError
from evenhand.experiment import sweep_defaults, training_sources
from evenhand.experiment.spillover import AXIS, KINDS, _folder_name, training
from evenhand.models.demo_names import is_demo
from evenhand.report.spillover_matrix import Spillover

spillover_module = importlib.import_module("evenhand.experiment.spillover")


def test_a_method_that_learns_is_fitted_on_each_axis(tmp_path: Path) -> None:
    found = evenhand.spillover(
        "demo",
        "steering(fit_at=answer,layer=2)",
        ["Age", "Religion"],
        out=tmp_path,
        limit=60,
        replicates=200,
        show_progress=False,
    )
    assert [row.axis for row in found.rows] == ["Age", "Religion"]
    assert all("control" not in row.method for row in found.rows)
    targeted = {(row.axis, column.axis) for (row, column), effect in found.cells.items() if effect.targeted}
    assert targeted == {("Age", "Age"), ("Religion", "Religion")}
    assert found.worse.of == len(found.cells) - 2
    assert found.demo and sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["Age", "Religion"]


def test_an_instruction_names_the_axis_itself(tmp_path: Path) -> None:
    found = evenhand.spillover(
        "demo",
        "instruction(wording=ours_low_1,axis={axis})",
        ["age", "religion"],
        limit=30,
        replicates=200,
        show_progress=False,
    )
    assert [row.axis for row in found.rows] == ["age", "religion"]
    assert sum(effect.targeted for effect in found.cells.values()) == 2


def test_a_method_without_an_axis_is_measured_once() -> None:
    axes = ["Age", "Religion"]
    found = evenhand.spillover("demo", "permutation", axes, limit=30, replicates=200, show_progress=False)
    assert [row.axis for row in found.rows] == [""]


@pytest.mark.parametrize(
    ("model", "method", "train", "data"),
    [
        ("demo", "pcgu", None, "demo:pairs:{axis}"),
        ("demo", "task_vector", None, "demo:biased:{axis}"),
        ("some/model", "pcgu", None, "pairs:bbq(axes=('{axis}',),part=fit)"),
        ("some/model", "permutation_distillation", None, "bbq(axes=('{axis}',),part=fit)"),
        ("demo", "self_debias", None, None),
        ("demo", "instruction(axis={axis})", None, None),
        ("demo", "pcgu", "pairs:bbq(source=demo,axes={axis})", "pairs:bbq(source=demo,axes={axis})"),
    ],
)
def test_training_data_of_one_axis(model: str, method: str, train: str | None, data: str | None) -> None:
    assert training(model, method, train) == data


def test_what_cannot_be_parted_by_axis_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(SettingsError, match="same for every axis"):
        evenhand.spillover("demo", "pcgu", ["Age"], train="demo:pairs")
    with pytest.raises(SettingsError, match="fair_distillation trains on texts"):
        evenhand.spillover("demo", "fair_distillation", ["Age"])
    for axes in ([], ["Age", "Age"], [""]):
        with pytest.raises(SettingsError, match="give axes that differ"):
            evenhand.spillover("demo", "pcgu", axes)


def test_an_axis_without_training_data_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no axis 'Religon'\. Did you mean 'Religion'"):
        evenhand.spillover("demo", "steering(layer=2)", ["Age", "Religon"], out=tmp_path / "new")
    with pytest.raises(SettingsError, match=r"no axis 'Weather'\. Known: Age, Disability_status"):
        evenhand.spillover("demo", "steering(layer=2)", ["Age", "Weather"], out=tmp_path / "new")
    (tmp_path / "Age.txt").write_text("a text\n")
    (tmp_path / "SES.txt").write_text("\n")
    with pytest.raises(EvenhandError, match=r"SES\.txt"):
        evenhand.spillover(
            "demo", "fair_distillation", ["Age", "SES"], train=f"{tmp_path}/{AXIS}.txt", out=tmp_path / "new"
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("source", KINDS.values())
def test_usual_training_data_are_a_benchmark_that_can_be_made(source: str) -> None:
    made = registry.build_benchmark(source.removeprefix("pairs:").replace(AXIS, "Age"))
    assert made.spec == "bbq(part=fit,axes=('Age',))" or made.spec == "bbq(axes=('Age',),part=fit)"


def test_the_axis_of_data_is_known_whatever_the_data_are_called(tmp_path: Path) -> None:
    for axis in ("Age", "Religion"):
        pairs = training_sources.load(f"demo:pairs:{axis}").data.pairs[:40]
        lines = [{"stereotyped": p.stereotyped, "counter_stereotyped": p.counter_stereotyped} for p in pairs]
        (tmp_path / f"{axis}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = evenhand.spillover(
        "demo",
        "steering(layer=2,validation_fraction=0)+self_debias",
        ["Age", "Religion"],
        train=f"{tmp_path}/{AXIS}.jsonl",
        limit=12,
        replicates=200,
        show_progress=False,
    )
    assert [row.axis for row in found.rows] == ["Age", "Religion"]
    assert sum(effect.targeted for effect in found.cells.values()) == 2


def test_axes_that_differ_only_in_signs_have_folders_of_their_own() -> None:
    names = ("Race/ethnicity", "Race_ethnicity", "Race ethnicity", "..")
    folders = [_folder_name(name) for name in names]
    assert len({*folders}) == len(names) and folders[1] == "Race_ethnicity"
    assert all("/" not in folder and "." not in folder for folder in folders)


def test_what_was_stopped_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun = spillover_module.compare, []

    def stops(*given: Any, **more: Any) -> Any:
        begun.append(more["out"].name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return real(*given, **more)

    def run() -> Spillover:
        return evenhand.spillover(
            "demo",
            "instruction(wording=ours_low_1,axis={axis})",
            ["age", "religion"],
            out=tmp_path,
            limit=12,
            replicates=200,
            show_progress=False,
        )

    monkeypatch.setattr(spillover_module, "compare", stops)
    with pytest.raises(KeyboardInterrupt):
        run()
    first = (tmp_path / "age" / "manifest.json").read_text()
    found = run()
    assert begun == ["age", "religion", "age", "religion"] and [row.axis for row in found.rows] == ["age", "religion"]
    again = (tmp_path / "age" / "manifest.json").read_text()
    answers = [[(u["method"], u["answers"]) for u in json.loads(text)["usage"]] for text in (first, again)]
    assert answers[0] == answers[1]


def test_items_are_read_once_for_all_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    real, given = spillover_module.compare, []

    def noted(*some: Any, **more: Any) -> Any:
        given.append(some)
        return real(*some, **more)

    monkeypatch.setattr(spillover_module, "compare", noted)
    method = "instruction(wording=ours_low_1,axis={axis})"
    evenhand.spillover("demo", method, ["age", "religion"], limit=12, replicates=200, show_progress=False)
    (first, _, asked), (second, _, again) = given
    assert first is second and len(asked) == 1 and asked[0] is again[0]


def test_a_demo_model_is_known_however_it_is_given() -> None:
    loaded = evenhand.load("demo")
    assert all(map(is_demo, ["demo", "demo(name=x)", "demo-x", Path("demo-b"), {"demo": {}}, loaded]))
    assert not any(map(is_demo, ["demos", "some/demo", {"some/model": {}}, {}]))
    assert training(loaded, "pcgu", None) == "demo:pairs:{axis}"
    assert sweep_defaults.training(loaded, "pcgu") == "demo:pairs"
    assert sweep_defaults.sides(loaded, None, None, None).bias.spec == "bbq(source=demo)"
