"""Artefacts are whole or absent, made once, and go on from where a killed attempt ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand.artefacts import active, artefact, artefacts
from evenhand.errors import SettingsError


def writer(calls: list[str], text: str = "done") -> object:
    def make(folder: Path) -> None:
        calls.append("made")
        (folder / "weights").write_text(text)

    return make


def test_without_a_folder_it_is_made_and_gone_afterwards() -> None:
    calls: list[str] = []
    assert active() is None
    with artefact("k", writer(calls)) as folder:  # type: ignore[arg-type]
        assert (folder / "weights").read_text() == "done"
    assert not folder.exists() and calls == ["made"]


def test_a_finished_one_is_not_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    with artefacts(tmp_path / "kept"):
        for key in ("a", "a", "b"):
            with artefact(key, writer(calls)) as folder:  # type: ignore[arg-type]
                assert folder == tmp_path / "kept" / key and (folder / "weights").is_file()
    assert calls == ["made", "made"] and active() is None
    assert sorted(p.name for p in (tmp_path / "kept").glob("[!.]*")) == ["a", "b"]


def test_a_killed_attempt_is_never_taken_for_whole_and_is_gone_on_with(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise KeyboardInterrupt

    def finish(folder: Path) -> None:
        assert (folder / "half").read_text() == "1"
        (folder / "whole").write_text("2")

    with artefacts(tmp_path):
        with pytest.raises(KeyboardInterrupt), artefact("k", killed):
            pass
        assert not (tmp_path / "k").exists()
        with artefact("k", finish) as folder:
            assert sorted(p.name for p in folder.iterdir()) == ["half", "whole"]


def test_inner_folders_win_and_none_switches_off(tmp_path: Path) -> None:
    with artefacts(tmp_path / "outer"), artefacts(None):
        assert active() is None
    with artefacts(tmp_path / "outer"), artefacts(tmp_path / "inner"):
        assert active() == tmp_path / "inner"


@pytest.mark.parametrize("key", ["", "../up", ".hidden", "a/b", "ä"])
def test_a_key_that_is_no_name_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match="cannot name an artefact"), artefact(key, lambda folder: None):
        pass
