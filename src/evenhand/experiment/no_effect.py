"""Reasons why a method's answers may be the baseline's, as far as they are known before answers are compared.

Each reason is a fact that would explain equal answers. Whether they are equal is determined elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from evenhand.core.answer_cache import key
from evenhand.core.hashing import short_text_hash
from evenhand.interfaces import Benchmark, Choice, Dialogue, Method, Model, Passage, Question
from evenhand.models.mitigated import Mitigated

SAME_WEIGHTS = "the weights are the baseline's"
SAME_PROMPTS = "the prompts are the baseline's"
ROUNDED_AWAY = 0.9
"""Share of unchanged coordinates from which rounding explains that a method has no effect."""
VERBS = ("choose", "generate", "score")
_DOES = {"choose": "asks multiple-choice questions", "generate": "has replies written", "score": "scores texts"}


def reason(model: Model, mitigated: Model, method: Method, benchmark: Benchmark, answers: Sequence[Any]) -> str:
    """Return why a method may have done nothing on a benchmark; "" if nothing is known.

    Args:
        model: The baseline.
        mitigated: The model that the method made of it.
        method: The method.
        benchmark: The benchmark that was asked.
        answers: Answers of the mitigated model.
    """
    if same_weights(model, mitigated):
        return SAME_WEIGHTS
    return _other_verbs(model, mitigated, method, benchmark) or _rounded_away(mitigated) or _said_alike(answers)


def same_weights(model: Model, mitigated: Model) -> bool:
    """Whether a model has the weights of the baseline, if it is not asked through a method."""
    if isinstance(mitigated, Mitigated):
        return False
    if mitigated is model or mitigated.fingerprint == model.fingerprint:
        return True
    if "weights" not in model.abilities & mitigated.abilities:
        return False
    return _of_weights(model) == _of_weights(mitigated)


def _of_weights(model: Model) -> str:
    """Return the hash of the weights alone; local models cache it."""
    from evenhand.models.fingerprint import of_weights

    kept = model.weights_hash
    return of_weights(*model.weights) if kept is None else kept


def _other_verbs(model: Model, mitigated: Model, method: Method, benchmark: Benchmark) -> str:
    """Say that a benchmark uses only verbs that the methods around the baseline pass through; "" if not."""
    layer = mitigated
    while isinstance(layer, Mitigated) and layer is not model:
        layer = layer.base
    used = [verb for verb in VERBS if verb in benchmark.needs]
    if layer is not model or isinstance(model, Mitigated) or not isinstance(mitigated, Mitigated):
        return ""  # the weights differ, or the methods cannot be told apart from those that came with the model
    if not used or mitigated.acts_on & set(used):
        return ""
    does = " and ".join(_DOES[verb] for verb in used)
    acts = " and ".join(verb for verb in VERBS if verb in mitigated.acts_on)
    return f"the benchmark {does}, and {method.name} acts on {f'{acts} only' if acts else 'nothing'}"


def _rounded_away(mitigated: Model) -> str:
    """Say that an edit of hidden states is lost in rounding, if the record of its training shows it; "" if not."""
    layer = mitigated
    while isinstance(layer, Mitigated):
        shares = {} if layer.training is None else layer.training.results.get("unchanged_share", {})
        if isinstance(shares, dict) and shares and min(map(float, shares.values())) >= ROUNDED_AWAY:
            return (
                f"rounding keeps {min(shares.values()):.0%} of the coordinates that {layer.method.name} edits as they "
                "were: take a larger strength or another layer, or load the model in float32"
            )
        layer = layer.base
    return ""


def _said_alike(answers: Sequence[Any]) -> str:
    """Return what a method noted on every answer, such as that it could not calibrate it; "" if they differ."""
    notes = {choice.note for answer in answers for choice in _choices(answer)}
    return notes.pop() if len(notes) == 1 else ""


def _choices(answer: Any) -> Iterator[Choice]:
    """Yield the answer, or those within a benchmark's own kind of answer."""
    if isinstance(answer, Choice):
        yield answer
    elif isinstance(answer, tuple | list):
        for part in answer:
            yield from _choices(part)
    elif is_dataclass(answer):
        for field in fields(answer):
            yield from _choices(getattr(answer, field.name))


# ---------------------------------------------------------------------------------------- what a model was asked


class Overheard:
    """Prompts that were put to a model, whoever wrote them, regardless of how the answers were drawn."""

    def __init__(self) -> None:
        """Start without prompts."""
        self._prompts: set[str] = set()
        self._understood = True

    @property
    def digest(self) -> str:
        """Hash of the prompts; "" if there were none, or one of an unknown kind."""
        return key(sorted(self._prompts))[:24] if self._prompts and self._understood else ""

    def hear(self, verb: str, asked: Sequence[Any], own: str) -> None:
        """Take the requests that a verb was called with."""
        try:
            self._prompts.update(_digests(verb, asked, own))
        except Exception:  # the model that answers reports what is wrong with it
            self._understood = False


@contextmanager
def overheard(model: Model) -> Iterator[Overheard]:
    """Record all that is put to a model, through whatever methods, within the block."""
    heard = Overheard()
    own = model.answer_by or "letters"
    place = vars(model)
    before = {verb: place[verb] for verb in VERBS if verb in place}
    place.update({verb: _listening(answer, verb, heard, own) for verb, answer in model.verbs.items()})
    try:
        yield heard
    finally:
        for verb in VERBS:
            del place[verb]
        place.update(before)


def _listening(answer: Callable[..., Any], verb: str, heard: Overheard, own: str) -> Callable[..., Any]:
    def listen(asked: Sequence[Any], *more: Any, **named: Any) -> Any:
        heard.hear(verb, asked, own)
        return answer(asked, *more, **named)

    return listen


def _content(asked: Any, own: str) -> tuple[Any, ...]:
    """Return what a model reads of a request, and how an answer is found in it."""
    if isinstance(asked, Dialogue):
        return tuple(asked.messages)
    if isinstance(asked, Passage):
        prompt = asked.prompt.messages if isinstance(asked.prompt, Dialogue) else asked.prompt
        return prompt, asked.continuation, asked.suffix
    if isinstance(asked, Question):
        ready = None if asked.dialogue is None else asked.dialogue.messages
        shown = (asked.preamble, asked.context, asked.question, asked.template) if ready is None else ready
        return shown, asked.options, asked.order, asked.answer_by or own
    return (repr(asked),)


def _digests(verb: str, asked: Sequence[Any], own: str) -> Iterator[str]:
    """Yield the hash of `repr((verb, _content(one, own)))`, the cheapest way to bytes; the same in every process.

    A question asked in several orders has the same texts each time, and they are written out once.
    """
    opening = f"({verb!r}, ("
    last: Question | None = None
    texts = ""
    for one in asked:
        if type(one) is not Question or one.dialogue is not None:
            yield short_text_hash(repr((verb, _content(one, own))))
            continue
        if last is None or not _same_texts(one, last):
            last, shown = one, (one.preamble, one.context, one.question, one.template)
            texts = f"{opening}{shown!r}, {one.options!r}, "
        yield short_text_hash(f"{texts}{one.order!r}, {one.answer_by or own!r}))")


def _same_texts(one: Question, last: Question) -> bool:
    """Whether two questions differ at most in the order of their options or in how they are read; by identity."""
    return (
        one.context is last.context
        and one.question is last.question
        and one.options is last.options
        and one.header is last.header
        and one.shots is last.shots
        and one.template is last.template
    )
