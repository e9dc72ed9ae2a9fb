"""Difference awareness: the published scores from their counts, scripted readers, prompts, and replies."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import evenhand
from evenhand import statistics
from evenhand.core.draws import item_hash
from evenhand.core.registry import build_benchmark
from evenhand.errors import SettingsError
from evenhand.evaluation.difference_awareness import PLACE, REQUEST, DifferenceAwareness
from evenhand.experiment import training_data
from evenhand.interfaces import Choice, Question, Tally
from evenhand.models import load
from evenhand.statistics import Design
from evenhand.testing import ScriptedModel, check_benchmark

SCORES = ("diff_aware", "ctxt_aware")
STORED = ("D1", "D2", "D3", "D4", "N2", "N3", "N4")


@pytest.fixture
def published(real_difference_awareness: Path) -> list[dict[str, str]]:
    with (real_difference_awareness / "published_counts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@cache
def bench(**given: Any) -> DifferenceAwareness:
    made: DifferenceAwareness = DifferenceAwareness.build(**given)
    made.load()
    return made


def tallied(made: DifferenceAwareness, decide: Callable[[Question], int | None]) -> Tally:
    return made.tally(made.load(), made.ask(ScriptedModel(decide=decide), made.load()))


def scores(made: DifferenceAwareness, decide: Callable[[Question], int | None]) -> dict[str, dict[str, float]]:
    tally = tallied(made, decide)
    values = made.compute(tally.total)
    return {g: {name: float(m.value[i]) for name, m in values.items()} for i, g in enumerate(tally.groups)}


def counted(row: dict[str, str]) -> dict[str, float]:
    names = {"A": "right", "B": "wrong", "C": "no_difference", "D": "equal_wrong", "F": "equal_right"}
    return {name: float(row[column]) for name, column in names.items()}


def test_every_published_score_from_its_counts(published: list[dict[str, str]]) -> None:
    assert len(published) == 360
    made, undefined = DifferenceAwareness(source="demo"), 0
    for row in published:
        found = made.of_rows([counted(row)])
        for name in SCORES:
            expected = float(row[name] or "nan")
            undefined += math.isnan(expected)
            assert found[name] == pytest.approx(expected, abs=5e-7, nan_ok=True), row
    assert undefined < 100, "most are numbers"


def test_published_intervals_where_every_row_is_a_scenario(published: list[dict[str, str]]) -> None:
    """The source resamples scenarios of both halves in one draw; ours is the jackknife over the same scenarios."""
    made = bench(sets=("D1",))
    differ, equal = ([i for i in made.load() if i.half == half] for half in ("differ", "equal"))
    checked = 0
    for row in (r for r in published if r["benchmark"] == "D1" and r["system_prompt"] == "0"):
        right, wrong, neutral, mistaken, fair = (int(counted(row)[name]) for name in "ABCDF")
        decided = differ[: right + wrong + neutral], equal[: mistaken + fair]
        answers = [i.right for i in decided[0][:right]] + [1 - i.right for i in decided[0][right : right + wrong]]
        answers += [2] * neutral + [0] * mistaken + [2] * fair
        tally = made.tally([*decided[0], *decided[1]], [Choice(a) for a in answers])
        infos = [m for m in made.metrics if m.name in SCORES]
        design = Design.of(tally.clusters, tally.strata, statistics.design.takes_part([tally.sums]))
        made_of = statistics.estimates({(0, 0): tally}, design, made.compute, infos)
        for name, column in zip(SCORES, ("diff", "ctxt"), strict=True):
            low, high = made_of[name].interval(0.05)
            assert (low[0], high[0]) == pytest.approx(
                (float(row[f"{column}_low"]), float(row[f"{column}_high"])), abs=0.006
            ), row
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ("perfect", (1.0, 1.0)),
        ("always (c)", (0.0, math.nan)),
        ("wrong group", (0.0, 0.0)),
        ("nothing", (math.nan, math.nan)),
    ],
)
@pytest.mark.usefixtures("real_difference_awareness")
def test_readers_with_known_scores(reader: str, expected: tuple[float, float]) -> None:
    made = bench()
    right = {i.question.id: i.right for i in made.load()}

    def decide(question: Question) -> int | None:
        answer = right[question.id]
        wrong = 1 - answer if answer < 2 else 0
        return {"perfect": answer, "always (c)": 2, "wrong group": wrong, "nothing": None}[reader]

    found = scores(made, decide)
    assert set(found) == {"overall", "facts", "norms", *STORED}
    for group in found.values():
        assert tuple(group[name] for name in SCORES) == pytest.approx(expected, nan_ok=True)


def expectation(answers: Iterable[tuple[float, float, float]]) -> dict[str, float]:
    """The scores of the expected counts over rows, each with the probability of the right, the other and (c)."""
    rows: list[dict[str, float]] = []
    for right, wrong, neutral in answers:
        rows += [{"A": right, "B": wrong, "C": neutral}, {"D": right, "E": wrong, "F": neutral}]
    return DifferenceAwareness(source="demo").of_rows(rows)


@pytest.mark.parametrize(("options", "expected"), [(3, (1 / 3, 1 / 3)), (2, (1 / 2, 1 / 3))])
def test_guessing_has_its_exact_expectation(options: int, expected: tuple[float, float]) -> None:
    share = 1 / options
    found = expectation([(share, share, 1 - 2 * share)] * 50)
    assert (found["diff_aware"], found["ctxt_aware"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("real_difference_awareness")
@pytest.mark.parametrize(("options", "expected"), [(3, (1 / 3, 1 / 3)), (2, (1 / 2, 1 / 3))])
def test_guessing_the_published_rows(options: int, expected: tuple[float, float]) -> None:
    found = scores(bench(), lambda q: item_hash(7, q.id)[0] % (252 // (252 // options)) % options)["overall"]
    for name, value in zip(SCORES, expected, strict=True):
        assert found[name] == pytest.approx(value, abs=4 * math.sqrt(value * (1 - value) / 7_000))


def test_refusals_are_dropped_and_counted_as_wrong_by_hand() -> None:
    made = DifferenceAwareness(source="demo")
    counts = {"A": 6, "B": 2, "C": 1, "D": 1, "E": 3, "F": 5, "open_differ": 3, "open_equal": 2}
    rows = [{name: 1.0} for name, count in counts.items() for _ in range(count)]
    found = made.of_rows(rows)
    assert (found["diff_aware"], found["ctxt_aware"]) == pytest.approx((6 / 9, 6 / 10))
    assert (found["diff_aware_min"], found["ctxt_aware_min"]) == pytest.approx((6 / 12, 6 / 12))
    assert (found["diff_aware_max"], found["ctxt_aware_max"]) == pytest.approx((9 / 12, 9 / 13))
    assert (found["accuracy_equal"], found["wrong_group"], found["no_difference"]) == pytest.approx(
        (5 / 9, 2 / 9, 1 / 9)
    )


def test_answers_become_the_six_counts() -> None:
    made = bench(source="demo")
    differ = next(i for i in made.load() if i.half == "differ" and i.right == 1)
    equal = next(i for i in made.load() if i.half == "equal")
    kinds = [*(made.row(differ, Choice(d)) for d in range(3)), *(made.row(equal, Choice(d)) for d in range(3))]
    assert [[n for n in "ABCDEF" if row.get(n)] for row in kinds] == [["B"], ["A"], ["C"], ["D"], ["E"], ["F"]]
    for item in (differ, equal):
        row = made.row(item, Choice(None, status="unparsed"))
        assert row[f"open_{item.half}"] == 1 and not {*"ABCDEF"} & row.keys() and "parsed" not in row


def test_both_halves_have_scenarios_of_their_own_and_are_resampled_together() -> None:
    made = bench(source="demo")
    clusters = {half: {i.cluster for i in made.load() if i.half == half} for half in ("differ", "equal")}
    assert not clusters["differ"] & clusters["equal"]
    assert {c.replace("/differ/", "/equal/") for c in clusters["differ"]} == clusters["equal"], "the same ids in both"
    assert set(made.strata(made.load()).values()) == {"demo"}
    assert {made.stratum(i) for i in made.load()} == {"demo/differ", "demo/equal"}


@pytest.mark.usefixtures("real_difference_awareness")
def test_the_prompt_has_the_official_form() -> None:
    items = bench().load()
    for item in items:
        dialogue = item.question.dialogue
        assert dialogue is not None
        system = [m.content for m in dialogue.messages if m.role == "system"]
        assert system == ([PLACE] if item.set in ("D2", "D3", "N3") else [])
        asked, blank, order = dialogue.messages[-1].content.rpartition("\n\n")
        assert blank and order == REQUEST and asked.endswith(item.question.options[2])
        assert asked.count("(b)") == 1 and asked.count("(1)" if item.numbered else "(a)") == 1
    assert REQUEST.endswith('"(a)".') and sum(i.numbered for i in items) == 1007


def test_with_letters_options_can_be_moved() -> None:
    made = bench(source="demo", template="letters", answer_by="letters")
    question = made.load()[0].question
    assert question.dialogue is None and question.reordered((2, 0, 1)).shown == (2, 0, 1)
    assert question.sampling is None and question.answer_by == "letters"
    with pytest.raises(SettingsError, match="order is fixed"):
        bench(source="demo").load()[0].question.reordered((2, 0, 1))


@pytest.mark.usefixtures("real_difference_awareness")
@pytest.mark.parametrize(
    ("reply", "expected"),
    [("(1)", 0), ("1", 0), ("(a)", 0), ("(b)", 1), ("(c) no", 2), ("(1) or (b)", None), ("I will not say.", None)],
)
def test_a_printed_number_is_an_answer_where_it_is_printed(reply: str, expected: int | None) -> None:
    class Writer(ScriptedModel):
        def choose(self, questions: Any) -> list[Choice]:
            from evenhand.prompting.rendering import parse_choice

            read = [parse_choice(reply, q) for q in questions]
            return [Choice(d, status="unparsed" if d is None else "answered", reply=reply) for d in read]

    made = bench(sets=("N3",))
    numbered = next(i for i in made.load() if i.numbered)
    lettered = next(i for i in made.load() if not i.numbered)
    one, other = made.ask(Writer(), [numbered, lettered])
    assert (one.decision, one.status) == (expected, "unparsed" if expected is None else "answered")
    assert other.decision == {"(1)": None, "1": None, "(1) or (b)": 1}.get(reply, expected)


def test_higher_is_better_and_grades_are_of_both_halves() -> None:
    infos = {m.name: m for m in DifferenceAwareness.metrics}
    for name in SCORES:
        assert (infos[name].direction, infos[name].kind, infos[name].main) == ("higher", "bias", True)
    made = bench(source="demo")
    items = made.load()[:8]
    grades = made.grades(items, [Choice(2)] * 7 + [Choice(None)])
    assert [g.part for g in grades] == [i.half for i in items]
    assert [g.right for g in grades] == [i.half == "equal" for i in items[:7]] + [False]
    assert [g.counted for g in grades] == [True] * 7 + [False]


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(SettingsError, match="no set 'D1'"):
        DifferenceAwareness(source="demo", sets=("D1",)).load()


def test_no_method_may_train_on_it() -> None:
    for source in ("difference_awareness(source=demo)", "pairs:difference_awareness(source=demo)"):
        with pytest.raises(SettingsError, match="strictly for evaluation, not for training"):
            training_data.load(source)


@pytest.mark.parametrize("template", ["official", "letters"])
def test_it_keeps_the_contract(template: str) -> None:
    check_benchmark(build_benchmark(f"difference_awareness(source=demo,template={template})"))


@pytest.mark.usefixtures("real_difference_awareness")
def test_a_real_model_is_asked(real_model: Path) -> None:
    spec = "difference_awareness(sets=['D1','N3'],max_new_tokens=8)"
    report = evenhand.compare(load(str(real_model)), benchmarks=spec, methods=["none"], limit=12)
    found = {r.metric: r for r in report.records if r.group == "overall"}
    assert found["unparsed"].n == 12 and 0 <= found["unparsed"].value <= 1
    assert {"D1", "N3", "facts", "norms"} <= {r.group for r in report.records}
