"""Turn predictions into a benchmark's own answers.

A question's answer is read directly. If an item asks for several things, the benchmark's `ask` combines them:
it asks `GivenModel`, which only knows the predictions, so that no rule of a benchmark is implemented twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evenhand.core.run_folder import from_plain
from evenhand.errors import SettingsError
from evenhand.evaluation.base import RowBenchmark
from evenhand.interfaces import Benchmark, Choice, Passage, Question, QuestionItem, Reply, Score
from evenhand.metrics.given_model import Asked, GivenModel, Replying
from evenhand.metrics.reading import choice_of, is_numeral, reply_of, score_of


def answers_of(benchmark: Benchmark, items: Sequence[Any], predictions: Sequence[Any]) -> list[Any]:
    """Return one answer per item, of the benchmark's `answer_type`.

    Raises:
        SettingsError: A prediction cannot be used; the message names the item.
    """
    if benchmark.answer_type is Choice:
        answers = [_chosen(benchmark, item, p) for item, p in zip(items, predictions, strict=True)]
        _warn_if_unread(benchmark, zip(predictions, answers, strict=True))
        return answers
    if benchmark.answer_type is Reply:
        return [reply_of(p, _place(benchmark, item)) for item, p in zip(items, predictions, strict=True)]
    ready = [_ready(benchmark, item, p) for item, p in zip(items, predictions, strict=True)]
    open_ = [n for n, answer in enumerate(ready) if answer is None]
    if open_:
        made = _put_together(benchmark, [items[n] for n in open_], [predictions[n] for n in open_])
        for n, answer in zip(open_, made, strict=True):
            ready[n] = answer
    return ready


def _chosen(benchmark: Benchmark, item: Any, prediction: Any) -> Choice:
    place = _place(benchmark, item)
    if not isinstance(item, QuestionItem):
        if isinstance(prediction, Choice):
            return prediction
        raise SettingsError(f"{place}: the benchmark's items are not questions, so pass a Choice")
    if isinstance(prediction, str) and "generate" in benchmark.needs:  # it reads replies in its own way
        return benchmark.ask(Replying(prediction), [item])[0]  # type: ignore[no-any-return]
    return choice_of(prediction, item.question, place, quotable=benchmark.quotable)


def _ready(benchmark: Benchmark, item: Any, prediction: Any) -> Any:
    """Return an answer that is given as such, or by its fields; None for anything else."""
    kind = benchmark.answer_type
    if isinstance(prediction, kind):
        return prediction
    if not isinstance(prediction, Mapping):
        return None
    try:
        return from_plain(kind, prediction)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SettingsError(
            f"{_place(benchmark, item)}: these are not the fields of {kind.__name__}: {error}"
        ) from error


def _put_together(benchmark: Benchmark, items: Sequence[Any], predictions: Sequence[Any]) -> list[Any]:
    kind = benchmark.answer_type.__name__
    if benchmark.needs not in ({"score"}, {"choose"}):
        raise SettingsError(
            f"{_place(benchmark, items[0])}: what its items ask for depends on earlier answers or needs a model's "
            f"inside, so give a {kind} for every item, or a mapping of its fields"
        )
    model, read = GivenModel(), []
    for item, prediction in zip(items, predictions, strict=True):
        place, asked = _place(benchmark, item), model.asked_for(benchmark, item)
        for thing, value in zip(asked, _parts(place, asked, prediction), strict=True):
            read.append((value, _answer(benchmark, thing, value, place)))
            model.learn(thing, read[-1][1], place)
    _warn_if_unread(benchmark, read)
    return benchmark.ask(model, items)


def _parts(place: str, asked: Sequence[Asked], prediction: Any) -> Sequence[Any]:
    """Return what was predicted for each thing that an item asks for; None for each if the prediction is None."""
    if prediction is None:
        return [None] * len(asked)
    if len(asked) == 1:
        nested = isinstance(prediction, list | tuple) and len(prediction) == 1
        return prediction if nested else [prediction]
    if not isinstance(prediction, list | tuple) or isinstance(prediction, Score) or len(prediction) != len(asked):
        what = "log-probabilities" if isinstance(asked[0], Passage) else "answers"
        given = (
            f"{len(prediction)} were" if isinstance(prediction, list | tuple) else f"{type(prediction).__name__} was"
        )
        raise SettingsError(f"{place}: it asks for {len(asked)} {what}, and {given} given; give a list of {len(asked)}")
    return prediction


def _answer(benchmark: Benchmark, thing: Asked, value: Any, place: str) -> Choice | Score:
    if isinstance(thing, Question):
        return choice_of(value, thing, place, quotable=benchmark.quotable)
    counted = benchmark.per_token if isinstance(benchmark, RowBenchmark) else True
    return score_of(value, place, tokens_count=counted)


def _warn_if_unread(benchmark: Benchmark, read: Iterable[tuple[Any, Any]]) -> None:
    """Warn if predictions contain texts, but none of them is the answer to its question.

    Raises:
        SettingsError: All of them are integers: a column of indices that was read as text.
    """
    texts = [(p, answer) for p, answer in read if isinstance(p, str) and isinstance(answer, Choice)]
    if texts and all(answer.decision is None for _, answer in texts):
        if all(is_numeral(prediction) for prediction, _ in texts):
            raise SettingsError(
                f"{benchmark.name}: the predictions that are texts, such as {texts[0][0]!r:.60}, are numbers, and no "
                "options' texts; give indices as numbers (a column: .astype(int)), or None for no answer"
            )
        warnings.warn(
            f"{benchmark.name}: none of the {len(texts):,} predictions that are texts could be read as an answer, so "
            "all count as unparsed; give the text or letter of an option, its index as a number, or replies that "
            "name one",
            UserWarning,
            stacklevel=2,
        )


def _place(benchmark: Benchmark, item: Any) -> str:
    return f"{benchmark.name}, item {item.id!r}"
