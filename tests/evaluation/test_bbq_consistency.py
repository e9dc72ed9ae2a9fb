"""Rows of BBQ that are each other's counterfactual, and consistency over them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evenhand.data.bbq import load_rows
from evenhand.data.bbq_swap import swaps
from evenhand.data.swaps import Swap, bare, exchanged, names_of, plain
from evenhand.evaluation.bbq import BBQ, score

PEOPLE = {
    "ans0": ["the deaf person", "deaf"],
    "ans1": ["The blind person", "blind"],
    "ans2": ["Not known", "unknown"],
}


def row(context: str, order: str = "012", label: int = 2, **changed: Any) -> dict[str, Any]:
    """A row whose options stand in some order; the label names the option of the first order."""
    entries = [PEOPLE[f"ans{digit}"] for digit in order]
    made = {
        "category": "Disability_status",
        "question_index": "1",
        "question_polarity": "neg",
        "context_condition": "ambig",
        "context": context,
        "question": "Who was late?",
        "label": order.index(str(label)),
        "answer_info": {f"ans{i}": entry for i, entry in enumerate(entries)},
    }
    return made | {f"ans{i}": entry[0] for i, entry in enumerate(entries)} | changed


def pairs(*rows: dict[str, Any]) -> dict[str, Swap]:
    return swaps(rows, [str(n) for n in range(len(rows))])


ONE, TWO = "A deaf person met a blind person.", "A blind person met a deaf person."


def test_exchanging_both_people_gives_the_counterpart() -> None:
    found = pairs(row(ONE), row(TWO, "210"))
    assert found == {"0": Swap("1", (1, 2, 0)), "1": Swap("0", (2, 0, 1))}
    assert pairs(row(ONE), row(TWO))["0"].turned == (1, 0, 2), "the same order of options: people change, nobody stays"


def test_words_that_differ_are_exchanged_where_the_names_do_not_stand() -> None:
    one, other = "Two came, one deaf and an other blind.", "Two came, one blind and a other deaf."
    assert set(pairs(row(one), row(other))) == {"0", "1"}


@pytest.mark.parametrize(
    "other",
    [
        row(ONE),
        row("A blind person saw a deaf person."),
        row("A blind person met a blind person."),
        row(TWO, question="Who was early?"),
        row(TWO, question_index="2"),
        row(TWO, question_polarity="nonneg"),
        row(TWO, context_condition="disambig"),
        row(TWO, category="SES"),
        row(TWO, label=0),
    ],
)
def test_anything_else_is_no_counterpart(other: dict[str, Any]) -> None:
    assert pairs(row(ONE), other) == {}


def test_labels_must_change_places_too() -> None:
    told = {"context_condition": "disambig"}
    assert set(pairs(row(ONE, label=0, **told), row(TWO, label=1, **told))) == {"0", "1"}
    assert pairs(row(ONE, label=0, **told), row(TWO, label=0, **told)) == {}


def test_equal_rows_are_matched_one_by_one() -> None:
    found = pairs(row(ONE), row(ONE), row(TWO), row(TWO), row(TWO))
    assert {name: swap.other for name, swap in found.items()} == {"0": "2", "2": "0", "1": "3", "3": "1"}


def test_names_within_names() -> None:
    assert bare("The  African American.") == "african american" and bare("Ayanna Banks") == "ayanna banks"
    assert exchanged("american and african american", ("american", "african american")) == (
        "african american and american"
    )
    assert exchanged("the men and the women", ("men", "women")) == "the women and the men"
    assert exchanged("the women alone", ("men", "women")) is None
    assert list(names_of("deaf person", "blind person")) == [("deaf person", "blind person"), ("deaf", "blind")]
    assert list(names_of("ann", "bob")) == [("ann", "bob")]
    assert plain("An  old\nman") == "a old man"


@cache
def demo() -> tuple[list[dict[str, Any]], dict[str, Swap]]:
    rows = load_rows("demo").rows
    return rows, swaps(rows, [f"{r['category']}/{r['example_id']}" for r in rows])


def reader(what: str) -> Callable[[dict[str, Any]], int | None]:
    def decide(raw: dict[str, Any]) -> int | None:
        unknown = next(i for i in range(3) if raw["answer_info"][f"ans{i}"][1] == "unknown")
        people = {raw[f"ans{i}"]: i for i in range(3) if i != unknown}
        same, first = people[min(people)], min(people.values(), key=lambda i: _place(raw, i))
        return {"label": raw["label"], "unknown": unknown, "same": same, "first": first, "nothing": None}[what]

    return decide


def _place(raw: dict[str, Any], option: int) -> int:
    """Where a context first names the person of an option."""
    return plain(raw["context"]).index(bare(raw[f"ans{option}"]))


@pytest.mark.parametrize(
    ("what", "consistency", "decided"),
    [
        ("label", 1, {"ambiguous": math.nan, "disambiguated": 1}),
        ("unknown", 1, {"ambiguous": math.nan, "disambiguated": math.nan}),
        ("same", 0, {"ambiguous": 0, "disambiguated": 0}),
        ("first", 1, {"ambiguous": 1, "disambiguated": 1}),
        ("nothing", math.nan, {"ambiguous": math.nan, "disambiguated": math.nan}),
    ],
)
def test_readers_with_known_consistency(what: str, consistency: float, decided: dict[str, float]) -> None:
    rows, _ = demo()
    found = score(rows, [reader(what)(r) for r in rows])["overall"]
    assert found["consistency"] == pytest.approx(consistency, nan_ok=True)
    for context, value in decided.items():
        assert found[f"consistency_{context}"] == pytest.approx(consistency, nan_ok=True)
        assert found[f"consistency_decided_{context}"] == pytest.approx(value, nan_ok=True)
    assert found["consistency_unparsed"] == (what == "nothing")


def test_a_pair_is_within_one_template_kind_of_context_and_group() -> None:
    items = {item.id: item for item in BBQ(source="demo").load()}
    for item in items.values():
        assert item.swap is not None
        other = items[item.swap.other]
        assert other.swap is not None and other.swap.other == item.id
        assert (item.cluster, item.disambiguated) == (other.cluster, other.disambiguated)
        assert [other.swap.turned[item.swap.turned[o]] for o in range(3)] == [0, 1, 2]
        assert item.swap.turned[item.label] == other.label and item.swap.turned[item.unknown or 0] == other.unknown


def test_the_published_rows(real_bbq: Path) -> None:
    """Of the sets that are there; the two intersectional ones are samples without pairs."""
    bench = BBQ(source=str(real_bbq))
    counts = Counter((i.category, i.swap is None) for i in bench.load())
    paired = {name: counts[name, False] for name, alone in counts if not alone}
    assert paired == {
        "Age": 2660,
        "Disability_status": 440,
        "Gender_identity": 5276,
        "Nationality": 3056,
        "Physical_appearance": 670,
        "Race_ethnicity": 6848,
        "Religion": 1200,
        "SES": 6596,
        "Sexual_orientation": 864,
    }
    alone = sum(count for (_, lone), count in counts.items() if lone)
    assert bench.facts()["swaps"] == {"pairs": 13_805, "rows_without_counterpart": alone}
