"""A damaged answer cache gives no wrong answer: sound ones are taken over, others are asked again, as a line says."""

from __future__ import annotations

import json
import random
import sqlite3
import warnings
from pathlib import Path

import pytest

from evenhand.core import answer_salvage
from evenhand.core.answer_cache import AnswerCache
from evenhand.errors import RunError

MANY = {f"{n:08x}" * 8: {"text": f"answer {n}" * 20, "logprob": -n / 7} for n in range(300)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = AnswerCache(tmp_path / "c.sqlite")
    made.put(MANY)
    made.close()
    return tmp_path / "c.sqlite"


def test_an_answer_that_does_not_match_its_checksum_is_asked_again(file: Path) -> None:
    key, other = list(MANY)[:2]
    cache = AnswerCache(file)
    cache._db.execute("UPDATE answers SET value = '1' WHERE key = ?", [key])
    with pytest.warns(
        UserWarning, match=r"c\.sqlite: an answer does not match its checksum; it is asked again"
    ) as told:
        assert cache.get([key, other]) == {other: MANY[other]}
        assert cache.get([key]) == {}
    assert len(told) == 1, "said once"
    assert (cache.damaged, cache.hits, cache.misses) == (2, 1, 2)
    cache.put({key: MANY[key]})
    assert cache.get([key]) == {key: MANY[key]}


@pytest.mark.parametrize("change", ["seconds = 1e9", "checksum = ''", "value = CAST(X'FF22' AS TEXT)", "key = 'k'"])
def test_every_part_of_a_row_is_in_its_checksum(file: Path, change: str) -> None:
    key = next(iter(MANY))
    cache = AnswerCache(file)
    cache._db.execute(f"UPDATE answers SET {change} WHERE key = ?", [key])
    with pytest.warns(UserWarning, match="does not match its checksum"):
        assert cache.get([key, "k"]) == {}
    assert cache.saved == 0


def told(file: Path) -> tuple[dict[str, object], list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cache = AnswerCache(file)
        found = cache.get(list(MANY))
        cache.close()
    return found, [str(w.message) for w in said if w.category is not ResourceWarning]  # of caches of other tests


@pytest.mark.parametrize(
    ("start", "many", "least"),
    [
        (0, 16, 300),  # the header, which says what the file is
        (0, answer_salvage.PAGE, 300),  # the whole first page
        (16, 20, 300),  # version, size of pages
        (-answer_salvage.PAGE, answer_salvage.PAGE, 200),  # the last page
        (5 * answer_salvage.PAGE, answer_salvage.PAGE, 200),
    ],
)
def test_a_file_that_sqlite_refuses_is_made_anew_from_what_is_sound(
    file: Path, start: int, many: int, least: int
) -> None:
    whole = bytearray(file.read_bytes())
    start %= len(whole)
    whole[start : start + many] = b"\xa5" * many if start else bytes(many)
    file.write_bytes(whole)
    found, lines = told(file)
    assert len(found) >= least and all(MANY[key] == value for key, value in found.items())
    (line,) = lines
    assert f"{file} was damaged" in line and "it is now c.sqlite.damaged-1" in line
    assert f"{len(found):,} answers whose checksum holds were taken over" in line
    assert (file.parent / "c.sqlite.damaged-1").read_bytes() == bytes(whole)
    assert told(file) == (found, []), "the new file is sound"
    assert sorted(f.name for f in file.parent.glob("c.sqlite*")) == ["c.sqlite", "c.sqlite.damaged-1"]


def test_a_second_damage_gets_a_number_of_its_own(file: Path) -> None:
    for _ in range(2):
        file.write_bytes(b"SQLite format 4\0" + file.read_bytes()[16:])
        assert len(told(file)[0]) == len(MANY)
    assert (file.parent / "c.sqlite.damaged-2").is_file()


def test_random_damage_never_changes_an_answer(file: Path) -> None:
    whole, draw, asked_again = file.read_bytes(), random.Random(0), 0
    for n in range(150):
        broken = bytearray(whole)
        for _ in range(1 + n % 3):
            broken[draw.randrange(len(broken) if n % 2 else 4096)] ^= 1 << draw.randrange(8)
        file.write_bytes(broken[: draw.randrange(len(broken))] if n % 10 == 0 else broken)
        found, _ = told(file)
        assert all(MANY[key] == value for key, value in found.items())
        asked_again += len(found) < len(MANY)
        for left in file.parent.glob("c.sqlite?*"):
            left.unlink()
    assert asked_again > 20


def test_damage_found_in_writing_costs_nothing_that_is_written(file: Path) -> None:
    cache = AnswerCache(file)
    cache.get(list(MANY)[:1])
    cache.close()
    whole = bytearray(file.read_bytes())
    for start in range(answer_salvage.PAGE, len(whole), answer_salvage.PAGE):
        whole[start] = 0x7F  # no kind of page
    file.write_bytes(whole)
    cache = AnswerCache(file)
    with pytest.warns(UserWarning, match="was damaged"):
        cache.put({"new": 1})
    assert cache.get(["new"]) == {"new": 1}


def test_another_program_s_database_stays_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "other.sqlite"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE answers (question TEXT, reply TEXT)")
    db.close()
    with pytest.raises(RunError, match=r"other\.sqlite"):
        AnswerCache(file).get(["k"])
    assert sorted(f.name for f in tmp_path.iterdir() if "damaged" in f.name) == []


def test_a_cache_that_another_process_has_made_anew_is_opened_and_not_made_again(file: Path) -> None:
    before = answer_salvage.identity(file)
    file.rename(file.with_name("moved"))
    file.write_bytes(file.with_name("moved").read_bytes())
    assert answer_salvage.make_anew(file, before, sqlite3.DatabaseError("malformed")) == ""
    assert not list(file.parent.glob("*damaged*"))


def test_reading_makes_one_call_per_five_hundred_answers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, calls = AnswerCache(file), []
    cache._db.set_trace_callback(calls.append)
    assert len(cache.get(list(MANY))) == len(MANY)
    assert len(calls) == 1


def error_with(code: int | None, text: str = "", kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    made = kind(text)
    if code is not None:
        made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (error_with(sqlite3.SQLITE_CORRUPT), True),
        (error_with(None, "Could not decode to UTF-8 column 'value'"), True),
        (error_with(None, "other"), False),
        (error_with(sqlite3.SQLITE_READONLY), True),
        (error_with(sqlite3.SQLITE_READONLY_DBMOVED), True),
        (error_with(sqlite3.SQLITE_READONLY_CANTLOCK), False),
        (error_with(sqlite3.SQLITE_READONLY_DIRECTORY), False),
        (error_with(sqlite3.SQLITE_BUSY), False),
        (error_with(sqlite3.SQLITE_CORRUPT, kind=sqlite3.ProgrammingError), False),
        (error_with(None, "cannot decode", sqlite3.InterfaceError), False),
    ],
)
def test_only_errors_of_the_content_mean_damage(file: Path, error: sqlite3.Error, damage: bool) -> None:
    assert answer_salvage.means_damage(error, file) == damage


def test_a_cache_that_is_used_wrongly_stays_where_it_is(file: Path) -> None:
    cache = AnswerCache(file)
    with pytest.raises((RunError, sqlite3.Error)):
        cache.get([object()])  # type: ignore[list-item]
    cache.close()
    with pytest.raises(RunError, match="closed database"):
        len(cache)
    assert not list(file.parent.glob("*damaged*"))
    assert told(file) == (MANY, [])


def earlier(file: Path, columns: str) -> bytearray:
    """A cache as earlier versions made it; its content."""
    with sqlite3.connect(file) as db:
        db.execute(f"CREATE TABLE answers ({columns}) WITHOUT ROWID")
        marks = ",".join("?" * (1 + columns.count(",")))
        rows = [(key, json.dumps(value), 0.5, None)[: 1 + columns.count(",")] for key, value in MANY.items()]
        db.executemany(f"INSERT INTO answers VALUES ({marks})", rows)
    db.close()
    return bytearray(file.read_bytes())


TWO = "key TEXT PRIMARY KEY, value TEXT"


@pytest.mark.parametrize("columns", [TWO, f"{TWO}, seconds REAL", f"{TWO}, seconds REAL, checksum TEXT"])
@pytest.mark.parametrize(("page", "least"), [(0, 300), (5, 200)])
def test_one_bad_page_of_an_earlier_version_loses_what_is_on_it(
    tmp_path: Path, columns: str, page: int, least: int
) -> None:
    whole = earlier(tmp_path / "c.sqlite", columns)
    start = page * answer_salvage.PAGE
    whole[start : start + answer_salvage.PAGE] = b"\xa5" * answer_salvage.PAGE if page else bytes(answer_salvage.PAGE)
    (tmp_path / "c.sqlite").write_bytes(whole)
    found, lines = told(tmp_path / "c.sqlite")
    assert least <= len(found) and all(MANY[key] == value for key, value in found.items()) and len(lines) == 1
    assert told(tmp_path / "c.sqlite") == (found, []), "all have a checksum now"
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        assert {row[0] for row in db.execute("SELECT seconds FROM answers")} == {0.5 if "seconds" in columns else None}
    db.close()


def test_what_is_no_json_or_no_utf_8_is_not_taken_over_without_a_checksum(tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    earlier(file, TWO)
    with sqlite3.connect(file) as db:
        db.execute("INSERT INTO answers VALUES ('a', 'no json'), ('b', CAST(X'22FF22' AS TEXT)), ('c', '1'), (7, '2')")
    db.close()
    assert {key for key, *_ in answer_salvage.scan(file)} == {*MANY, "c", "7"}


def test_rows_without_a_checksum_are_not_sound_where_all_have_one(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("UPDATE answers SET checksum = '' WHERE key = ?", [next(iter(MANY))])
    db.close()
    assert len(list(answer_salvage.scan(file))) == len(MANY) - 1
    assert not answer_salvage.holds(("k", "1", None, None))
