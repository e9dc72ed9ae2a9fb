"""What letters' log-probabilities become, whatever else is answered in the same call."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.inference import Request
from evenhand.interfaces import Question, Usage
from evenhand.models.choosing import by_position, choices_from_positions, masses_of
from evenhand.models.letter_prompts import LetterForm, LetterPrompt, letter_choices


@pytest.mark.parametrize("options", [2, 3, 8, 10, 26])
def test_an_answer_does_not_depend_on_the_others(options: int) -> None:
    rng = np.random.default_rng(options)
    owner = [n // 2 for n in range(2 * options)]
    read = np.log(rng.dirichlet(np.ones(2 * options), size=50) * 0.9)
    questions = [Question(str(n), "?", tuple(f"o{i}" for i in range(options))) for n in range(len(read))]

    def choices(rows: slice) -> list[object]:
        at = by_position(read[rows], owner, options)
        return list(choices_from_positions(questions[rows], at, masses_of(at), [Usage()] * len(at)))

    assert choices(slice(None)) == [choice for n in range(len(read)) for choice in choices(slice(n, n + 1))]


def test_every_option_has_a_probability_where_a_vocabulary_does_not_tell_letters_apart() -> None:
    """All letters are one unknown token, which is read once, as the first one's."""
    form = LetterForm([7], (Request((7,), ((0, 0),)),), ((0, 0, 1),), owner=(0,), one_token=True, lead=0)
    prompt = LetterPrompt([1, 2], form)
    (choice,) = letter_choices([(Question("q", "?", ("x", "y", "z")), prompt, [-1.0])])
    assert choice.probabilities == (1.0, 0.0, 0.0)
