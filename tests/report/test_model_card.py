"""A model card says what was done, on what, and what a run found; it is the hub's, and names no place of a machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from tests.report.test_exports import record, tables_in
from typer.testing import CliRunner

from evenhand.cli.app import app
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import TrainedFrom, TrainedOn, TrainingRecord
from evenhand.models import saved
from evenhand.report import Report
from evenhand.report.model_card import MARK, model_card, write_card
from evenhand.report.saved_model import describe

BASE = {"source": "demo", "options": {"name": "demo"}, "fingerprint": "f00d"}
RECORD = TrainingRecord(
    method="pcgu",
    spec="pcgu(epochs=2)",
    settings={"epochs": 2},
    base=TrainedFrom(name="org/base", source="org/base", fingerprint="f00d"),
    data=TrainedOn(unit="pairs", source="/home/me/own.jsonl", hash="da7a", training=1080, validation=120),
    precision="no",
    seed=3,
    steps=34,
    seconds=18.3,
    versions={"torch": "2.0"},
)


def mitigated(folder: Path, method: dict[str, Any], base: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    saved.write(folder, {"kind": "mitigated", "method": method, "base": base or BASE})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return mitigated(tmp_path / "fair|model", {"self_debias": {"variant": "explanation"}})


ROW = "self_debias(variant=explanation)"
BETTER = {"difference_low": -0.5, "difference_high": -0.25, "gain": 0.375, "p_holm": 1e-5}
RECORDS = [
    record("none", "bias", 0.5),
    record("none", "accuracy", 0.8),
    record("none", "accuracy", 0.9, group="Age"),
    record(ROW, "bias", 0.125, baseline="none", difference=-0.375, **BETTER),
    record(ROW, "accuracy", 0.7, baseline="none", difference=-0.1, gain=-0.1, loss_high=0.2, p_holm=0.01),
    replace(record(ROW, "bias", 2.0, main=False), metric="calls_ratio", kind="cost"),
    record(ROW, "accuracy", 0.4, group="Age", baseline="none", difference=-0.5, gain=-0.5, p_holm=0.2),
]
MANIFEST: dict[str, Any] = {
    "models": {"m": {"fingerprint": "f00d"}, "other": {"fingerprint": "beef"}},
    "benchmarks": {"bbq": {"asked": 1234}},
    "seed": 5,
    "versions": {"evenhand": "0.1"},
}


@pytest.fixture
def run() -> Report:
    return Report(RECORDS, MANIFEST)


def test_the_table_before_and_after(folder: Path, run: Report) -> None:
    text = model_card(folder, run)
    (table,) = tables_in(text)
    assert table == [
        ["benchmark", "metric", "before", "after", "difference", "p (Holm)"],
        ["bbq", "bias →0", "0.500 [0.400, 0.600]", "0.125 [0.025, 0.225] *", "-0.375 [-0.500, -0.250]", "< 0.001"],
        ["bbq", "accuracy ↑", "0.800 [0.700, 0.900]", "0.700 [0.600, 0.800] *", "-0.100", "0.010"],
    ]
    assert "**0.125**" in text and "**0.700**" not in text, "bold is what got better"
    assert "accuracy lost (-0.100)" in text, "the verdict of the report"
    assert "- Age (bbq): accuracy 0.900 → 0.400, not shown to differ" in text
    assert "1,234 items of bbq with 2.00 times the baseline's calls (seed 5, evenhand 0.1)" in text


def test_the_header_is_the_hubs(folder: Path, run: Report) -> None:
    data = ModelCard(model_card(folder, run), ignore_metadata_errors=False).data
    assert data.library_name == "evenhand" and data.tags == ["evenhand", "bias-mitigation", "self_debias"]
    assert data.base_model is None, "a demo model is not on the hub"
    assert [(r.dataset_name, r.metric_type, r.metric_value) for r in data.eval_results or []] == [
        ("bbq", "bias", 0.125),
        ("bbq", "accuracy", 0.7),
    ]
    assert ModelCard(model_card(folder)).data.eval_results is None


def test_without_a_run_it_says_that_nothing_was_measured(folder: Path) -> None:
    text = model_card(folder)
    assert "Not measured yet" in text and not tables_in(text)
    assert "demo model, planted bias" in text
    assert 'evenhand.load("fair|model")' in text and "gallegos2025selfdebiasing" in text
    assert "nothing, as it changes prompts" in text
    assert '"variant": "explanation"' in text


def test_a_run_of_another_model_is_refused(folder: Path, run: Report) -> None:
    other = {**MANIFEST, "models": {"m": {"fingerprint": "beef"}}}
    with pytest.raises(SettingsError, match=r"another model.*fingerprint f00d: the run has m \(beef\)"):
        model_card(folder, Report(run.records, other))
    with pytest.raises(SettingsError, match="another model"):
        model_card(folder, run, model="other")


def test_a_run_without_the_method_is_refused(tmp_path: Path, run: Report) -> None:
    other = mitigated(tmp_path / "x", {"instruction": {}})
    with pytest.raises(
        SettingsError, match=r"no numbers of instruction on m; its methods there: self_debias.*--method"
    ):
        model_card(other, run)
    assert tables_in(model_card(other, run, method=ROW)), "unless the row is named"
    with pytest.raises(SettingsError, match="no numbers of none"):
        model_card(other, run, method="none")


def test_a_trained_adapter_says_what_it_was_fitted_on(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    saved.write_weights(tmp_path, RECORD)
    text = model_card(tmp_path)
    data = ModelCard(text).data
    assert data.base_model == "org/base" and data.library_name == "peft"
    assert data.to_dict()["base_model_relation"] == "adapter"
    for line in (
        "- training data: own.jsonl",
        "- pairs: 1,080",
        "- held out: 120",
        "- left out because a benchmark asks them: not known: no benchmark was compared with the data",
        "- hash of the data: da7a",
        "- seed: 3",
        "- precision: float32",
        "- took: 18.3 s",
    ):
        assert line in text.splitlines()
    assert "/home/me" not in text


def test_a_run_that_trained_anew_says_so(tmp_path: Path) -> None:
    saved.write_weights(tmp_path, RECORD)
    rows = [record("none", "bias", 0.5), record("pcgu(epochs=2)", "bias", 0.4, baseline="none", difference=-0.1)]
    applied = [{"model": "m", "method": "pcgu(epochs=2)", "training": "pairs: 972"}]
    text = model_card(tmp_path, Report(rows, {**MANIFEST, "applied": applied, "train_source": "demo:pairs"}))
    assert "The run trained the method itself, with the same settings, on demo:pairs (pairs: 972)" in text


def test_a_stack_is_described_from_the_inside(tmp_path: Path) -> None:
    inner = {"source": "org/base", "options": {"name": "base"}, "fingerprint": "f00d"}
    mitigated(tmp_path / "base", {"instruction": {}}, inner)
    mitigated(tmp_path, {"self_debias": {}}, {"folder": "base", "fingerprint": "0dd"})
    found = describe(tmp_path)
    assert found.spec == "instruction+self_debias" and found.base == "org/base" and found.fingerprint == "f00d"
    assert "base_model: org/base" in model_card(tmp_path) and "base_model_relation" not in model_card(tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [("/home/me/models/own", "own"), ("endpoint:https://internal.example:8000/v1#llama", "llama"), ("../x/own", "own")],
)
def test_no_place_of_a_machine_is_named(tmp_path: Path, source: str, name: str) -> None:
    mitigated(tmp_path, {"self_debias": {}}, {"source": source, "fingerprint": "f00d"})
    text = model_card(tmp_path)
    assert f"# {name} under self\\_debias" in text
    assert "/home/me" not in text and "internal.example" not in text and str(tmp_path) not in text


def test_nothing_in_a_folder_acts_in_the_card(tmp_path: Path) -> None:
    evil = "<script>x</script> [a](javascript:b)\n---\nlicense: mit"
    mitigated(tmp_path, {"self_debias": {}}, {"source": "s", "options": {"name": evil}, "fingerprint": "``` <b>"})
    text = model_card(tmp_path)
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script>" not in page and "href=" not in page and "<b>" not in page and "javascript:b" in page
    assert ModelCard(text).data.license is None


def test_what_has_no_method_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        model_card(tmp_path / "nowhere")
    with pytest.raises(EvenhandError, match="has no method of evenhand"):
        model_card(tmp_path)
    saved.write(tmp_path, {"kind": "endpoint", "source": "endpoint:http://x#m"})
    with pytest.raises(EvenhandError, match="has no method of evenhand"):
        model_card(tmp_path)
    saved.begin(tmp_path)
    with pytest.raises(EvenhandError, match="unfinished"):
        model_card(tmp_path)


def test_a_card_by_somebody_else_is_kept(folder: Path) -> None:
    file = folder / "README.md"
    file.write_text("mine")
    with pytest.raises(SettingsError, match="not written by evenhand"):
        write_card(folder)
    assert file.read_text() == "mine"
    assert write_card(folder, overwrite=True) == file and MARK in file.read_text()
    file.write_text(file.read_text().replace("Not measured", "Changed"))
    write_card(folder)
    assert "Not measured" in file.read_text(), "one of ours is replaced"


def test_the_command_writes_it(folder: Path) -> None:
    done = CliRunner().invoke(app, ["card", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0 and "README.md" in done.output and "give --run RUN" in done.output
    assert MARK in (folder / "README.md").read_text()


def test_the_training_data_can_be_named(tmp_path: Path) -> None:
    saved.write_weights(tmp_path, replace(RECORD, data=TrainedOn(unit="pairs", training=10)))
    CliRunner().invoke(app, ["card", str(tmp_path), "--train", "demo:pairs & /home/me/x.txt"], catch_exceptions=False)
    assert "- training data: demo:pairs &amp; x.txt" in (tmp_path / "README.md").read_text().splitlines()


def test_debias_writes_one_and_leaves_somebody_elses(tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["debias", "demo", "self_debias", "--out", str(out)]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0 and f"its model card: {out / 'README.md'}" in done.output
    assert json.loads((out / "evenhand.json").read_text())["kind"] == "mitigated"
    assert describe(out).fingerprint and MARK in (out / "README.md").read_text()
    (out / "README.md").write_text("mine")
    again = CliRunner().invoke(app, given, catch_exceptions=False)
    assert "stays as it was" in again.output and (out / "README.md").read_text() == "mine"
