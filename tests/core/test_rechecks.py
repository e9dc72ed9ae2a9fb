"""A comparison stores nothing under the hash of weights that were no longer these."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import evenhand
from evenhand.evaluation.bbq import BBQ
from evenhand.interfaces import Method, Model, TrainData, settings
from evenhand.models import checksum
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Mitigated

BENCH = BBQ(source="demo")
FEW: dict[str, Any] = {"limit": 12, "replicates": 200, "show_progress": False}


def unseen(model: LocalModel) -> None:
    """Write an element in a way that torch does not count."""
    table = model.weights.module.get_input_embeddings().weight
    table.data.view(-1)[1] += 0.5


def counted(model: LocalModel) -> None:
    """Change weights in a way that torch counts."""
    with torch.no_grad():
        model.weights.module.get_input_embeddings().weight.mul_(1.1)


@pytest.fixture(params=["all seen", "blind"])
def check(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, and with a checksum that misses everything, which the hash in full has to make good for."""
    if request.param == "blind":
        monkeypatch.setattr(checksum, "of_tensors", lambda tensors: "")


@settings
class Meddling(Method):
    """Changes the given weights while it is asked."""

    name: ClassVar[str] = "meddling"
    edit: ClassVar[Callable[[Any], None]] = unseen

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Any) -> Any:
            first = model.choose(questions[:4])
            type(self).edit(model)
            return first + model.choose(questions[4:])

        return Mitigated(model, self, choose=choose)


@settings
class Patching(Method):
    """Patches weights while it asks, and takes that back."""

    name: ClassVar[str] = "patching"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Any) -> Any:
            table = model.weights.module.get_input_embeddings().weight
            kept = table.data.clone()
            table.data[:, 1::2] *= -1
            try:
                return model.choose(questions)
            finally:
                table.data.copy_(kept)

        return Mitigated(model, self, choose=choose)


@settings
class Careless(Method):
    """Changes the given weights as it is applied, after asking."""

    name: ClassVar[str] = "careless"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        items = BENCH.load()[:3]
        BENCH.ask(model, items)
        unseen(model)  # type: ignore[arg-type]
        BENCH.ask(model, BENCH.load()[-3:])
        return Mitigated(model, self)


def run(method: Method, folder: Path) -> Any:
    with pytest.warns(RuntimeWarning, match=f"{method.name} changed .*, the model that it was given; it was loaded"):
        return evenhand.compare("demo", [method], [BENCH], out=folder, **FEW)


def keys(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "cache.sqlite") as db:
        return {k for (k,) in db.execute("SELECT key FROM answers")}


@pytest.mark.usefixtures("check")
@pytest.mark.parametrize("edit", [unseen, counted])
def test_a_cell_whose_weights_change_is_refused_and_nothing_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(Meddling, "edit", staticmethod(edit))
    evenhand.compare("demo", "none", [BENCH], out=tmp_path / "clean", **FEW)
    report = run(Meddling(), tmp_path / "run")
    (note,) = {r.note for r in report.records if r.method == "meddling"}
    assert "changed" in note
    assert keys(tmp_path / "run") == keys(tmp_path / "clean"), "the answers of the untouched model alone"
    assert len([*(tmp_path / "run" / "answers").glob("*.parquet")]) == 1


@pytest.mark.parametrize("check", ["blind"], indirect=True)
@pytest.mark.usefixtures("check")
def test_what_a_method_changes_as_it_is_applied_is_found_too(tmp_path: Path) -> None:
    evenhand.compare("demo", "none", [BENCH], out=tmp_path / "clean", **FEW)
    report = run(Careless(), tmp_path / "run")
    (note,) = {r.note for r in report.records if r.method == "careless"}
    assert "changed while it was applied or asked" in note
    assert len(keys(tmp_path / "run") - keys(tmp_path / "clean")) == 3, "what was asked before anything was changed"


def test_a_patch_that_is_taken_back_is_answered_with_the_patch(tmp_path: Path) -> None:
    def numbers(report: Any, method: str) -> dict[tuple[str, str], float | None]:
        return {(r.metric, r.group): r.value for r in report.records if r.method == method and r.value == r.value}

    both = evenhand.compare("demo", ["none", Patching()], [BENCH], out=tmp_path / "both", **FEW)
    alone = evenhand.compare("demo", [Patching()], [BENCH], out=tmp_path / "alone", **FEW)
    clean = evenhand.compare("demo", "none", [BENCH], out=tmp_path / "clean", **FEW)
    assert numbers(both, "none") == numbers(clean, "none") != numbers(both, "patching")
    assert numbers(both, "patching") == numbers(alone, "patching")
    assert keys(tmp_path / "clean") < keys(tmp_path / "both"), "the patched answers have keys of their own"


def test_an_object_from_memory_is_hashed_in_full_once_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.models import fingerprint

    seen: list[int] = []
    real = fingerprint.content_of
    monkeypatch.setattr(fingerprint, "content_of", lambda *given: seen.append(1) or real(*given))
    model = evenhand.wrap(*evenhand.load("demo").weights, name="mine")
    seen.clear()
    evenhand.compare(model, ["none", "self_debias"], [BENCH], out=tmp_path / "run", **FEW)
    assert 0 < len(seen) <= 12, "for each method once as it is applied, asked and left, and not at every question"
