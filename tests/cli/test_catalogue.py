"""What the command line lists, and that it lists it without importing what it lists."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from evenhand.cli import catalogue, signals
from evenhand.core import registry
from evenhand.core.catalogue import about, listing
from evenhand.errors import EvenhandError


@pytest.mark.parametrize("kind", ["methods", "benchmarks"])
def test_a_listing_gives_the_first_sentence_of_every_built_in(kind: str) -> None:
    listed = listing(kind)
    known = registry.methods if kind == "methods" else registry.benchmarks
    for name in registry.BUILT_IN[kind]:
        assert listed[name]
        assert catalogue.entry(kind, name)["about"].replace("\n", " ").startswith(listed[name])
        assert listed[name] == about(known.get(name))


@pytest.mark.parametrize("arguments", [["--help"], ["methods"], ["benchmarks"], ["methods", "--help"]])
def test_commands_that_need_no_model_import_no_heavy_library(arguments: list[str]) -> None:
    program = f"""
import sys
sys.argv = ["evenhand", *{arguments!r}]
from evenhand.cli.app import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = ("torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "evenhand.models", "evenhand.methods.none")
assert not [name for name in heavy if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_an_evaluation_imports_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    program = f"""
import sys
sys.argv = ["evenhand", "evaluate", "demo", "--benchmarks", "bbq(source=demo)", "--limit", "1"]
sys.argv += ["--out", {str(tmp_path)!r}]
from evenhand.cli.app import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
assert "evenhand.report.plot" in sys.modules and "torch" in sys.modules
heavy = ("scipy.stats", "sklearn", "datasets", "evaluate", "peft", "trl", "altair", "nltk", "lm_eval")
heavy += ("pandas", "itables")
held = [name for name in heavy if name in sys.modules]
assert not held, held
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_check_says_what_it_could_not_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("crows_pairs/data/test.parquet", *(f"wikitext2/{n}.txt" for n in range(7))):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    monkeypatch.setenv("EVENHAND_DATA", str(tmp_path))
    found = catalogue.data_check(["crows_pairs", "wikitext2"])
    assert found["crows_pairs"]["not compared"] == ["data/test.parquet"]
    assert found["crows_pairs"]["missing"] == ["crows_pairs_anonymized.csv"]
    assert found["wikitext2"]["official"] == "no published hashes are known"
    assert found["wikitext2"]["not compared"] == [*(f"{n}.txt" for n in range(5)), "and 2 more"]
    assert "have other names or another format" in found["crows_pairs"]["why not compared"]
    assert found["wikitext2"]["why not compared"].startswith("no published hash of this data set is known")


def test_a_check_says_that_every_file_was_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ifeval").mkdir()
    (tmp_path / "ifeval" / "input_data.jsonl").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setenv("EVENHAND_DATA", str(tmp_path))
    found = catalogue.data_check(["ifeval"])["ifeval"]
    assert found["differs"] == ["input_data.jsonl"] and found["why not compared"] == "every file was compared"


@pytest.mark.parametrize("name", ["esbbq", "cabbq", "esbbq_cabbq"])
def test_a_benchmark_s_name_finds_the_data_set_that_it_shares(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENHAND_DATA", str(tmp_path))
    with pytest.raises(EvenhandError, match=r"^no esbbq_cabbq data"):
        catalogue.data_check([name])


def test_a_name_that_no_data_set_has_is_unknown() -> None:
    with pytest.raises(EvenhandError, match="unknown data set 'esbq'"):
        catalogue.data_check(["esbq"])


def test_doctor_names_a_library_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def incomplete() -> dict[str, Any]:
        raise PackageNotFoundError("The 'accelerate>=1.1.0' distribution was not found\nTry: `pip install`")

    monkeypatch.setattr(catalogue, "plugins", incomplete)
    monkeypatch.setattr(catalogue, "data_sets", dict)
    state = catalogue.doctor()
    assert "'accelerate>=1.1.0' distribution was not found Try:" in state["broken installation"]
    assert {"versions", "known effects"} <= state.keys() and "demo model" not in state


def test_an_interrupted_command_says_whether_there_is_anything_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, told in ((tmp_path, "run the same command again"), (tmp_path / "none", "before anything was asked")):
        with pytest.raises(SystemExit) as ended, signals.working_in(place):
            raise KeyboardInterrupt
        assert ended.value.code == 130 and told in " ".join(capsys.readouterr().err.split())
