"""Seeded draws have known answers: what was drawn once is drawn again."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
import pytest

from evenhand.core.draws import generator, item_hash, key_hash, seeded_hash, seeded_order, shuffled

NAMES = ["old", "young", "tall", "short", "left"]


def test_hashes_are_of_joined_parts() -> None:
    assert seeded_hash(0, "q1").hex() == "8446ba84933fe4d43704972a46fe32b1564d1488d52df61ca853d2c42cb909cb"
    assert seeded_hash(5, "record", 3) == hashlib.sha256(b"5/record/3").digest()
    assert (
        item_hash(7, "größe", 3, "single").hex() == "756e4df5ab6fd19ecad1861612ae527e877667688cfa4610be0ae0870ea95c0a"
    )
    assert item_hash(5, "stratum", "x") == hashlib.sha256(b"5:stratum:x").digest()
    assert key_hash("part größe") == hashlib.sha256("part größe".encode()).digest()
    assert key_hash("\ud800") == hashlib.sha256(b"\xed\xa0\x80").digest(), "a lone surrogate"


def test_generators_are_seeded_by_numbers_and_texts() -> None:
    expected = np.random.default_rng([7, 1, *"größe".encode()]).random(3)
    assert generator(7, 1, "größe").random(3).tolist() == expected.tolist()
    assert generator(7, 1, "größe".encode()).random(3).tolist() == expected.tolist()
    assert generator(7, 1).random() == np.random.default_rng([7, 1]).random() != generator(1, 7).random()


def test_an_order_is_shuffled_by_a_number_or_a_text() -> None:
    items = "abcdefgh"
    for seed in (3, "3/general"):
        expected = list(items)
        Random(seed).shuffle(expected)
        assert shuffled(items, seed) == expected != list(items)
    assert shuffled(items, 3) != shuffled(items, "3")


@pytest.mark.parametrize(
    ("seed", "what", "order"),
    [
        (0, "noun", ["old", "young", "left", "short", "tall"]),
        (1, "noun", ["left", "young", "short", "tall", "old"]),
        (0, "template", ["tall", "young", "left", "short", "old"]),
    ],
)
def test_an_order_depends_on_seed_and_kind_but_not_on_the_given_order(seed: int, what: str, order: list[str]) -> None:
    assert seeded_order(NAMES, seed, what) == order
    assert seeded_order([*reversed(NAMES), "tall"], seed, what) == order, "a name that occurs twice counts once"
    assert seeded_order(NAMES[1:], seed, what) == [n for n in order if n != "old"]
    assert seeded_order([], seed, what) == []
