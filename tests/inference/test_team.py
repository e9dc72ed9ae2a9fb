"""Processes that ask together, here threads with a store in memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from evenhand.core.answer_cache import AnswerCache, answer_cache
from evenhand.core.one_process import by_itself
from evenhand.errors import EvenhandError, RunError, SettingsError
from evenhand.inference import process_messages, team
from evenhand.inference.cached import Emit, through_cache
from evenhand.inference.process_messages import Messages
from evenhand.inference.team import Team, active, asking_as

Asked = list[tuple[int, ...]]
ASKED: Asked = [(n,) for n in range(7)]


class MemoryStore:
    """A store for threads."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}

    def set(self, key: str, value: str, /) -> None:
        self.words[key] = value

    def get(self, key: str, /) -> bytes:
        return self.words[key].encode()

    def wait(self, keys: list[str], timeout: timedelta, /) -> None:
        raise NotImplementedError

    def check(self, keys: list[str], /) -> bool:
        return all(key in self.words for key in keys)

    def delete_key(self, key: str, /) -> bool:
        return self.words.pop(key, None) is not None


def every_other(asked: Asked, count: int) -> list[list[int]]:
    return [list(range(len(asked)))[rank::count] for rank in range(count)]


def squares(asked: Asked, emit: Emit[float]) -> None:
    """One by one, as batches would come."""
    for row, (number,) in enumerate(asked):
        emit([row], [number**2 / 3])


def run(count: int, program: Callable[[Team], Any], store: MemoryStore | None = None) -> list[Any]:
    """What the program gives in each of some processes, or the error that it ends with."""
    common = store or MemoryStore()

    def process(rank: int) -> Any:
        try:
            with asking_as(Team(Messages(common, "test", rank), rank, count)) as mine:
                return program(mine)
        except (Exception, KeyboardInterrupt) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(process, range(count)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "TOLD_EVERY", 0.0)
    monkeypatch.setattr(team, "WAIT_SECONDS", 20.0)
    monkeypatch.setattr(team, "LEAVE_SECONDS", 20.0)
    monkeypatch.setattr("atexit.register", lambda *_: None)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_computes_its_part_and_all_have_everything(count: int) -> None:
    computed: dict[int, Asked] = {}

    def program(mine: Team) -> list[float]:
        def compute(asked: Asked, emit: Emit[float]) -> None:
            computed[mine.rank] = asked
            squares(asked, emit)

        return through_cache(ASKED, [], compute, "testing", every_other)

    assert run(count, program) == [[n**2 / 3 for n in range(7)]] * count
    assert [computed[rank] for rank in range(count)] == [ASKED[rank::count] for rank in range(count)]


def test_floats_and_what_is_no_number_arrive_as_they_are() -> None:
    values = [0.1 + 0.2, 1e-310, -math.inf, math.nan]

    def program(mine: Team) -> list[Any]:
        return through_cache(
            ASKED[:4],
            [],
            lambda asked, emit: emit([*range(len(asked))], [values[n] for (n,) in asked]),
            "",
            every_other,
        )

    for found in run(2, program):
        assert found[:3] == values[:3] and math.isnan(found[3])


def test_the_first_one_s_cache_counts_and_it_alone_stores(tmp_path: Path) -> None:
    keys = [f"k{n}" for n in range(7)]
    with answer_cache(tmp_path / "cache") as known:
        assert known is not None
        known.put({"k0": -1.0, "k3": -2.0})
    computed: list[int] = []

    def program(mine: Team) -> list[float]:
        def compute(asked: Asked, emit: Emit[float]) -> None:
            computed.extend(n for (n,) in asked)
            squares(asked, emit)

        with answer_cache(tmp_path / "cache" if mine.first else tmp_path / "other"):
            return through_cache(ASKED, keys, compute, "testing", every_other)

    assert run(2, program) == [[-1.0, 1 / 3, 4 / 3, -2.0, 16 / 3, 25 / 3, 12.0]] * 2
    assert sorted(computed) == [1, 2, 4, 5, 6]
    assert len(AnswerCache(tmp_path / "cache")) == 7
    assert len(AnswerCache(tmp_path / "other")) == 0


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SettingsError("no such thing"), SettingsError, "no such thing (on rank 1)"),
        (ZeroDivisionError("by zero"), EvenhandError, "ZeroDivisionError: by zero (on rank 1)"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (SystemExit(3), EvenhandError, "stopped by SystemExit (on rank 1)"),
    ],
)
def test_an_error_of_one_is_one_of_all(error: BaseException, kind: type[BaseException], text: str) -> None:
    def program(mine: Team) -> Any:
        def compute(asked: Asked, emit: Emit[float]) -> None:
            if mine.rank == 1:
                raise error
            squares(asked, emit)

        try:
            through_cache(ASKED, [], compute, "testing", every_other)
        except BaseException as raised:
            return raised

    found = run(3, program)
    assert found[1] is error
    assert [(type(e), str(e)) for e in (found[0], found[2])] == [(kind, text)] * 2


def test_all_go_on_after_an_error_of_one_list() -> None:
    def program(mine: Team) -> Any:
        def compute(asked: Asked, emit: Emit[float]) -> None:
            squares(asked[:1], emit)
            raise SettingsError("this list alone")

        with pytest.raises(SettingsError, match="this list alone"):
            through_cache(ASKED, [], compute, "testing", every_other)
        mine.agree("after the list")
        return through_cache(ASKED, [], squares, "testing", every_other)

    assert run(3, program) == [[n**2 / 3 for n in range(7)]] * 3


def test_the_first_one_ends_early_where_another_has_failed() -> None:
    failed, computed = threading.Event(), []

    def program(mine: Team) -> Any:
        def compute(asked: Asked, emit: Emit[float]) -> None:
            if mine.rank == 1:
                failed.set()
                raise SettingsError("at once")
            for row in range(len(asked)):
                failed.wait(10)
                threading.Event().wait(0.05)
                computed.append(row)
                emit([row], [0.0])

        many: Asked = [(n,) for n in range(200)]
        through_cache(many, [], compute, "testing", every_other)

    found = run(2, program)
    assert [str(e) for e in found] == ["at once (on rank 1)", "at once"]
    assert len(computed) < 20


def test_what_others_have_computed_is_stored_when_the_first_one_is_stopped(tmp_path: Path) -> None:
    told = threading.Event()

    def program(mine: Team) -> Any:
        def compute(asked: Asked, emit: Emit[float]) -> None:
            if mine.rank == 1:
                squares(asked[:2], emit)
                told.set()
                while True:
                    emit([], [])  # until it hears of the other's end
            told.wait(10)
            raise KeyboardInterrupt

        with answer_cache(tmp_path / "cache" if mine.first else None):
            through_cache(ASKED, [f"k{n}" for n in range(7)], compute, "testing", every_other)

    assert [type(e) for e in run(2, program)] == [KeyboardInterrupt] * 2
    assert AnswerCache(tmp_path / "cache").get([f"k{n}" for n in range(7)]) == {"k1": 1 / 3, "k3": 3.0}


def test_an_error_outside_of_a_list_ends_whoever_waits() -> None:
    def program(mine: Team) -> Any:
        if mine.rank == 2:
            raise SettingsError("its own trouble")
        return through_cache(ASKED, [], squares, "testing", every_other)

    found = run(3, program)
    assert [str(e) for e in found] == ["its own trouble (on rank 2)", "its own trouble (on rank 2)", "its own trouble"]
    assert all(type(e) is SettingsError for e in found)


def test_different_lists_are_refused() -> None:
    def program(mine: Team) -> Any:
        return through_cache(ASKED[mine.rank :], [], squares, "testing", every_other)

    for error in run(2, program):
        assert isinstance(error, RunError)
        assert "must run the same program with the same files" in str(error)


def test_a_different_way_is_refused_with_its_reason() -> None:
    def program(mine: Team) -> None:
        mine.agree("a cell: ok" if mine.first else "a cell: failed", "" if mine.first else "out of luck")

    found = run(2, program)
    assert [(type(e), str(e)) for e in found] == [(RunError, "out of luck (on rank 1)"), (RunError, "out of luck")]


def test_whoever_never_comes_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "WAIT_SECONDS", 0.1)
    alone = Team(Messages(MemoryStore(), "test", 0), 0, 2)
    with pytest.raises(RunError, match=r"rank 1 has sent nothing for 0\.1 seconds"):
        alone.agree("anything")


def test_the_store_keeps_nothing_of_earlier_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are put together again, and gone once all have come to a later list."""
    monkeypatch.setattr(process_messages, "PIECE", 11)
    store = MemoryStore()
    sizes = []

    def program(mine: Team) -> Any:
        for _ in range(5):
            found = through_cache(ASKED, [], squares, "testing", every_other)
            mine.agree("here")
            if mine.first:
                sizes.append(len(store.words))
        return found

    assert run(2, program, store) == [[n**2 / 3 for n in range(7)]] * 2
    assert max(sizes) < 2 * 40


def test_what_one_process_asks_by_itself_is_not_split() -> None:
    def program(mine: Team) -> Any:
        assert active() is mine
        if mine.first:
            with by_itself():
                assert active() is None
                return through_cache(ASKED, [], squares, "testing", every_other)
        return "waiting"

    assert run(2, program) == [[n**2 / 3 for n in range(7)], "waiting"]


def test_what_cannot_be_divided_is_computed_by_each() -> None:
    assert run(2, lambda mine: through_cache(ASKED, [], squares, "testing")) == [[n**2 / 3 for n in range(7)]] * 2


def test_a_word_of_the_first_is_heard_by_all() -> None:
    assert run(3, lambda mine: mine.first_says("word" if mine.first else None)) == ["word"] * 3
