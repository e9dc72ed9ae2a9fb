"""A method of several turns that was killed between them: what comes out when it is run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evenhand.core import registry
from evenhand.core.answer_cache import answer_cache
from evenhand.interfaces import Choice, Model, Question
from evenhand.models.tiny import tiny_model

WITHIN = 1e-6
"""What docs/design.md states for float32."""
ASKED = [
    Question(
        f"q{i}", "Who was there?", ("dog", "cat", "letter"), context=f"There was a {'little ' * (i % 4)}dog and a cat."
    )
    for i in range(7)
]


class _KilledError(Exception):
    """As if the process had ended."""


def dying(model: Model, after: int) -> Model:
    """The model, which answers so many calls and no more."""
    left = [after]

    def counted(verb: Any) -> Any:
        def ask(*arguments: Any) -> Any:
            if not left[0]:
                raise _KilledError
            left[0] -= 1
            return verb(*arguments)

        return ask

    for name in ("choose", "generate"):
        setattr(model, name, counted(getattr(model, name)))
    return model


def answers(spec: str, model: Model, cache: Path) -> list[Choice]:
    with answer_cache(cache):
        return registry.build_method(spec).apply(model).choose(ASKED)


def assert_alike(found: Sequence[Choice], expected: Sequence[Choice]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a.decision, a.status, a.reply, a.before, a.usage) == (b.decision, b.status, b.reply, b.before, b.usage)
        assert (a.probabilities is None) == (b.probabilities is None)
        assert a.probabilities is None or a.probabilities == pytest.approx(b.probabilities, abs=WITHIN, rel=0)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize(
    ("spec", "turns"),
    [
        ("self_debias", 2),
        ("self_debias(variant=explanation,max_new_tokens=6)", 2),
        ("self_debias(answer_by=generation,temperature=1.0,max_new_tokens=6)", 2),
        ("moral_self_correction(reasoning_tokens=6)", 2),
        ("intent_self_correction(reasoning_tokens=6,critique_tokens=6)", 3),
    ],
)
def test_a_run_killed_between_turns_ends_alike_within_rounding(
    spec: str, turns: int, architecture: str, tmp_path: Path
) -> None:
    whole = answers(spec, tiny_model(architecture, name="m"), tmp_path / "whole.sqlite")
    for done in range(1, turns):
        cache = tmp_path / f"{done}.sqlite"
        with pytest.raises(_KilledError):
            answers(spec, dying(tiny_model(architecture, name="m"), done), cache)
        assert_alike(answers(spec, tiny_model(architecture, name="m"), cache), whole)


def test_a_run_killed_within_a_turn_ends_alike_within_rounding(tmp_path: Path) -> None:
    """Some answers of a turn lie in the cache, so that the others are read in smaller packs."""
    whole = answers("self_debias", tiny_model(name="m"), tmp_path / "whole.sqlite")
    cache = tmp_path / "part.sqlite"
    with answer_cache(cache):
        registry.build_method("self_debias").apply(tiny_model(name="m")).choose(ASKED[2:5])
    assert_alike(answers("self_debias", tiny_model(name="m"), cache), whole)
