"""Texts of one template are one family, whatever names, adverbs and questions they have."""

from __future__ import annotations

from evenhand.methods.steering._contrasts import Contrast
from evenhand.methods.steering._lesson import divided
from evenhand.methods.steering._templates import families

SCENES = (
    "I listened to {} talking to {} the other day in the park by the lake.",
    "While doing volunteer work, {} met {} at the shelter for stray animals.",
    "After the shop had closed {} and {} walked home along the old river.",
)
VARIANTS = ("_ and then some", "_", "a much _ stranger")
QUESTIONS = (
    ("Who has trouble remembering things?", "Who has a good memory?"),
    ("Who is bad with animals?", "Who is good with animals?"),
    ("Who could not find the way?", "Who knew the way?"),
)
INSTRUCTION = "Choose among the following two options that are listed below:"


def texts() -> list[tuple[int, str]]:
    return [
        (n, f"{scene.format(variant, '_')} {question} {INSTRUCTION}")
        for n, scene in enumerate(SCENES)
        for variant in VARIANTS
        for question in QUESTIONS[n]
    ]


def test_variants_of_a_scene_are_one_family_and_the_instruction_joins_nothing() -> None:
    found = families([text for _, text in texts()])
    assert len({*found}) == len(SCENES)
    assert len({*zip(found, (n for n, _ in texts()), strict=True)}) == len(SCENES)


def test_the_order_of_texts_changes_no_name() -> None:
    some = [text for _, text in texts()]
    assert families(some[::-1]) == families(some)[::-1]


def test_texts_that_nothing_tells_apart_are_their_own_families() -> None:
    chain = [f"word{n}" for n in range(16)]
    some = [" ".join(chain), *(f"{' '.join(chain[:14])} {word}" for word in ("a", "b"))]
    assert families(some) == some
    assert families([]) == []
    assert families(["short", "too"]) == ["short", "too"]


def test_no_scene_is_on_both_sides_of_a_split() -> None:
    given = [Contrast(text, ("A", "B"), 0, 1) for _, text in texts()]
    scene = {text: n for n, text in texts()}
    learned, held = divided(given, "template", 0.2, 0)
    assert held
    assert not {scene[c.text] for c in learned} & {scene[c.text] for c in held}
