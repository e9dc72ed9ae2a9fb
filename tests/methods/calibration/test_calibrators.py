"""Every calibrator on models whose preferences are known, and what must pass through untouched."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from evenhand.core.registry import build_method
from evenhand.errors import SettingsError
from evenhand.evaluation.label_bias import LabelBias
from evenhand.evaluation.mmlu import MMLU
from evenhand.interfaces import Choice, Dialogue, Model, Question, Shot, TrainData, Usage
from evenhand.methods.calibration._calibrator import (
    NO_POSITIONS,
    NO_PROBABILITIES,
    READY,
    Calibrator,
    Learned,
    answer_by_of,
)
from evenhand.methods.calibration._prior_fitting import calibrated, item_prior
from evenhand.methods.calibration.batch_calibration import BatchCalibration
from evenhand.methods.calibration.contextual_calibration import ContextualCalibration
from evenhand.methods.calibration.domain_calibration import DomainCalibration
from evenhand.methods.calibration.looc import LeaveOneOutCalibration
from evenhand.methods.calibration.pride import PriDe
from evenhand.methods.calibration.prior_matching import PriorMatching
from evenhand.models import Mitigated, load
from evenhand.prompting.option_orders import debias
from evenhand.prompting.rendering import RawText, as_dialogue
from evenhand.testing import ScriptedModel, check_method, tiny_model

ALL: tuple[Calibrator, ...] = (
    PriDe(),
    PriorMatching(),
    ContextualCalibration(),
    DomainCalibration(),
    BatchCalibration(),
    LeaveOneOutCalibration(),
)
FITTED: tuple[Calibrator, ...] = (PriDe(), PriorMatching(), BatchCalibration())
"""Those whose priors come from training data."""
TEXTS = (ContextualCalibration(), DomainCalibration(), LeaveOneOutCalibration())
Taste = Callable[[Question], Sequence[float]]


def name(method: Calibrator) -> str:
    return method.name


class Factor(ScriptedModel):
    """P(option) ~ prior of its class * how well the option's own text fits: what all calibrators assume."""

    def __init__(self, priors: Sequence[float] | dict[str, float], fits: dict[str, float] | None = None) -> None:
        """By position where a sequence, by label where a dict; unknown option texts fit alike."""
        super().__init__()
        self.priors, self.fits = priors, fits or {}

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.questions += questions
        return [self._one(q) for q in questions]

    def _one(self, q: Question) -> Choice:
        if isinstance(self.priors, dict):
            prior = np.array([self.priors[o] for o in q.options])
            fit = np.array([self.fits.get(f"{q.question}/{o}", 1.0) for o in q.options])
        else:
            prior = np.array([self.priors[q.order.index(o)] for o in range(len(q.options))])
            fit = np.array([self.fits.get(o, 1.0) for o in q.options])
        p = prior * fit / (prior * fit).sum()
        return Choice(int(p.argmax()), tuple(p.tolist()), mass=0.5, usage=Usage(1, 7))


PRIOR = {k: np.geomspace(1, 4, k)[::-1] / np.geomspace(1, 4, k).sum() for k in range(2, 11)}


def lettered(count: int, options: int, spread: float = 1.0, seed: int = 0) -> tuple[list[Question], dict[str, float]]:
    """Questions in all rotations of their options, so that what fits is spread evenly over the positions."""
    rng = np.random.default_rng(seed)
    fits: dict[str, float] = {}
    asked = []
    for i in range(count):
        texts = tuple(" ".join(f"{w}{i}{w}{j}" for w in "fghi") for j in range(options))  # no mixture of them fits
        fits |= dict(zip(texts, np.exp(spread * rng.normal(size=options)).tolist(), strict=True))
        turns = [tuple((j + turn) % options for j in range(options)) for turn in range(options)]
        asked += [Question(f"q{i}/{t}", "Which?", texts, shown=turn) for t, turn in enumerate(turns)]
    return asked, fits


def demos(labels: Sequence[int], options: Sequence[str] = ("a", "b", "c"), **more: Any) -> tuple[Shot, ...]:
    return tuple(
        Shot(f"t{i} {options[y]}\n", Question(f"s{i}", f"t{i}", tuple(options), **more), y)
        for i, y in enumerate(labels)
    )


def reviews(count: int, labels: Sequence[int] = (0, 1, 2), **more: Any) -> list[Question]:
    shots = demos(labels, answer_by="text", template="bare")
    given: dict[str, Any] = {"answer_by": "text", "template": "bare", "header": "Say it.\n", "shots": shots, **more}
    return [Question(f"r{i}", f"t{10 + i}", ("a", "b", "c"), **given) for i in range(count)]


def odds(p: Sequence[float] | np.ndarray) -> list[float]:
    values = np.asarray(p, dtype=np.float64)
    return (values / values.sum()).tolist()


# --------------------------------------------------------------------------------- planted preferences come out


@pytest.mark.parametrize("options", range(2, 11))
@pytest.mark.parametrize("method", [PriDe(), PriorMatching(), ContextualCalibration(), DomainCalibration()], ids=name)
def test_a_planted_letter_preference_is_found_and_divided_away(method: Calibrator, options: int) -> None:
    asked, fits = lettered(12, options)
    model = Factor(PRIOR[options], fits)
    ((about, found),) = method.priors(model, asked)
    assert about.labels is None and found.prior == pytest.approx(odds(PRIOR[options]), abs=1e-9)
    direct_answers = len(found.direct_answers)
    answers = method.apply(model).choose(asked)
    exact = 0
    for q, c in zip(asked, answers, strict=True):
        fit = odds([fits[o] for o in q.options])
        assert sum(c.probabilities or ()) == pytest.approx(1) and c.mass == 0.5 and c.status == "answered"
        exact += c.probabilities == pytest.approx(tuple(fit), abs=1e-9) and c.decision == int(np.argmax(fit))
    assert exact >= len(asked) - direct_answers, "all but those that PriDe answers by a mean over orders"
    assert direct_answers == (max(5, len(asked) // 20) if isinstance(method, PriDe) else 0)


@pytest.mark.parametrize("options", [2, 4, 10])
def test_a_mean_answer_understates_the_preference_where_contents_decide(options: int) -> None:
    gaps = []
    for spread in (0.05, 0.5, 2.0):
        asked, fits = lettered(40, options, spread)
        ((_, found),) = BatchCalibration().priors(Factor(PRIOR[options], fits), asked)
        assert found.prior is not None and np.all(np.diff(found.prior) < 0), "the order of the letters is right"
        gaps.append(float(np.abs(found.prior - odds(PRIOR[options])).max()))
    assert gaps[0] < 0.002 and gaps[0] < gaps[1] < gaps[2]


def test_looc_finds_a_letter_preference_in_the_demonstrations() -> None:
    shots = tuple(
        Shot(f"s{i}\n", Question(f"s{i}", "Which?", tuple(f"d{i}x{j}" for j in range(4)), shown=(3, 1, 0, 2)), right)
        for i, right in enumerate((0, 1, 2, 3, 1, 1))
    )
    fits = {f"d{i}x{s.answer}": 1.1 for i, s in enumerate(shots)}
    asked = [replace(q, shots=shots) for q in lettered(3, 4)[0]]
    ((_, found),) = LeaveOneOutCalibration().priors(Factor(PRIOR[4], fits), asked)
    assert found.prior == pytest.approx(odds(PRIOR[4]), abs=0.005) and found.note == ""
    ((_, uneven),) = LeaveOneOutCalibration(fallback="none").priors(
        Factor(PRIOR[4], fits), [replace(q, shots=shots[:3]) for q in asked]
    )
    assert "no demonstration is answered A" in uneven.note, "identity 3 is shown first"


@pytest.mark.parametrize(
    "method", [*ALL[1:], BatchCalibration(per_preamble=True), PriorMatching(per_preamble=True)], ids=name
)
def test_a_planted_label_preference_is_found(method: Calibrator) -> None:
    planted = {"a": 0.5, "b": 0.3, "c": 0.2}
    asked = reviews(12)
    fits = {f"t{10 + i}/{'abc'[i % 3]}": 1.05 for i in range(12)}
    ((about, found),) = method.priors(Factor(planted, fits), asked)
    assert about.labels == ("a", "b", "c") and found.prior == pytest.approx([0.5, 0.3, 0.2], abs=0.005)
    answers = method.apply(Factor(planted, fits)).choose(asked)
    assert [c.decision for c in answers] == [i % 3 for i in range(12)], "before, all were answered a"


@pytest.mark.parametrize("method", ALL, ids=name)
def test_without_a_preference_nothing_changes(method: Calibrator) -> None:
    asked, fits = lettered(12, 3)
    asked = [replace(q, shots=demos((0, 1, 2))) for q in asked]
    before = Factor([1, 1, 1], fits).choose(asked)
    after = method.apply(Factor([1, 1, 1], fits)).choose(asked)
    for one, other in zip(before, after, strict=True):
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-9) and one.decision == other.decision


def test_batch_means_weigh_all_answers_of_a_group_and_no_others() -> None:
    """Two groups of unequal size, 30 of three options and 20 of two; each is divided by its own mean."""
    three, fits3 = lettered(10, 3)
    two, fits2 = lettered(10, 2, seed=1)
    fits2 = {f"y{k}": v for k, v in fits2.items()}
    two = [replace(q, id=f"y{q.id}", options=tuple(f"y{o}" for o in q.options)) for q in two]
    mixed = [q for pair in zip(three, two, strict=False) for q in pair] + three[20:]

    class ByCount(Factor):
        def _one(self, q: Question) -> Choice:
            self.priors = PRIOR[len(q.options)]
            return super()._one(q)

    found = {a.options: e.prior for a, e in BatchCalibration().priors(ByCount([], fits3 | fits2), mixed)}
    for asked, fits, k in ((three, fits3, 3), (two, fits2, 2)):
        rows = [Factor(PRIOR[k], fits)._one(q).probabilities for q in asked]
        mean = np.mean([[p[o] for o in q.order] for q, p in zip(asked, rows, strict=True) if p], axis=0)
        assert found[k] == pytest.approx(mean)
    answers = BatchCalibration().apply(ByCount([], fits3 | fits2)).choose(mixed)
    for q, c in zip(mixed, answers, strict=True):
        assert len(c.probabilities or ()) == len(q.options) and sum(c.probabilities or ()) == pytest.approx(1)


# ---------------------------------------------------------------------------------------- orders and identities


@pytest.mark.parametrize("method", ALL[1:], ids=name)
def test_labels_are_told_apart_by_text_and_not_by_order(method: Calibrator) -> None:
    """Half the questions declare and show their labels in other orders: one prior, and the same answers by text."""
    planted, asked = {"a": 0.5, "b": 0.3, "c": 0.2}, reviews(12)
    turned = [
        replace(q, options=("c", "a", "b"), shown=(2, 0, 1)) if i % 2 else replace(q, shown=(2, 1, 0))
        for i, q in enumerate(asked)
    ]
    fits = {f"t{10 + i}/{'abc'[i % 3]}": 1.5 for i in range(12)}
    assert len(method.priors(Factor(planted, fits), turned)) == 1
    plain, other = (method.apply(Factor(planted, fits)).choose(qs) for qs in (asked, turned))
    for q, t, one, two in zip(asked, turned, plain, other, strict=True):
        assert one.probabilities and two.probabilities and one.decision is not None and two.decision is not None
        by_text = dict(zip(t.options, two.probabilities, strict=True))
        assert [by_text[o] for o in q.options] == pytest.approx(one.probabilities)
        assert q.options[one.decision] == t.options[two.decision]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_ties_go_to_the_lowest_identity_in_every_order(order: tuple[int, ...]) -> None:
    asked = [Question(f"q{i}", "Which?", ("x", "y", "z"), shown=order) for i in range(3)]
    for method in (ContextualCalibration(), DomainCalibration(), PriDe()):
        assert [c.decision for c in method.apply(Factor(PRIOR[3])).choose(asked)] == [0, 0, 0]


def test_what_is_known_of_one_number_of_options_or_way_of_answering_says_nothing_of_another() -> None:
    asked = [
        Question("1", "?", ("a", "b")),
        Question("2", "?", ("a", "b", "c")),
        Question("3", "?", ("a", "b"), answer_by="text"),
        Question("4", "?", ("b", "a"), answer_by="text"),
        Question("5", "?", ("a", "b"), answer_by="text_per_token"),
        Question("6", "?", ("c", "d"), answer_by="letters"),
        Question("7", "?", ("b", "a"), answer_by="text_with_end"),
    ]
    groups, refused = BatchCalibration()._grouped(ScriptedModel(), asked)
    assert [list(g.rows) for g in groups] == [[0, 5], [1], [2, 3], [4], [6]] and refused == {}
    assert groups[-1].about.labels == ("a", "b"), "classes are labels, not positions"
    heads = [replace(asked[0], header=h) for h in "ABA"]
    assert [list(g.rows) for g in BatchCalibration(per_preamble=True)._grouped(ScriptedModel(), heads)[0]] == [
        [0, 2],
        [1],
    ]
    assert [list(g.rows) for g in ContextualCalibration()._grouped(ScriptedModel(), heads)[0]] == [[0, 2], [1]]


def test_the_models_own_way_of_answering_counts_below_other_methods_too() -> None:
    model = tiny_model(answer_by="text")
    assert answer_by_of(model) == "text" == answer_by_of(Mitigated(model, PriDe())) != answer_by_of(ScriptedModel())
    notes = {c.note for c in PriDe().apply(Mitigated(model, PriorMatching())).choose(reviews(3, answer_by=None))}
    assert notes == {NO_POSITIONS}


# ------------------------------------------------------------------------------------------------ each method


def test_pride_asks_all_orders_in_one_call_and_costs_what_it_says() -> None:
    calls: list[int] = []

    class Counting(Factor):
        def choose(self, questions: Sequence[Question]) -> list[Choice]:
            calls.append(len(questions))
            return super().choose(questions)

    asked, fits = lettered(50, 4)
    model = Counting(PRIOR[4], fits)
    answers = PriDe(estimation_fraction=0.1).apply(model).choose(asked)
    assert calls == [200 + 20 * 3], "1 + alpha (K - 1) passes"
    assert sum(c.usage.calls for c in answers) == 260 and answers[0].usage == Usage(61, 61 * 7)
    again = {(q.id, q.order) for q in model.questions[200:]}
    assert len(again) == 60 and all(q.order != asked[0].options for q in model.questions)
    shown = {q.id: q.order for q in asked}
    for drawn in {i for i, _ in again}:
        assert len({o for i, o in again if i == drawn} | {shown[drawn]}) == 4, "every rotation once"


def test_pride_answers_the_drawn_by_their_mean_and_draws_by_id() -> None:
    asked, fits = lettered(10, 3, spread=2.0)
    model = Factor(PRIOR[3], fits)
    ((_, found),) = PriDe(min_questions=4).priors(model, asked)
    answers = PriDe(min_questions=4).apply(model).choose(asked)
    assert len(found.direct_answers) == 4
    turns = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    for i, p in found.direct_answers.items():
        rows = [[model._one(replace(asked[i], shown=t)).probabilities[o] for o in t] for t in turns]  # type: ignore[index]
        assert p == pytest.approx(debias(np.array(rows), turns, "arithmetic"))
        assert answers[i].probabilities == pytest.approx(tuple(p))
    turned = list(reversed(asked))
    assert {turned[i].id for i in PriDe(min_questions=4).priors(model, turned)[0][1].direct_answers} == {
        asked[i].id for i in found.direct_answers
    }
    assert set(PriDe(min_questions=4, seed=1).priors(model, asked)[0][1].direct_answers) != set(found.direct_answers)
    exact = PriDe(min_questions=1000, mean="geometric").apply(model).choose(asked)
    for q, c in zip(asked, exact, strict=True):
        assert c.probabilities == pytest.approx(odds([fits[o] for o in q.options]))


def released_pride(observed: list[np.ndarray], drawn: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """chujiezheng/LLM-MCQ-Bias by its arithmetic: debias_utils.py `simple` and the loop of debias_pride.py.

    Per question [K orders, K positions], cyclic; 1e-10 is added to every probability, prior and sum that a logarithm or
    a division meets. Returns the prior and every question's decision, by identity.
    """
    tiny, priors, decisions = 1e-10, [], {}
    for i in drawn:
        rows = observed[i] / (observed[i].sum(axis=1, keepdims=True) + tiny)
        k = rows.shape[1]
        by_identity = [[rows[turn, (identity - turn) % k] for turn in range(k)] for identity in range(k)]
        decisions[i] = int(np.argmax(np.mean(by_identity, axis=1)))
        logits = np.log(rows + tiny).mean(axis=0)
        powers = np.exp(logits - logits.max())
        priors.append(powers / (powers.sum() + tiny))
    prior = np.mean(priors, axis=0)
    for i, rows in enumerate(observed):
        decisions.setdefault(i, int(np.argmax(np.log(rows[0] + tiny) - np.log(prior + tiny))))
    return prior, [decisions[i] for i in range(len(observed))]


@pytest.mark.parametrize("preset", ["paper", "released"])
@pytest.mark.parametrize("spread", [1.0, 8.0, 30.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_pride_as_released_where_letters_are_all_but_impossible(preset: str, spread: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = {f"q{i}": softmax(rng.normal(size=(4, 4)) * spread - np.arange(4) * spread, axis=1) for i in range(60)}

    class Table(ScriptedModel):
        def choose(self, questions: Sequence[Question]) -> list[Choice]:
            out = []
            for q in questions:
                at_position = table[q.id][q.order[0]]  # of a cyclic order, its first identity tells which it is
                p = [at_position[q.order.index(o)] for o in range(4)]
                out.append(Choice(int(np.argmax(p)), tuple(p)))
            return out

    asked = [Question(f"q{i}", f"{i}?", ("a", "b", "c", "d")) for i in range(60)]
    method = PriDe.build(preset=preset)
    ((_, found),) = method.priors(Table(), asked)
    answers = method.apply(Table()).choose(asked)
    prior, decisions = released_pride([table[q.id] for q in asked], sorted(found.direct_answers))
    assert found.prior == pytest.approx(prior, rel=1e-9, abs=1e-18)
    assert [c.decision for c in answers] == decisions
    assert len(found.direct_answers) == 3


def test_pride_adds_nothing_by_default_and_says_what_the_code_adds() -> None:
    assert PriDe().added == 0.0
    assert [PriDe.build(preset=p).added for p in ("paper", "released")] == [1e-10, 1e-10]
    assert item_prior(np.array([[1.0, 0.0]]), 1e-10) == pytest.approx([1.0, 1e-10], rel=1e-6)
    assert calibrated(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1e-10) == pytest.approx([0.5, 0.5])
    data = TrainData(questions=tuple(lettered(8, 4)[0]))
    sure = Factor([1.0, 1e-14, 1e-14, 1e-14])
    learned = PriDe.build(preset="paper").apply(sure, data).choose(data.questions[:1])
    assert learned[0].probabilities == pytest.approx(
        tuple(calibrated(np.array(sure._one(data.questions[0]).probabilities), found_prior(sure, data), 1e-10))
    ), "what was learned before is divided away alike"


def found_prior(model: Model, data: TrainData) -> np.ndarray:
    ((_, found),) = PriDe.build(preset="paper").priors(model, data.questions)
    assert found.prior is not None
    return found.prior


def test_pride_does_not_draw_what_cannot_be_moved_and_refuses_ready_conversations() -> None:
    asked, fits = lettered(4, 3)
    stuck = [replace(q, id=f"s{i}", options=(*q.options[:2], "all of the above")) for i, q in enumerate(asked)]
    model = Factor(PRIOR[3], fits)
    ((_, found),) = PriDe(estimation_fraction=1.0).priors(model, [*stuck, *asked])
    assert set(found.direct_answers) == set(range(12, 24)) and found.prior == pytest.approx(odds(PRIOR[3]))
    alone = PriDe().apply(model).choose(stuck)
    assert {"speak of positions" in c.note for c in alone} == {True}
    assert [c.probabilities for c in alone] == [model._one(q).probabilities for q in stuck]
    asked_before = len(model.questions)
    with pytest.raises(SettingsError, match="Put the method that re-orders after"):
        PriDe().apply(model).choose([*asked, replace(asked[0], dialogue=Dialogue(()).user("Which?"))])
    assert len(model.questions) == asked_before


def test_contextual_calibration_asks_three_texts_behind_each_prompt_and_no_content() -> None:
    model = Factor(PRIOR[3])
    shots = demos((0, 1, 2))
    asked = [replace(q, header="One. " if i % 3 else "Two. ", shots=shots) for i, q in enumerate(lettered(4, 3)[0])]
    answers = ContextualCalibration().apply(model).choose(asked)
    extra = model.questions[len(asked) :]
    assert [(q.header, q.question, q.options) for q in extra] == [
        (h, t, (t,) * 3) for h in ("Two. ", "One. ") for t in ("N/A", "", "[MASK]")
    ]
    assert all(q.shots == shots and q.context == "" and q.shown is None for q in extra)
    assert [c.usage.calls for c in answers[:3]] == [4, 4, 1] and sum(c.usage.calls for c in answers) == len(asked) + 6
    assert ContextualCalibration(texts=("?",)).apply(model).choose(asked[:1])[0].usage.calls == 2
    with pytest.raises(SettingsError, match="set at least one"):
        ContextualCalibration(texts=())


def test_contextual_calibration_keeps_labels_and_the_form() -> None:
    model = Factor({"a": 1, "b": 1})
    asked = [
        Question(f"q{i}", f"Input: x{i}.\n\nOutput:", ("b", "a"), template="bare", answer_by="text") for i in (1, 2)
    ]
    ContextualCalibration().apply(model).choose(asked)
    assert [(q.question, q.options) for q in model.questions[2:]] == [
        (f"Input: {t}\n\nOutput:", ("a", "b")) for t in ("N/A", "", "[MASK]")
    ]


@pytest.mark.parametrize("by_question", [True, False], ids=["question", "model"])
@pytest.mark.parametrize("method", TEXTS, ids=name)
def test_a_prior_is_asked_for_in_the_papers_reading_where_answers_are(method: Calibrator, by_question: bool) -> None:
    """Whether the question or the model says so: log-likelihoods with the end token on both sides of the quotient."""
    model = Factor({"a": 0.5, "b": 0.3, "c": 0.2})
    way: dict[str, Any] = {"answer_by": "text_with_end" if by_question else None, "template": "input_output"}
    if not by_question:
        model.answer_by = "text_with_end"
    method.apply(model).choose(reviews(12, shots=demos((0, 1, 2, 0), **way), **way))
    extra = model.questions[12:]
    assert extra and {q.answer_by for q in extra} == {"text_with_end"}
    shown = [as_dialogue(q, "text_with_end").messages[0].content for q in extra]
    assert all(isinstance(as_dialogue(q, "text_with_end"), RawText) for q in extra)
    fillings = {"contextual_calibration": ("N/A.", ".", "[MASK]"), "looc": ("t0.", "t1.", "t2.", "t3.")}
    for text, filling in zip(shown, fillings.get(method.name, ()), strict=method.name in fillings):
        assert text.startswith("Say it.\n") and text.endswith(f"\nInput: {filling}\n\nOutput:"), "the authors' form"


def test_domain_calibration_draws_from_its_own_domain_or_from_training_data() -> None:
    model = Factor(PRIOR[2])
    asked = [
        Question("1", "red green", ("blue", "grey"), header="H"),
        Question("2", "one two", ("six", "ten"), header="G"),
    ]
    DomainCalibration(samples=5).apply(model).choose(asked)
    first, second = model.questions[2:7], model.questions[7:]
    assert len(second) == 5 and {w for q in first for w in q.question.split()} == {"red", "green"}
    assert {o for q in second for o in q.options} <= {"six", "ten"} and {q.header for q in second} == {"G"}
    data = TrainData((Question("3", "hot cold warm", ("mild", "cool")),), (None,), ("wet dry",))
    model.questions.clear()
    DomainCalibration(samples=5).apply(model, data).choose(asked)
    words = {w for q in model.questions[2:] for w in q.question.split()}
    assert words <= {"hot", "cold", "warm", "wet", "dry"} and words & {"wet", "dry"}


def test_looc_prompts_hold_the_others_in_their_order() -> None:
    planted = {"a": 0.5, "b": 0.3, "c": 0.2}
    model, asked = Factor(planted), reviews(12, labels=(0, 2, 1, 1))
    answers = LeaveOneOutCalibration().apply(model).choose(asked)
    shots = asked[0].shots
    assert [(q.question, q.header, q.shots) for q in model.questions[12:]] == [
        (f"t{i}", "Say it.\n", shots[:i] + shots[i + 1 :]) for i in range(4)
    ]
    assert answers[0].usage.calls == 5 and {c.usage.calls for c in answers[1:]} == {1}


def test_looc_by_hand_and_whatever_the_order_of_the_demonstrations() -> None:
    """Classes weigh alike: three demonstrations of a answer (.9, .05, .05), (.6, .2, .2) twice; one of b and c each."""
    planted = {"a": 1.0, "b": 1.0, "c": 1.0}
    fits = {"t0/a": 18.0, "t1/a": 3.0, "t2/a": 3.0, "t3/b": 2.0}
    shots = reviews(1, labels=(0, 0, 0, 1, 2))[0].shots
    wanted = np.mean([[0.7, 0.15, 0.15], [0.25, 0.5, 0.25], [1 / 3] * 3], axis=0)
    for order in list(permutations(range(5)))[::7]:
        asked = reviews(4, shots=tuple(shots[i] for i in order))
        ((_, found),) = LeaveOneOutCalibration().priors(Factor(planted, fits), asked)
        assert found.prior == pytest.approx(wanted, abs=1e-12)


class Mocking(Factor):
    """Says what the demonstrations say: a label without one is next to impossible, the sixteenth of the others."""

    def _one(self, q: Question) -> Choice:
        seen = {s.question.options[s.answer] for s in q.shots}
        p = np.array([(1.0 if o in seen or not seen else 1 / 16) for o in q.options])
        p = p * np.array([self.fits.get(f"{q.question}/{o}", 1.0) for o in q.options])
        p = p / p.sum()
        return Choice(int(p.argmax()), tuple(p.tolist()))


def test_looc_does_not_boost_a_label_without_demonstration() -> None:
    """(.6, .3, .1) would become (.24, .12, .64), the label that nothing speaks for."""
    asked = reviews(12, labels=(0, 0, 1, 1))
    model = Mocking({}, {"t10/a": 6, "t10/b": 3, "t10/c": 16})
    assert model._one(asked[0]).probabilities == pytest.approx((0.6, 0.3, 0.1))
    trapped = LeaveOneOutCalibration(fallback="none").apply(model).choose(asked)[0]
    assert trapped.probabilities == pytest.approx((0.24, 0.12, 0.64)) and trapped.decision == 2
    assert trapped.note == "looc: no demonstration is answered c, which favours it"
    milder = LeaveOneOutCalibration(fallback="none", smoothing=0.5).apply(model).choose(asked)[0]
    assert milder.decision == 0
    for fallback, same in (("dc", DomainCalibration()), ("cc", ContextualCalibration())):
        looc = LeaveOneOutCalibration(fallback=fallback)  # type: ignore[arg-type]
        got, wanted = (m.apply(model).choose(asked)[0] for m in (looc, same))
        assert got.probabilities == wanted.probabilities and "no demonstration is answered c" in got.note
        assert f"{same.name}'s prior instead" in got.note and wanted.note == ""


def test_looc_without_demonstrations() -> None:
    model, bare = Factor({"a": 0.5, "b": 0.3, "c": 0.2}), reviews(12, shots=())
    none = LeaveOneOutCalibration(fallback="none").apply(model).choose(bare)
    assert none[0].note == "not calibrated: there are no demonstrations with these options"
    assert none[0].probabilities == model._one(bare[0]).probabilities
    other = LeaveOneOutCalibration().apply(model).choose(bare)
    assert other[0].probabilities == pytest.approx((1 / 3,) * 3) and "domain_calibration's prior" in other[0].note
    foreign = reviews(3, shots=demos((0, 1), ("yes", "no"), answer_by="text"))
    assert "no demonstrations with these options" in LeaveOneOutCalibration().apply(model).choose(foreign)[0].note


def test_a_target_is_met_or_told() -> None:
    asked, fits = lettered(20, 3)
    answers = PriorMatching(target=(3, 2, 1)).apply(Factor(PRIOR[3], fits)).choose(asked)
    by_place = np.array([[c.probabilities[o] for o in q.order] for q, c in zip(asked, answers, strict=True)])  # type: ignore[index]
    assert by_place.mean(axis=0) == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=1e-9)
    again = PriorMatching(target=(3, 2, 1)).priors(_Fixed(answers), asked)[0][1]
    assert again.prior == pytest.approx([1 / 3] * 3), "a second match finds nothing to do"
    other = PriorMatching(target=(3, 1)).apply(Factor(PRIOR[3], fits)).choose(asked)
    assert {c.note for c in other} == {"not calibrated: the target has 2 classes, the question 3"}
    for target in ((1.0,), (1.0, 0.0), (1.0, float("inf"))):
        with pytest.raises(SettingsError, match="positive numbers"):
            PriorMatching(target=target)


def test_weights_of_each_context_even_out_each_context() -> None:
    """A model that prefers the first position in one passage and the last in another: pooled, the two cancel."""
    asked, fits = lettered(10, 3)
    asked = [replace(q, context=f"Passage {n % 2}.") for n, q in enumerate(asked)]
    passages = [[q for q in asked if q.context == f"Passage {n}."] for n in range(2)]
    one, other = Factor(PRIOR[3], fits), Factor(PRIOR[3][::-1], fits)
    answers = [(one if q in passages[0] else other)._one(q) for q in asked]
    for per_context, even in ((True, True), (False, False)):
        made = PriorMatching(per_context=per_context).apply(_Fixed(answers)).choose(asked)
        for some in passages:
            mine = [[c.probabilities[o] for o in q.order] for q, c in zip(asked, made, strict=True) if q in some]  # type: ignore[index]
            assert (np.mean(mine, axis=0) == pytest.approx([1 / 3] * 3, abs=1e-9)) is even
    few = PriorMatching(per_context=True, min_answers=20).apply(_Fixed(answers)).choose(asked)
    assert [c.probabilities for c in few] == [c.probabilities for c in answers]
    assert "per_context" not in PriorMatching().key_settings()


class _Fixed(ScriptedModel):
    def __init__(self, answers: Sequence[Choice]) -> None:
        super().__init__()
        self.answers = answers

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        assert len(questions) == len(self.answers)
        return list(self.answers)


# ------------------------------------------------------------------------------------------- passing through


@pytest.mark.parametrize("method", ALL, ids=name)
def test_answers_without_probabilities_pass_through_with_a_note(method: Calibrator) -> None:
    asked = [replace(q, shots=demos((0, 1, 2))) for q in lettered(5, 3)[0]]
    decisions = {q.id: (None if q.id.endswith("/0") else 1) for q in asked}
    model = ScriptedModel(decide=lambda q: decisions.get(q.id, 2))
    answers = method.apply(model).choose(asked)
    plain = [c for c in model.choose(asked)]
    for one, other in zip(plain, answers, strict=True):
        assert NO_PROBABILITIES in other.note
        assert replace(other, note="", usage=one.usage) == one


@pytest.mark.parametrize("method", ALL, ids=name)
def test_lost_answers_stay_lost_and_do_not_count(method: Calibrator) -> None:
    """Of 36 answers one never came and one has a decision only: the others are calibrated without them."""
    asked, fits = lettered(12, 3)
    asked = [replace(q, shots=demos((0, 1, 2))) for q in asked]
    lost = {asked[3].id: Choice(None, status="unanswered", note="down"), asked[4].id: Choice(1, reply="B", mass=0.1)}

    class Losing(Factor):
        def _one(self, q: Question) -> Choice:
            return lost.get(q.id) or super()._one(q)

    answers = method.apply(Losing(PRIOR[3], fits)).choose(asked)
    assert answers[3] == replace(lost[asked[3].id], note=f"down; {NO_PROBABILITIES}")
    assert answers[4] == replace(lost[asked[4].id], note=NO_PROBABILITIES)
    rest = [c for i, c in enumerate(answers) if i not in (3, 4)]
    assert all(c.probabilities and sum(c.probabilities) == pytest.approx(1) and c.note == "" for c in rest)
    assert any(
        c.probabilities != Factor(PRIOR[3], fits)._one(q).probabilities for q, c in zip(asked, answers, strict=True)
    )


@pytest.mark.parametrize("method", [PriorMatching(), BatchCalibration()], ids=name)
def test_groups_that_are_too_small_stay_as_they_are(method: Calibrator) -> None:
    """A single item's mean is itself: dividing by it would leave nothing."""
    asked, fits = lettered(3, 3)
    model = Factor(PRIOR[3], fits)
    before = model.choose(asked)
    after = method.apply(model).choose(asked)
    note = "not calibrated: 9 answers share this prior, 10 are needed"
    assert after == [replace(c, note=note) for c in before]
    assert method.apply(model).choose(asked[:1])[0].probabilities == before[0].probabilities
    assert {c.note for c in type(method)(min_answers=9).apply(model).choose(asked)} == {""}
    with pytest.raises(ValueError, match="min_answers"):
        type(method)(min_answers=1)


@pytest.mark.parametrize("method", TEXTS, ids=name)
def test_ready_conversations_have_no_content_to_replace(method: Calibrator) -> None:
    asked = replace(lettered(1, 3)[0][0], dialogue=Dialogue(()).user("Which?"))
    model = Factor(PRIOR[3])
    assert method.apply(model).choose([asked]) == [replace(model._one(asked), note=READY)] and len(model.questions) == 1


@pytest.mark.parametrize("method", ALL, ids=name)
def test_an_empty_list(method: Calibrator) -> None:
    assert method.apply(Factor(PRIOR[3])).choose([]) == [] and method.priors(Factor(PRIOR[3]), []) == []


def test_pride_leaves_scored_texts_alone() -> None:
    model, asked = Factor({"a": 0.5, "b": 0.3, "c": 0.2}), reviews(8)
    assert PriDe().apply(model).choose(asked) == [replace(model._one(q), note=NO_POSITIONS) for q in asked]


# --------------------------------------------------------------------------------------------- training data


@pytest.mark.parametrize("method", FITTED, ids=name)
def test_priors_of_training_data_are_found_once_and_serve_single_questions(method: Calibrator) -> None:
    train, fits = lettered(12, 4)
    more, other = lettered(1, 4, seed=5)
    more = [replace(q, id=f"m{q.id}", options=tuple(f"m{o}" for o in q.options)) for q in more]
    model = Factor(PRIOR[4], fits | {f"m{k}": v for k, v in other.items()})
    mitigated = method.apply(model, TrainData(tuple(train), (None,) * len(train)))
    model.questions.clear()
    together, alone = mitigated.choose(more), [mitigated.choose([q])[0] for q in more]
    assert together == alone and len(model.questions) == 2 * len(more), "nothing more is asked"
    fit = odds(list(other.values()))
    tolerance = 0.1 if isinstance(method, BatchCalibration) else 1e-9
    assert alone[1].probabilities == pytest.approx(fit, abs=tolerance) and alone[1].note == ""
    assert mitigated.fingerprint != method.apply(model).fingerprint
    assert method.apply(model, TrainData()).fingerprint == method.apply(model).fingerprint
    turned = method.apply(Factor(PRIOR[4][::-1], fits), TrainData(tuple(train), (None,) * len(train)))
    assert turned.fingerprint != mitigated.fingerprint, "what was learned is part of it"


def test_other_groups_than_the_training_datas_are_calibrated_on_what_is_asked() -> None:
    train, fits = lettered(12, 4)
    asked, other = lettered(12, 3)
    model = Factor(PRIOR[4], fits)
    mitigated = PriDe().apply(model, TrainData(tuple(train), (None,) * len(train)))
    model.priors, model.fits = PRIOR[3], other
    with_data, without = mitigated.choose(asked), PriDe().apply(model).choose(asked)
    assert with_data == without


def test_fitting_asks_no_more_than_the_prior_takes() -> None:
    train, fits = lettered(50, 4)
    model = Factor(PRIOR[4], fits)
    PriDe(min_questions=7, estimation_fraction=0.01).apply(model, TrainData(tuple(train), (None,) * 200))
    assert len(model.questions) == 7 * 4
    model.questions.clear()
    ContextualCalibration().apply(model, TrainData(tuple(train), (None,) * 200))
    DomainCalibration().apply(model, TrainData(tuple(train), (None,) * 200))
    assert model.questions == []


# ------------------------------------------------------------------------------------------------ the contract


def training() -> TrainData:
    words = ("dog", "cat", "letter", "question", "there")
    rng = Random(1)
    asked = tuple(
        Question(
            f"t{i}", "Who was there?", tuple(rng.sample(words, 2 + i % 3)), context=f"There was a {rng.choice(words)}."
        )
        for i in range(45)
    )
    return TrainData(asked, (None,) * 45, ("There was a dog and a cat.",))


@pytest.mark.parametrize("data", [None, training()], ids=["asked", "fitted"])
@pytest.mark.parametrize("method", ALL, ids=name)
def test_keeps_the_contract(method: Calibrator, data: TrainData | None) -> None:
    assert build_method(method.name) == method
    by_call = data is None and isinstance(method, DomainCalibration | LeaveOneOutCalibration)  # their prior is of it
    mitigated = check_method(method, data=data, batch_dependent=by_call)
    assert mitigated.abilities == {"choose", "generate", "score", "weights"}


@pytest.mark.parametrize("method", ALL, ids=name)
def test_what_was_learned_is_saved_as_json_and_restored(method: Calibrator, tmp_path: Path) -> None:
    asked = [replace(q, id=f"x{i}") for i, q in enumerate(training().questions[:6])]
    model = tiny_model(source="demo")
    mitigated = method.apply(model, training())
    again = load(mitigated.save(tmp_path / "saved"))
    assert again.choose(asked) == mitigated.choose(asked)
    assert isinstance(again, Mitigated) and isinstance(mitigated, Mitigated)
    assert again._depends_on == mitigated._depends_on, "what was learned counts in the fingerprint as before"
    learned = tmp_path / "saved" / "learned"
    if isinstance(method, ContextualCalibration):
        assert not learned.exists()
        return
    (file,) = learned.iterdir()
    plain = json.loads(file.read_text())["training"]["results"]
    assert mitigated.training is not None and again.training == mitigated.training
    assert Learned.of(mitigated.training.results, learned).plain == plain
    kinds = {entry["about"] for entry in plain["priors"].values()}
    assert kinds == ({"2 positions", "3 positions", "4 positions"} if method in FITTED else set())
    assert len(plain["fillings"]) == (0 if method in FITTED else 20)
    for entry in plain["priors"].values():
        assert sum(entry["prior"]) == pytest.approx(1) and len(entry["prior"]) == int(entry["about"][0])


@pytest.mark.parametrize("method", ALL, ids=name)
def test_settings_build_the_method_again(method: Calibrator) -> None:
    assert type(method).build(**method.settings) == method
    for preset in type(method).presets:
        assert isinstance(type(method).build(preset=preset), type(method))


# ----------------------------------------------------------------------------------------------- real benchmarks


@pytest.mark.parametrize("method", ALL, ids=name)
def test_every_calibrator_takes_the_demo_benchmarks_of_a_small_model(method: Calibrator) -> None:
    words = "The following are questions about of Input Output positive negative neutral"
    model: Model = tiny_model(texts=[words], too_long="skip", chat=False)
    exam = MMLU.build(source="demo", shots=4, subjects=["world_capitals"])
    items = exam.load()[:12]
    answers = exam.ask(method.apply(model), items)
    assert all(c.probabilities and sum(c.probabilities) == pytest.approx(1) for c in answers)
    notes = {c.note for c in answers}
    assert notes == {""} or method.name == "looc"
    reviewed = LabelBias.build(source="demo", shots=2, contexts=1, instances=6, held_out=6)
    paper = LabelBias.build(source="demo", preset="paper", shots=3, instances=6, held_out=6)
    for asked in (reviewed, paper):
        plain = asked.ask(model, asked.load())
        for answer, before in zip(asked.ask(method.apply(model), asked.load()), plain, strict=True):
            notes = {c.note for c in answer.tested}
            assert notes == ({NO_POSITIONS} if method.name == "pride" else {""}) or method.name == "looc"
            changed = [c.probabilities != b.probabilities for c, b in zip(answer.tested, before.tested, strict=True)]
            assert not any(changed) if method.name == "pride" else all(changed)


def test_looc_shares_demonstrations_between_the_questions_of_a_context() -> None:
    """Tested and held-out instances stand behind the same demonstrations, so that these are asked once."""
    bench = LabelBias.build(source="demo", shots=8, contexts=2, instances=6, held_out=6)
    questions = [q for i in bench.load() for q in (*i.tested, *i.held_out)]
    assert len(LeaveOneOutCalibration()._grouped(ScriptedModel(), questions)[0]) == 2
