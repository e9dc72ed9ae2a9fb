"""A damaged file gives what can be read of it, or an error that names it: never a traceback, never a hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from tests.fuzz import inputs, mutations, seeds
from tests.fuzz.inputs import Change
from tests.fuzz.outcome import finding
from tests.fuzz.readers import Target, targets

from evenhand.data.io.rows import Refused
from evenhand.errors import DataError

TARGETS = targets()


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(change=inputs.changes)
def test_a_changed_file_is_read_or_refused(name: str, change: Change) -> None:
    assert inputs.of_change(TARGETS[name], change) is None


@pytest.mark.parametrize("name", TARGETS)
def test_the_files_that_are_changed_are_valid(name: str, tmp_path: Path) -> None:
    """Else the changes would test refusals alone."""
    inputs.written(TARGETS[name].files, tmp_path)
    if name == "evenhand.json endpoint":  # refused as it reaches outside, which is for the user to allow
        return
    assert TARGETS[name].read(tmp_path) is not None or name.startswith("evenhand.json")


def test_foreign_errors_are_findings() -> None:
    """The property itself can fail."""

    def broken(folder: Path) -> object:
        return {}["missing"]

    def vague(folder: Path) -> object:
        raise Refused("something is wrong")

    files = {"a.jsonl": seeds.written(seeds.CROWS, ".jsonl")}
    change = (0, [mutations.Mutation("flip", 0, 0)])
    found = [inputs.of_change(Target("t", files, read), change) for read in (broken, vague)]
    assert [f.kind.split()[0] for f in found if f] == ["KeyError", "Refused"]


def test_a_message_must_name_its_file_on_one_short_line(tmp_path: Path) -> None:
    def said(message: str) -> str:
        def call() -> None:
            raise DataError(message)

        found = finding(call, tmp_path)
        return "" if found is None else " ".join(found.kind.split()[:4])

    assert said(f"{tmp_path}/a.csv:1: column 'b' is missing") == ""
    assert said("column 'b' is missing") == "message without a file:"
    assert said(f"{tmp_path}\nis broken") == "message with line breaks"
    assert said(f"{tmp_path} {'x' * 700}") == "message of more than"
