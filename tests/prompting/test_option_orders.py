"""Orders and what they say together: known answers, and mistakes that two options cannot show."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.special import softmax

from evenhand.errors import SettingsError
from evenhand.interfaces import Array, Question
from evenhand.prompting.option_orders import (
    Order,
    by_position,
    debias,
    flips,
    movable,
    orders_of,
    pairwise,
    sensitivity,
)

RNG = np.random.default_rng(0)


def question(*options: str, **more: object) -> Question:
    return Question("q", "Which?", options, **more)  # type: ignore[arg-type]


def plain(k: int) -> Question:
    return question(*(f"option {n}" for n in range(k)))


def factorised(prior: Array, content: Array, orders: list[Order]) -> Array:
    """p(position) ~ prior[position] * content[option there]."""
    raw = np.array([[prior[j] * content[o] for j, o in enumerate(order)] for order in orders])
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


# --------------------------------------------------------------------------------------------------- orders


@pytest.mark.parametrize(("kind", "k", "count"), [("full", 2, 2), ("full", 3, 6), ("full", 5, 120), ("cyclic", 10, 10)])
def test_orders_are_all_different_and_begin_with_the_shown_one(kind: str, k: int, count: int) -> None:
    shown = tuple(RNG.permutation(k).tolist())
    found = orders_of(plain(k).reordered(shown), kind)  # type: ignore[arg-type]
    assert len(found) == len(set(found)) == count
    assert found[0] == shown
    assert all(sorted(order) == list(range(k)) for order in found)


def test_cyclic_orders_show_every_option_once_at_every_position() -> None:
    found = np.array(orders_of(plain(4), "cyclic"))
    assert all(sorted(column) == [0, 1, 2, 3] for column in found.T)


def test_drawn_orders_depend_on_seed_and_question_only() -> None:
    one, other = plain(4), Question("other", "Which?", plain(4).options)
    assert orders_of(one, "sampled", count=8) == orders_of(one, "sampled", count=8)
    assert orders_of(one, "sampled", count=8) != orders_of(one, "sampled", count=8, seed=1)
    assert orders_of(one, "sampled", count=8) != orders_of(other, "sampled", count=8)
    assert orders_of(one, "sampled", count=8)[:3] == orders_of(one, "sampled", count=3)
    counts = np.bincount([o[0] for o in orders_of(one, "sampled", count=4000)])
    assert np.allclose(counts / 4000, 0.25, atol=0.03)


def test_too_many_orders_are_refused_before_anything_is_asked() -> None:
    assert len(orders_of(plain(6), "full")) == 720
    with pytest.raises(SettingsError, match=r"5,040 orders.*cyclic"):
        orders_of(plain(7), "full")
    with pytest.raises(SettingsError, match="at least 1"):
        orders_of(plain(3), "sampled")


@pytest.mark.parametrize(
    ("options", "places"),
    [
        (("red", "blue", "All of the above"), (0, 1)),
        (("red", "none of the above", "blue", "green"), (0, 2, 3)),
        (("red", "blue", "Both A and B", "green"), (3,)),
        (("A and C", "red", "blue", "green"), (1, 3)),
        (("red", "(A), (C)", "blue", "green"), (3,)),
        (("Only B", "red", "blue"), (2,)),
        (("A", "B", "C"), (0, 1, 2)),  # blood groups and the like: letters that name nothing
        (("the girl and the boy", "I and you", "not known"), (0, 1, 2)),
        (("Vitamin A and C", "AT&T", "Neither"), (0, 1, 2)),
        (("it is about all people", "above all", "an answer"), (0, 1, 2)),
    ],
)
def test_options_that_speak_of_positions_stay(options: tuple[str, ...], places: tuple[int, ...]) -> None:
    found = movable(question(*options))
    assert found.places == places
    assert bool(found.note) == (len(places) < len(options))
    for order in orders_of(question(*options), "full"):
        assert all(order[j] == j for j in range(len(options)) if j not in places)


def test_what_stays_is_told_by_its_place_in_the_shown_order() -> None:
    shown = question("All of the above", "red", "blue").reordered((2, 1, 0))
    assert movable(shown).places == (0, 1)
    assert orders_of(shown, "full") == [(2, 1, 0), (1, 2, 0)]


# ---------------------------------------------------------------------------------------------------- means


def test_an_asymmetric_cycle_tells_an_order_from_its_inverse() -> None:
    order = (1, 2, 0)  # option 1 is at position 0, option 2 at position 1, option 0 at position 2
    assert debias(np.array([[0.7, 0.2, 0.1]]), [order]).tolist() == pytest.approx([0.1, 0.7, 0.2])
    assert by_position([0.1, 0.7, 0.2], order) == [0.7, 0.2, 0.1]


def test_means_of_two_orders_by_hand() -> None:
    given = np.array([[0.8, 0.2], [0.6, 0.4]])  # mapped back: (.8, .2) and (.4, .6)
    assert debias(given, [(0, 1), (1, 0)]).tolist() == pytest.approx([0.6, 0.4])
    expected = np.sqrt([0.8 * 0.4, 0.2 * 0.6])
    assert debias(given, [(0, 1), (1, 0)], "geometric").tolist() == pytest.approx((expected / expected.sum()).tolist())


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_geometric_recovers_a_factorised_model_over_full_and_cyclic_orders(k: int) -> None:
    for _ in range(20):
        prior, content = softmax(RNG.normal(size=k) * 2), softmax(RNG.normal(size=k))
        for kind in ("full", "cyclic"):
            orders = orders_of(plain(k), kind)  # type: ignore[arg-type]
            found = debias(factorised(prior, content, orders), orders, "geometric")
            assert np.abs(found - content).max() < 1e-6


def test_arithmetic_keeps_the_argmax_over_full_orders_and_not_over_cyclic_ones() -> None:
    kept = {"full": 0, "cyclic": 0}
    for _ in range(2000):
        prior, content = softmax(RNG.normal(size=3) * 2), softmax(RNG.normal(size=3))
        for kind in kept:
            orders = orders_of(plain(3), kind)  # type: ignore[arg-type]
            found = debias(factorised(prior, content, orders), orders)
            kept[kind] += int(found.argmax() == content.argmax())
    assert kept["full"] == 2000
    assert 1900 < kept["cyclic"] < 1999


def test_order_blind_and_position_only_models() -> None:
    orders = orders_of(plain(4), "full")
    content = np.array([0.5, 0.3, 0.2, 0.0])
    blind = np.array([content[list(o)] for o in orders])
    fixed = np.tile([0.7, 0.1, 0.1, 0.1], (len(orders), 1))
    for mean in ("arithmetic", "geometric"):
        assert np.allclose(debias(blind, orders, mean), content, atol=1e-9)  # type: ignore[arg-type]
        assert np.allclose(debias(fixed, orders, mean), 0.25)  # type: ignore[arg-type]


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
def test_the_full_set_commutes_with_every_reordering_and_the_cyclic_one_only_with_rotations(mean: str) -> None:
    answers = {order: softmax(RNG.normal(size=4)) for order in permutations(range(4))}

    def answered(shown: Order, kind: str) -> Array:
        orders = orders_of(plain(4).reordered(shown), kind)  # type: ignore[arg-type]
        return debias(np.array([answers[o] for o in orders]), orders, mean)  # type: ignore[arg-type]

    base = (0, 1, 2, 3)
    assert all(np.allclose(answered(shown, "full"), answered(base, "full")) for shown in answers)
    assert np.allclose(answered((1, 2, 3, 0), "cyclic"), answered(base, "cyclic"))
    assert not np.allclose(answered((1, 0, 2, 3), "cyclic"), answered(base, "cyclic"), atol=1e-3)


def test_pairwise_is_the_mean_of_both_orders() -> None:
    wins = RNG.random((5, 5))
    found = pairwise(wins)
    assert np.allclose(found + found.T, 1)
    assert np.allclose(np.diag(found), 0.5)
    given = np.array([[wins[1, 3], 1 - wins[1, 3]], [wins[3, 1], 1 - wins[3, 1]]])
    assert debias(given, [(0, 1), (1, 0)])[0] == pytest.approx(found[1, 3])
    with pytest.raises(SettingsError, match="square"):
        pairwise(np.zeros((2, 3)))


# -------------------------------------------------------------------------------------------------- measures


def test_flips_and_sensitivity_by_hand() -> None:
    assert flips([0, 0, 1])
    assert not flips([0, None, 0])
    assert not flips([None, None])
    assert sensitivity(np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5]])) == pytest.approx((0.4 + 0.0 + 0.4) / 3)
    assert sensitivity(np.eye(3)) == pytest.approx(1.0)
    assert np.isnan(sensitivity(np.array([[0.5, 0.5]])))
