"""Students of the debiased teacher: what they learn is known by hand, and what they cannot do they say."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import DivergedError, SettingsError
from evenhand.interfaces import Array, Choice, Dialogue, Question, TrainData, Usage
from evenhand.methods.permutation._encoder_student import FORMS, Network, open_encoder, part_alike
from evenhand.methods.permutation._learning import (
    HELD_OUT,
    Example,
    Judged,
    Outcome,
    Shown,
    divergence,
    judge,
    learn,
    show,
    texts_of,
)
from evenhand.methods.permutation._lora_student import Letters
from evenhand.methods.permutation._student import EncoderStudent
from evenhand.methods.permutation._texts import Asked, lettered_text, prompted
from evenhand.methods.permutation.permutation_distillation import LEAST_QUESTIONS, PermutationDistillation
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.tiny import tiny_tokenizer
from evenhand.prompting.option_orders import flips, orders_of
from evenhand.prompting.permutation_ensemble import Debiased, debiased
from evenhand.testing import ScriptedModel, check_method, questions, tiny_model
from evenhand.training.holding_out import hold_out
from evenhand.training.loop import Schedule

NOUNS = ("red", "blue", "green", "black", "white", "gold", "pink", "grey", "brown", "teal")
ASKED = ("sky", "sea", "grass", "coal", "snow", "ring", "rose", "stone", "wood", "pool")
VOCABULARY = " ".join([*NOUNS, *ASKED, "What colour is the thing ? Prediction : ( )"])
ANSWER = dict(zip(ASKED, NOUNS, strict=True))


def tiny_encoder(folder: Path, layers: int = 1, positions: int = 64) -> str:
    tokenizer = tiny_tokenizer([VOCABULARY], chat=False)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=int(tokenizer.pad_token_id),
    )
    torch.manual_seed(0)
    module = BertModel(config)
    for table in (module.embeddings.word_embeddings, module.embeddings.position_embeddings):
        torch.nn.init.normal_(table.weight, std=0.3)  # as if trained: freshly made, positions hardly show
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


class Teacher(ScriptedModel):
    """Half knows what colour things have, and prefers the first letter."""

    def __init__(self, first: float = 5.0, knows: float = 4.0, tells: bool = True) -> None:
        super().__init__(abilities=frozenset({"choose"}))
        self.first, self.knows, self.tells = first, knows, tells

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.questions += questions
        return [self._one(q) for q in questions]

    def _one(self, q: Question) -> Choice:
        raw = np.ones(len(q.options))
        for option, text in enumerate(q.options):
            raw[option] *= self.knows if ANSWER.get(q.question.split()[-1]) == text else 1.0
        raw[q.order[0]] *= self.first
        p = raw / raw.sum()
        if not self.tells:
            rng = np.random.default_rng([q.draw, *q.order, *q.id.encode()])
            return Choice(int(rng.choice(len(p), p=p)), usage=Usage(1, 10))
        return Choice(int(p.argmax()), tuple(map(float, p)), usage=Usage(1, 10))


def colours(count: int, options: int | None = 3, seed: int = 0) -> tuple[Question, ...]:
    """Questions with known answers; without a number, two to ten options."""
    rng = np.random.default_rng(seed)
    out = []
    for n in range(count):
        k = options or 2 + n % 9
        thing = ASKED[n % len(ASKED)]
        others = [c for c in NOUNS if c != ANSWER[thing]]
        some = [ANSWER[thing], *rng.choice(others, size=k - 1, replace=False).tolist()]
        rng.shuffle(some)
        out.append(Question(f"q{seed}/{n}", f"What colour is the {thing}", tuple(map(str, some))))
    return tuple(out)


def gold(asked: Sequence[Question]) -> tuple[int, ...]:
    return tuple(q.options.index(ANSWER[q.question.split()[-1]]) for q in asked)


def method(encoder: str, **more: Any) -> PermutationDistillation:
    given = {
        "encoder": encoder,
        "student": "equivariant",
        "batch_size": 4,
        "epochs": 20,
        "patience": 6,
        "learning_rate": 5e-3,
    }
    return PermutationDistillation.build(**{**given, "device": "cpu", **more})  # type: ignore[no-any-return]


def data(count: int = 80, **more: Any) -> TrainData:
    asked = colours(count, **more)
    return TrainData(asked, gold(asked))


TEST = colours(40, seed=99)


def accuracy(choices: Sequence[Choice], asked: Sequence[Question] = TEST) -> float:
    return float(np.mean([c.decision == right for c, right in zip(choices, gold(asked), strict=True)]))


# ----------------------------------------------------------------------------------------------- what is learned


@pytest.fixture(scope="module")
def distilled(encoder: str) -> EncoderStudent:
    student = method(encoder).apply(Teacher(), data())
    assert isinstance(student, EncoderStudent)
    return student


def test_a_distilled_student_says_what_the_debiased_teacher_says(distilled: EncoderStudent) -> None:
    teacher = Teacher()
    taught = debiased(teacher, TEST)
    raw, made = teacher.choose(TEST), distilled.choose(TEST)
    assert accuracy(raw) < 1, "the teacher prefers the first letter"
    assert accuracy(made) == accuracy([t.choice for t in taught]) == 1
    gaps = [np.abs(np.subtract(c.probabilities, t.probabilities)).max() for c, t in zip(made, taught, strict=True)]  # type: ignore[arg-type]
    assert max(gaps) < 0.25 and np.mean(gaps) < 0.06
    assert distilled.abilities == {"choose"} and not isinstance(distilled, Mitigated)


def test_no_order_can_flip_the_equivariant_student(distilled: EncoderStudent) -> None:
    for q in TEST[:6]:
        every = distilled.choose([q.reordered(order) for order in orders_of(q, "full")])
        assert not flips([c.decision for c in every]) and len({c.probabilities for c in every}) == 1


def test_its_cost_is_a_row_an_option(distilled: EncoderStudent) -> None:
    choice = distilled.choose(TEST[:1])[0]
    assert choice.usage.calls == 3 and choice.usage.new_tokens == 0 and choice.usage.prompt_tokens > 3 * 6
    assert choice.status == "answered" and choice.note == ""


def test_how_the_training_went_is_kept(distilled: EncoderStudent) -> None:
    facts = distilled.facts()
    curve = facts["curve"]
    assert facts["training_questions"] == 80 and facts["held_out_questions"] == 8 and facts["collapsed"] == ""
    assert facts["teacher_calls"] == 480 and facts["teacher"] == "scripted" and facts["questions_left_out"] == 0
    best = min(curve, key=lambda row: row["held_out_kl"])
    assert best["epoch"] == facts["best_epoch"] and best["held_out_kl"] == pytest.approx(facts["held_out_kl"], abs=1e-6)
    assert curve[0]["held_out_kl"] > 5 * best["held_out_kl"] and curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert best["held_out_agreement"] == best["held_out_accuracy"] == 1
    json.dumps(facts)


def test_a_saved_student_answers_the_same(distilled: EncoderStudent, tmp_path: Path) -> None:
    loaded = evenhand.load(distilled.save(tmp_path / "student"), device="cpu")
    assert loaded.choose(TEST) == distilled.choose(TEST) and loaded.fingerprint == distilled.fingerprint
    assert loaded.facts()["curve"] == distilled.facts()["curve"] and loaded.abilities == {"choose"}
    files = {p.name for p in (tmp_path / "student").iterdir()}
    assert {"evenhand.json", "model.safetensors", "tokenizer.json"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    again = evenhand.load(loaded.save(tmp_path / "again"), device="cpu")
    assert again.choose(TEST) == distilled.choose(TEST)
    with pytest.raises(SettingsError, match="unknown option 'dtype'"):
        evenhand.load(tmp_path / "student", dtype="float16")


def test_same_seed_same_weights(encoder: str, distilled: EncoderStudent) -> None:
    again, other = (method(encoder, seed=s).apply(Teacher(), data()) for s in (0, 1))
    assert again.fingerprint == distilled.fingerprint != other.fingerprint


def test_one_student_reads_two_to_ten_options(encoder: str) -> None:
    asked = colours(90, options=None)
    for student in ("equivariant", "encoder"):
        made = method(encoder, student=student, epochs=2, orders="cyclic", max_length=60)
        with pytest.warns(UserWarning):
            model = made.apply(Teacher(), TrainData(asked, gold(asked)))
        for q, c in zip(asked[:9], model.choose(asked[:9]), strict=True):
            assert c.probabilities is not None and len(c.probabilities) == len(q.options)
            assert sum(c.probabilities) == pytest.approx(1) and min(c.probabilities) > 0


def test_the_lettered_student_learns_too_and_its_head_is_by_position(encoder: str) -> None:
    """With the options' texts all alike to the question, only the letters are left to learn."""
    asked = [Question(f"q{n}", "What colour is the sky", ("red", "blue")) for n in range(60)]
    p = (0.9, 0.1)
    taught = Debiased(p, ((0, 1), (1, 0)), (0, 0), (p, p), Usage())
    out, reads, network = fitted(encoder, "encoder", [Example(q, taught) for q in asked], "distilled", epochs=15)
    for order in ((0, 1), (1, 0)):
        shown = [Shown(Asked(asked[0].reordered(order)), np.array(p))]
        assert judge(network, reads, shown, [None]).probabilities[0] == pytest.approx(p, abs=0.03)
    assert out.judged.collapsed.startswith("it gives every one") is False


# --------------------------------------------------------------------------------- error correction, by hand


def fitted(
    encoder: str, form: str, examples: Sequence[Example], variant: str, epochs: int = 12, **more: Any
) -> tuple[Outcome, Any, Network]:
    bare, tokenizer = open_encoder(encoder)
    reads = FORMS[form](tokenizer, 64)  # type: ignore[index]
    network = Network(bare, reads.width, seed=0)
    schedule = Schedule(epochs=epochs, learning_rate=5e-3, patience=0, device="cpu")
    held = len(examples) // 10
    out = learn(
        network, reads, examples[held:], examples[:held], schedule=schedule, batch_size=16, variant=variant, **more
    )  # type: ignore[arg-type]
    return out, reads, network


def confused(confusion: Array, count: int = 240) -> list[Example]:
    """Questions of one and the same text, whose answers differ: all that is known of one is the teacher's decision."""
    rng = np.random.default_rng(0)
    k, out = len(confusion), []
    for n in range(count):
        truth = n % k
        p = np.full(k, 0.2 / (k - 1))
        p[truth] = 0.8
        q = Question(f"q{n}", "What colour is the thing", ("red", "blue", "green")[:k])
        orders = tuple(orders_of(q, "full"))
        decisions = tuple(int(d) for d in rng.choice(k, size=len(orders), p=confusion[truth]))
        out.append(Example(q, Debiased(tuple(p), orders, decisions, (None,) * len(orders), Usage())))
    return out


def posterior(examples: Sequence[Example]) -> Array:
    """[decision, option] E[P_deb | decision], over everything that was shown."""
    k = len(examples[0].question.options)
    sums, counts = np.zeros((k, k)), np.zeros(k)
    for e in examples:
        for d in e.taught.decisions:
            sums[d] += e.taught.probabilities
            counts[d] += 1
    return sums / counts[:, None]  # type: ignore[no-any-return]


def expected_kl(examples: Sequence[Example], says: Callable[[int], Array]) -> float:
    """Of what is said of each decision, over everything that was shown."""
    terms = []
    for e in examples:
        p = np.array(e.taught.probabilities)
        terms += [float((p * np.log(p / says(int(d or 0)))).sum()) for d in e.taught.decisions]
    return float(np.mean(terms))


SYMMETRIC = np.array([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
LOPSIDED = np.array([[0.9, 0.1], [0.5, 0.5]])


@pytest.mark.parametrize(("form", "confusion", "near"), [("equivariant", SYMMETRIC, 0.05), ("encoder", LOPSIDED, 0.1)])
def test_without_a_telling_text_the_student_knows_what_the_decision_tells(
    encoder: str, form: str, confusion: Array, near: float
) -> None:
    examples = confused(confusion)
    _, reads, network = fitted(encoder, form, examples, "error_correction", epochs=14)
    wanted, q = posterior(examples), examples[0].question
    k, orders = len(wanted), orders_of(q, "full")
    shown = [Shown(Asked(q.reordered(o), d), wanted[d]) for d in range(k) for o in orders]
    said = np.array(judge(network, reads, shown, [None] * len(shown)).probabilities).reshape(k, len(orders), k)
    assert np.abs(said - wanted[:, None]).max() < near
    corrected = expected_kl(examples, lambda d: said[d].mean(0))
    best = expected_kl(examples, lambda d: wanted[d])
    copied = expected_kl(examples, lambda d: np.array(examples[d].taught.probabilities))
    plain = expected_kl(examples, lambda d: np.mean([e.taught.probabilities for e in examples], axis=0))
    assert best - 1e-9 <= corrected < best + 0.01 < min(copied, plain) - 0.01


def test_a_student_that_may_not_see_the_decision_does_worse(encoder: str) -> None:
    examples = confused(SYMMETRIC)
    q = examples[0].question
    kl = {}
    for variant in ("error_correction", "distilled"):
        _, reads, network = fitted(encoder, "equivariant", examples, variant, epochs=8)
        shown = [Shown(Asked(q, d if variant == "error_correction" else None), np.ones(3) / 3) for d in range(3)]
        said = judge(network, reads, shown, [None] * 3).probabilities
        kl[variant] = expected_kl(examples, lambda d, said=said: said[d])  # type: ignore[misc]
    assert kl["distilled"] == pytest.approx(math.log(3) - 0.639, abs=0.01), "uniform against (0.8, 0.1, 0.1)"
    assert kl["error_correction"] < kl["distilled"] - 0.05


def test_each_epoch_shows_a_fresh_order_and_decision_by_seed_epoch_and_question() -> None:
    example = confused(SYMMETRIC, 1)[0]

    def seen(seed: int, variant: str) -> list[tuple[tuple[int, ...], int | None]]:
        some = [show(example, variant, "likeliest", False, seed, e) for e in range(HELD_OUT, 60)]  # type: ignore[arg-type]
        return [(s.asked.question.order, s.asked.marked) for s in some]

    taught = example.taught
    assert seen(0, "error_correction") == seen(0, "error_correction") != seen(1, "error_correction")
    pairs = set(zip(taught.orders, taught.decisions, strict=True))
    assert set(seen(0, "error_correction")) == pairs, "the decision is the one that was taken in this very order"
    assert {order for order, _ in seen(0, "distilled")} == set(taught.orders)
    assert {marked for _, marked in seen(0, "distilled")} == {None}


def test_sampled_decisions_follow_the_distribution_of_their_order() -> None:
    q = Question("q", "What colour is the thing", ("red", "blue"))
    orders, shares = ((0, 1), (1, 0)), ((0.9, 0.1), (0.3, 0.7))
    example = Example(q, Debiased((0.6, 0.4), orders, (0, 1), shares, Usage()))
    some = [show(example, "error_correction", "sampled", False, 0, epoch) for epoch in range(2000)]
    for order, share in zip(orders, shares, strict=True):
        marked = [s.asked.marked for s in some if s.asked.question.order == order]
        assert len(marked) > 900 and np.mean([m == 0 for m in marked]) == pytest.approx(share[0], abs=0.05)


def test_a_counted_target_leaves_out_the_decision_that_is_shown() -> None:
    """Three draws: red, red, blue. Who is shown "blue" must not find it in the target."""
    q = Question("q", "What colour is the thing", ("red", "blue"))
    example = Example(q, Debiased((2 / 3, 1 / 3), ((0, 1),) * 3, (0, 0, 1), (None,) * 3, Usage()))
    seen = {
        s.asked.marked: tuple(s.target)
        for s in (show(example, "error_correction", "sampled", True, 0, epoch) for epoch in range(30))
    }
    assert seen == {0: (0.5, 0.5), 1: (1.0, 0.0)}
    assert tuple(show(example, "distilled", "sampled", True, 0, 0).target) == pytest.approx((2 / 3, 1 / 3))


def test_the_loss_is_the_divergence_whatever_the_number_of_options() -> None:
    two, three = np.array([1.0, 0.0]), np.array([0.5, 0.25, 0.25])
    q = Question("q", "?", ("a", "b"))
    shown = [Shown(Asked(q), two), Shown(Asked(replace(q, options=("a", "b", "c"))), three)]
    scores = torch.tensor([[math.log(3), 0.0, float("-inf")], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = divergence(shown, scores)
    by_hand = 0.5 * math.log(0.5 * 3) + 0.5 * math.log(0.25 * 3)
    assert loss.tolist() == pytest.approx([math.log(4 / 3), by_hand])
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None and bool(torch.isfinite(scores.grad).all()) and scores.grad[0, 2] == 0


# ------------------------------------------------------------------------------- error correction, as a method


@pytest.fixture(scope="module")
def corrected(encoder: str) -> Mitigated:
    model = method(encoder, variant="error_correction").apply(Teacher(), data())
    assert isinstance(model, Mitigated)
    return model


def test_one_request_and_one_pass_correct_a_biased_decision(corrected: Mitigated) -> None:
    teacher = corrected.base
    assert isinstance(teacher, Teacher)
    teacher.questions.clear()
    choices = corrected.choose(TEST)
    assert teacher.questions == list(TEST), "each question once, in the order as it is shown"
    assert {c.usage.calls for c in choices} == {1 + 3} and accuracy(choices) > 0.95 > accuracy(teacher.choose(TEST))
    assert corrected.abilities == {"choose"} and corrected.facts()["student"]["collapsed"] == ""


@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_its_fingerprint_covers_the_student(encoder: str, corrected: Mitigated) -> None:
    again = method(encoder, variant="error_correction").apply(Teacher(), data())
    other = method(encoder, variant="error_correction", seed=1).apply(Teacher(), data())
    assert again.fingerprint == corrected.fingerprint != other.fingerprint


def test_what_the_teacher_did_not_answer_stays_so(corrected: Mitigated) -> None:
    teacher = corrected.base
    unread = Choice(None, status="unparsed", note="a refusal", usage=Usage(1))

    class Refusing(Teacher):
        def choose(self, questions: Sequence[Question]) -> list[Choice]:
            return [unread if q.id == "no" else c for q, c in zip(questions, super().choose(questions), strict=True)]

    teacher.__class__ = Refusing
    try:
        refused, answered = corrected.choose([replace(TEST[0], id="no"), TEST[1]])
    finally:
        teacher.__class__ = Teacher
    assert refused == unread and answered.status == "answered"


def test_it_is_restored_from_what_it_kept(encoder: str, corrected: Mitigated, tmp_path: Path) -> None:
    assert corrected._keep is not None
    corrected._keep(tmp_path)
    again = corrected.method.restore(Teacher(), tmp_path)
    assert again.choose(TEST) == corrected.choose(TEST) and again.fingerprint == corrected.fingerprint


def test_a_black_box_is_sampled_in_training_as_later(encoder: str) -> None:
    teacher = Teacher(knows=12, tells=False)
    made = method(encoder, variant="error_correction", teacher="sampled", draws=16)
    model = made.apply(teacher, data())
    assert len(teacher.questions) == 80 * 16 and {q.sampling.temperature for q in teacher.questions if q.sampling} == {
        1
    }
    teacher.questions.clear()
    choices = model.choose(TEST)
    assert all(q.sampling is not None and q.sampling.temperature == 1 for q in teacher.questions)
    assert accuracy(choices) > accuracy(Teacher(knows=12, tells=False).choose(TEST))
    assert model.choose(TEST) == choices


# ------------------------------------------------------------------------------------------------- collapse


def test_a_student_that_learned_nothing_is_reported_everywhere(encoder: str) -> None:
    unknowing = Teacher(first=1.0, knows=1.0)
    noisy = [replace(q, id=f"n{n}") for n, q in enumerate(colours(60))]

    class Noise(Teacher):
        def _one(self, q: Question) -> Choice:
            p = np.random.default_rng([*q.id.encode()]).dirichlet(np.ones(len(q.options)) * 0.3)
            return Choice(int(p.argmax()), tuple(map(float, p)), usage=Usage(1))

    assert unknowing.choose(noisy[:1])[0].decision == 0
    with pytest.warns(UserWarning, match="collapsed and is not a valid result"):
        student = method(encoder, epochs=1, learning_rate=1e-6, validation_fraction=0.4)
        model = student.apply(Noise(), TrainData(tuple(noisy)))
    assert model.facts()["collapsed"] and all("this student collapsed" in c.note for c in model.choose(TEST))


def judged(agreed: int, count: int, options: int = 4, sure: float = 0.7) -> Judged:
    target, other = np.eye(options)[0], np.eye(options)[1]
    p = [sure * (target if n < agreed else other) + (1 - sure) / options for n in range(count)]
    q = Question("q", "?", tuple("abcdefghij"[:options]))
    turned = [q.reordered([*range(n % options, options), *range(n % options)]) for n in range(count)]
    return Judged([Shown(Asked(x), target) for x in turned], p, [0] * count)


@pytest.mark.parametrize(
    ("agreed", "count", "options", "collapsed"),
    [
        (10, 40, 4, True),
        (15, 40, 4, True),
        (16, 40, 4, False),
        (40, 40, 4, False),
        (2, 2, 2, True),
        (5, 5, 2, False),
    ],
)
def test_chance_is_judged_by_a_binomial_test(agreed: int, count: int, options: int, collapsed: bool) -> None:
    """P(X >= 15 | 40, 1/4) = 0.054 and P(X >= 16) = 0.026; two of two options right is no evidence, five are."""
    assert bool(judged(agreed, count, options).collapsed) is collapsed


def test_one_answer_for_everything_is_a_collapse_though_it_agrees() -> None:
    same = judged(30, 30)
    fixed = Judged([Shown(Asked(Question("q", "?", tuple("abcd"))), s.target) for s in same.shown], same.probabilities)
    assert "the same probabilities" in fixed.collapsed


# ------------------------------------------------------------------------------------- what is refused, and how


def test_without_questions_it_says_how_to_give_them(encoder: str) -> None:
    for none in (None, TrainData(texts=("a",))):
        with pytest.raises(SettingsError, match="train="):
            method(encoder).apply(Teacher(), none)


def test_too_few_questions_are_refused_with_what_was_missing(encoder: str) -> None:
    with pytest.raises(SettingsError, match=f"at least {LEAST_QUESTIONS} questions to train on, not 19"):
        method(encoder).apply(Teacher(), data(LEAST_QUESTIONS - 1))
    down = ScriptedModel()
    down.choose = lambda qs: [Choice(None, status="unanswered", note="server down")] * len(qs)  # type: ignore[method-assign, assignment]
    with pytest.raises(SettingsError, match=r"0 of 30 .*server down"):
        method(encoder).apply(down, data(30))


def test_a_question_that_the_student_cannot_read_is_named_before_anything_is_asked(encoder: str) -> None:
    long = replace(colours(1)[0], id="the long one", context="the " * 70)
    for student in ("encoder", "equivariant"):
        teacher = Teacher()
        with pytest.raises(SettingsError, match=r"the long one needs \d+ tokens, the student reads 64; 1 of 31"):
            method(encoder, student=student).apply(teacher, TrainData((*colours(30), long)))
        assert teacher.questions == []
    many = replace(colours(1)[0], id="many", options=tuple("abcdefghijk"))
    with pytest.raises(SettingsError, match="many: 11 options; this student reads at most 10"):
        method(encoder, student="encoder").apply(Teacher(), TrainData((*colours(30), many)))


def test_a_long_item_is_unanswered_and_its_neighbours_are_not(distilled: EncoderStudent) -> None:
    long = replace(TEST[0], context="the " * 70)
    first, second, third = distilled.choose([TEST[0], long, TEST[1]])
    assert second.status == "unanswered" and "the student reads 64" in second.note and second.usage == Usage()
    assert [first, third] == distilled.choose(TEST[:2])


def test_a_conversation_is_refused(distilled: EncoderStudent) -> None:
    with pytest.raises(SettingsError, match="reads question and options, not a conversation"):
        distilled.choose([replace(TEST[0], dialogue=Dialogue(()).user("Which?"))])


def test_options_that_speak_of_positions_are_noted_by_a_student_that_sees_none(distilled: EncoderStudent) -> None:
    odd = replace(TEST[0], options=("red", "blue", "all of the above"))
    assert "sees no positions" in distilled.choose([odd])[0].note


@pytest.mark.parametrize(
    "wrong",
    [
        {"teacher": "sampled", "orders": "full"},
        {"teacher": "sampled", "mean": "geometric"},
        {"teacher": "sampled", "decision": "likeliest"},
        {"epochs": 0},
        {"validation_fraction": 1.0},
        {"student": "gpt"},
    ],
    ids=str,
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        PermutationDistillation.build(**wrong)


def test_what_is_missing_is_said() -> None:
    plain, taught = PermutationDistillation(), TrainData(tuple(questions(40)))
    assert "needs choose" in plain.unsupported_reason(ScriptedModel(abilities=frozenset({"generate"})))
    assert plain.unsupported_reason(ScriptedModel(), taught) == ""
    lora = PermutationDistillation(student="lora")
    assert "trains a local model itself" in lora.unsupported_reason(ScriptedModel())
    assert "answer_by=text" in lora.unsupported_reason(tiny_model(answer_by="text"))
    assert lora.unsupported_reason(tiny_model(), taught) == ""


def test_the_papers_settings() -> None:
    paper = PermutationDistillation.build(preset="paper")
    assert (paper.student, paper.teacher, paper.orders, paper.mean) == (
        "encoder",
        "probabilities",
        "full",
        "arithmetic",
    )
    assert (paper.decision, paper.too_long) == ("sampled", "skip")
    assert "too_long" not in PermutationDistillation.build().key_settings()


@pytest.mark.filterwarnings("ignore:permutation_distillation. 1 of 31:UserWarning")
@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_a_question_that_is_too_long_is_left_out_and_counted_where_that_is_asked_for(encoder: str) -> None:
    short, long = colours(30), replace(colours(1)[0], id="the long one", context="the " * 70)
    given = TrainData((short[0], long, *short[1:]), (gold(short[:1])[0], None, *gold(short[1:])))
    for student in ("encoder", "equivariant"):
        teacher = Teacher()
        made = method(encoder, student=student, epochs=1, too_long="skip").apply(teacher, given)
        facts = made.facts()
        assert (facts["questions_too_long"], facts["training_questions"]) == (1, 30)
        assert "the long one" not in {q.id for q in teacher.questions}
    with pytest.raises(SettingsError, match=r"2 of 21 training questions are too long. At least 20 are needed"):
        some = (*short[:19], long, replace(long, id="another"))
        method(encoder, too_long="skip").apply(Teacher(), TrainData(some, (None,) * 21))


@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_the_number_of_questions_that_are_too_long_stands_in_the_report(encoder: str, tmp_path: Path) -> None:
    """Two planted questions; a run that finds the student says so again, and one without says nothing."""
    long = [replace(q, id=f"long {n}", context="the " * 70) for n, q in enumerate(colours(2))]
    given = TrainData((*colours(30), *long), (*gold(colours(30)), None, None))
    spec = method(encoder, epochs=1, too_long="skip").spec

    def notes(train: TrainData) -> list[str]:
        report = evenhand.compare(
            "demo", [spec], "mmlu(source=demo)", train=train, out=None, limit=8, replicates=200, show_progress=False
        )
        return [r.note for r in report.records if r.method == spec and r.note]

    with artefacts(tmp_path):
        for _ in range(2):
            with pytest.warns(UserWarning, match="2 of 32 training questions are longer than the 64 tokens"):
                found = notes(given)
            assert any("2 of 32 training questions" in note and "long 0" in note for note in found)
        assert not any("training questions are longer" in note for note in notes(data(30)))


def test_so_many_questions_are_drawn_by_their_ids_and_the_seed(encoder: str) -> None:
    asked = colours(60)
    given = TrainData(asked, gold(asked))

    def drawn(train: TrainData, **more: Any) -> list[str]:
        lesson = method(encoder, **more).prepared(Teacher(), train)
        answers = dict(zip(asked, gold(asked), strict=True))
        assert list(lesson.answers) == [answers[q] for q in lesson.questions], "each with its own answer"
        return [q.id for q in lesson.questions]

    some = drawn(given, max_questions=25)
    assert len(some) == 25 and some == [q.id for q in asked if q.id in some], "in the given order"
    assert drawn(given, max_questions=25, seed=1) != some == drawn(given, max_questions=25)
    turned = TrainData(asked[::-1], gold(asked)[::-1])
    assert sorted(drawn(turned, max_questions=25)) == sorted(some), "the order of the file decides nothing"
    assert drawn(given, max_questions=60) == drawn(given) == [q.id for q in asked]
    alike = TrainData([replace(q, id=f"passage {n // 4}") for n, q in enumerate(asked)], gold(asked))
    kept = method(encoder, max_questions=25).prepared(Teacher(), alike).questions
    assert len({*kept}) == 25, "four questions with one id are four"
    with pytest.raises(SettingsError, match="max_questions"):
        method(encoder, max_questions=LEAST_QUESTIONS - 1)
    assert "max_questions" not in method(encoder).key_settings()


@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_the_paper_preset_corrects_draws_of_the_teachers_distribution(encoder: str) -> None:
    """A teacher that says .5 and .5 is drawn both ways in twelve epochs; its likeliest option is always the first."""
    p = (0.5, 0.5)
    question = Question("q", "What colour is the sky", ("red", "blue"))
    taught = Debiased(p, ((0, 1), (1, 0)), (0, 0), (p, p), Usage())
    paper = PermutationDistillation.build(preset="paper", variant="error_correction")
    marked = {
        show(Example(question, taught), paper.variant, paper._decision, False, 0, n).asked.marked for n in range(12)
    }
    assert marked == {0, 1}
    assert {
        show(Example(question, taught), paper.variant, "likeliest", False, 0, n).asked.marked for n in range(12)
    } == {0}


# ----------------------------------------------------------------------------------------------- smaller things


@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_nothing_is_trained_twice(encoder: str, tmp_path: Path) -> None:
    teacher = Teacher()
    with artefacts(tmp_path):
        first = method(encoder, epochs=3).apply(teacher, data())
        asked = len(teacher.questions)
        second = method(encoder, epochs=3).apply(teacher, data())
    assert len(teacher.questions) == asked == 480 and first.choose(TEST) == second.choose(TEST)
    kept = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert len(kept) == 1 and not list(kept[0].glob("checkpoint*"))


def test_held_out_questions_share_no_option_set_with_the_others() -> None:
    taught = Debiased((1.0, 0.0), ((0, 1),), (0,), (None,), Usage())
    asked = [Question(f"{n}/{turn}", "?", (str(n), "x")[:: 1 - 2 * turn]) for n in range(20) for turn in range(2)]
    train, held = hold_out([Example(q, taught) for q in asked], texts_of, 0.25, seed=3)
    assert len(held) == 10 and len(train) == 30
    assert not {frozenset(e.question.options) for e in held} & {frozenset(e.question.options) for e in train}
    with pytest.raises(SettingsError, match="4 items cannot be divided"):
        hold_out([Example(asked[0], taught)] * 4, texts_of, 0.5, 0)


def test_words_that_an_encoder_cannot_tell_apart_are_parted(encoder: str) -> None:
    bare, _ = open_encoder(encoder)
    table = bare.get_input_embeddings().weight
    with torch.no_grad():
        table[11] = table[12] * 1.5
    before = table.detach().clone()
    assert part_alike(bare, [9, 10, 11, 12], seed=0) == 2
    after = table.detach()
    assert torch.equal(after[[9, 10]], before[[9, 10]]) and not torch.equal(after[11], before[11])
    assert after[[11, 12]].norm(dim=-1).tolist() == pytest.approx(before[[11, 12]].norm(dim=-1).tolist())
    assert abs(float(torch.nn.functional.cosine_similarity(after[11], after[12], dim=0))) < 0.9


def test_the_lettered_text_ends_in_the_marker() -> None:
    q = Question("q", "What?", ("red", "blue"), shown=(1, 0), header="not read")
    assert lettered_text(Asked(q)) == "What?\n(A) blue\n(B) red"
    assert lettered_text(Asked(q, 0)) == "What?\n(A) blue\n(B) red\nPrediction: B"
    assert prompted(Asked(q, 1)).header == "not readPrediction: A\n\n" and prompted(Asked(q)) == q


# ----------------------------------------------------------------------------------------------------------- lora


def test_letters_are_read_as_choose_reads_them() -> None:
    for chat in (True, False):
        model = tiny_model(texts=[VOCABULARY], chat=chat)
        some = [*colours(4, options=None), replace(colours(1)[0], shown=(2, 0, 1), template="exam")]
        letters = Letters(model.weights.tokenizer, model.context_length)
        scores = letters.scores(model.weights.module, [Asked(q) for q in some])
        for row, choice in zip(torch.softmax(scores, -1).tolist(), model.choose(some), strict=True):
            assert choice.probabilities is not None
            assert row[: len(choice.probabilities)] == pytest.approx(choice.probabilities, abs=1e-5)
            assert sum(row[len(choice.probabilities) :]) == 0


@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_a_tuned_model_nears_the_debiased_one_and_keeps_its_other_verbs(tmp_path: Path) -> None:
    model = tiny_model(texts=[VOCABULARY])
    before = model.fingerprint
    made = method("", student="lora", epochs=4, learning_rate=1e-2, batch_size=8)
    asked = data(40)
    tuned = made.apply(model, asked)
    assert model.fingerprint == before, "the model itself is not touched"
    taught = debiased(model, asked.questions)

    def kl(choices: Sequence[Choice]) -> float:
        pairs = [(np.array(t.probabilities), np.array(c.probabilities)) for t, c in zip(taught, choices, strict=True)]
        return float(np.mean([(p * np.log(p / q)).sum() for p, q in pairs]))

    assert kl(tuned.choose(asked.questions)) < 0.5 * kl(model.choose(asked.questions))
    assert isinstance(tuned, LocalModel) and tuned.abilities == model.abilities
    loaded = evenhand.load(tuned.save(tmp_path / "tuned"), device="cpu")
    assert loaded.choose(TEST[:5]) == tuned.choose(TEST[:5]) and loaded.facts()["curve"] == tuned.facts()["curve"]
    moved = tmp_path / "moved"
    (tmp_path / "tuned").rename(moved)
    again = evenhand.load(evenhand.load(moved, device="cpu").save(tmp_path / "again"), device="cpu")
    assert again.choose(TEST[:5]) == tuned.choose(TEST[:5]), "the base travels with the adapter"


def test_a_tuned_model_corrects_with_the_decision_in_its_header() -> None:
    model = tiny_model(texts=[VOCABULARY])
    made = method("", student="lora", variant="error_correction", epochs=1, batch_size=8)
    with pytest.warns(UserWarning):
        tuned = made.apply(model, data(24))
    assert isinstance(tuned, Mitigated) and tuned.abilities == {"choose"}
    first, both = model.choose(TEST[:3]), tuned.choose(TEST[:3])
    assert [c.usage.calls for c in both] == [2 * c.usage.calls for c in first]


@pytest.mark.parametrize("student", ["encoder", "lora"])
@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_without_a_hold_out_it_is_judged_on_its_training_questions(encoder: str, student: str) -> None:
    teacher: Any = tiny_model(texts=[VOCABULARY]) if student == "lora" else Teacher()
    asked = data(24) if student == "lora" else data(80)
    facts = method(encoder, student=student, validation_fraction=0, epochs=2).apply(teacher, asked).facts()
    assert (facts["held_out_questions"], facts["best_epoch"]) == (0, 1)
    assert [sorted(row) for row in facts["curve"]] == [["epoch", "train_loss"]] * 2
    assert "held_out_kl" not in facts and "held-out" not in facts["collapsed"]


def test_a_tuned_model_in_half_precision_without_finite_scores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = PermutationDistillation._learned

    def large(self: PermutationDistillation, module: Any, *given: Any) -> Any:
        facts = learned(self, module, *given)
        for p in module.parameters():
            if p.requires_grad:
                p.data.fill_(30_000.0)
        return facts

    monkeypatch.setattr(PermutationDistillation, "_learned", large)
    model = tiny_model(texts=[VOCABULARY])
    model.weights.module.to(torch.float16)
    with pytest.raises(DivergedError, match=r"not finite in float16 with what permutation_distillation has trained"):
        method("", student="lora", epochs=1, batch_size=8).apply(model, data(24))


# -------------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("variant", ["distilled", "error_correction"])
@pytest.mark.filterwarnings("ignore:the student of:UserWarning")
def test_it_keeps_the_contract_of_a_method(encoder: str, variant: str, tmp_path: Path) -> None:
    asked = tuple(replace(q, id=f"t{q.id}", context=q.context + " Who" * (n % 7)) for n, q in enumerate(questions(40)))
    model = tiny_model(source=None)
    folder = model.save(tmp_path / "model")
    check_method(method(encoder, variant=variant, epochs=1), evenhand.load(folder), TrainData(asked))
