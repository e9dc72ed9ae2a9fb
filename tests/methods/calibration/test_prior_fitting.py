"""Dividing by priors: hand-made numbers, identities that must hold, and what public loops get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from evenhand.errors import SettingsError
from evenhand.interfaces import Question, Shot
from evenhand.methods.calibration._prior_fitting import (
    balanced_mean,
    calibrated,
    decide,
    item_prior,
    match,
    missing,
    smoothed,
)
from evenhand.methods.calibration.content_free import CONTENT_FREE, content_free, filled, frame, parted, random_words
from evenhand.prompting.rendering import LETTERS, as_dialogue


def rows(count: int, classes: int, seed: int = 0, sharpness: float = 1.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(count, classes)) * sharpness
    return np.asarray(softmax(logits, axis=1))


# ------------------------------------------------------------------------------------------------- dividing


def test_by_hand() -> None:
    assert calibrated(np.array([0.6, 0.3, 0.1]), np.array([0.6, 0.2, 0.2])) == pytest.approx([1 / 3, 1 / 2, 1 / 6])


@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_a_uniform_prior_changes_nothing(classes: int) -> None:
    p = rows(7, classes)
    assert calibrated(p, np.full(classes, 1 / classes)) == pytest.approx(p, abs=1e-15)


@pytest.mark.parametrize("scale", [1e-6, 0.5, 3.0, 1e6])
def test_scaling_the_prior_changes_nothing(scale: float) -> None:
    p, prior = rows(5, 4), rows(1, 4, seed=1)[0]
    assert calibrated(p, scale * prior) == pytest.approx(calibrated(p, prior), abs=1e-15)


def test_zeros_stay_finite() -> None:
    q = calibrated(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), np.array([1.0, 0.0, 0.0]))
    assert np.isfinite(q).all() and q[:, 2] == pytest.approx([0, 0]) and q[0, 1] > 0.999 and q[1, 0] == 1
    assert item_prior(np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx([1, 1e-6], rel=1e-3)


def test_labels_may_be_very_improbable_beside_others() -> None:
    """A long label beside a short one: e^-138 of its probability, in prior and answer alike."""
    p = np.array([[1.0, 3e-60], [1.0, 1e-60]])
    assert calibrated(p, np.array([1.0, 2e-60])) == pytest.approx(np.array([[0.4, 0.6], [2 / 3, 1 / 3]]))
    assert calibrated(p, match(p).prior).mean(axis=0) == pytest.approx([0.5, 0.5])


def test_ties_go_to_the_first_whatever_rounding_says() -> None:
    assert decide(np.array([0.3, 0.35, 0.35])) == 1
    assert decide(np.array([0.1 + 0.2, 0.3, 0.3])) == 0 == decide(np.array([0.3, 0.1 + 0.2, 0.3]))


def test_the_missing_label_trap() -> None:
    """A label without demonstration gets a sixteenth of the others' prior, and (.6, .3, .1) becomes (.24, .12, .64)."""
    prior = np.array([16, 16, 1]) / 33
    p = np.array([0.6, 0.3, 0.1])
    assert calibrated(p, prior) == pytest.approx([0.24, 0.12, 0.64])
    milder = calibrated(p, smoothed(prior, 0.5))
    assert decide(milder) == 0 and milder[2] < 0.25
    assert smoothed(prior, 0) == pytest.approx(prior) and smoothed(prior * 7, 0.5).sum() == pytest.approx(1)
    assert missing([0, 1, 0], 3) == [2] and missing([2, 0, 1], 3) == []


def test_means_balanced_over_classes_by_hand() -> None:
    """Three rows of class 0 weigh as much as the one of class 2; class 1 has none."""
    p = np.array([[0.9, 0.1, 0.0], [0.6, 0.2, 0.2], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    assert balanced_mean(p, [0, 0, 0, 2]) == pytest.approx([(0.7 + 0.1) / 2, 0.2, (0.1 + 0.7) / 2])
    assert balanced_mean(p[[3, 1, 0, 2]], [2, 0, 0, 0]) == pytest.approx(balanced_mean(p, [0, 0, 0, 2]))


def test_an_item_prior_by_hand() -> None:
    """Geometric means over two orders: sqrt(.8 * .5) and sqrt(.2 * .5), so 2 to 1."""
    assert item_prior(np.array([[0.8, 0.2], [0.5, 0.5]])) == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("classes", range(2, 11))
def test_cyclic_orders_give_a_factor_back_exactly(classes: int) -> None:
    prior, taste = rows(2, classes, seed=classes, sharpness=2.0)
    orders = [[(j + turn) % classes for j in range(classes)] for turn in range(classes)]
    asked = np.array([prior * taste[order] for order in orders])
    assert item_prior(asked / asked.sum(axis=1, keepdims=True)) == pytest.approx(prior, abs=1e-12)


# ------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize("classes", range(2, 11))
@pytest.mark.parametrize("sharpness", [0.1, 2.0, 12.0])
def test_matching_meets_the_target(classes: int, sharpness: float) -> None:
    p = rows(40 * classes, classes, seed=classes, sharpness=sharpness)
    p = calibrated(p, 1 / np.geomspace(1, 50, classes))  # far from uniform
    found = match(p)
    q = calibrated(p, found.prior)
    assert q.mean(axis=0) == pytest.approx(np.full(classes, 1 / classes), abs=1e-9) and found.gap < 1e-9
    assert softmax(np.log(p) + found.weights, axis=1) == pytest.approx(q, abs=1e-12), "weights and prior say the same"
    target = np.arange(1, classes + 1)
    assert calibrated(p, match(p, target).prior).mean(axis=0) == pytest.approx(target / target.sum(), abs=1e-9)


def test_a_second_match_finds_nothing_to_do() -> None:
    p = calibrated(rows(60, 4, sharpness=2.0), np.array([0.1, 0.2, 0.3, 0.4]))
    again = match(calibrated(p, match(p).prior))
    assert np.abs(again.weights).max() < 1e-9 and again.prior == pytest.approx(np.full(4, 0.25))


def test_matching_by_hand() -> None:
    """Both rows have odds 4 to 1: weights +-ln 2 make them even."""
    assert match(np.array([[0.8, 0.2], [0.8, 0.2]])).weights == pytest.approx([-np.log(2), np.log(2)])


def fixed_steps(p: np.ndarray, rate: float, steps: int = 2000) -> float:
    """The gap that is left by steps of one length on the summed objective, as a public loop takes them."""
    w = np.zeros(p.shape[1])
    for _ in range(steps):
        w -= rate * (softmax(np.log(p) + w, axis=1).sum(axis=0) - len(p) / p.shape[1])
    return float(np.abs(softmax(np.log(p) + w, axis=1).mean(axis=0) - 1 / p.shape[1]).max())


def test_matching_converges_where_fixed_steps_swing() -> None:
    p = calibrated(rows(500, 3, sharpness=0.3), np.array([0.1, 1.0, 2.0]))
    assert fixed_steps(p, 0.02) > 0.1 and match(p).gap < 1e-9
    assert fixed_steps(p, 0.001) < 1e-6, "the loop itself is right"


@pytest.mark.parametrize("seed", range(5))
def test_nearly_certain_answers_and_few_of_a_class(seed: int) -> None:
    """Newton's own step would be of 1e12 nats here."""
    rng = np.random.default_rng(seed)
    p = np.full((100, 3), 1e-9)
    p[np.arange(100), rng.choice(3, size=100, p=(0.9, 0.08, 0.02))] = 1
    assert match(p / p.sum(axis=1, keepdims=True)).gap < 1e-6


def test_certain_answers_and_targets_that_make_no_sense() -> None:
    found = match(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert np.isfinite(found.weights).all() and found.gap < 1e-9
    for target in ((1.0, 0.0), (1.0,), (1.0, float("nan")), (1.0, -1.0)):
        with pytest.raises(SettingsError, match="set 2 positive numbers"):
            match(np.array([[0.5, 0.5]]), target)
    with pytest.raises(SettingsError, match="at least one row"):
        match(np.empty((0, 3)))


# --------------------------------------------------------------------------------------- prompts without content

SHOT = Shot("Is it wet? Rain.\n", Question("s", "Is it wet?", ("rain", "sand")), 0)
ASKED = Question(
    "q", "Who was loud?", ("x one", "y two", "z"), context="They met.", header="Hi.\n", shots=(SHOT,), shown=(2, 0, 1)
)


def text(question: Question) -> str:
    return as_dialogue(question, "letters").messages[0].content


def test_only_what_surrounds_the_content_is_left() -> None:
    blank = frame(ASKED, None)
    assert blank == frame(Question("r", "Else?", ("a", "b", "c"), header="Hi.\n", shots=(SHOT,), draw=3), None)
    assert blank != frame(Question("r", "Else?", ("a", "b"), header="Hi.\n", shots=(SHOT,)), None)
    whole = text(filled(blank, content_free()[0], True, "cf"))
    assert whole.startswith("Hi.\nIs it wet? Rain.\nAnswer the")
    assert whole.endswith("\n\nN/A\n(A) N/A\n(B) N/A\n(C) N/A")
    assert [f.content for f in content_free()] == ["N/A", "", "[MASK]"] == list(CONTENT_FREE)


def test_labels_stay_in_alphabetical_order_whatever_the_order_shown_or_declared() -> None:
    one = Question("1", "a", ("yes", "no", "maybe"), template="bare")
    other = Question("2", "b", ("no", "maybe", "yes"), template="bare", shown=(2, 1, 0))
    assert frame(one, sorted(one.options)) == frame(other, sorted(other.options))
    assert filled(frame(one, sorted(one.options)), content_free()[0], False, "cf").options == ("maybe", "no", "yes")


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("Input: It was: fine.\n\nOutput:", ("Input: ", "It was: fine.", "\n\nOutput:")),
        ("Input: two\nlines\nOutput:", ("Input: ", "two\nlines", "\nOutput:")),
        ("Input: \n\nOutput:", ("Input: ", "", "\n\nOutput:")),
        ("it was fine", ("", "it was fine", "")),
        ("what: this?", ("", "what: this?", "")),
    ],
)
def test_the_form_of_a_bare_text_is_no_content(given: str, parts: tuple[str, str, str]) -> None:
    assert parted(Question("q", given, ("a", "b"), template="bare")) == parts
    assert "".join(parts) == given
    assert parted(Question("q", given, ("a", "b"))) == ("", given, ""), "only bare texts bring a form along"


def test_random_words_have_the_domain_and_its_mean_length() -> None:
    asked = [
        Question("1", "one two three", ("red", "dark blue"), context="zero"),
        Question("2", "four five", ("light green", "grey")),
    ]
    found = random_words(asked, count=9, seed=1)
    assert len(found) == 9 and len({f.content for f in found}) > 5
    words = {"zero", "one", "two", "three", "four", "five"}
    colours = {"red", "dark", "blue", "light", "green", "grey"}
    for filling in found:
        drawn = filling.content.split()
        assert len(drawn) == 3 == len(set(drawn)) and set(drawn) <= words, "(4 + 2) / 2, without replacement"
        assert len(filling.options) == len(LETTERS)
        assert all(len(o.split()) == 2 and set(o.split()) <= colours for o in filling.options), "6 / 4, rounded up"
    assert random_words(asked, count=4, seed=1) == found[:4] and random_words(asked, count=9, seed=2) != found
    assert any("extra" in f.content for f in random_words(asked, ["extra " * 50], count=9))


def test_random_words_of_texts_alone_and_of_nothing() -> None:
    found = random_words([], ["a b c", "d"], count=3)
    assert all(len(f.content.split()) == 2 and len(f.options[0].split()) == 1 for f in found)
    assert random_words([], count=1)[0].content == "" == random_words([Question("q", "", ("", ""))], count=1)[0].content
