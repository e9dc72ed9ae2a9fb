"""`evenhand reproduce`: the list, the checks, a smoke, exit codes, and that the documentation has its table."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evenhand.cli import reproduce
from evenhand.cli.app import app
from evenhand.data.io.locate import FOLDER_VARIABLE
from evenhand.errors import SettingsError
from evenhand.experiment import recipes
from evenhand.experiment.reproduction import Outcome
from evenhand.report import Report

DOCS = Path(__file__).parents[2] / "docs"
SMALL = "pronouns_gemma2_9b"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))


def test_the_documentation_has_the_table_as_it_is() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    assert reproduce.put(text) == text, "run: python -m evenhand.cli.reproduce docs/results.md"
    with pytest.raises(SettingsError, match="no marks"):
        reproduce.put("nothing")


def test_the_table_of_articles_names_recipes_that_there_are() -> None:
    text = (DOCS / "seeds.md").read_text(encoding="utf-8")
    named = {word for word in text.replace("`", " ").replace(",", " ").split() if word in recipes.names()}
    families = ("permutation_student_", "pronouns_", "adjudication_")
    assert {name for name in recipes.names() if not name.startswith(families)} <= named
    assert all(f"{family}..." in text or f"{family}gemma2_9b" in text for family in families)


def test_the_list_says_what_is_a_demonstration() -> None:
    shown = CliRunner().invoke(app, ["reproduce"])
    assert shown.exit_code == 0
    lines = dict(line.split(": ", 1) for line in shown.stdout.splitlines())
    assert [*lines] == recipes.names()
    assert lines["intent_llama3"].startswith("demonstration: ") and not lines[SMALL].startswith("demonstration")
    assert "About 21 GB and under 0.1 h" in lines[SMALL]


def test_the_list_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from evenhand.cli import reproduce; reproduce.reproduce(None); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_without_its_data_does_not_begin() -> None:
    checked = CliRunner().invoke(app, ["reproduce", SMALL, "--check", "--json"])
    found = json.loads(checked.stdout)
    assert checked.exit_code == 1
    assert found["gender-bias/pronouns_prefix_0.yaml"].startswith("NOT OK: there is no $EVENHAND_DATA/gender-bias/")
    assert "memory" in found
    assert CliRunner().invoke(app, ["reproduce", SMALL]).exit_code == 2
    assert not Path("runs").exists()


def test_the_message_of_what_is_missing_has_one_full_stop() -> None:
    shown = CliRunner().invoke(app, ["reproduce", "self_debias_llama3"])
    assert shown.exit_code == 2
    assert "licence CC-BY-4.0. (`--unchecked`" in shown.output and ".. " not in shown.output


def test_the_check_of_a_smoke_says_what_it_checks() -> None:
    shown = CliRunner().invoke(app, ["reproduce", SMALL, "--smoke", "--check", "--json"])
    found = json.loads(shown.stdout)
    assert shown.exit_code == 0 and [*found] == ["settings", "rows"]
    assert found["settings"].startswith("ok: ") and found["settings"].endswith("on demo")
    assert found["rows"].startswith("ok: 6, ")


@pytest.mark.parametrize(("device", "said"), [("gpu", "is not known: use 'cpu'"), ("cuda:99", "torch")])
def test_a_device_that_is_not_here_is_an_error_in_one_line(device: str, said: str) -> None:
    shown = CliRunner().invoke(app, ["reproduce", "self_debias_llama3", "--check", "--device", device])
    assert isinstance(shown.exception, SettingsError), "which the command shows as one line"
    assert str(shown.exception).startswith(f"device '{device}'") and said in str(shown.exception)


def test_a_wrong_setting_or_metric_is_found_before_a_run(tmp_path: Path) -> None:
    text = (recipes.FOLDER / "self_debias_llama3.yaml").read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("variant: explanation", "varant: explanation", 1), encoding="utf-8")
    shown = CliRunner().invoke(app, ["reproduce", str(file), "--check", "--json"])
    assert shown.exit_code == 1 and "varant" in json.loads(shown.stdout)["settings"]
    shown = CliRunner().invoke(app, ["reproduce", str(file)])
    assert shown.exit_code == 2 and "varant" in shown.output and "--unchecked" not in shown.output
    file.write_text(text.replace("metric: bias_ambiguous", "metric: bias_ambigous", 1), encoding="utf-8")
    shown = CliRunner().invoke(app, ["reproduce", str(file), "--check", "--json"])
    found = json.loads(shown.stdout)
    assert shown.exit_code == 1 and found["settings"].startswith("ok: ")
    assert found["rows"].startswith("NOT OK: row 'baseline, ambiguous bias'")


def test_notes_on_the_data_are_those_of_the_benchmarks() -> None:
    facts = {"perplexity": {"notes": ["the tokenised version"]}, "bbq": {"notes": []}, "plain": {}}
    assert reproduce.data_notes(Report([], {"benchmarks": facts})) == {"perplexity": ["the tokenised version"]}


def test_a_smoke_from_the_command_line() -> None:
    shown = CliRunner().invoke(app, ["reproduce", SMALL, "--smoke", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["smoke"] is True and found["model"]["demo"]["dtype"] == "float32"
    assert {row["within"] for row in found["rows"]} == {"smoke"} and len(found["rows"]) == 6
    men = [row["ours"] for row in found["rows"][:3]]
    assert sum(men) == pytest.approx(1) and all(row["difference"] is None for row in found["rows"])
    assert all(found["hash of the items"].values())


def test_the_table_of_a_run() -> None:
    from rich.console import Console

    nan = float("nan")
    rows = [
        Outcome("he", 0.941, 0.95, 0.94, 0.96, 0.009, "yes", "a file"),
        Outcome("she", None, nan, nan, nan, nan, "not run", "out of memory"),
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(reproduce.outcome_table(recipes.read(SMALL), rows, smoke=False))
    title, head, he, she = console.export_text().splitlines()
    assert title.startswith("Occupational pronouns of gemma-2-9b (arXiv 2212.10678 v3)")
    assert head.split() == ["published", "ours", "95", "%", "difference", "within"]
    assert he.split() == ["he", "0.941", "0.950", "[0.940,", "0.960]", "+0.009", "yes"]
    assert she.split() == ["she", "none", "not", "run", "–", "not", "run"]
