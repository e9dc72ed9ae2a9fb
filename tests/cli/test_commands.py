"""The command line as a new user meets it: what it refuses, what it leaves behind, and what it lists."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest
from pydantic.dataclasses import is_pydantic_dataclass
from rich.console import Console

import evenhand
from evenhand.cli import app, method_table
from evenhand.cli.setting_facts import allowed, described, docstrings
from evenhand.core import catalogue, registry
from evenhand.errors import SettingsError
from evenhand.experiment import refusals, sweep_defaults
from evenhand.experiment.sweep import varied
from evenhand.interfaces import HasSettings, Method, Model, TrainData, settings
from evenhand.methods import PCGU, SelfDebias

DEMO = "bbq(source=demo)"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


class Run:
    """Runs a command in this process: exit status, output and errors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = monkeypatch, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["evenhand", *words])
        with pytest.raises(SystemExit) as end:
            app.main()
        said = self._capture.readouterr()
        code = end.value.code
        return int(code or 0), said.out, said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--methods", "self_debias,pcgu"], ["pcgu needs pairs", "pass --train demo:pairs"]),
        (
            ["--methods", "pcgu", "--train", "demo"],
            ["--train demo contains 1,500 questions, no texts, no pairs", "pass --train demo:pairs"],
        ),
        (["--methods", "pcgu,task_vector"], ["- pcgu needs pairs", "- task_vector needs biased texts"]),
        (["--methods", "self_debias+preference"], ["preference needs pairs", "--train demo:pairs"]),
        (["--methods", "deep_to_shallow", "--train", "demo:texts"], ["is for masked models; demo is causal"]),
        (["--methods", "none", "--model", "demo-mlm"], ["bbq needs choose, which demo-mlm lacks"]),
        (["--methods", "self_debias", "--samples", "2"], ["no answer is sampled here"]),
    ],
)
def test_what_cannot_apply_is_refused_before_anything_is_asked(
    run: Run, words: list[str], told: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "new"
    code, _, err = run("compare", "--benchmarks", DEMO, *words, "--limit", "10", "--out", str(out))
    assert code == 2
    assert all(text in err for text in told), err
    assert not (tmp_path / "runs").exists(), "a rejected command leaves nothing behind"


def test_a_rejected_command_leaves_a_folder_that_was_there_as_it_was(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, _, _ = run("compare", "--methods", "pcgu", "--benchmarks", DEMO, "--limit", "10", "--out", str(tmp_path))
    assert code == 2 and (tmp_path / "notes.txt").read_text() == "mine"


def test_all_methods_still_get_a_row_that_says_why(tmp_path: Path) -> None:
    report = evenhand.compare(
        evenhand.load("demo"), "pcgu", DEMO, limit=10, replicates=200, show_progress=False, refuse_unsupported=False
    )
    assert [r.status for r in report.records if r.method == "pcgu"] == ["not applicable"]


def test_a_method_may_suit_one_of_several_models(run: Run, tmp_path: Path) -> None:
    words = ["--model", "demo", "--model", "demo-mlm", "--methods", "instruction", "--benchmarks", DEMO]
    code, out, _ = run("compare", *words, "--limit", "10", "--json", "--out", str(tmp_path))
    status = {r["model"]: r["status"] for r in json.loads(out) if r["method"] == "instruction"}
    assert code == 0 and status["demo-mlm"] == "not applicable" and status["demo"] != "not applicable"


def test_a_run_in_which_nothing_could_be_asked_fails(run: Run, tmp_path: Path) -> None:
    words = ["--model", "demo", "--methods", "none", "--benchmarks", "disco", "--limit", "2", "--out", str(tmp_path)]
    code, _, err = run("compare", *words)
    assert code == 1 and "nothing could be asked: disco fills blanks" in err


def test_debias_refuses_training_data_of_another_kind(run: Run, tmp_path: Path) -> None:
    code, _, err = run("debias", "demo", "pcgu", "--train", "demo:texts", "--out", str(tmp_path / "made"))
    assert code == 2 and "2,000 texts, no questions, no pairs" in err and not (tmp_path / "made").exists()


@settings
class FromTexts(Method):
    """Learns from texts."""

    name = "from_texts"

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        return "" if data is not None and data.texts else "from_texts needs texts"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return model


def test_a_plugin_is_told_the_kind_that_it_takes() -> None:
    told = refusals.training_reasons([FromTexts(), SelfDebias()], None, None)
    assert told == ["from_texts needs texts. Pass texts: demo:texts, or a .txt file"]
    assert refusals.training_reasons([FromTexts()], None, TrainData(texts=("a",))) == []


# ------------------------------------------------------------------------------------------------------ lists


def test_the_version(run: Run) -> None:
    assert run("--version")[:2] == (0, f"evenhand {evenhand.__version__}\n")


def test_the_facts_of_built_in_methods_are_those_of_their_classes() -> None:
    known = catalogue.methods()[: len(registry.BUILT_IN["methods"])]
    assert [m.name for m in known] == list(registry.BUILT_IN["methods"])
    for one in known:
        cls = registry.methods.get(one.name)
        words = set(one.needs.replace(",", " ").replace(";", " ").split())
        assert {*cls.needs, *cls.needs_any} <= words, one
        method, _, train = one.example.partition(catalogue.TRAIN)
        built = registry.build_method(method)
        assert built.name == one.name and bool(train) == bool(one.trains)
        if one.trains:
            assert built.unsupported_reason(None, None) and not refusals.training_reasons([built], train, _of(train)), (
                one
            )
        if one.vary:
            assert len(varied(one.name, one.vary)[1]) > 1


def _of(train: str) -> TrainData:
    from evenhand.experiment.training_data import load

    return load(train).data


@pytest.mark.parametrize(("width", "sources"), [(80, False), (119, False), (120, True)])
def test_the_table_of_methods_fits(width: int, sources: bool) -> None:
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(method_table.laid_out(catalogue.methods(), console))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    assert all(name in text for name in registry.BUILT_IN["methods"])
    assert ("Gallegos" in text) is sources
    assert "trains on" in text and "pairs" in text


def test_a_list_into_a_pipe_has_all_columns(run: Run) -> None:
    code, out, _ = run("methods")
    assert code == 0 and "arXiv 2402.01981" in out and "pcgu(epochs=2) --train demo:pairs" in out
    facts = json.loads(run("methods", "--json")[1])
    assert facts["pcgu"]["trains"] == "pairs"


def test_settings_are_listed_with_the_values_that_they_take(run: Run) -> None:
    out = run("methods", "self_debias")[1]
    assert "variant: 'reprompting' (reprompting, explanation or reflection) - " in out
    assert "temperature: 0.0 (a number >= 0) - " in out and "keep_stated: False (True or False) - " in out
    assert "evenhand sweep --method pcgu --vary edit_fraction=0.1,0.2,0.3" in run("methods", "pcgu")[1]


def test_values_in_words() -> None:
    assert allowed(int | None) == "an integer or None"
    assert allowed(tuple[str, ...]) == "a list of: text" and allowed(dict) == ""
    assert is_pydantic_dataclass(PCGU)
    fields = PCGU.__pydantic_fields__
    assert described("edit_fraction", PCGU, fields).startswith("0.3 (a number >= 0 and <= 1) - Fraction")
    assert "\n" not in described("as_stored", PCGU, fields)


def test_settings_have_their_docstrings_those_of_base_classes_too() -> None:
    class Wide(PCGU):
        edit_fraction: float = 0.5
        """A fraction
        of its own."""
        silent: int = 1
        other = 2
        """Not a field."""

    assert docstrings(PCGU)["edit_fraction"].startswith("Fraction") and "validation_fraction" in docstrings(PCGU)
    assert docstrings(Wide)["edit_fraction"] == "A fraction\nof its own."
    assert docstrings(Wide).keys() == docstrings(PCGU).keys(), "neither the silent field nor what is no field"
    assert docstrings(int) == {}


def test_making_a_class_with_settings_reads_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pydantic would look through the file of every benchmark, a second for all of them, at each start."""
    monkeypatch.setattr(inspect, "findsource", lambda *_: pytest.fail("a source file was read"))
    monkeypatch.setattr(inspect, "getsourcelines", lambda *_: pytest.fail("a source file was read"))

    class Small(HasSettings):
        size: int = 1
        """A docstring."""

    assert settings(Small)(size=2).size == 2


def test_the_same_lists_in_python() -> None:
    table = evenhand.list_methods()
    assert table.loc["pcgu", "trains"] == "pairs" and list(table.index) == [m.name for m in catalogue.methods()]
    assert evenhand.list_benchmarks().loc["bbq", "about"]
    assert evenhand.methods.PCGU is PCGU and callable(evenhand.sweep)


# ------------------------------------------------------------------------------------------------------ sweeps


def test_a_sweep_runs_without_any_option(run: Run, tmp_path: Path) -> None:
    code, out, err = run("sweep", "--limit", "60", "--replicates", "200", "--json", "--out", str(tmp_path))
    assert code == 0, err
    found = json.loads(out)
    assert [step["label"] for step in found["steps"]] == ["none", "5", "50", "500"]
    assert found["bias"] == f"bias ambiguous ({DEMO})" and found["cost"] == f"accuracy disambiguated ({DEMO})"


def test_what_a_sweep_takes_where_nothing_is_said() -> None:
    assert sweep_defaults.sides("Qwen/Qwen2.5-0.5B", None, None, None)[0].spec == "bbq"
    assert sweep_defaults.sides("demo-b", None, "perplexity(source=demo)", None).cost.name == "perplexity"
    assert sweep_defaults.training("demo", "pcgu(epochs=1)") == "demo:pairs"
    assert sweep_defaults.training("some/model", "pcgu") is None and sweep_defaults.training("demo", "pride") is None
    assert sweep_defaults.values("self_debias+pcgu") == "edit_fraction=0.1,0.2,0.3"
    with pytest.raises(SettingsError, match=r"--vary .*max_new_tokens"):
        sweep_defaults.values("self_debias")


def test_a_sweep_of_settings_that_differ_takes_no_further_values() -> None:
    with pytest.raises(SettingsError, match="vary='seed=1,2'"):
        evenhand.sweep("demo", [("a", SelfDebias())], vary="seed=1,2")


# ------------------------------------------------------------------------------------------------------ show


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    methods = "self_debias(keep_stated=True),instruction"
    evenhand.compare("demo", methods, DEMO, limit=24, replicates=200, show_progress=False, out=out)
    return out


@pytest.mark.parametrize("method", ["self_debias", "self_debias(keep_stated=True)"])
def test_one_method_is_shown_with_its_baseline(run: Run, folder: Path, method: str) -> None:
    code, out, err = run("show", str(folder), "--method", method, "--json")
    assert code == 0, err
    assert {r["method"] for r in json.loads(out)} == {"none", "self_debias(keep_stated=True)"}
    assert "instruction" not in run("show", str(folder), "--method", method)[1]


def test_a_method_that_is_not_there_is_named(run: Run, folder: Path) -> None:
    code, _, err = run("show", str(folder), "--method", "instructions")
    assert code == 2 and "no method 'instructions' in this run" in err and "'instruction'" in err
