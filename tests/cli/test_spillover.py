"""`evenhand spillover` as a new user meets it."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from evenhand.cli import app


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["evenhand", "spillover", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_the_cells_are_printed_as_csv_json_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["permutation", "--axes", "Age,Religion", "--limit", "12", "--out", str(tmp_path)]
    code, out, _ = run([*command, "--format", "csv"], monkeypatch, capsys)
    cells = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and {"Age", "Religion"} <= {cell["axis"] for cell in cells}
    assert {cell["fitted_on"] for cell in cells} == {"all axes"}  # it is fitted on nothing, so it is run once
    code, out, _ = run([*command, "--json"], monkeypatch, capsys)
    told = json.loads(out)
    assert code == 0 and len(told["cells"]) == len(cells) == told["worse"]["of"]
    assert told["summary"].startswith(f"{told['worse']['found']} of {len(cells)} cells")
    code, out, _ = run(command, monkeypatch, capsys)
    assert code == 0 and "measured on" in out and "on all axes" in out and "a run folder per axis" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["steering(layer=2)", "--axes", "Age,Religon"], "no axis 'Religon'. Did you mean 'Religion'?"),
        (["steering(layer=2)", "--axes", "Age,Age"], "give axes that differ"),
        (["steering(layer=2)", "--axes", "Age", "--train", "demo:pairs"], "bbq(axes=('{axis}',),part=fit)"),
        (["permutation", "--axes", "Age", "--format", "xml"], "give text or csv"),
    ],
)
def test_what_cannot_be_run_is_refused_and_leaves_nothing_behind(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run([*words, "--out", str(tmp_path / "new")], monkeypatch, capsys)
    assert code != 0 and told in " ".join(err.split()) and not (tmp_path / "new").exists()
