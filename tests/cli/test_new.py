"""`evenhand new` writes packages that install, keep their contract and run; and nothing over what is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evenhand.cli import new as module
from evenhand.cli.app import app
from evenhand.cli.new import LONGEST, check_name, class_name, create, distribution_name
from evenhand.core import registry
from evenhand.errors import SettingsError

MADE = (
    ("method", "fair_prompt", "prompt"),
    ("method", "fair_weights", "weights"),
    ("benchmark", "who_was_it", "benchmark"),
)
FILES = {
    "pyproject.toml",
    "README.md",
    "src/{p}/__init__.py",
    "src/{p}/py.typed",
    "src/{p}/{n}.py",
    "tests/test_{n}.py",
}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run(*command: str, ok: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert (done.returncode == 0) is ok, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout if ok else done.stderr


# ----------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("method", "fair-prompt", "'fair-prompt' cannot be used for a method.*such as 'fair_prompt'"),
        ("method", "2fair", "such as 'my_2fair'"),
        ("method", "fair_", "not end with an underscore, such as 'fair'"),
        ("method", "__init__", "such as 'init'"),
        ("method", "café", "such as 'caf'"),
        ("method", "", "the name '' cannot be used"),
        ("method", "a/../b", "such as 'a_b'"),
        ("method", "lambda", "'lambda' is a reserved word of Python; write something like 'my_lambda'"),
        ("method", "None", "'None' is a reserved word of Python; write something like 'my_none'"),
        ("method", "x" * (LONGEST + 1), "has 31 characters; write one of at most 30"),
        ("method", "pcgu", r"there is a method 'pcgu' already \(evenhand.methods.unlearning.pcgu:PCGU\).*'my_pcgu'"),
        ("benchmark", "bbq", "there is a benchmark 'bbq' already"),
        ("method", "all", "'all' has a meaning of its own in a list of methods; write 'my_all'"),
        ("benchmark", "pairs", "'pairs' has a meaning of its own in a list of benchmarks"),
        ("benchmark", "demo", "'demo' has a meaning of its own"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_another(kind: str, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said):
        create(kind, name, "prompt" if kind == "method" else "benchmark", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_taken_whichever_kind_has_it() -> None:
    with pytest.raises(SettingsError, match=r"there is a benchmark 'bbq' already \(evenhand\..*'my_bbq'"):
        check_name("method", "bbq")
    with pytest.raises(SettingsError, match=r"there is a method 'pcgu' already \(evenhand\..*'my_pcgu'"):
        check_name("benchmark", "pcgu")


def test_a_registered_name_of_a_plugin_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.methods, "_objects", {"mine": object()})
    with pytest.raises(SettingsError, match=r"there is a method 'mine' already \(this process\)"):
        check_name("method", "mine")


@pytest.mark.parametrize(
    ("name", "normalised"), [("fair", "evenhand-fair"), ("A__b_C", "evenhand-a-b-c"), ("x1", "evenhand-x1")]
)
def test_the_distributions_name_is_normalised_as_on_pypi(name: str, normalised: str) -> None:
    assert distribution_name(name) == normalised


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("fair_prompt", "FairPrompt"),
        ("fairPrompt", "FairPrompt"),
        ("model", "ModelMethod"),  # the code has a Model already
        ("true", "TrueMethod"),
        ("exception", "ExceptionMethod"),
        ("model_x", "ModelX"),
    ],
)
def test_the_class_has_a_name_that_is_free(name: str, made: str) -> None:
    assert class_name("method", name, "from evenhand import Model, settings") == made


# --------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(("kind", "name", "template"), MADE)
def test_all_files_are_written(kind: str, name: str, template: str, tmp_path: Path) -> None:
    folder = create(kind, name, template, tmp_path / "out")
    package = f"evenhand_{name}"
    assert files(folder) == {path.format(p=package, n=name) for path in FILES}
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == f"evenhand-{name.replace('_', '-')}"
    made = "".join(part.capitalize() for part in name.split("_"))
    assert project["entry-points"] == {f"evenhand.{kind}s": {name: f"{package}.{name}:{made}"}}
    readme = (folder / "README.md").read_text()
    assert "    pip install -e .\n    evenhand compare " in readme
    assert not [f for f in files(folder) if "$" in (folder / f).read_text()], "nothing is left of the templates"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert folder.stat().st_mode == tmp_path.joinpath("out", "src").stat().st_mode, "others may read it as usual"


def test_without_out_it_is_made_in_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["new", "method", "fair_prompt"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:2] == [
        "written to evenhand-fair-prompt",
        "install it with: pip install -e evenhand-fair-prompt",
    ]
    assert (tmp_path / "evenhand-fair-prompt" / "tests" / "test_fair_prompt.py").is_file()


def test_an_empty_folder_is_filled_and_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    before = out.stat().st_ino
    monkeypatch.chdir(out)
    create("method", "fair_prompt", "prompt", Path("."))
    assert out.stat().st_ino == before and (out / "pyproject.toml").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_folder_with_files_is_left_as_it_is(hidden: bool, tmp_path: Path) -> None:
    file = tmp_path / (".git" if hidden else "notes.txt")
    file.write_text("mine")
    with pytest.raises(SettingsError, match=r"--out .* is a folder with files in it, and nothing is overwritten"):
        create("method", "fair_prompt", "prompt", tmp_path)
    assert files(tmp_path) == {file.name} and file.read_text() == "mine"


def test_a_file_and_a_missing_parent_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(SettingsError, match="is a file, and nothing is overwritten; name a new or empty folder"):
        create("method", "fair_prompt", "prompt", file)
    with pytest.raises(SettingsError, match=r"the folder .*absent does not exist; make it first"):
        create("method", "fair_prompt", "prompt", tmp_path / "absent" / "out")
    assert files(tmp_path) == {"file"} and file.read_text() == "mine"


@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_nothing_half_made(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    rename, count = Path.rename, iter(range(9))

    def full(self: Path, target: Path) -> Path:
        if next(count) == (2 if there else 0):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(SettingsError, match=r"--out .*out cannot be written: No space left on device"):
        create("method", "fair_prompt", "prompt", out)
    assert list(tmp_path.rglob("*")) == ([out] if there else [])


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: object, **named: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SettingsError, match="No space left"):
        create("benchmark", "who_was_it", "benchmark", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ the commands


def test_help_names_both_commands_and_their_options() -> None:
    told = CliRunner().invoke(app, ["new", "--help"], env={"COLUMNS": "200"}).stdout
    assert "method" in told and "benchmark" in told
    told = CliRunner().invoke(app, ["new", "method", "--help"], env={"COLUMNS": "200"}).stdout
    assert "--kind" in told and "prompt|weights" in told and "--out" in told and "nothing is overwritten" in told


def test_a_wrong_name_is_one_clear_line(tmp_path: Path) -> None:
    told = run(
        sys.executable, "-m", "evenhand.cli.app", "new", "benchmark", "bbq", "--out", str(tmp_path / "x"), ok=False
    )
    assert told.startswith("error: there is a benchmark 'bbq' already") and "Traceback" not in told


# ------------------------------------------------------------------------------------------- the generated code


@pytest.mark.parametrize("name", ["fair", "model", "a" * LONGEST])
def test_generated_code_is_clean(name: str, tmp_path: Path) -> None:
    made = [create(kind, name, template, tmp_path / template) for kind, _, template in MADE]
    ruff = str(Path(sysconfig.get_path("scripts")) / "ruff")
    for folder in made:
        run(ruff, "check", "--no-cache", str(folder))
        run(ruff, "format", "--no-cache", "--check", str(folder))
        own = str(Path(__file__).parents[2] / "pyproject.toml")
        run(ruff, "check", "--no-cache", "--config", own, "--ignore", "I", str(folder / "src"))  # docstrings, too


@pytest.mark.slow
def test_generated_code_passes_mypy_strict(tmp_path: Path) -> None:
    made = [create(kind, name, template, tmp_path / name) for kind, name, template in MADE]
    settings = ["--strict", "--config-file", str(made[0] / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    sources = [str(folder / part) for folder in made for part in ("src", "tests")]
    env = {**os.environ, "MYPYPATH": os.pathsep.join(str(folder / "src") for folder in made)}
    command = [sys.executable, "-m", "mypy", *settings, *sources]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("packages")
    return [create(kind, name, template, place / distribution_name(name)) for kind, name, template in MADE]


@pytest.fixture(scope="module")
def wheels(packages: Sequence[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of each package, built with what is installed here."""
    out = tmp_path_factory.mktemp("wheels")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(out))
    run(sys.executable, "-m", "pip", "wheel", *options, *map(str, packages))
    found = {wheel.name.split("-")[0]: wheel for wheel in out.glob("*.whl")}
    assert len(found) == len(packages)
    return found


@pytest.fixture(scope="module")
def python(wheels: dict[str, Path], packages: Sequence[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh environment with the packages, which sees the libraries that are installed here.

    The first package is installed as its README says, the others from their wheels.
    """
    place = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", str(place))
    site = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    Path(site, "parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    executable = str(place / Path(sys.executable).parent.name / Path(sys.executable).name)
    pip = (sys.executable, "-m", "pip", "--python", executable, "install", "--no-deps", "--no-index", "--quiet")
    run(*pip, "--no-build-isolation", "-e", str(packages[0]))
    run(*pip, *(str(wheels[f"evenhand_{name}"]) for _, name, _ in MADE[1:]))
    return executable


@pytest.mark.parametrize(("kind", "name"), [made[:2] for made in MADE])
def test_the_wheel_has_the_package_and_its_entry_point(kind: str, name: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[f"evenhand_{name}"]) as wheel:
        names = {n for n in wheel.namelist() if ".dist-info/" not in n}
        (points,) = (n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
        told = wheel.read(points).decode()
    package = f"evenhand_{name}"
    assert names == {f"{package}/__init__.py", f"{package}/py.typed", f"{package}/{name}.py"}
    assert f"[evenhand.{kind}s]\n{name} = {package}.{name}:" in told


@pytest.mark.slow
def test_installed_packages_are_listed_pass_their_tests_and_run(
    python: str, packages: Sequence[Path], tmp_path: Path
) -> None:
    for kind in ("method", "benchmark"):
        listed = json.loads(run(python, "-m", "evenhand.cli.app", f"{kind}s", "--json"))
        assert {name for made, name, _ in MADE if made == kind} < set(listed)
    told = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(p / "tests") for p in packages))
    assert "10 passed" in told
    compare = ("compare", "--methods", "none,fair_prompt,fair_weights", "--benchmarks", "bbq(source=demo),who_was_it")
    options = ("--limit", "8", "--replicates", "200", "--out", str(tmp_path / "run"), "--json")
    records = json.loads(run(python, "-m", "evenhand.cli.app", *compare, *options))
    cells = {(r["method"], r["benchmark"]): r["status"] for r in records if r["kind"] != "cost"}
    assert len(cells) == 6 and set(cells.values()) <= {"ok", "no effect"}
    assert "ok" in {status for (method, _), status in cells.items() if method != "none"}


def test_templates_are_all_there_and_all_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = set()
    read = module._read

    def noted(name: str) -> str:
        used.add(f"{name}.template")
        return read(name)

    monkeypatch.setattr(module, "_read", noted)
    for kind, name, template in MADE:
        create(kind, name, template, tmp_path / name)
    assert used == {path.name for path in module.TEMPLATES.iterdir()}
