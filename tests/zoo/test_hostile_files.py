"""Hostile run files, recipes, prompt packs and run folders are refused by name, and run and read nothing."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.report.one_record import record
from tests.zoo.watch import left, watched

from evenhand.cli import app
from evenhand.core.run_folder import RunFolder
from evenhand.errors import EvenhandError, RunError
from evenhand.experiment import config, recipes
from evenhand.experiment.code_of_run_file import code_of
from evenhand.prompting.prompt_packs import FOLDER, prompt_pack
from evenhand.report import Report

Command = Callable[..., tuple[int, str]]


class Terminal(io.StringIO):
    """Input or output of somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evenhand", *words])
        with pytest.raises(SystemExit) as end:
            app.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    return run


def plugin(folder: Path) -> tuple[Path, Path]:
    """A plugin file that makes a marker, and that marker."""
    folder.mkdir(exist_ok=True)
    file, marker = folder / "mine.py", folder / "marker"
    file.write_text(f"open({str(marker)!r}, 'w').close()\nclass Shout:\n    pass\ndef helper():\n    pass\n")
    return file, marker


# ------------------------------------------------------------------------------------------------------ run files


def run_file(folder: Path, **content: object) -> Path:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"models": "no/such", "methods": "nothing_known", **content}))
    return file


def test_a_run_file_runs_no_plugin_unasked(tmp_path: Path, command: Command) -> None:
    file, marker = plugin(tmp_path)
    run = run_file(tmp_path, plugins=[str(file)])
    code, said = command("compare", str(run))
    assert code == 2 and not marker.exists()
    for word in (str(run), str(file), "class Shout", "function helper", "--allow-plugins", "load_plugin(FILE)"):
        assert word in said.replace("\n", "")


@pytest.mark.parametrize("options", [["--allow-plugins"], ["--plugin", "mine.py"], ["--plugin", "sub/../mine.py"]])
def test_a_plugin_that_the_user_names_is_run(
    options: list[str], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, marker = plugin(tmp_path)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    code, said = command("compare", str(run_file(tmp_path, plugins=[str(file)])), *options)
    assert code == 2 and "nothing_known" in said and marker.exists()


def test_another_plugin_than_the_one_that_the_user_names_is_not_run(tmp_path: Path, command: Command) -> None:
    file, marker = plugin(tmp_path / "other")
    own = tmp_path / "own.py"
    own.write_text("")
    code, said = command("compare", str(run_file(tmp_path, plugins=[str(file)])), "--plugin", str(own))
    assert code == 2 and "--allow-plugins" in said and not marker.exists()


@pytest.mark.parametrize(
    ("answer", "runs"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_at_a_terminal_the_user_is_asked(
    answer: str, runs: bool, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, marker = plugin(tmp_path)
    asked = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", asked)
    assert command("compare", str(run_file(tmp_path, plugins=[str(file)])))[0] == 2
    assert marker.exists() is runs
    assert "Run it? [y/N]" in asked.getvalue() and str(file) in asked.getvalue()


def test_a_question_about_a_hostile_name_does_nothing_to_the_terminal(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    monkeypatch.setattr(sys, "stderr", asked)
    command("compare", str(run_file(tmp_path, plugins=["\x1b[2J\u202eevil.py"])))
    assert "Run it?" in asked.getvalue()
    assert "\x1b[2J" not in asked.getvalue() and "\u202e" not in asked.getvalue()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({}, ""),
        ({"models": [{"x": {"trust_folder": False}}]}, ""),
        ({"models": "endpoint:https://a.invalid/v1#m(key_env=MINE)"}, ""),
        ({"models": "x(trust_remote_code=True)"}, "trust_remote_code in models"),
        ({"models": [{"x": {"trust_folder": True}}]}, "trust_folder in models"),
        ({"models": r"x(base='y(trust\x5fremote_code=True)')"}, "trust_remote_code in models"),
        ({"models": r"x(base='y(trust\\x5fremote_code=True)')"}, "trust_remote_code in models"),
        ({"models": r"x(base='y(trust\N{LOW LINE}folder=True)')"}, "trust_folder in models"),
        ({"models": r"x(base='y(trust\137folder=True)')"}, "trust_folder in models"),
        ({"models": "x(base='y(tru' 'st_folder=True)')"}, "trust_folder in models"),
        ({"models": "x(\uff54rust_folder=True)"}, "trust_folder in models"),
        ({"load": {"trust_remote_code": True}}, "trust_remote_code in load"),
        ({"methods": [{"cross": {"members": ["a(trust_folder=1)"]}}]}, "trust_folder in methods"),
        ({"benchmarks": [{"b": {"judge": {"trust_remote_code": 1}}}]}, "trust_remote_code in benchmarks"),
    ],
)
def test_code_that_comes_with_models_is_told_as_well(content: dict[str, object], found: str) -> None:
    code = code_of(config.RunConfig(**{"models": "demo", **content}))
    assert (not code) if not found else (len(code) == 1 and found in code[0])


def test_a_plugin_is_parsed_and_not_imported_to_name_it(tmp_path: Path) -> None:
    file, marker = plugin(tmp_path)
    with watched() as seen:
        (told,) = code_of(config.RunConfig(models="demo", plugins=[str(file)]))
    assert "class Shout, function helper" in told and not marker.exists()
    assert left(seen, tmp_path) == []
    for text in ("def broken(", "\0", "(" * 100_000):
        file.write_text(text)
        assert code_of(config.RunConfig(models="demo", plugins=[str(file)])) == [f"the plugin file {str(file)!r}"]


# --------------------------------------------------------------------------------------- YAML of every kind of file

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = [
    ("object", "a: !!python/object/apply:builtins.open ['{marker}', 'w']\n", "python/object"),
    ("tag", "a: !evil x\n", "evil"),
    ("bomb", BOMB, "stand for more than 1,000,000 values"),
    ("itself", "a: &a [*a]\n", "contains itself"),
    ("deep", "a: " + "[" * 5000 + "]" * 5000, "nested more than"),
    ("twice", "language: a\nlanguage: b\n", "there twice"),
    ("two", "a: 1\n---\nb: 2\n", "document"),
]


@pytest.mark.parametrize("read", [config.read, recipes.read, prompt_pack], ids=["run file", "recipe", "prompt pack"])
@pytest.mark.parametrize(("text", "words"), [(text, words) for _, text, words in YAML], ids=[name for name, *_ in YAML])
def test_yaml_makes_no_objects_and_no_bombs(
    read: Callable[[str], object], text: str, words: str, tmp_path: Path
) -> None:
    file, marker = tmp_path / "file.yaml", tmp_path / "marker"
    file.write_text(text.replace("{marker}", str(marker)))
    with watched() as seen, pytest.raises(EvenhandError, match=words) as refused:
        read(str(file))
    assert "file.yaml" in str(refused.value) and len(str(refused.value)) < 1000
    assert not marker.exists() and left(seen, tmp_path) == []


@pytest.mark.parametrize(
    "field", ["{0.__class__}", "{axis.__class__.__mro__}", "{axis!r}", "{axis[0]}", "{axis:>999999999}", "{}", "{0}"]
)
def test_a_prompt_pack_reads_no_attributes(field: str, tmp_path: Path) -> None:
    pack = yaml.safe_load((FOLDER / "en.yaml").read_text())
    pack["instructions"] = {"low_1": f"Be fair about {field}."}
    file = tmp_path / "pack.yaml"
    file.write_text(yaml.safe_dump(pack))
    with pytest.raises(EvenhandError, match="field"):
        prompt_pack(str(file))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": "/etc/hostname"}, "place on a machine"),
        ({"train": "$EVENHAND_DATA/../../etc/hostname"}, "place on a machine"),
        ({"benchmarks": {"bbq": r"bbq(source='\x2fetc')"}}, "place on a machine"),
        ({"benchmarks": {"bbq": {"bbq": {"source": "..\\other"}}}}, "place on a machine"),
        ({"methods": {"explanation": {"x": {"model": "a(trust_remote_code=True)"}}}}, "code to be loaded"),
        ({"methods": {"explanation": {"x": {"model": r"a(trust\x5ffolder=True)"}}}}, "code to be loaded"),
        ({"model": {"name": "../m", "dtype": "float32", "parameters": 1}}, "name as on the hub"),
        ({"plugins": ["evil.py"]}, "unknown key 'plugins'"),
    ],
)
def test_a_recipe_names_no_place_and_no_code(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    recipe = yaml.safe_load((recipes.FOLDER / "self_debias_llama3.yaml").read_text())
    for key, value in changes.items():
        whole = key in ("methods", "benchmarks") and isinstance(value, dict)
        recipe[key] = {**recipe[key], **value} if whole else value
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    with watched() as seen, pytest.raises(EvenhandError, match=words):
        recipes.read(file)
    assert left(seen, tmp_path) == []


# ------------------------------------------------------------------------------------------------------ run folders


def run_folder(folder: Path, **manifest: object) -> Path:
    """A run folder of one row, whose manifest says what is given."""
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.write_scores([record("none", "bias", 0.5)])
    run.write_manifest({"benchmarks": {}, "models": {}, **manifest})
    return folder


def test_a_run_folder_that_is_shown_or_resumed_runs_no_plugin(tmp_path: Path, command: Command) -> None:
    file, marker = plugin(tmp_path)
    said = {"plugins": [str(file)], "command": f"evenhand compare --plugin {file}", "plan": {"plugins": [str(file)]}}
    folder = run_folder(tmp_path / "run", **said)
    Report.load(folder).html()
    for words in (["show"], ["show", "--full"], ["show", "--format", "csv"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["evenhand", words[0], str(folder), *words[1:]])
            app.app(standalone_mode=False)
    assert command("evaluate", "demo", "--benchmarks", "nothing_known", "--out", str(folder), "--limit", "1")[0] == 2
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../../outside/x", "/outside/x", "..", "a/b", "a\\b", "x\0", "\x1b[31m"])
def test_answers_lie_in_the_run_folder(name: str, tmp_path: Path) -> None:
    cell = {"model": "m", "method": "none", "benchmark": "bbq(source=demo)", "answers": name}
    report = Report.load(run_folder(tmp_path / "run", usage=[cell]))
    with watched() as seen, pytest.raises(RunError, match="as a file of answers") as refused:
        report.transcripts("1")
    assert str(refused.value).isprintable() and left(seen, tmp_path / "run") == []
    with pytest.raises(RunError, match="as a file of answers"):
        report.cells()[0].answers()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", b"[" * 100_000),
        ("manifest.json", b"[1]"),
        ("manifest.json", b"\xff\xfe"),
        ("scores.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1"),
        ("scores.parquet", b"\x80\x04cos\nsystem\n."),
    ],
)
def test_a_broken_run_folder_is_told_in_one_line(file: str, content: bytes, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / file).write_bytes(content)
    with pytest.raises(RunError, match=file) as refused:
        Report.load(folder)
    assert "\n" not in str(refused.value)


def test_facts_of_a_manifest_are_plain_values(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", **json.loads('{"__class__": "os.system", "models": {"__init__": {}}}'))
    assert "os.system" not in Report.load(folder).markdown()
