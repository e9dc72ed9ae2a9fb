"""What letters' log-probabilities become, whatever else is answered in the same call."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from evenhand.errors import SettingsError
from evenhand.inference import Request
from evenhand.interfaces import Question, Usage
from evenhand.models.choosing import LetterPlan, by_position, choices_from_positions, letter_plan, masses_of
from evenhand.models.letter_prompts import LetterForm, LetterPrompt, letter_choices, letter_prompts
from evenhand.models.tokenization import Encoder


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


HEAD = [1, 2]
UNKNOWN = 7


def plan_of(*tokens: tuple[int, ...]) -> LetterPlan:
    """The plan for a prompt and what follows it: each letter alone, and with a blank, one after another."""
    return letter_plan(HEAD, [[*HEAD, *some] for some in tokens], len(tokens) // 2, lambda ids: f"<unk> {ids}")


def test_letters_that_are_one_token_are_refused_by_name() -> None:
    with pytest.raises(SettingsError, match=r"letters A, C as the same tokens, <unk> \[7\].*answer_by='text'"):
        plan_of((UNKNOWN,), (UNKNOWN,), (11,), (12,), (UNKNOWN,), (UNKNOWN,))


def test_letters_that_a_tokenizer_leaves_out_are_refused() -> None:
    with pytest.raises(SettingsError, match="letters A, B as the same tokens, none at all"):
        plan_of((), (), (), ())


def test_a_variant_that_stands_for_several_letters_is_not_read() -> None:
    plan = plan_of((10,), (UNKNOWN,), (11,), (UNKNOWN,), (12,), (13,))
    assert plan.owner == [0, 1, 2, 2]
    assert [r.reads for r in plan.requests] == [((1, 10),), ((1, 11),), ((1, 12),), ((1, 13),)]


def test_letters_that_only_their_blank_forms_tell_apart_are_read_in_these() -> None:
    plan = plan_of((UNKNOWN,), (10,), (UNKNOWN,), (11,))
    assert plan.owner == [0, 1]
    assert [r.reads for r in plan.requests] == [((1, 10),), ((1, 11),)]


def test_a_model_names_the_letters_and_the_token_that_its_tokenizer_confuses() -> None:
    vocabulary = {"<unk>": 0, "x": 1, "y": 2, "A": 3}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    with pytest.raises(SettingsError, match=r"letters B, C as the same tokens, '<unk>' \(id 0\)"):
        letter_prompts(encoder, [("x y", 3)])
    assert letter_prompts(encoder, [("x y", 2)])[0].form.owner == (0, 1), "A and one unknown letter can be told apart"
