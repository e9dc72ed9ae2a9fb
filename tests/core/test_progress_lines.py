"""Progress without a terminal: what a line says, how often one comes, and that standard output stays clean."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import StringIO
from itertools import pairwise

import pytest

from evenhand.core import progress
from evenhand.core.progress_lines import ProgressLines, progress_lines


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Waited:
    """In place of the event: each wait passes at once, and the end comes after so many seconds."""

    def __init__(self, clock: Clock, until: float) -> None:
        self.clock, self.until = clock, until

    def wait(self, seconds: float) -> bool:
        self.clock.now += seconds
        return self.clock.now > self.until


def written(until: float, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], object] | None = None) -> list[float]:
    """When lines were written in so many seconds."""
    clock, at = Clock(), list[float]()
    lines = ProgressLines(write or (lambda text: at.append(clock.now)), clock)
    monkeypatch.setattr(lines, "_over", Waited(clock, until))
    lines.run()
    return at


def test_the_first_line_comes_within_ten_seconds_and_one_at_least_every_thirty(monkeypatch: pytest.MonkeyPatch) -> None:
    at = written(600, monkeypatch)
    assert at[0] <= 10 and written(7, monkeypatch) == []
    between = [b - a for a, b in pairwise(at)]
    assert min(between) >= 5 and max(between) <= 30 and len(at) >= 20


def test_a_line_says_from_the_outside_in_what_is_done_of_what_and_what_is_left() -> None:
    clock = Clock()
    lines = ProgressLines(str, clock)
    assert lines.line() == "working; 0 µs so far"
    outer = lines.add_task("comparisons on demo", 4)
    clock.now = 30.0
    lines.advance(outer, 1)
    inner = lines.add_task("scoring", 2000)
    lines.advance(inner, 1000)
    clock.now = 40.0
    assert lines.line() == ("comparisons on demo 1 of 4 (about 120 s left) > scoring 1,000 of 2,000; 40 s so far")
    lines.remove_task(outer)
    assert lines.line() == "scoring 1,000 of 2,000 (about 10 s left); 40 s so far"


def test_a_stream_that_nobody_reads_costs_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def broken(text: str) -> None:
        tried.append(text)
        raise BrokenPipeError

    written(60, monkeypatch, broken)
    assert len(tried) > 1


def test_without_a_terminal_lines_go_to_standard_error_and_details_are_tracked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr("evenhand.core.progress_lines.FIRST", 0.01)
    with progress.show() as lines, progress.track(3, "steps", lines_only=True) as step:
        assert isinstance(lines, ProgressLines)
        step(2)
        while not said.getvalue().endswith("\n"):
            pass
    assert said.getvalue().startswith("steps 2 of 3") and not capsys.readouterr().out
    assert lines.line().startswith("working")


def test_on_a_terminal_details_have_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress.show() as bars:
        assert not isinstance(bars, ProgressLines)
        with progress.track(3, "steps", lines_only=True), progress.track(5, "epochs"):
            assert [task.description for task in bars.tasks] == ["epochs"]


def test_the_thread_ends_with_the_block() -> None:
    import threading

    with progress_lines():
        assert [t for t in threading.enumerate() if t.name == "evenhand-progress"]
    for thread in threading.enumerate():
        if thread.name == "evenhand-progress":
            thread.join(60)
            assert not thread.is_alive()
