"""What is kept from turn to turn: nothing of a last turn, unless more of an outer conversation follows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import pytest

import evenhand as eh
from evenhand.core.registry import build_method
from evenhand.inference.engine import Engine
from evenhand.inference.prefix_trie import NONE
from evenhand.inference.requests import Request
from evenhand.inference.session_kv_cache import Kept
from evenhand.interfaces import Question
from evenhand.models.tiny import tiny_model
from evenhand.prompting.sessions import Conversation, conversation, is_last_turn, remembered

QUESTIONS = [
    Question(f"q{n}", "Who was loud?", ("The grandfather", "Unknown", "The grandson"), context=f"They met {n} times.")
    for n in range(6)
]
TRUNK = tuple(range(7, 27))


def ask(engine: Engine, *more: int) -> int:
    """Read a sequence; how many tokens were fed for it."""
    before, ids = engine.tokens, (*TRUNK, *more)
    engine.read([Request(ids, ((len(ids) - 1, 30),))], "f")
    return engine.tokens - before


def test_nothing_of_a_last_turn_is_kept() -> None:
    engine = tiny_model().engine
    with conversation() as talk:
        assert ask(engine) == len(TRUNK)
        with talk.last():
            assert is_last_turn()
            assert ask(engine, 30, 31) == 2
            assert ask(engine, 30, 31) == 2
        assert not is_last_turn()
        assert ask(engine, 30, 31) == 2
        assert ask(engine, 30, 31) == 1  # what is read outside of it is kept again; only the last token is fed


def test_a_conversation_in_anothers_last_turn_keeps_its_own_first_turn() -> None:
    engine = tiny_model().engine
    with conversation() as outer:
        ask(engine)
        with outer.last(), conversation() as inner:
            assert not is_last_turn()
            assert ask(engine, 30, 31) == 2
            assert ask(engine, 30, 31) == 1
            with inner.last():
                assert is_last_turn()
                assert ask(engine, 30, 31, 32, 33) == 2
                assert ask(engine, 30, 31, 32, 33) == 2
            assert not is_last_turn()


def test_a_part_of_another_conversation_keeps_its_last_turn() -> None:
    engine = tiny_model().engine
    with conversation():
        with conversation() as part, part.last():
            assert not is_last_turn()
            assert ask(engine) == len(TRUNK)
        assert ask(engine, 30) == 1


def test_an_error_ends_turns_and_conversations() -> None:
    with pytest.raises(KeyError), conversation() as talk, talk.last():
        raise KeyError("lost")
    assert not is_last_turn()
    assert remembered("key", dict) is None


def kept_of(method: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[eh.Choice], list[tuple[bool, int]]]:
    """Answers, and per pack whether it was to be kept and how many tokens were kept after it."""
    seen: list[tuple[bool, int]] = []
    keep = Kept.keep_pack

    def watched(self: Kept, *given: object) -> None:
        keep(self, *given)  # type: ignore[arg-type]
        seen.append((self.grows, len(self)))

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "keep_pack", watched)
        return build_method(method).apply(tiny_model()).choose(QUESTIONS), seen


def test_the_second_turn_of_self_debias_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = kept_of("self_debias", monkeypatch)
    assert [grows for grows, _ in seen] == [True, False]
    assert seen[0][1] == seen[1][1] > 0


def numbers(choices: Sequence[eh.Choice]) -> list[float]:
    return [p for choice in choices for p in choice.probabilities or ()]


@pytest.mark.parametrize("method", ["self_debias", "self_debias+self_debias", "self_debias(variant=explanation)"])
def test_answers_are_the_same_whatever_is_kept(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, _ = kept_of(method, monkeypatch)
    monkeypatch.setattr(Conversation, "last", lambda self: ExitStack())
    everything, seen = kept_of(method, monkeypatch)
    assert all(grows for grows, _ in seen)
    assert answers == everything
    monkeypatch.setattr(Kept, "find", lambda self, ids, most: NONE)
    afresh, _ = kept_of(method, monkeypatch)
    assert [c.decision for c in afresh] == [c.decision for c in answers]
    assert numbers(afresh) == pytest.approx(numbers(answers), abs=1e-5)
