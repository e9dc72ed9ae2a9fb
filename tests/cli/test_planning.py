"""`evenhand plan`, `python -m evenhand`, and the options of `compare` about workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evenhand.cli.app import app
from evenhand.errors import SettingsError

RUN = """
models: [demo, {demo: {name: other}}]
methods: [none, self_debias, pcgu]
benchmarks: ["mmlu(source=demo)"]
limit: 24
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(RUN)
    return file


def said(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return found.output


def test_a_run_file_is_planned_and_nothing_is_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = said(str(run))
    assert "4 cells;" in text and "power 80 %, level 0.05 after Holm" in text
    assert "demo: not asked: pcgu x mmlu(source=demo): pcgu" in text and "training data with pairs" in text
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]


def test_options_go_before_the_file_and_json_has_numbers(run: Path):
    found = json.loads(said(str(run), "--limit", "12", "--workers", "3", "--json"))
    assert (found["cells"], found["workers"]) == (4, 3)
    assert found["benchmarks"]["mmlu(source=demo)"]["items"] == 12
    assert found["models"]["other"]["calls"] == 12 + 24
    assert found["models"]["other"]["tokens_counted_by"] == "its own tokenizer"


def test_an_effect_that_nothing_shows_is_null(run: Path):
    found = json.loads(said(str(run), "--limit", "1", "--json"))
    assert found["benchmarks"]["mmlu(source=demo)"]["smallest_change_of_share"] == [None, None]
    assert "none" in said(str(run), "--limit", "1")


def test_it_takes_the_options_of_compare():
    commands = {command.name or command.callback.__name__: command for command in app.registered_commands}  # type: ignore[union-attr]
    runner = CliRunner()
    options = [
        {
            line.split()[1]
            for line in runner.invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output.splitlines()
            if line.startswith("│ --")
        }
        for name in ("plan", "compare")
    ]
    assert "plan" in commands and options[0] == options[1] and "--train" in options[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--on", "slurm"], "--on slurm: only 'ray' is known"), (["--workers", "2"], "add --on ray")],
)
def test_options_about_workers_that_do_nothing_are_refused(options: list[str], message: str, run: Path):
    with pytest.raises(SettingsError, match=message):
        CliRunner().invoke(app, ["compare", str(run), *options], catch_exceptions=False)


def test_python_m_evenhand():
    found = subprocess.run([sys.executable, "-m", "evenhand", "--help"], capture_output=True, text=True, check=True)
    assert "plan" in found.stdout and "Usage" in found.stdout
