"""The collector's threshold: raised within, put back after, and never against the caller's own choice."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from threading import Event, Thread

import pytest

from evenhand.core.collecting import YOUNG, rarely_collected

USUAL = (700, 10, 10)


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    before, enabled = gc.get_threshold(), gc.isenabled()
    gc.set_threshold(*USUAL)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        (gc.enable if enabled else gc.disable)()


def test_it_is_raised_within_and_put_back() -> None:
    with rarely_collected():
        assert gc.get_threshold() == (YOUNG, *USUAL[1:])
    assert gc.get_threshold() == USUAL


def test_it_is_put_back_after_an_error() -> None:
    with pytest.raises(KeyError), rarely_collected():
        raise KeyError("lost")
    assert gc.get_threshold() == USUAL
    with rarely_collected():
        assert gc.get_threshold()[0] == YOUNG


def test_only_the_outermost_puts_it_back() -> None:
    with rarely_collected():
        with pytest.raises(KeyError), rarely_collected():
            raise KeyError("lost")
        assert gc.get_threshold()[0] == YOUNG
    assert gc.get_threshold() == USUAL


def test_of_two_threads_the_last_puts_it_back() -> None:
    inside, go = Event(), Event()

    def other() -> None:
        with rarely_collected():
            inside.set()
            go.wait(30)

    thread = Thread(target=other)
    with rarely_collected():
        thread.start()
        assert inside.wait(30)
    assert gc.get_threshold()[0] == YOUNG
    go.set()
    thread.join(30)
    assert gc.get_threshold() == USUAL


@pytest.mark.parametrize("own", [(0, 10, 10), (YOUNG, 5, 5), (YOUNG * 2, 3, 3)])
def test_a_caller_who_collects_never_or_more_rarely_is_heeded(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with rarely_collected():
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with rarely_collected():
        assert not gc.isenabled()
    assert not gc.isenabled()
    assert gc.get_threshold() == USUAL
