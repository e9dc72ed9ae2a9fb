"""The teacher of option-order debiasing: what a model says of a question when the order of its options is averaged out.

Source: Liusie, Fathullah, Gales 2024, "Teacher-Student Training for Debiasing: General Permutation Debiasing for Large
Language Models" (arXiv 2403.13590). White-box: the mean over orders of the option probabilities. Black-box: one sampled
decision in each of many random orders, counted by option. Ours: the geometric mean, and the cyclic orders with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from evenhand.core.draws import generator
from evenhand.errors import SettingsError
from evenhand.interfaces import Choice, Message, Model, Question, Sampling, Usage
from evenhand.prompting.multi_turn import prompt_of
from evenhand.prompting.option_orders import Kind, Mean, Order, by_position, debias, movable, orders_of
from evenhand.prompting.remarks import remark, unsampled

Decisions = Literal["probabilities", "sampled"]
WhichOrders = Literal["auto", "full", "cyclic", "sampled"]
WhichMean = Literal["auto", "arithmetic", "geometric"]
Distribution = tuple[float, ...]

FULL_UP_TO = 3
"""With so many movable options, all orders are few enough to be the default."""
REPLY = Sampling(max_new_tokens=64)
"""How a decision is sampled where neither question nor model says; the length is that of every written choice."""


@dataclass(frozen=True, slots=True)
class Debiased:
    """One question, asked in many orders."""

    probabilities: Distribution | None
    """P_deb over option identities; None where the question has no answer."""
    orders: tuple[Order, ...]
    """In which it was asked; `orders[n][j]` is the identity shown at position j."""
    decisions: tuple[int | None, ...]
    """Per order the chosen identity: the likeliest, or with sampled decisions the drawn one; None was unparsed."""
    distributions: tuple[Distribution | None, ...]
    """Per order the probabilities by identity; None where the model gave only a decision."""
    usage: Usage
    """Of all orders together."""
    status: Literal["answered", "unparsed", "unanswered"] = "answered"
    note: str = ""
    mass: float | None = None
    """Mean probability of any option letter, where every order has one."""
    before: tuple[Message, ...] = ()
    """For the record: the prompt in the first order, as it was really put, and a mark that says so."""

    @property
    def decision(self) -> int | None:
        """The likeliest option; ties go to the lowest identity."""
        return None if self.probabilities is None else int(np.argmax(self.probabilities))

    @property
    def choice(self) -> Choice:
        """The same as the answer to the question."""
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
    """Ask questions in many orders, all in one call of `model.choose`, and average the order out.

    Args:
        model: The teacher; it needs only `choose`.
        questions: Options that speak of positions keep their places, and the result's note says so.
        decisions: "probabilities" averages distributions; "sampled" counts sampled decisions, as of a black box: drawn
            from the distribution where the model gives one, else the decision of a reply written at temperature 1.
        orders: "full" is all, "cyclic" the rotations, "sampled" uniform draws. "auto" is sampled with sampled
            decisions, else full with up to three movable options and cyclic with more.
        mean: Of the distributions. "auto" is geometric over cyclic orders, where the arithmetic mean may favour
            another option, else arithmetic.
        draws: Number of orders where they are drawn.
        seed: Of orders and decisions, together with each question's id and options.

    Returns:
        One per question, in order. A question with an unanswered order is unanswered; draws that could not be parsed
        are left out and noted.

    Raises:
        SettingsError: Settings that contradict one another, too many orders, or a model that gives no probabilities.
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
    answers = iter(zip(asked, told, strict=True))
    out = []
    for question, plan in zip(questions, plans, strict=True):
        put, mine = zip(*(next(answers) for _ in plan), strict=True)
        if sampled:
            found = _counted(question, plan, mine, seed)
        else:
            kind = kind_of(question, decisions, orders)
            found = _averaged(model, question, plan, mine, mean_of(kind, mean))
        out.append(replace(found, before=_record(model, put[0], mine[0], len(plan))))
    return out


def check(*, decisions: Decisions, orders: WhichOrders, mean: WhichMean, draws: int) -> None:
    """Refuse settings that contradict one another.

    Raises:
        SettingsError: The message says which, and what to give.
    """
    if draws < 1:
        raise SettingsError(f"draws={draws} must be at least 1; on most sets 32 orders a question are enough")
    if decisions == "sampled" and orders in ("full", "cyclic"):
        raise SettingsError(f"sampled decisions are taken in drawn orders: leave orders={orders} out")
    if decisions == "sampled" and mean == "geometric":
        raise SettingsError("sampled decisions are counted, which has no geometric mean: leave mean=geometric out")


def kind_of(question: Question, decisions: Decisions, orders: WhichOrders) -> Kind:
    """Which orders "auto" stands for."""
    if orders != "auto":
        return orders
    if decisions == "sampled":
        return "sampled"
    return "full" if len(movable(question).places) <= FULL_UP_TO else "cyclic"


def mean_of(kind: Kind, mean: WhichMean) -> Mean:
    """Which mean "auto" stands for."""
    if mean != "auto":
        return mean
    return "geometric" if kind == "cyclic" else "arithmetic"


def sampled_question(question: Question, model: Model, seed: int, draw: int = 0) -> Question:
    """The question, so that a written answer is drawn from the model's own distribution.

    Everything else of its sampling is the question's own, else that of the nearest method around the model that draws
    its answers by a sampling of its own (`self_debias`, and `moral_self_correction` and `intent_self_correction` where
    they reason: their limit, no stop string), else the model's: other methods leave the limit and the stop strings that
    a model was loaded with as they are.
    """
    base = question.sampling or model.sampling or REPLY
    return replace(question, draw=draw, sampling=replace(base, temperature=1.0, top_p=1.0, seed=seed))


def drawn(probabilities: Sequence[float], uniform: float) -> int:
    """The outcome whose share of [0, 1) holds `uniform`; an outcome of probability 0 is never drawn."""
    edges = np.cumsum(np.asarray(probabilities, dtype=np.float64))
    place = int(np.searchsorted(edges, uniform * edges[-1], side="right"))
    return min(place, int(np.flatnonzero(np.asarray(probabilities))[-1]))


def _put(question: Question, order: Order, n: int, model: Model, draws: int, seed: int) -> Question:
    return sampled_question(question.reordered(order), model, seed, question.draw * draws + n)


def _unsampled(asked: Sequence[Question], answers: Sequence[Choice]) -> str:
    """Why decisions that were drawn by the model itself look as if they were not, or ""."""
    draws = [
        (
            (q.id, q.question, q.context, q.preamble, q.order),
            None if a.status == "unanswered" else (a.reply, a.decision),
        )
        for q, a in zip(asked, answers, strict=True)
        if a.probabilities is None
    ]
    return unsampled(draws, 1.0, "what is counted of sampled decisions")


def _record(model: Model, question: Question, answer: Choice, orders: int) -> tuple[Message, ...]:
    """The first of the prompts, and that it is the first of so many."""
    shown = answer.before or prompt_of(model, question).messages
    if orders < 2:
        return shown
    return (*shown, Message("system", f"[the first of {orders} orders that were asked; not shown to the model]"))


def _averaged(
    model: Model, question: Question, orders: Sequence[Order], answers: Sequence[Choice], mean: Mean
) -> Debiased:
    shown = [a.probabilities for a in answers]
    if any(p is None and a.status == "answered" for p, a in zip(shown, answers, strict=True)):
        raise SettingsError(
            f"{model.name} gives no probabilities for {question.id}, only a decision: take sampled decisions "
            "(decisions=sampled; of a method teacher=sampled)"
        )
    known = [by_position(p, order) for p, order in zip(shown, orders, strict=True) if p is not None]
    whole = len(known) == len(orders)
    p_deb = tuple(map(float, debias(np.array(known), orders, mean))) if whole else None
    return _made(question, orders, answers, [a.decision for a in answers], p_deb)


def _counted(question: Question, orders: Sequence[Order], answers: Sequence[Choice], seed: int) -> Debiased:
    rng = generator(seed, 1, f"{question.id}\n{question.draw}")
    uniforms = rng.random(len(answers))
    taken = [
        a.decision if a.probabilities is None else drawn(a.probabilities, u)
        for a, u in zip(answers, uniforms, strict=True)
    ]
    read = [d for d in taken if d is not None]
    counts = np.bincount(np.array(read, dtype=np.int64), minlength=len(question.options))
    p_deb = tuple(float(c) / len(read) for c in counts) if read else None
    return _made(question, orders, answers, taken, p_deb)


def _made(
    question: Question,
    orders: Sequence[Order],
    answers: Sequence[Choice],
    decisions: Sequence[int | None],
    p_deb: Distribution | None,
) -> Debiased:
    never = next((a for a in answers if a.status == "unanswered"), None)
    lost = sum(d is None for d in decisions)
    reasons = list(dict.fromkeys(a.note for a in answers if a.note))
    if lost and not never:
        reasons.insert(0, f"{lost} of {len(answers)} orders could not be read")
    notes = [movable(question).note, *([never.note or "an order was not answered"] if never else reasons)]
    masses = [a.mass for a in answers if a.mass is not None]
    return Debiased(
        None if never else p_deb,
        tuple(orders),
        tuple(decisions),
        tuple(a.probabilities for a in answers),
        sum((a.usage for a in answers), Usage()),
        "unanswered" if never else "unparsed" if p_deb is None else "answered",
        "; ".join(note for note in notes if note),
        float(np.mean(masses)) if len(masses) == len(answers) else None,
    )
