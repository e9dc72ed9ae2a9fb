"""The permutation ensemble: what a model answers when the order of a question's options is averaged out.

Source: Liusie, Fathullah, Gales 2024, "Teacher-Student Training for Debiasing: General Permutation Debiasing for Large
Language Models" (arXiv 2403.13590). White-box: the mean over orders of the option probabilities. Black-box: one sampled
decision in each of many random orders, counted by option. The geometric mean and its cyclic orders are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np

from evenhand.core.draws import generator
from evenhand.errors import SettingsError
from evenhand.interfaces import Choice, Message, Model, Question, Sampling, Usage
from evenhand.prompting.multi_turn import prompts_of
from evenhand.prompting.option_orders import Kind, Mean, Order, averaged, movable, orders_of
from evenhand.prompting.remarks import remark, unsampled

Decisions = Literal["probabilities", "sampled"]
WhichOrders = Literal["auto", "full", "cyclic", "sampled"]
WhichMean = Literal["auto", "arithmetic", "geometric"]
Distribution = tuple[float, ...]

FULL_UP_TO = 3
"""Maximum number of movable options with which all orders are the default."""
REPLY = Sampling(max_new_tokens=64)
"""Sampling of a decision if neither question nor model sets it; the length is that of every written choice."""


class _Asked(NamedTuple):
    """A question with its answers in all orders."""

    question: Question
    orders: tuple[Order, ...]
    first: Question
    """The question as it was asked in the first order."""
    answers: Sequence[Choice]
    """One per order."""


_Decided = tuple[tuple[int | None, ...], Distribution | None]
"""The decision in each order, and the distribution over all orders together."""


@dataclass(frozen=True, slots=True)
class Debiased:
    """One question, asked in many orders."""

    probabilities: Distribution | None
    """P_deb over option identities; None if the question has no answer."""
    orders: tuple[Order, ...]
    """Orders in which it was asked; `orders[n][j]` is the identity shown at position j."""
    decisions: tuple[int | None, ...]
    """Chosen identity in each order: the most probable one, or the drawn one of sampled decisions; None if unparsed."""
    distributions: tuple[Distribution | None, ...]
    """Probabilities by identity in each order; None if the model gave only a decision."""
    usage: Usage
    """Cost of all orders together."""
    status: Literal["answered", "unparsed", "unanswered"] = "answered"
    note: str = ""
    mass: float | None = None
    """Mean probability of any option letter; None if an order has none."""
    before: tuple[Message, ...] = ()
    """For the record: the prompt in the first order as really asked, and a note that it is the first of several."""

    @property
    def decision(self) -> int | None:
        """The likeliest option; ties go to the lowest identity."""
        p = self.probabilities
        return None if p is None else p.index(max(p))

    @property
    def choice(self) -> Choice:
        """Return the result as the answer to the question."""
        return Choice(
            self.decision,
            self.probabilities,
            self.status,
            mass=self.mass,
            before=self.before,
            usage=self.usage,
            note=self.note,
        )


def debiased(
    model: Model,
    questions: Sequence[Question],
    *,
    decisions: Decisions = "probabilities",
    orders: WhichOrders = "auto",
    mean: WhichMean = "auto",
    draws: int = 32,
    seed: int = 0,
) -> list[Debiased]:
    """Ask questions in many orders, all in one call of `model.choose`, and average the orders out.

    Args:
        model: The model of the ensemble; it needs only `choose`.
        questions: The questions; options that refer to positions keep their places, as the result's note says.
        decisions: "probabilities" averages distributions; "sampled" counts sampled decisions, as for a black box: drawn
            from the distribution if the model gives one, else the decision of a reply written at temperature 1.
        orders: "full" is all orders, "cyclic" the rotations, "sampled" uniform draws. "auto" is sampled with sampled
            decisions, else full with up to three movable options and cyclic with more.
        mean: Mean of the distributions. "auto" is geometric over cyclic orders, where the arithmetic mean may favour
            another option, else arithmetic.
        draws: Number of orders if they are drawn.
        seed: Seed of orders and decisions, together with each question's id and options.

    Returns:
        One result per question, in order. A question with an unanswered order is unanswered; draws that could not be
        parsed are left out and noted.

    Raises:
        SettingsError: Settings contradict one another, there are too many orders, or the model gives no probabilities.
    """
    check(decisions=decisions, orders=orders, mean=mean, draws=draws)
    plans = [orders_of(q, kind_of(q, decisions, orders), count=draws, seed=seed) for q in questions]
    sampled = decisions == "sampled"
    asked = [
        _put(q, order, n, model, draws, seed) if sampled else q.reordered(order)
        for q, plan in zip(questions, plans, strict=True)
        for n, order in enumerate(plan)
    ]
    told = model.choose(asked)
    if sampled and (why := _unsampled(asked, told)):
        remark(why)
    mine = _by_question(questions, plans, asked, told)
    if sampled:
        found = [_counted(one, seed) for one in mine]
    else:
        found = _averaged(model, mine, [mean_of(kind_of(q, decisions, orders), mean) for q in questions])
    masses, record = _masses(mine), _recorder(model)
    return [_made(one, *parts, mass, record(one)) for one, parts, mass in zip(mine, found, masses, strict=True)]


def check(*, decisions: Decisions, orders: WhichOrders, mean: WhichMean, draws: int) -> None:
    """Refuse settings that contradict one another.

    Raises:
        SettingsError: Settings contradict one another; the message says which, and what to give.
    """
    if draws < 1:
        raise SettingsError(f"draws={draws} must be at least 1; on most sets 32 orders per question are enough")
    if decisions == "sampled" and orders in ("full", "cyclic"):
        raise SettingsError(f"sampled decisions are taken in drawn orders: leave orders={orders} out")
    if decisions == "sampled" and mean == "geometric":
        raise SettingsError("sampled decisions are counted, which has no geometric mean: leave mean=geometric out")


def kind_of(question: Question, decisions: Decisions, orders: WhichOrders) -> Kind:
    """Resolve "auto" to the orders of a question."""
    if orders != "auto":
        return orders
    if decisions == "sampled":
        return "sampled"
    return "full" if len(movable(question).places) <= FULL_UP_TO else "cyclic"


def mean_of(kind: Kind, mean: WhichMean) -> Mean:
    """Resolve "auto" to the mean over a kind of orders."""
    if mean != "auto":
        return mean
    return "geometric" if kind == "cyclic" else "arithmetic"


def sampled_question(question: Question, model: Model, seed: int, draw: int = 0) -> Question:
    """Set a question's sampling so that a written answer is drawn from the model's own distribution.

    All other sampling settings are the question's own, else those of the nearest method around the model that has its
    own sampling (`self_debias`, and `moral_self_correction` and `intent_self_correction` when they reason: their limit,
    no stop string), else the model's: other methods keep the limit and stop strings that a model was loaded with.
    """
    base = question.sampling or model.sampling or REPLY
    return question.altered(draw=draw, sampling=replace(base, temperature=1.0, top_p=1.0, seed=seed))


def drawn(probabilities: Sequence[float], uniform: float) -> int:
    """Return the outcome whose part of [0, 1) contains `uniform`; an outcome of probability 0 is never drawn."""
    edges = np.cumsum(np.asarray(probabilities, dtype=np.float64))
    place = int(np.searchsorted(edges, uniform * edges[-1], side="right"))
    return min(place, int(np.flatnonzero(np.asarray(probabilities))[-1]))


def _put(question: Question, order: Order, n: int, model: Model, draws: int, seed: int) -> Question:
    return sampled_question(question.reordered(order), model, seed, question.draw * draws + n)


def _unsampled(asked: Sequence[Question], answers: Sequence[Choice]) -> str:
    """Return why decisions drawn by the model itself look as if nothing had been sampled, or ""."""
    draws = [
        (
            (q.id, q.question, q.context, q.preamble, q.order),
            None if a.status == "unanswered" else (a.reply, a.decision),
        )
        for q, a in zip(asked, answers, strict=True)
        if a.probabilities is None
    ]
    return unsampled(draws, 1.0, "what is counted of sampled decisions")


def _by_question(
    questions: Sequence[Question], plans: Sequence[Sequence[Order]], asked: Sequence[Question], told: Sequence[Choice]
) -> list[_Asked]:
    told = [answer for _, answer in zip(asked, told, strict=True)]
    ends = accumulate(map(len, plans))
    places = [slice(end - len(plan), end) for plan, end in zip(plans, ends, strict=True)]
    return [
        _Asked(q, tuple(plan), asked[place.start], told[place])
        for q, plan, place in zip(questions, plans, places, strict=True)
    ]


def _recorder(model: Model) -> Callable[[_Asked], tuple[Message, ...]]:
    """Return a function that makes the record of a question: its first prompt, and the number of orders."""
    prompt = prompts_of(model)

    @cache
    def mark(orders: int) -> Message:
        return Message("system", f"[the first of {orders} orders that were asked; not shown to the model]")

    def record(mine: _Asked) -> tuple[Message, ...]:
        shown = mine.answers[0].before or prompt(mine.first).messages
        return shown if len(mine.orders) < 2 else (*shown, mark(len(mine.orders)))

    return record


def _averaged(model: Model, asked: Sequence[_Asked], means: Sequence[Mean]) -> list[_Decided]:
    """Compute decisions and mean distributions; questions of one shape are averaged together."""
    shapes: dict[tuple[Mean, int, int], list[int]] = {}
    for i, (mine, mean) in enumerate(zip(asked, means, strict=True)):
        known = [a.probabilities for a in mine.answers if a.probabilities is not None]
        if len(known) == len(mine.orders):
            shapes.setdefault((mean, len(known), len(known[0])), []).append(i)
        elif any(a.probabilities is None and a.status == "answered" for a in mine.answers):
            raise SettingsError(
                f"{model.name} gives no probabilities for {mine.question.id}, only a decision: take sampled decisions "
                "(decisions=sampled; of a method teacher=sampled)"
            )
    found: dict[int, Distribution] = {}
    for (mean, _, _), rows in shapes.items():
        by_option = np.array([[a.probabilities for a in asked[i].answers] for i in rows], dtype=np.float64)
        found.update(zip(rows, map(tuple, averaged(by_option, mean).tolist()), strict=True))
    return [(tuple([a.decision for a in mine.answers]), found.get(i)) for i, mine in enumerate(asked)]


def _counted(mine: _Asked, seed: int) -> _Decided:
    question, answers = mine.question, mine.answers
    rng = generator(seed, 1, f"{question.id}\n{question.draw}")
    uniforms = rng.random(len(answers))
    taken = [
        a.decision if a.probabilities is None else drawn(a.probabilities, u)
        for a, u in zip(answers, uniforms, strict=True)
    ]
    read = [d for d in taken if d is not None]
    counts = np.bincount(np.array(read, dtype=np.int64), minlength=len(question.options))
    return tuple(taken), tuple(float(c) / len(read) for c in counts) if read else None


def _masses(asked: Sequence[_Asked]) -> list[float | None]:
    """Compute the mean probability of any option letter by question; None if an order has none."""
    every = [[a.mass for a in mine.answers] for mine in asked]
    lengths: dict[int, list[int]] = {}
    for i, masses in enumerate(every):
        if None not in masses:
            lengths.setdefault(len(masses), []).append(i)
    found: dict[int, float] = {}
    for rows in lengths.values():
        known = np.array([every[i] for i in rows], dtype=np.float64)
        found.update(zip(rows, known.mean(axis=1).tolist(), strict=True))
    return [found.get(i) for i in range(len(asked))]


def _made(
    mine: _Asked,
    decisions: tuple[int | None, ...],
    p_deb: Distribution | None,
    mass: float | None,
    before: tuple[Message, ...],
) -> Debiased:
    answers = mine.answers
    never = next((a for a in answers if a.status == "unanswered"), None)
    lost = decisions.count(None)
    reasons = list(dict.fromkeys([a.note for a in answers if a.note]))
    if lost and not never:
        reasons.insert(0, f"{lost} of {len(answers)} orders could not be read")
    notes = [movable(mine.question).note, *([never.note or "an order was not answered"] if never else reasons)]
    return Debiased(
        None if never else p_deb,
        mine.orders,
        decisions,
        tuple([a.probabilities for a in answers]),
        Usage.total([a.usage for a in answers]),
        "unanswered" if never else "unparsed" if p_deb is None else "answered",
        "; ".join(filter(None, notes)),
        mass,
        before,
    )
