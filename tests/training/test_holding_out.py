"""The hold-out: no text on both sides, whatever the order of the items, and something on each side."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any

import pytest

from evenhand.errors import SettingsError
from evenhand.training.holding_out import hold_out


def own(item: Any) -> list[str]:
    return [str(item)]


def test_known_draws() -> None:
    train, held = hold_out("abcdefghij", own, 0.3, 0)
    assert held == ["b", "g", "j"] and train == list("acdefhi")
    first = sorted("abcdefghij", key=lambda x: hashlib.sha256(f"0:{x!r}:held out".encode()).digest())[:3]
    assert sorted(first) == held, "those of the lowest hashes"


def test_a_fraction_is_held_out_in_the_given_order() -> None:
    items = [f"text {n}" for n in range(50)]
    train, held = hold_out(items, own, 0.2, 3)
    assert len(held) == 10 and sorted(train + held) == sorted(items)
    assert train == [x for x in items if x in train] and held == [x for x in items if x in held]


def test_the_order_of_the_items_decides_nothing() -> None:
    items = [f"text {n}" for n in range(40)]
    shuffled = list(items)
    Random(1).shuffle(shuffled)
    assert set(hold_out(items, own, 0.25, 0)[1]) == set(hold_out(shuffled, own, 0.25, 0)[1])


def test_an_item_that_is_added_moves_at_most_one_other() -> None:
    items = [f"text {n}" for n in range(40)]
    before, after = (set(hold_out(some, own, 0.25, 0)[1]) for some in (items, [*items, "another"]))
    assert len(before - after) <= 1 and len(after - before - {"another"}) <= 1


def test_seeds_and_purposes_draw_differently() -> None:
    items = [f"text {n}" for n in range(40)]
    draws = [hold_out(items, own, 0.25, 0)[1], hold_out(items, own, 0.25, 1)[1], hold_out(items, own, 0.25, 0, "x")[1]]
    assert len({tuple(d) for d in draws}) == 3


def test_items_that_share_a_text_stay_together() -> None:
    items = [(n, n % 7) for n in range(50)]
    train, held = hold_out(items, lambda item: [(item[1],)], 0.2, 0)
    assert sorted(train + held) == items and len(held) >= 10
    assert not {c for _, c in train} & {c for _, c in held}


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_linked_through_others(seed: int) -> None:
    """a-b, b-c and c-d are one cluster, though a-b and c-d share nothing; the other pairs are one each."""
    chain = [("a", "b"), ("c", "d"), ("b", "c")]
    others = [(f"x{n}", f"y{n}") for n in range(6)]
    train, held = hold_out([*chain, *others], lambda pair: pair, 0.3, seed)
    assert set(chain) <= set(train) or set(chain) <= set(held)
    assert len(held) >= 3


def test_nothing_is_held_out_at_0() -> None:
    assert hold_out("aab", own, 0.0, 0) == (["a", "a", "b"], [])
    assert hold_out("a", own, 0.0, 0) == (["a"], [])


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_of_two_clusters_one_is_on_each_side(fraction: float) -> None:
    train, held = hold_out("aaab", own, fraction, 0)
    assert {*train} | {*held} == {"a", "b"} and not {*train} & {*held}


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"5 items cannot be divided .* validation_fraction=0\.1.*or validation_"):
        hold_out("xxxxx", own, 0.1, 0)
    with pytest.raises(SettingsError, match="cannot be divided"):
        hold_out("", own, 0.1, 0)
    for wrong in (-0.1, 1.0):
        with pytest.raises(SettingsError, match=f"validation_fraction={wrong}"):
            hold_out("ab", own, wrong, 0)
