"""`evenhand show` of a damaged run says what is damaged and how to continue, and shows the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from evenhand.cli.app import app
from evenhand.core.answer_cache import AnswerCache
from evenhand.core.artifacts import artefact, artefacts
from evenhand.core.checksums import LIST, seal_folder
from evenhand.core.records import Record
from evenhand.core.run_folder import RunFolder
from evenhand.core.stored_damage import damages
from evenhand.errors import EvenhandError
from evenhand.interfaces import Choice
from evenhand.report import Report

WHERE = {"model": "m", "method": "none", "benchmark": "b"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = RunFolder(tmp_path / "run")
    cost = {"calls": 2, "prompt_tokens": 9, "new_tokens": 2, "seconds": 1.0, "seconds_saved": 0.0}
    usage = {**WHERE, **cost, "answers": "key", "items": 2, "asked_anew": 2, "from_cache": 0}
    with run.locked():
        run.write_answers("key", [Choice(0), Choice(1)], ["a", "b"], usage)
        run.write_manifest({"command": "evenhand compare --out run", "usage": [usage], "benchmarks": {}, "models": {}})
        run.write_scores([Record(**WHERE, metric="accuracy", value=0.5, n=2, clusters=2, main=True)])
        for view in ("report.html", "summary.md", "intervals.png"):
            (run.path / view).write_text(view)
        run.seal_views()
    cache = AnswerCache(run.cache)
    cache.put({f"k{n}": n for n in range(50)})
    cache.close()
    with artefacts(run.path / "artefacts"), artefact("trained", lambda place: _write(place / "weights")):
        return run.path


def _write(file: Path) -> None:
    file.write_bytes(b"weights")


def show(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["show", str(folder), *more])


def test_nothing_is_said_of_a_sound_run(folder: Path) -> None:
    result = show(folder)
    assert (result.exit_code, result.stderr) == (0, "") and "all tables" in result.stdout
    assert damages(folder, thorough=True) == []
    assert "nothing is damaged" in show(folder, "--check").stderr


@pytest.mark.parametrize(
    ("name", "then", "check"),
    [
        ("answers/key.parquet", "asks its answers anew, or takes them from the cache", False),
        ("summary.md", "writes all of them anew", False),
        ("cache.sqlite", "takes over the answers whose checksum holds, and asks the others again", True),
        ("artefacts/trained/weights", "trains it again", True),
    ],
)
def test_what_is_damaged_is_named_with_what_happens_next(folder: Path, name: str, then: str, check: bool) -> None:
    sound = show(folder).stdout
    for broken in (bytes(30), b""):
        (folder / name).write_bytes(broken if name != "cache.sqlite" else b"SQLite format 4" * 400)
        (damage,) = damages(folder, thorough=True)
        assert damage.then == then and not (check and damages(folder))
        result = show(folder, *["--check"] * check)
        assert result.exit_code == 0 and result.stdout == sound
        line = result.stderr.replace("\n", " ")
        assert line.startswith(f"warning: {damage.place} is damaged: ") and then in line
    assert not list(folder.rglob("*damaged-*")), "showing changes nothing"


def test_an_answer_file_that_is_gone_is_missed(folder: Path) -> None:
    (folder / "answers" / "key.parquet").unlink()
    assert [damage.why for damage in damages(folder)] == ["it is missing"]


def test_a_wrong_row_of_the_cache_is_counted(folder: Path) -> None:
    cache = AnswerCache(folder / "cache.sqlite")
    with cache._db:
        cache._db.execute("UPDATE answers SET value = '7' WHERE key IN ('k1', 'k2')")
    cache.close()
    assert [damage.why for damage in damages(folder, thorough=True)] == ["2 answers do not match their checksums"]


def test_without_scores_the_finished_cells_are_listed(folder: Path) -> None:
    (folder / "scores.parquet").write_bytes(b"PAR1")
    result = show(folder)
    assert result.exit_code == 1 and result.stdout == "m  none  b  2 answers\n"
    assert "scores.parquet is damaged: " in result.stderr and "makes it anew" in result.stderr
    assert "run it again: evenhand compare --out run" in result.stderr.replace("\n", " ")


def test_without_a_manifest_the_numbers_are_listed(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("none", "nine"))
    result = show(folder)
    assert result.exit_code == 1 and result.stdout == "m  none  b  accuracy  0.500\n"
    assert "manifest.json is damaged: " in result.stderr and "its content is not what was written" in result.stderr
    (row,) = json.loads(show(folder, "--json").stdout)
    assert row["value"] == 0.5
    (folder / "scores.parquet").unlink()
    assert show(folder).exit_code == 1


def test_dialogues_need_no_scores(folder: Path) -> None:
    (folder / "scores.parquet").write_bytes(b"")
    assert "option" in show(folder, "--item", "a").stdout or "not shown" in show(folder, "--item", "a").stdout


@pytest.mark.parametrize("content", ['{"usage": 7}', '{"usage": [{}]}', '{"statistics": {"alpha": "x"}}'])
def test_a_manifest_of_an_earlier_version_that_is_damaged_ends_in_our_words(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    result = show(folder)
    assert result.exception is None or isinstance(result.exception, SystemExit | EvenhandError), repr(result.exception)


def test_a_folder_that_is_not_there_is_not_called_sound(tmp_path: Path) -> None:
    result = show(tmp_path / "nosuch", "--check")
    assert result.exit_code != 0 and "nothing is damaged" not in result.stderr


@pytest.mark.parametrize("name", ["report.html", "summary.md", "intervals.png"])
def test_the_view_that_changed_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("")
    assert [damage.place for damage in damages(folder)] == [folder / name]


def test_a_report_that_is_saved_again_is_sealed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Report.load(folder).save(folder)
    assert (folder / "report.html").read_text() != "report.html" and damages(folder) == []
    (folder / "summary.md").write_text("")
    assert damages(folder) != []

    def killed(self: Report) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Report, "markdown", killed)
    with pytest.raises(KeyboardInterrupt):
        Report.load(folder).save(folder)
    assert damages(folder) == [], "half of the views are new, and no checksum says otherwise"


def test_a_report_that_is_saved_elsewhere_has_no_checksums(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    Report.load(folder).save(tmp_path / "other")
    assert not (tmp_path / "other" / ".views.sha256").exists()


def test_a_checkpoint_that_was_moved_aside_is_not_told_again(folder: Path) -> None:
    aside = folder / "artefacts" / ".k.part" / "checkpoint-00001.damaged-1"
    for place, told in ((aside, 0), (aside.with_name("checkpoint-00001"), 1)):
        place.mkdir(parents=True)
        _write(place / "weights")
        seal_folder(place, place / LIST)
        (place / "weights").write_bytes(b"")
        assert len(damages(folder, thorough=True)) == told
