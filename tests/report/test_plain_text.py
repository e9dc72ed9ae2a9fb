"""Text of a view is the same in a notebook, where rich would display it and leave the text empty."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.scripted_runs import scripted_run

from evenhand.report import Report


def test_a_notebook_gets_the_text_and_nothing_is_displayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted_run(tmp_path)
    report = Report.load(tmp_path)
    views = [report, report.leaderboard(), report.difference("none", "clean")]
    in_a_terminal = [str(view) for view in views]
    assert all("clean" in text for text in in_a_terminal)
    displayed: list[object] = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *shown: displayed.append(shown))
    assert [str(view) for view in views] == in_a_terminal
    assert not displayed and not capsys.readouterr().out
