"""Versions and settings with a known effect on numbers: which rows apply, and that each has its finding."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from evenhand.cli import catalogue
from evenhand.core import known_effects
from evenhand.core.known_effects import Effect, applying
from evenhand.errors import EvenhandError

ROOT = Path(__file__).resolve().parents[2]
ROWS = (
    Effect("old", "too large", "refuses", package="peft", versions=">=0.20,<0.21.2"),
    Effect("new", "too small", "corrects", package="peft", versions="==0.21.2"),
    Effect("trl", "by batch", "does not use it", package="trl", versions="==1.16.0"),
    Effect("tf32", "rounded", "leaves it", variable="TF32", values=("1", "true")),
)


def having(**versions: str) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return version


@pytest.fixture
def _rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_effects, "effects", lambda: ROWS)


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize(
    ("versions", "names"),
    [
        ({}, []),
        ({"peft": "0.19.3"}, []),
        ({"peft": "0.20.0"}, ["old"]),
        ({"peft": "0.21.1.dev0"}, ["old"]),
        ({"peft": "0.21.2"}, ["new"]),
        ({"peft": "0.21.2+local"}, ["new"]),
        ({"peft": "0.22.0", "trl": "1.16.0"}, ["trl"]),
        ({"peft": "0.21.2", "trl": "1.16.0"}, ["new", "trl"]),
        ({"peft": "not a version"}, []),
    ],
)
def test_a_row_applies_to_an_installed_package_within_its_versions(versions: dict[str, str], names: list[str]) -> None:
    assert list(applying(having(**versions), {})) == names


@pytest.mark.usefixtures("_rows")
def test_a_row_says_what_is_here_and_what_evenhand_does() -> None:
    assert applying(having(peft="0.21.2"), {"TF32": "1"}) == {
        "new": {"where": "peft 0.21.2", "effect": "too small", "evenhand": "corrects"},
        "tf32": {"where": "TF32=1", "effect": "rounded", "evenhand": "leaves it"},
    }
    assert applying(having(), {"TF32": "0"}) == {}


def test_every_row_of_the_table_is_complete_and_known_in_the_documentation() -> None:
    rows = known_effects.effects()
    assert len({row.source for row in rows}) == len(rows)
    page = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    for row in rows:
        assert row.effect and row.evenhand, row.source
        assert bool(row.package) != bool(row.variable), row.source
        assert bool(row.versions) == bool(row.package) and bool(row.values) == bool(row.variable), row.source
        SpecifierSet(row.versions)
        if not row.source.startswith("https://"):
            assert (ROOT / "findings" / f"{row.source}.sh").is_file(), row.source
            assert f"[{row.source}](../findings/{row.source}.sh)" in page


def test_every_finding_is_in_the_table_and_in_both_lists() -> None:
    known = {row.source for row in known_effects.effects()}
    listed = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    for script in (ROOT / "findings").glob("*.sh"):
        assert script.stem in known
        assert f"[{script.stem}]({script.name})" in listed


def _no_model(name: str) -> None:
    raise EvenhandError(f"no {name} here")


def test_doctor_shows_the_rows_that_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_effects, "effects", lambda: ROWS)
    monkeypatch.setattr(known_effects.applying, "__defaults__", (having(trl="1.16.0"), {}))
    monkeypatch.setattr("evenhand.models.load", _no_model, raising=False)  # which is shown, too, and takes long,
    monkeypatch.setattr(catalogue, "plugins", dict)  # and so do these
    shown = catalogue.doctor()["known effects"]
    assert shown == {"trl": {"where": "trl 1.16.0", "effect": "by batch", "evenhand": "does not use it"}}
