"""Discrim-Eval: planted effects are recovered, extremes, gaps, both forms of the file, the contract."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evenhand.data.discrim_eval import (
    AGES,
    EXPLICIT_ROWS,
    GENDERS,
    RACES,
    Decision,
    Person,
    Variant,
    load,
)
from evenhand.errors import DataError
from evenhand.evaluation.discrim_eval import LEVELS, NO, YES, DecisionItem, DiscrimEval
from evenhand.evaluation.metrics.sentence_scores import Scored
from evenhand.experiment.comparison import compare
from evenhand.models.tiny import tiny_model
from evenhand.statistics.resampling import bootstrap, percentiles
from evenhand.testing import ScriptedModel, check_benchmark

EVERYBODY = [Person(age, gender, race) for age in AGES for gender in GENDERS for race in RACES]
BENCH = DiscrimEval.build(source="demo")
LogOdds = Callable[[int, Person], float]


def items_of(count: int, people: Sequence[Person] = EVERYBODY) -> list[DecisionItem]:
    return [DecisionItem(str(q), Decision(str(q), tuple(Variant(p, "?") for p in people))) for q in range(count)]


def answer_of(item: DecisionItem, y: LogOdds) -> Scored:
    """All ways of writing a word have the same share of its probability."""
    logs: list[float] = []
    for variant in item.decision.variants:
        odds = y(int(item.id), variant.person)
        p = 1 / (1 + math.exp(-odds))
        logs += [math.log(p / len(YES))] * len(YES) + [math.log((1 - p) / len(NO))] * len(NO)
    return Scored(tuple(logs), (1,) * len(logs))


def numbers(items: Sequence[DecisionItem], y: LogOdds) -> dict[str, dict[str, float]]:
    tally = BENCH.tally(items, [answer_of(i, y) for i in items])
    found = BENCH.compute(tally.total)
    return {g: {m: float(v.value[i]) for m, v in found.items()} for i, g in enumerate(tally.groups)}


RACE = {"white": 0.0, "Black": 0.5, "Asian": -0.25, "Hispanic": 0.125, "Native American": 1.0}
GENDER = {"male": 0.0, "female": 0.75, "non-binary": -0.5}


def planted(question: int, person: Person) -> float:
    return 0.3 * question - 1 + RACE[person.race] + GENDER[person.gender] + 0.01 * (person.age - 60)


def test_planted_effects_are_recovered_exactly() -> None:
    got = numbers(items_of(5), planted)
    for race in RACES[1:]:
        assert got[f"race: {race}"]["discrimination"] == pytest.approx(RACE[race], abs=1e-9)
    for gender in GENDERS[1:]:
        assert got[f"gender: {gender}"]["discrimination"] == pytest.approx(GENDER[gender], abs=1e-9)
    for age in AGES:
        if age != 60:
            assert got[f"age: {age}"]["discrimination"] == pytest.approx(0.01 * (age - 60), abs=1e-9)
    sizes = [abs(got[level.group]["discrimination"]) for level in LEVELS]
    assert got["overall"]["largest_discrimination"] == pytest.approx(1.0, abs=1e-9)
    assert got["overall"]["mean_discrimination_size"] == pytest.approx(np.mean(sizes), abs=1e-9)
    assert len(LEVELS) == 4 + 2 + 8


def test_unequal_groups_are_compared_cell_by_cell() -> None:
    """A group that is asked about more old people is not discriminated against for their age."""
    people = [p for p in EVERYBODY if p.race != "Black" or p.age >= 60]
    got = numbers(items_of(3, [*people, *people[:7]]), planted)
    assert got["race: Black"]["discrimination"] == pytest.approx(0.5, abs=1e-9)
    assert got["gender: female"]["discrimination"] == pytest.approx(0.75, abs=1e-9)


def test_constant_answers_discriminate_nobody() -> None:
    got = numbers(items_of(3), lambda q, p: 0.7)
    for group, values in got.items():
        assert values["discrimination"] == pytest.approx(0.0, abs=1e-12), group
        assert values["yes_rate_difference"] == 0.0
    assert got["overall"]["largest_discrimination"] == pytest.approx(0.0, abs=1e-12)
    assert got["overall"]["yes_probability"] == pytest.approx(1 / (1 + math.exp(-0.7)))


def test_certain_answers_are_cut_before_the_logit() -> None:
    items = items_of(2)
    answers = []
    for item in items:
        logs: list[float] = []
        for v in item.decision.variants:
            sure = v.person.gender == "female"
            logs += [0.0 if sure else -math.inf] * 3 + [-math.inf if sure else 0.0] * 3
        answers.append(Scored(tuple(logs), (1,) * len(logs)))
    tally = BENCH.tally(items, answers)
    value = BENCH.compute(tally.total)["discrimination"].value[list(tally.groups).index("gender: female")]
    assert value == pytest.approx(2 * math.log((1 - 1e-6) / 1e-6))
    rates = BENCH.compute(tally.total)["yes_rate_difference"].value
    assert rates[list(tally.groups).index("gender: female")] == 1.0


def test_permuted_groups_have_no_effect_within_the_interval() -> None:
    rng = np.random.default_rng(3)
    shuffled = [dict(zip(EVERYBODY, rng.permutation(len(EVERYBODY)), strict=True)) for _ in range(40)]
    items = items_of(40)
    tally = BENCH.tally(items, [answer_of(i, lambda q, p: planted(q, EVERYBODY[shuffled[q][p]])) for i in items])
    draws = bootstrap(tally, BENCH.compute, replicates=500)["discrimination"]
    low, high = np.quantile(draws, [0.001, 0.999], axis=0)
    assert len(low) == 15 and (low < 0).all() and (high > 0).all() and (high - low > 0.01).all()


@pytest.mark.parametrize(("asked", "defined"), [(2, False), (6, True)])
def test_resamples_without_a_group_have_no_largest_effect(asked: int, defined: bool) -> None:
    """Of 2 questions in 20 a resample lacks both in 14 %: too many for an interval. Of 6, in fewer than 1 %."""
    race = {"white": 0.0, "Black": 0.5, "Native American": 2.0}
    people = [Person(60, "male", r) for r in race]
    items = [*items_of(20, people[:2])[asked:], *items_of(asked, people)]
    tally = BENCH.tally(items, [answer_of(i, lambda _, p: race[p.race]) for i in items])
    at = list(tally.groups).index("overall")
    assert BENCH.compute(tally.total)["largest_discrimination"].value[at] == pytest.approx(2.0)
    draws = bootstrap(tally, BENCH.compute)
    for name, least in (("largest_discrimination", 2.0), ("mean_discrimination_size", 1.25)):
        low, _ = percentiles(draws[name], np.full(len(tally.groups), 19.0), 0.05)
        assert np.isnan(low[at]) != defined
        if defined:
            assert low[at] == pytest.approx(least)


def test_what_is_not_asked_or_scored_is_nan_and_not_zero() -> None:
    people = [p for p in EVERYBODY if p.race in ("white", "Asian")]
    items = items_of(2, people)
    got = numbers(items, planted)
    assert "race: Black" not in got and got["race: Asian"]["discrimination"] == pytest.approx(-0.25)
    lost = [Scored((None,) * 6 * len(people), (0,) * 6 * len(people), note="lost") for _ in items]
    nothing = BENCH.compute(BENCH.tally(items, lost).total)
    assert math.isnan(nothing["largest_discrimination"].value[0])
    assert math.isnan(nothing["mean_discrimination_size"].value[0])
    assert math.isnan(nothing["discrimination"].value[0]) and nothing["unscored"].value[0] == 1.0


def test_choices_are_read_as_both_options() -> None:
    bench = DiscrimEval.build(source="demo", reading="choose")
    assert bench.needs == {"choose"}
    model = ScriptedModel(decide=lambda q: 0 if "female" in q.question else None if "non-binary" in q.question else 1)
    items = bench.load()
    tally = bench.tally(items, bench.ask(model, items))
    found = bench.compute(tally.total)
    at = list(tally.groups).index("gender: female")
    assert found["yes_rate_difference"].value[at] == 1.0 and found["unscored"].value[0] == pytest.approx(1 / 3)
    assert math.isnan(found["discrimination"].value[list(tally.groups).index("gender: non-binary")])


def file_rows(questions: int = 70) -> list[dict[str, object]]:
    return [
        {"filled_template": f"Question {q}: {p}?", "decision_question_id": q, **p._asdict()}
        for q in range(questions)
        for p in EVERYBODY
    ]


def test_both_forms_of_the_file_give_the_same_rows(tmp_path: Path) -> None:
    rows = file_rows()
    assert len(rows) == EXPLICIT_ROWS == 9_450
    lines, hub = tmp_path / "lines", tmp_path / "hub"
    (hub / "explicit").mkdir(parents=True)
    (hub / "implicit").mkdir()
    lines.mkdir()
    (lines / "explicit.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (lines / "implicit.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), hub / "explicit" / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:1]), hub / "implicit" / "train-00000-of-00001.parquet")
    one, two = load(str(lines)), load(str(hub))
    assert one.decisions == two.decisions and len(one.decisions) == 70 and one.facts["notes"] == []
    assert len(load(str(lines), "implicit").decisions) == 1


def test_missing_rows_are_named(tmp_path: Path) -> None:
    file = tmp_path / "explicit.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in file_rows(2)), encoding="utf-8")
    with pytest.raises(DataError, match=r"has 270 explicit rows, the published data 9,450.*partial=True"):
        load(str(file))
    assert "9,450" in load(str(file), partial=True).facts["notes"][0]
    twice = file_rows()
    twice[1] = twice[0]
    file.write_text("".join(json.dumps(r) + "\n" for r in twice), encoding="utf-8")
    with pytest.raises(DataError, match="question 0 is asked about 134 kinds of people"):
        load(str(file))
    file.write_text(json.dumps({**twice[0], "age": 61}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="age '61' is none of 20, 30"):
        load(str(file), partial=True)


def test_a_real_model(real_model: Path, tmp_path: Path) -> None:
    (tmp_path / "explicit.jsonl").write_text("".join(json.dumps(r) + "\n" for r in file_rows(9)), encoding="utf-8")
    spec = f"discrim_eval(source='{tmp_path}',partial=True)"
    report = compare(str(real_model), "none", spec, limit=8, show_progress=False, replicates=200)
    found = {r.metric: r for r in report.records if r.group == "overall"}
    assert found["largest_discrimination"].low <= found["largest_discrimination"].high
    assert 0 < found["mean_discrimination_size"].value <= found["largest_discrimination"].value
    assert 0 < found["yes_probability"].value < 1 and found["unscored"].value == 0


def test_the_contract_and_a_comparison() -> None:
    check_benchmark(BENCH)
    check_benchmark(DiscrimEval.build(source="demo", reading="choose"))
    texts = [v.text for item in BENCH.load() for v in item.decision.variants]
    model = tiny_model(texts=[*texts, *YES, *NO], chat=False)
    report = compare(model, "none", "discrim_eval(source=demo)", show_progress=False, replicates=200)
    found = {r.group: r for r in report.records if r.metric == "discrimination"}
    assert found["race: Black"].low < found["race: Black"].value < found["race: Black"].high
