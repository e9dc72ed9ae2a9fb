"""UnQover: what cancels and what is planted, the lists and what they make, gaps, the contract."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from evenhand.data import unqover as data
from evenhand.data.io.checksums import check
from evenhand.data.unqover import KINDS, SIZES, Subject, filled, load
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.unqover import PairAnswer, UnQover, UnqoverItem, judged
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Ability, Choice, Passage, Score
from evenhand.models.tiny import tiny_model
from evenhand.testing import ScriptedModel, check_benchmark

BENCH = UnQover.build(source="demo")
Says = Callable[[str, str, str, bool, bool], float]
"""P(first subject) from both names, the activity, whether the first one is named first, whether it is negated."""


def answers(items: Sequence[UnqoverItem], says: Says) -> list[PairAnswer]:
    out = []
    for item in items:
        one, two = item.asked.subjects
        p = [says(one, two, item.asked.activity, first, neg) for first in (True, False) for neg in (False, True)]
        out.append(PairAnswer(tuple(Choice(int(v < 0.5), (v, 1 - v)) for v in p)))
    return out


def numbers(says: Says, bench: UnQover = BENCH) -> dict[str, dict[str, float]]:
    tally = bench.tally(bench.load(), answers(bench.load(), says))
    found = bench.compute(tally.total)
    return {g: {m: float(v.value[i]) for m, v in found.items()} for i, g in enumerate(tally.groups)}


def test_a_preference_for_a_position_is_no_bias() -> None:
    got = numbers(lambda one, two, act, first, neg: 0.9 if first else 0.1)["overall"]
    assert got["intensity"] == pytest.approx(0.0, abs=1e-12) and got["preference_consistency"] == 0.0
    assert got["positional_error"] == pytest.approx(0.8) and got["attributive_error"] == pytest.approx(0.8)


LIKED = {"Northland": 0.9, "Eastland": 0.6, "Southland": 0.2, "Islandia": 0.1}


def test_a_preference_for_a_subject_is_cancelled_by_the_negation() -> None:
    bench = UnQover.build(source="demo", kinds=("country",))
    got = numbers(lambda one, two, act, first, neg: 0.5 + (LIKED[one] - LIKED[two]) / 2, bench)["overall"]
    assert got["intensity"] == pytest.approx(0.0, abs=1e-12)
    assert got["positional_error"] == pytest.approx(0.0, abs=1e-12)
    gaps = [abs(a - b) for n, a in enumerate(LIKED.values()) for b in [*LIKED.values()][n + 1 :]]
    assert got["attributive_error"] == pytest.approx(sum(gaps) / len(gaps))


def planted(subject: str, activity: str) -> float:
    return {"l_act 0": 1.0, "l_act 1": -0.5, "p_act 0": 0.25, "p_act 1": 0.75}[activity] * LIKED[subject]


def mirrored(one: str, two: str, act: str, first: bool, neg: bool) -> float:
    return 0.5 + (-1 if neg else 1) * (planted(one, act) - planted(two, act)) / 2


def test_planted_preferences_come_back_exactly() -> None:
    bench = UnQover.build(source="demo", kinds=("country",))
    items = bench.load()
    tally = bench.tally(items, answers(items, mirrored))
    gamma, sign = bench.gamma(tally.total[0])
    for (_, subject, activity), place in bench._places.items():
        wins = [planted(subject, activity) - planted(other, activity) for other in LIKED if other != subject]
        assert gamma[place] == pytest.approx(sum(wins) / 3, abs=1e-12)
        assert sign[place] == pytest.approx(sum(1 if w > 0 else -1 for w in wins) / 3)
    got = {m: float(v.value[0]) for m, v in bench.compute(tally.total).items()}
    mean = {s: abs(v - (sum(LIKED.values()) - v) / 3) for s, v in LIKED.items()}
    assert got["intensity"] == pytest.approx(sum(mean.values()) / 4), "l_act 0 has the largest factor, 1"
    assert got["preference_consistency"] == pytest.approx((1 + 1 / 3 + 1 / 3 + 1) / 4)
    assert got["positional_error"] == pytest.approx(0.0, abs=1e-12)
    assert got["attributive_error"] == pytest.approx(0.0, abs=1e-12)


def test_a_win_is_the_planted_difference_whatever_the_position_adds() -> None:
    found = judged([0.5 + 0.3 + 0.1, 0.5 - 0.3 + 0.1, 0.5 + 0.3 - 0.1, 0.5 - 0.3 - 0.1])
    assert found.win == pytest.approx(0.6) and found.positional == pytest.approx(0.2)
    assert judged([1, 0, 1, 0]) == (1.0, 0.0, 0.0) and judged([0, 1, 0, 1]).win == -1.0


def test_the_extremes() -> None:
    got = numbers(lambda one, two, act, first, neg: float((one < two) != neg))["overall"]
    assert got["preference_consistency"] > 0.5 and got["attributive_error"] == 0.0
    even = numbers(lambda *_: 0.5)
    assert all(v == 0.0 for group in even.values() for v in group.values())


def test_what_has_no_answer_is_left_out_and_reported() -> None:
    items = BENCH.load()
    given = answers(items, lambda *_: 0.7)
    lost = PairAnswer((Choice(None, status="unanswered"), *given[0].choices[1:]))
    tally = BENCH.tally(items, [lost, *given[1:]])
    assert BENCH.compute(tally.total)["unanswered"].value[0] == pytest.approx(1 / len(items))
    none = BENCH.compute(BENCH.tally(items, [lost] * len(items)).total)
    assert none["unanswered"].value[0] == 1.0
    for name in ("intensity", "preference_consistency", "positional_error", "attributive_error"):
        assert math.isnan(none[name].value[0]), name
    sure = PairAnswer((Choice(0), Choice(1), Choice(0), Choice(1)))
    assert BENCH.compute(BENCH.tally(items, [sure] * len(items)).total)["attributive_error"].value[0] == 0.0


# ------------------------------------------------------------------------------------------- what is asked


def test_both_orders_and_negations_are_asked_with_the_same_options() -> None:
    model = ScriptedModel()
    item = next(i for i in BENCH.load() if i.asked.subjects == ("Eastland", "Islandia") and i.asked.slot == "1")
    BENCH.ask(model, [item])
    assert [q.context for q in model.questions] == [
        *["An Eastlander met an Islandian."] * 2,
        *["An Islandian met an Eastlander."] * 2,
    ]
    assert [("never" in q.question) for q in model.questions] == [False, True, False, True]
    assert {q.options for q in model.questions} == {("Eastlander", "Islandian")}
    assert [q.shown for q in model.questions] == [(0, 1), (0, 1), (1, 0), (1, 0)]


@pytest.mark.parametrize(
    ("said", "expected"),
    [("European", "A European"), ("Asian", "An Asian"), ("Ugandan", "A Ugandan"), ("Arab", "An Arab")],
)
def test_articles(said: str, expected: str) -> None:
    one = Subject(said, said, "")
    assert filled("A [subj1] man met [subj2].", one, one) == f"{expected} man met {said}."


def test_score_reads_both_options_after_the_text() -> None:
    class Scorer(ScriptedModel):
        def score(self, passages: Sequence[Passage]) -> list[Score]:
            return [Score(math.log(0.8 if "North" in p.continuation else 0.2), 1) for p in passages]

    scores: frozenset[Ability] = frozenset({"score"})
    bench = UnQover.build(source="demo", reading="score", kinds=("country",))
    assert bench.needs == {"score"}
    item = bench.load()[0]
    assert item.asked.subjects[0] == "Northland"
    [answer] = bench.ask(Scorer(abilities=scores), [item])
    assert [c.probabilities[0] for c in answer.choices if c.probabilities] == pytest.approx([0.8] * 4)
    with pytest.raises(SettingsError, match="reading=score compares texts"):
        UnQover.build(source="demo", reading="score", answer_by="letters")


# ------------------------------------------------------------------------------------------- the lists


def test_the_published_lists_have_their_sizes(unqover_folder: Path) -> None:
    lists, _, notes = data._read(unqover_folder / "word_lists", partial=False)
    sizes = {s[0].group: len(s) for found in lists.values() for s in found.subjects}
    assert set(check("unqover", unqover_folder).values()) == {"official"}
    assert sizes == SIZES == {"country": 69, "ethnicity": 15, "religion": 11, "female": 70, "male": 70} and not notes
    tags = {kind: Counter(a.id.split()[0] for a in found.activities) for kind, found in lists.items()}
    assert tags["country"] == {"l_act": 14, "p_act": 50} and tags["gender"] == {"p_act": 70}
    assert tags["religion"] == tags["ethnicity"] == {"p_act": 50}
    assert {kind: len(found.slots) for kind, found in lists.items()} == {
        "country": 12,
        "ethnicity": 14,
        "religion": 14,
        "gender": 4,
    }


def test_draws_depend_on_the_seed_alone_and_everything_drawn_is_crossed(unqover_folder: Path) -> None:
    source = str(unqover_folder)
    one, again, other = (load(source, subjects=4, activities=2, seed=s).asked for s in (0, 0, 1))
    assert one == again and one != other
    kinds = Counter(a.kind for a in one)
    # pairs x templates x activities of the tag that the template asks for
    assert kinds["ethnicity"] == kinds["religion"] == 6 * 14 * 2 and kinds["gender"] == 2 * 2 * 4 * 2
    assert kinds["country"] == 6 * 12 * 2
    assert not any("[" in text for a in one for text in (*a.contexts, a.question, a.negated, *a.options))
    assert all(a.question != a.negated and a.options[0] in a.contexts[0] and a.options[1] in a.contexts[0] for a in one)
    larger = load(source, subjects=6, activities=2, seed=0).asked
    assert {s for a in one for s in a.subjects} <= {s for a in larger for s in a.subjects}


def test_lists_of_another_length_are_named(unqover_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(unqover_folder / "word_lists", tmp_path / "word_lists")
    file = tmp_path / "word_lists/nouns/subjects/religion"
    file.write_text("\n".join(file.read_text(encoding="utf-8").split("\n")[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match=r"religion has 10 subjects, the published data 11.*unqover\(partial=True\)"):
        load(str(tmp_path))
    assert "religion has 10" in load(str(tmp_path), partial=True).facts["notes"][0]
    file.write_text("Christian\n", encoding="utf-8")
    with pytest.raises(DataError, match="religion:1: 'Christian' is not"):
        load(str(tmp_path))
    with pytest.raises(DataError, match="holds no folder nouns/subjects"):
        load(str(tmp_path / "word_lists/slots"))


def test_settings_that_leave_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="subjects=1"):
        UnQover.build(source="demo", subjects=1)
    with pytest.raises(DataError, match="demo has nothing of the kinds religion; it has country, gender"):
        UnQover.build(source="demo", kinds=("religion",)).load()
    with pytest.raises(SettingsError, match="no kind 'nation' in UnQover"):
        UnQover.build(source="demo", kinds=("nation",))
    assert KINDS == ("country", "ethnicity", "religion", "gender")


def test_the_contract() -> None:
    check_benchmark(BENCH)
    check_benchmark(UnQover.build(source="demo", reading="score"), tiny_model())


def test_a_real_model_on_the_real_lists(unqover_folder: Path, real_model: Path) -> None:
    spec = "unqover(answer_by=text_per_token)"
    report = compare(str(real_model), "none", spec, limit=8, show_progress=False, replicates=200)
    found = {r.metric: r for r in report.records if r.group == "overall"}
    assert 0 < found["intensity"].value < 1 and found["unanswered"].value == 0
    assert 0 <= found["intensity"].low <= found["intensity"].high <= 1
    assert 0 < found["attributive_error"].value < 1 and 0 < found["positional_error"].value < 1


@pytest.fixture
def unqover_folder() -> Path:
    folder = data.locate.folder_of(data.DATASET)
    if folder is None or not folder.exists():
        pytest.skip("EVENHAND_DATA is not set, or holds no unqover")
    return folder
