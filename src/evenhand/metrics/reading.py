"""Read one prediction as an answer: to a question, to a request for a reply, or as the score of a text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evenhand.errors import SettingsError
from evenhand.interfaces import Choice, Question, Reply, Score
from evenhand.prompting import thinking
from evenhand.prompting.reply_parsing import LETTERS, normal_form, read_choice

NO_ANSWER = "no answer was given"
ROUNDING = 1e-6
"""Tolerance within which probabilities stay unchanged, as for a model's answers (`evenhand.experiment.contracts`)."""
SUM_TOLERANCE = 1e-3
"""Tolerance of the sum of probabilities, as in float16 or with four digits; they are divided by their sum."""
NUMERAL = re.compile(r"[+-]?\d+(\.0*)?")
LONE_LETTER = re.compile(r"[^\w]*([A-Z])[^\w]*")


def choice_of(prediction: Any, question: Question, place: str, *, quotable: bool = True) -> Choice:
    """Read the answer to a question.

    Args:
        prediction: A `Choice`, the index of an option, its text or letter, a reply, probabilities of all options in
            their order or by text, letter or index, or None. Probabilities must sum to 1 within 0.001, as those in
            float16 or with four digits do; if the sum is off by more than 1e-6 they are divided by it.
        question: The question, with the order in which its options were shown.
        place: The item, for errors.
        quotable: Whether a message may show the options.

    Raises:
        SettingsError: The prediction is none of these, or does not fit the question.
    """
    if isinstance(prediction, Choice):
        return _checked(prediction, question, place)
    if prediction is None:
        return Choice(None, status="unanswered", note=NO_ANSWER)
    if isinstance(prediction, str):
        return _read(prediction, question, place)
    if isinstance(prediction, Mapping):
        return _of_probabilities(_by_option(prediction, question, place, quotable), question, place)
    if isinstance(prediction, list | tuple):
        return _of_probabilities(prediction, question, place)
    return Choice(_index(prediction, question, place))


def reply_of(prediction: Any, place: str) -> Reply:
    """Read the answer to a request for a reply: a `Reply`, its text, or None.

    Raises:
        SettingsError: It is none of these.
    """
    if isinstance(prediction, Reply):
        return prediction
    if prediction is None:
        return Reply(None, note=NO_ANSWER)
    if isinstance(prediction, str):
        return Reply(prediction)
    raise SettingsError(f"{place}: {prediction!r:.60} is not a reply; give its text, or None for no answer")


def score_of(prediction: Any, place: str, *, tokens_count: bool) -> Score:
    """Read the score of a text: a `Score`, its log-probability, a pair of that and the number of tokens, or None.

    Args:
        prediction: The prediction.
        place: The item, for errors.
        tokens_count: Whether the number of tokens matters, so that it must be given.

    Raises:
        SettingsError: The prediction is none of these, or not a log-probability.
    """
    if prediction is None:
        return Score(math.nan, 0, NO_ANSWER)
    if isinstance(prediction, Score):
        logprob, tokens, note = prediction
    elif isinstance(prediction, list | tuple) and len(prediction) == 2:
        logprob, tokens, note = prediction[0], prediction[1], ""
    else:
        logprob, tokens, note = prediction, None, ""
    if logprob is None or (isinstance(logprob, float) and math.isnan(logprob)):
        return Score(math.nan, 0, note or NO_ANSWER)
    if not _is_number(logprob) or logprob > ROUNDING:
        raise SettingsError(
            f"{place}: {logprob!r:.60} is not a log-probability; give a natural logarithm, at most 0, summed over the "
            "text's tokens (minus the loss times their number), or None for no answer"
        )
    return Score(float(logprob), _tokens(tokens, place, tokens_count), note)


def _tokens(tokens: Any, place: str, tokens_count: bool) -> int:
    if tokens is None:
        if tokens_count:
            raise SettingsError(
                f"{place}: log-probabilities are divided by the number of tokens here; give pairs "
                "(log-probability, tokens)"
            )
        return 1
    if not _is_whole(tokens) or tokens < 1:
        raise SettingsError(f"{place}: {tokens!r:.60} is not a number of tokens; give a whole number from 1 on")
    return int(tokens)


def _checked(choice: Choice, question: Question, place: str) -> Choice:
    """Check that a `Choice` fits the question."""
    if (choice.decision is None) != (choice.status != "answered"):
        raise SettingsError(
            f"{place}: status {choice.status!r} with decision {choice.decision}; without a decision the status is "
            "'unparsed' or 'unanswered'"
        )
    if choice.decision is not None:
        _index(choice.decision, question, place)
    if choice.probabilities is not None:
        return replace(choice, probabilities=_normalised(choice.probabilities, question, place))
    return choice


def _read(text: str, question: Question, place: str) -> Choice:
    """Read an option's text or letter, or a whole reply."""
    said = thinking.answer(text)
    decision = read_choice(said, question) if said else None
    bare = normal_form(said) if said else ""
    letter = LONE_LETTER.fullmatch(bare.upper())
    if decision is None and letter and letter[1] in LETTERS[len(question.options) :]:
        raise SettingsError(
            f"{place}: letter {letter[1]!r}, but there are {len(question.options)} options, the last of which is "
            f"{LETTERS[len(question.options) - 1]!r}; give None for no answer"
        )
    return Choice(decision, status="unparsed" if decision is None else "answered", reply=text)


def _index(value: Any, question: Question, place: str) -> int:
    count = len(question.options)
    if not _is_whole(value):
        raise SettingsError(
            f"{place}: {value!r:.60} is not an answer; give an option's index, text or letter, probabilities, or None"
        )
    if not 0 <= value < count:
        raise SettingsError(f"{place}: option {int(value)} of {count}; give 0 to {count - 1}, or None for no answer")
    return int(value)


def _of_probabilities(values: Sequence[Any], question: Question, place: str) -> Choice:
    """Choose the most probable option, the first of ties, as everywhere here."""
    if len(values) == len(question.options) and all(v is None for v in values):  # a table's row without an answer
        return Choice(None, status="unanswered", note=NO_ANSWER)
    probabilities = _normalised(values, question, place)
    return Choice(int(np.argmax(probabilities)), probabilities)


def _normalised(values: Sequence[Any], question: Question, place: str) -> tuple[float, ...]:
    """Return one probability per option, summing to 1."""
    if len(values) != len(question.options):
        raise SettingsError(f"{place}: {len(values)} probabilities for {len(question.options)} options; give one each")
    if not all(_is_number(v) and -ROUNDING <= v <= 1 + ROUNDING for v in values):
        raise SettingsError(
            f"{place}: probabilities {tuple(values)!r:.80} are not all between 0 and 1; of log-probabilities or logits "
            "take the softmax first"
        )
    total = sum(float(v) for v in values)
    if abs(total - 1) > SUM_TOLERANCE:
        raise SettingsError(f"{place}: probabilities sum to {total:.6g}, not 1; divide them by their sum, in float64")
    return tuple(float(v) if abs(total - 1) <= ROUNDING else float(v) / total for v in values)


def _by_option(given: Mapping[Any, Any], question: Question, place: str, quotable: bool) -> list[Any]:
    """Return probabilities by option, from a mapping with indices, texts or letters as keys."""
    found: dict[int, Any] = {}
    for key, value in given.items():
        option = read_choice(key, question) if isinstance(key, str) else _index(key, question, place)
        if option is None or option in found:
            what = "names no option" if option is None else "names an option for the second time"
            shown = f" {key!r}" if quotable else ""
            raise SettingsError(f"{place}: a key{shown} of the probabilities {what}; give each option's text or letter")
        found[option] = value
    return [found.get(option, 0.0) for option in range(len(question.options))]


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool | np.bool_)
        and (not math.isnan(value))
    )


def is_numeral(text: str) -> bool:
    """Whether a text is an integer, such as an index that was read from a file as text."""
    return NUMERAL.fullmatch(normal_form(text)) is not None


def _is_whole(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value == int(value)
