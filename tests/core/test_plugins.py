"""Plugins from packages, files and notebooks; what is broken is reported and skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints, PackageNotFoundError
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand.cli import catalogue
from evenhand.core import registry
from evenhand.core.registry import BUILT_IN, PluginWarning, Registry
from evenhand.data import text_source
from evenhand.errors import DataError, EvenhandError, SettingsError, UnknownNameError
from evenhand.experiment import training_data
from evenhand.interfaces import Method, Model, TrainData, settings
from evenhand.models import outside
from evenhand.testing import check_benchmark, check_method

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tests" / "plugin_package"
WHY = "no such fruit: durian"
METHOD_FILE = """
    from typing import ClassVar
    from evenhand import Method, settings

    @settings
    class Whisper(Method):
        '''Says it softly.'''
        name: ClassVar[str] = "whisper"
        softness: float = 0.5
        '''How softly.'''

        def apply(self, model, data=None):
            return model
"""


@settings
class FromNotebook(Method):
    """Made in a cell."""

    name: ClassVar[str] = "from_notebook"
    strength: float = 1.0

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return model


def evenhand(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command of the code that is tested, and of no other installed copy."""
    paths = [str(path) for path in (site, ROOT / "src") if path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    command = [sys.executable, "-m", "evenhand.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", check=False)


def facts(*arguments: str, site: Path | None = None) -> Any:
    done = evenhand(*arguments, "--json", site=site)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def first_column(table: str) -> str:
    """Names, first sentences and examples of the table of methods, in one line."""
    width = table.index("needs")
    return " ".join(line[:width].strip() for line in table.splitlines())


def write(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(content))
    return file


def pretend_installed(site: Path, name: str, entry_points: str) -> None:
    """What pip leaves behind, as far as finding plugins goes."""
    info = site / f"{name}-1.0.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(info / "entry_points.txt", entry_points)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed as its author's users would, into a folder of its own."""
    site = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q", "--target", str(site))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, str(PACKAGE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture(scope="session")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four plugins: one works, one raises, one is called like a built-in, one is no method."""
    site = tmp_path_factory.mktemp("troubled")
    write(site / "durian.py", f"raise LookupError({WHY!r})")
    write(site / "whisper.py", METHOD_FILE)
    write(site / "plain.py", "def nothing(): ...")
    pretend_installed(site, "works", "[evenhand.methods]\nwhisper = whisper:Whisper\n")
    pretend_installed(site, "raises", "[evenhand.methods]\ndurian = durian:Durian\n")
    pretend_installed(site, "steals", "[evenhand.methods]\nself_debias = whisper:Whisper\n")
    pretend_installed(site, "nothing", "[evenhand.methods]\nplain = plain:nothing\n")
    return site


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registries that have not looked for plugins yet; modules that a test imports from elsewhere are forgotten."""
    for kind in BUILT_IN:
        monkeypatch.setattr(registry, kind, Registry(kind, BUILT_IN[kind]))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("evenhand_example_plugin", "durian", "whisper", "plain"):
            del sys.modules[name]


# ------------------------------------------------------------------------------------------- installed packages


def test_an_installed_method_is_listed_with_the_built_in_ones(installed: Path) -> None:
    listed = facts("methods", site=installed)
    assert listed["shout"]["about"] == "Puts every question in capitals."
    assert set(BUILT_IN["methods"]) < set(listed)


def test_an_installed_benchmark_is_listed_with_the_built_in_ones(installed: Path) -> None:
    listed = facts("benchmarks", site=installed)
    assert listed["coin"] == "How often the model says heads."
    assert set(BUILT_IN["benchmarks"]) < set(listed)


def test_an_installed_methods_settings_show_default_and_documentation(installed: Path) -> None:
    entry = facts("methods", "shout", site=installed)
    assert entry["settings"] == {"marks": "1 (an integer) - How many exclamation marks follow."}
    assert entry["defined in"] == "evenhand_example_plugin.shout"


def test_without_the_package_its_names_are_unknown() -> None:
    done = evenhand("methods", "shout")
    assert done.returncode == 2
    assert "unknown method 'shout'" in done.stderr
    assert "Traceback" not in done.stderr


def test_installed_plugins_keep_the_contracts(installed: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(installed))
    shout = registry.build_method("shout(marks=3)")
    assert "shout" in registry.methods.names()  # so check_method saves, loads and rebuilds it
    mitigated = check_method(shout)
    assert mitigated.facts()["method"] == "shout(marks=3)"
    check_benchmark(registry.build_benchmark("coin(tosses=7)"))


# ------------------------------------------------------------------------------------------------------ built-ins


def test_every_built_in_has_an_entry_point_and_no_entry_point_is_unlisted() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert {group: list(points) for group, points in declared.items()} == {
        f"evenhand.{kind}": list(names) for kind, names in BUILT_IN.items()
    }
    for kind in BUILT_IN:
        known: Registry = getattr(registry, kind)
        assert {name: known.place(name) for name in BUILT_IN[kind]} == declared[f"evenhand.{kind}"]
        assert known.names()[: len(BUILT_IN[kind])] == list(BUILT_IN[kind])


def test_where_evenhand_only_lies_on_the_path_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(registry, "distribution", absent)
    with pytest.raises(EvenhandError, match=r"evenhand is not installed here.*pip install -e \."):
        Registry("methods", BUILT_IN["methods"]).names()


def test_an_older_installation_without_a_built_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = EntryPoints([EntryPoint("none", "evenhand.methods.none:Untouched", "evenhand.methods")])
    monkeypatch.setattr(registry, "_own_entry_points", lambda group: old)
    known = Registry("methods", BUILT_IN["methods"])
    for _ in range(2):
        with pytest.raises(EvenhandError, match=r"'self_debias'.*pip install -e \."):
            known.get("none")


# --------------------------------------------------------------------------------------- sources of training data


def test_an_installed_source_of_training_data_is_read_by_its_name(
    installed: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    assert registry.training_sources.names() == ["demo", "proverbs"]
    texts = training_data.load("proverbs").data.texts
    assert len(texts) == 3
    assert training_data.load("proverbs:2 & demo:texts:4").data.texts[:2] == texts[:2]
    assert tuple(text_source.texts("proverbs")) == texts
    assert text_source.texts("proverbs:3", 1) == [texts[0]]
    with pytest.raises(SettingsError, match="not a number of proverbs"):
        training_data.load("proverbs:many")


def test_a_source_from_a_notebook_is_read_by_its_name(fresh: None) -> None:
    registry.training_sources.register(lambda rest: TrainData(texts=(rest,)), "echo")
    assert training_data.load("echo:a:b").data.texts == ("a:b",)
    assert text_source.texts("echo:a:b") == ["a:b"]
    registry.training_sources.register(lambda rest: [rest], "echo")
    with pytest.raises(SettingsError, match="'echo' returned list"):
        training_data.load("echo:a")


def test_a_source_without_texts_is_no_source_of_texts(fresh: None) -> None:
    registry.training_sources.register(lambda rest: TrainData(), "nothing")
    for source in ("nothing", "demo:mmlu:2"):
        with pytest.raises(SettingsError, match="is not a source of texts"):
            text_source.texts(source)


@pytest.mark.parametrize("name", ["demo", "pairs", "stereoset", "datasets", "bbq"])
def test_a_source_may_not_take_a_name_that_evenhand_reads_itself(
    name: str, tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="belongs to a built-in"):
        registry.training_sources.register(lambda rest: TrainData(), name)
    pretend_installed(tmp_path, "thief", f"[evenhand.training_sources]\n{name} = thief:load\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(PluginWarning, match="another one of this name is already registered"):
        assert registry.training_sources.names() == ["demo"]


def test_a_broken_source_is_refused_every_time(
    troubled: Path, tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_installed(tmp_path, "raises_too", "[evenhand.training_sources]\nfruit = durian:load\n")
    for folder in (troubled, tmp_path):
        monkeypatch.syspath_prepend(str(folder))
    with pytest.warns(PluginWarning, match=WHY), pytest.raises(SettingsError, match=WHY):
        training_data.load("fruit:green")
    for read in (training_data.load, text_source.texts):
        with pytest.raises(SettingsError, match=WHY):
            read("fruit:green")


def test_an_unknown_source_is_an_error(fresh: None) -> None:
    with pytest.raises(UnknownNameError, match="unknown source of training data 'fables'"):
        training_data.load("fables:2")
    with pytest.raises(SettingsError, match="is not a source of texts"):
        text_source.texts("fables:2")


@pytest.mark.parametrize(
    ("source", "near"),
    [("winobais", "'winobias'"), ("bqb(part=fit)", "'bbq'"), ("deno:pairs", "'demo'"), ("eco:x", "'echo'")],
)
def test_an_unknown_source_suggests_near_names_of_any_kind_and_lists_the_kinds(
    source: str, near: str, fresh: None
) -> None:
    registry.training_sources.register(lambda rest: TrainData(texts=(rest,)), "echo")
    with pytest.raises(UnknownNameError) as raised:
        training_data.load(source)
    message = str(raised.value)
    assert f"Did you mean {near}" in message and "unknown benchmark" not in message
    for kind in (".jsonl", "demo, echo", "datasets:NAME", "pairs:BENCHMARK", "stereoset:tv2k", "multiple-choice"):
        assert kind in message


def test_a_benchmark_with_a_colon_is_told_where_settings_stand() -> None:
    with pytest.raises(SettingsError, match=r"'bbq:gender' is not a source.*bbq\(name=value\).*pairs:bbq"):
        training_data.load("bbq:gender")


def test_the_kinds_of_demo_data_are_named() -> None:
    expected = (
        r"'demo:paris:gender'.*kind 'paris'\. Did you mean 'pairs'\? Kinds are mmlu, gpqa, bbq, texts, pairs, bia"
    )
    with pytest.raises(SettingsError, match=expected):
        training_data.load("demo:paris:gender")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (KeyError("green"), EvenhandError, "the training source 'fruit:ripe' failed with KeyError: 'green'"),
        (DataError("torn"), DataError, "the training source 'fruit:ripe': torn"),
        (UnknownNameError("fruit", "x", ["y"]), SettingsError, "the training source 'fruit:ripe': unknown fruit 'x'"),
    ],
)
def test_an_error_in_a_source_names_the_source(
    error: Exception, kind: type[EvenhandError], message: str, fresh: None
) -> None:
    def load(rest: str) -> TrainData:
        raise error

    registry.training_sources.register(load, "fruit")
    for read in (training_data.load, text_source.texts):
        with pytest.raises(kind) as raised:
            read("fruit:ripe")
        assert str(raised.value).startswith(message) and raised.value.__cause__ is error
        assert type(raised.value) is kind


def test_a_saved_folder_does_not_open_a_plugins_source_unasked(fresh: None) -> None:
    registry.training_sources.register(lambda rest: TrainData(texts=(rest,)), "echo")
    assert "'echo:secrets'" in outside.of_text("echo:secrets")
    assert "'echo'" in outside.of_text("an/other & echo")
    assert outside.of_text("the echo of a text") == ""


# ------------------------------------------------------------------------------------------------- broken plugins


@pytest.fixture(scope="session")
def listing(troubled: Path) -> subprocess.CompletedProcess[str]:
    return evenhand("methods", site=troubled)


def test_a_broken_plugin_does_not_keep_the_others_from_being_listed(listing: subprocess.CompletedProcess[str]) -> None:
    assert listing.returncode == 0, listing.stderr
    lines = listing.stdout.splitlines()
    assert "whisper Says it softly." in first_column(listing.stdout)
    for name in BUILT_IN["methods"]:
        assert any(line.startswith(f"{name} ") for line in lines)


def test_a_broken_plugin_is_listed_with_the_last_line_of_its_traceback(
    listing: subprocess.CompletedProcess[str],
) -> None:
    assert f"durian (broken plugin) LookupError: {WHY}" in first_column(listing.stdout)
    assert len([line for line in listing.stdout.splitlines() if line.startswith("durian")]) == 1


def test_a_broken_plugin_is_reported_with_its_traceback(listing: subprocess.CompletedProcess[str]) -> None:
    assert "skipped the plugin 'durian' of methods" in listing.stderr
    assert 'durian.py", line 1, in <module>' in listing.stderr
    assert f"LookupError: {WHY}" in listing.stderr


def test_a_plugin_with_the_name_of_a_built_in_is_reported_and_skipped(
    listing: subprocess.CompletedProcess[str],
) -> None:
    assert "self_debias (whisper:Whisper)" in listing.stderr
    assert "another one of this name is already registered" in listing.stderr
    assert "self_debias Ask the model itself to take the bias out of its answer." in first_column(listing.stdout)


def test_a_plugin_that_is_no_method_is_reported_and_skipped(listing: subprocess.CompletedProcess[str]) -> None:
    _, found, error = first_column(listing.stdout).partition("plain (broken plugin) ")
    assert found and error.startswith("evenhand.errors.SettingsError: 'plain' is registered as")
    assert "not a subclass of evenhand.Method" in error


def test_asking_for_a_broken_plugin_by_name_shows_its_traceback(troubled: Path) -> None:
    done = evenhand("methods", "durian", site=troubled)
    assert done.returncode == 2
    assert "error: the plugin 'durian' (durian:Durian) is broken" in done.stderr
    error = done.stderr.partition("error: ")[2]
    assert "Traceback (most recent call last)" in error
    assert f"LookupError: {WHY}" in error


@pytest.mark.filterwarnings("ignore::evenhand.core.registry.PluginWarning")
def test_broken_plugins_of_every_kind_are_listed_with_package_and_error(
    troubled: Path, tmp_path: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "".join(f"[evenhand.{kind}]\nbad_{kind} = durian:{kind}\nnot_{kind} = math:pi\n" for kind in BUILT_IN)
    pretend_installed(tmp_path, "orchard", points + "[evenhand.models]\ndemo = durian:demo\n")
    for folder in (troubled, tmp_path):
        monkeypatch.syspath_prepend(str(folder))
    found = catalogue.plugins()
    for kind in BUILT_IN:
        words = kind.replace("_", " ")
        broken = found[f"broken plugins ({words})"]
        assert broken[f"bad_{kind}"] == {
            "entry point": f"bad_{kind} = durian:{kind}",
            "distribution": "orchard 1.0",
            "error": f"LookupError: {WHY}",
        }
        assert "3.14" in broken[f"not_{kind}"]["error"]
        assert [name for name in found[words] if name in BUILT_IN[kind]] == list(BUILT_IN[kind])
        assert not set(found[words]) & set(broken)
    assert found["broken plugins (models)"]["demo (durian:demo)"] == {
        "entry point": "demo = durian:demo",
        "distribution": "orchard 1.0",
        "error": "another one of this name is already registered",
    }
    assert found["broken plugins (methods)"]["durian"]["distribution"] == "raises 1.0"


def test_a_built_in_wins_over_a_plugin_of_its_name(
    troubled: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(troubled))
    with pytest.warns(PluginWarning, match="self_debias"):
        assert registry.build_method("self_debias").__class__.__module__ == "evenhand.methods.prompting.self_debias"


def test_a_broken_plugin_is_warned_of_once_and_refused_every_time(
    troubled: Path, fresh: None, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.syspath_prepend(str(troubled))
    for _ in range(2):
        with pytest.raises(SettingsError, match=WHY):
            registry.build_method("durian")
    assert len([w for w in recwarn if "'durian'" in str(w.message)]) == 1
    assert "durian" not in registry.methods.names()
    assert "whisper" in registry.methods.names()


# --------------------------------------------------------------------------------------------------- plugin files


def test_a_plugin_file_adds_its_method(tmp_path: Path) -> None:
    file = write(tmp_path / "my_methods.py", METHOD_FILE)
    entry = facts("methods", "whisper", "--plugin", str(file))
    assert entry["about"] == "Says it softly."
    assert entry["settings"] == {"softness": "0.5 (a number) - How softly."}


def test_a_broken_plugin_file_is_reported_with_its_traceback_and_skipped(tmp_path: Path) -> None:
    good = write(tmp_path / "good.py", METHOD_FILE)
    bad = write(tmp_path / "bad.py", "import math\nmath.squareroot(2)\n")
    done = evenhand("methods", "--plugin", str(bad), "--plugin", str(good))
    assert done.returncode == 0, done.stderr
    assert "whisper Says it softly." in first_column(done.stdout)
    assert f"skipped the plugin {bad}" in done.stderr
    assert 'bad.py", line 2, in <module>' in done.stderr
    assert "has no attribute 'squareroot'" in done.stderr


def test_a_plugin_file_registers_what_it_defines_and_not_what_it_imports(tmp_path: Path, fresh: None) -> None:
    file = write(tmp_path / "mine.py", METHOD_FILE + "\n    from evenhand.methods.none import Untouched\n")
    assert registry.load_plugin(file) == ["whisper"]
    assert registry.build_method("whisper(softness=0.25)").spec == "whisper(softness=0.25)"


def test_a_plugin_file_with_a_syntax_error_is_skipped(tmp_path: Path, fresh: None) -> None:
    with pytest.warns(PluginWarning, match="SyntaxError"):
        assert registry.load_plugin(write(tmp_path / "torn.py", "class Torn(:")) == []


def test_an_unknown_name_is_explained_by_a_plugin_file_that_was_skipped(tmp_path: Path, fresh: None) -> None:
    file = write(tmp_path / "whisper_later.py", "raise TypeError('no about')")
    with pytest.warns(PluginWarning):
        registry.load_plugin(file)
    with pytest.raises(UnknownNameError, match=r"The plugin .*whisper_later\.py was skipped: TypeError: no about$"):
        registry.build_method("whisper")
    write(file, METHOD_FILE)
    registry.load_plugin(file)
    with pytest.raises(UnknownNameError) as told:
        registry.build_method("wisper")
    assert "skipped" not in str(told.value)


def test_a_plugin_file_that_is_not_there_is_an_error(tmp_path: Path, fresh: None) -> None:
    with pytest.raises(SettingsError, match=r"no plugin file .*absent\.py"):
        registry.load_plugin(tmp_path / "absent.py")


def test_a_plugin_file_may_not_take_a_built_in_name(tmp_path: Path, fresh: None) -> None:
    with pytest.raises(SettingsError, match="'none' belongs to a built-in"):
        registry.load_plugin(write(tmp_path / "mine.py", METHOD_FILE.replace('"whisper"', '"none"')))


# ------------------------------------------------------------------------------------------------------ notebooks


def test_a_class_from_a_notebook_is_used_by_name(fresh: None) -> None:
    assert registry.methods.register(FromNotebook) is FromNotebook
    assert registry.methods.names()[-1] == "from_notebook"
    assert registry.build_method("from_notebook(strength=2)") == FromNotebook(strength=2)


def test_running_the_cell_again_replaces_the_class(fresh: None) -> None:
    class Again(FromNotebook):
        name: ClassVar[str] = "from_notebook"

    registry.methods.register(FromNotebook)
    registry.methods.register(Again)
    assert registry.methods.get("from_notebook") is Again
    assert registry.methods.names().count("from_notebook") == 1


@pytest.mark.parametrize("name", BUILT_IN["methods"])
def test_a_notebook_may_not_take_a_built_in_name(name: str, fresh: None) -> None:
    with pytest.raises(SettingsError, match="belongs to a built-in"):
        registry.methods.register(FromNotebook, name)


@pytest.mark.parametrize("name", ["two words", "a+b", "a,b", "f(x)", "2fast", "dash-ed"])
def test_a_name_that_the_command_line_cannot_hold_is_refused(name: str, fresh: None) -> None:
    with pytest.raises(SettingsError, match="plain word"):
        registry.methods.register(FromNotebook, name)
    assert name not in registry.methods.names()


def test_what_is_no_method_is_refused_at_once(fresh: None) -> None:
    with pytest.raises(SettingsError, match=r"not a subclass of evenhand\.Method"):
        registry.methods.register(dict, "a_dict")
    with pytest.raises(SettingsError, match=r"not a subclass of evenhand\.Benchmark"):
        registry.benchmarks.register(FromNotebook)


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("build", "name", "near"),
    [
        (registry.build_method, "self_debais", "'self_debias'"),
        (registry.build_method, "non", "'none'"),
        (registry.build_benchmark, "bqb", "'bbq'"),
    ],
)
def test_an_unknown_name_suggests_the_near_ones(build: Any, name: str, near: str, fresh: None) -> None:
    with pytest.raises(UnknownNameError, match=rf"{name!r}\. Did you mean .*{near}"):
        build(name)


def test_a_name_like_no_other_lists_all(fresh: None) -> None:
    with pytest.raises(UnknownNameError, match=r"Known: .*none.*self_debias"):
        registry.build_method("xyzzy")


def test_nothing_is_imported_until_it_is_asked_for() -> None:
    script = """
        import sys
        import evenhand.core.registry
        own = ("evenhand.methods", "evenhand.evaluation", "evenhand.models")
        heavy = ("torch", "transformers", "pydantic", "numpy", *own)
        held = [m for m in sys.modules if m.startswith(heavy)]
        assert not held, held
        assert "self_debias" in evenhand.core.registry.methods.names()
        held = [m for m in sys.modules if m.startswith(heavy)]
        assert not held, held
        evenhand.core.registry.methods.get("none")
        assert "evenhand.methods.none" in sys.modules
        assert "evenhand.methods.prompting.self_debias" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
