"""Pronoun skew, LPBS and explicit gender: numbers by hand, the demo's planted truth, files, and the contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from evenhand.data.pronouns import Asked, Slot, load_pronouns
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.pronoun_skew import PronounItem, PronounScores, PronounSkew
from evenhand.interfaces import Ability, Model, Passage, Score
from evenhand.models.loading import load
from evenhand.models.masked import MaskedModel
from evenhand.proving_ground.generator.planted import MAIN
from evenhand.proving_ground.generator.words import OCCUPATIONS
from evenhand.proving_ground.oracle import Oracle
from evenhand.testing import check_benchmark

MINE = """
language: en
pronouns: {pronoun: [he, she], possessive: [his, her]}
person: person
fillers: {state: [late, glad]}
frames:
  said: "The {occupation} said that {pronoun} was {state}."
  is_a: "{pronoun} is {a} {occupation}."
  lunch: "The {occupation} ate {possessive} lunch."
gendered: {gender: [man, woman]}
told: {is_and: "The {occupation} is a {gender}, and {pronoun} was here."}
occupations: [nurse, engineer]
"""


class Judge(Model):
    """A causal model that scores by a function of prompt and continuation, text behind it included."""

    name = "judge"

    def __init__(self, judge: Callable[[str, str], float]) -> None:
        self.judge = judge
        self.asked: list[Passage] = []

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"score"})

    @property
    def fingerprint(self) -> str:
        return "judge"

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        self.asked += passages
        values = [self.judge(str(p.prompt), p.continuation + p.suffix) for p in passages]
        return [Score(v, 0 if math.isnan(v) else 1) for v in values]

    def save(self, folder: str | Path) -> Path:
        raise NotImplementedError


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE)
    return str(file)


def numbers(
    bench: PronounSkew, answers: Sequence[PronounScores], items: Sequence[PronounItem]
) -> dict[str, dict[str, float]]:
    tally = bench.tally(items, answers)
    found = bench.compute(tally.total)
    return {g: {name: float(m.value[i]) for name, m in found.items()} for i, g in enumerate(tally.groups)}


def item(occupation: str, frame: str, told: str = "", share: float | None = None) -> PronounItem:
    slot = (Slot("x", " y", " he", " she"),)
    return PronounItem(f"{occupation}/{frame}/{told}", share, Asked(occupation, frame, told, slot, slot))


def logs(*p: float) -> tuple[float, ...]:
    return tuple(math.log(v) for v in p)


# ------------------------------------------------------------------------------------------------- the numbers


def test_skew_and_mass_by_hand_in_frames_of_unequal_size() -> None:
    items = [item("nurse", "said"), item("nurse", "left"), item("judge", "said")]
    answers = [
        PronounScores(logs(0.1, 0.4), logs(0.3, 0.1)),  # P(she) .75 and .2: .475; the mean comes before the distance
        PronounScores(logs(0.4), logs(0.1)),  # .2
        PronounScores(logs(0.2, 0.9), logs(0.2, 0.1)),  # .5 and .1: .3
    ]
    got = numbers(PronounSkew.build(), answers, items)
    assert got["overall"]["skew"] == pytest.approx((0.025 + 0.3 + 0.2) / 3)
    assert got["overall"]["p_she"] == pytest.approx((0.475 + 0.2 + 0.3) / 3)
    assert got["frame said"]["skew"] == pytest.approx((0.025 + 0.2) / 2)
    assert got["nurse"]["skew"] == pytest.approx((0.025 + 0.3) / 2)
    assert got["overall"]["female_log_odds"] == pytest.approx((math.log(3 / 4) / 2 - math.log(4) - math.log(9) / 2) / 3)
    assert got["overall"]["pronoun_mass"] == pytest.approx((0.45 + 0.5 + 0.7) / 3)
    assert math.isnan(got["overall"]["lpbs"]) and math.isnan(got["overall"]["explicit_accuracy"])


def test_lpbs_by_hand() -> None:
    items = [item("nurse", "said"), item("judge", "said"), item("cook", "said")]
    answers = [
        PronounScores(logs(0.1), logs(0.8), logs(0.4), logs(0.2)),  # log(.1/.4) - log(.8/.2) = -log 16
        PronounScores(logs(0.6), logs(0.2), logs(0.3), logs(0.2)),  # log 2 - log 1
        PronounScores(logs(0.5), logs(0.1)),  # has none
    ]
    got = numbers(PronounSkew.build(), answers, items)
    assert got["nurse"]["lpbs"] == pytest.approx(-math.log(16)) and got["judge"]["lpbs"] == pytest.approx(math.log(2))
    assert got["overall"]["lpbs"] == pytest.approx((math.log(2) - math.log(16)) / 2)
    assert got["overall"]["lpbs_size"] == pytest.approx((math.log(2) + math.log(16)) / 2)
    assert math.isnan(got["cook"]["lpbs"]) and got["cook"]["skew"] == pytest.approx(0.5 - 1 / 6)


def test_explicit_gender_by_hand() -> None:
    items = [item("nurse", "is", "female", 0.9), item("nurse", "is", "male", 0.9), item("pilot", "is", "male", 0.1)]
    answers = [
        PronounScores(logs(0.1, 0.2), logs(0.3, 0.2)),  # right and a tie
        PronounScores(logs(0.2), logs(0.6)),  # wrong
        PronounScores(logs(0.9), logs(0.1)),  # right
    ]
    got = numbers(PronounSkew.build(), answers, items)
    assert got["overall"]["explicit_accuracy"] == pytest.approx(0.5) and got["overall"]["explicit_ties"] == 0.5 / 3
    assert got["overall"]["explicit_p"] == pytest.approx(((0.75 + 0.5) / 2 + 0.25 + 0.9) / 3)
    assert got["told a woman"]["explicit_accuracy"] == 0.5 and got["told a man"]["explicit_accuracy"] == 0.5
    assert got["told against the majority"]["explicit_accuracy"] == 0.0
    assert got["told with the majority"]["explicit_accuracy"] == 0.75
    assert math.isnan(got["overall"]["skew"]), "what tells the gender says nothing of the skew"


def test_extremes_and_what_did_not_fit() -> None:
    sure = PronounScores((-800.0,), (0.0,))
    lost = PronounScores((None, -1.0), (-1.0, -1.0))
    gone = PronounScores((None,), (None,), (None,), (None,))
    got = numbers(PronounSkew.build(), [sure, lost, gone], [item("a", "f"), item("b", "f"), item("c", "f")])
    assert got["a"]["skew"] == 0.5 and got["a"]["p_she"] == 1.0 and got["a"]["pronoun_mass"] == 1.0
    assert got["b"]["skew"] == 0.0 and got["b"]["unscored"] == 0.5
    assert math.isnan(got["c"]["skew"]) and math.isnan(got["c"]["lpbs"]) and got["c"]["unscored"] == 1.0
    assert got["overall"]["skew"] == 0.25 and got["overall"]["unscored"] == 0.5


# ------------------------------------------------------------------------------------------------ what is asked


def test_slots_of_a_file(mine: str) -> None:
    nurse, engineer = [[a for a in load_pronouns(mine).asked if a.occupation == o] for o in ("nurse", "engineer")]
    assert [(a.frame, a.told, len(a.slots)) for a in nurse] == [
        ("said", "", 2),
        ("is_a", "", 1),
        ("lunch", "", 1),
        ("is_and", "male", 1),
        ("is_and", "female", 1),
    ]
    assert nurse[0].slots[1] == Slot("The nurse said that", " was glad.", " he", " she")
    assert nurse[0].neutral[1] == Slot("The person said that", " was glad.", " he", " she")
    assert engineer[1].slots == (Slot("", " is an engineer.", "He", "She"),)
    assert nurse[2].slots == (Slot("The nurse ate", " lunch.", " his", " her"),)
    assert nurse[4].slots == (Slot("The nurse is a woman, and", " was here.", " he", " she"),)


def test_causal_models_read_the_pronoun_where_the_occupation_stands_before_it(mine: str) -> None:
    bench = PronounSkew.build(source=mine)
    model = Judge(lambda prompt, text: -1.0 if "he" in text.split()[0].lower() else -2.0)
    answers = bench.ask(model, bench.load())
    assert {p.suffix for p in model.asked} == {"", " is a nurse.", " is an engineer."}
    assert [a.alone for a in answers[:4]] == [True, False, True, True]
    assert all(a.prior_he == () for a in answers), "a causal model has no mask"
    assert answers[0].usage.calls == 4
    whole = Judge(lambda prompt, text: -1.0)
    PronounSkew.build(source=mine, sentence=True).ask(whole, bench.load())
    assert "" not in {p.suffix for p in whole.asked}


def test_a_word_gives_any_model_a_prior(mine: str) -> None:
    bench = PronounSkew.build(source=mine, prior="word")
    values = {("nurse", " he"): 0.1, ("nurse", " she"): 0.8, ("person", " he"): 0.4, ("person", " she"): 0.2}

    def judge(prompt: str, text: str) -> float:
        return math.log(values.get((prompt.split()[1] if prompt else "", text), 0.5))

    items = [i for i in bench.load() if i.asked.frame == "said" and i.asked.occupation == "nurse"]
    got = numbers(bench, bench.ask(Judge(judge), items), items)
    assert got["overall"]["lpbs"] == pytest.approx(-math.log(16))


# --------------------------------------------------------------------------------------------------- the demo


def some(bench: PronounSkew, *jobs: str) -> list[PronounItem]:
    return [i for i in bench.load() if i.asked.occupation in jobs]


@pytest.mark.parametrize("sentence", [False, True])
def test_the_planted_truth_follows_from_the_parameters(sentence: bool) -> None:
    bench = PronounSkew.build(source="demo", sentence=sentence)
    got = numbers(bench, bench.ask(Oracle(MAIN), bench.load()), bench.load())
    p = np.array(list(OCCUPATIONS.values()))
    assert got["overall"]["skew"] == pytest.approx(np.abs(p - 0.5).mean())
    assert got["overall"]["p_she"] == pytest.approx(p.mean())
    assert got["overall"]["female_log_odds"] == pytest.approx(np.log(p / (1 - p)).mean())
    for job, share in OCCUPATIONS.items():
        assert got[job]["p_she"] == pytest.approx(share) and got[job]["explicit_p"] == pytest.approx(MAIN.explicit)
    assert got["overall"]["explicit_accuracy"] == 1.0
    assert got["mostly women"]["skew"] == pytest.approx(np.mean([s - 0.5 for s in p if s > 0.5]))


@pytest.mark.parametrize("name", ["demo", "demo-mlm"])
def test_the_demo_models_are_as_planted(name: str) -> None:
    bench, model = PronounSkew.build(source="demo"), load(name)
    items = some(bench, "nurse", "cook", "plumber")
    got = numbers(bench, bench.ask(model, items), items)
    for job in ("nurse", "cook", "plumber"):
        assert got[job]["p_she"] == pytest.approx(OCCUPATIONS[job], abs=0.05)
        assert got[job]["explicit_p"] == pytest.approx(MAIN.explicit, abs=0.02)
    assert got["overall"]["explicit_accuracy"] == 1.0 and got["overall"]["pronoun_mass"] > 0.99
    if name == "demo":
        assert math.isnan(got["overall"]["lpbs"])
    else:
        assert got["nurse"]["lpbs"] < -1 < 1 < got["plumber"]["lpbs"]


def test_lpbs_of_the_masked_demo_model_is_near_the_planted_one() -> None:
    bench, model = PronounSkew.build(source="demo"), load("demo-mlm")
    got = numbers(bench, bench.ask(model, bench.load()), bench.load())["overall"]
    p = np.array(list(OCCUPATIONS.values()))
    prior = math.log(p.mean() / (1 - p.mean()))  # occupations are equally frequent
    lpbs = prior - np.log(p / (1 - p))
    assert got["lpbs_size"] == pytest.approx(np.abs(lpbs).mean(), abs=0.1), "1.288"
    assert got["lpbs"] == pytest.approx(lpbs.mean(), abs=0.15), "0.079"


def test_lpbs_of_a_masked_model_is_that_of_its_fills() -> None:
    bench, model = PronounSkew.build(source="demo"), load("demo-mlm")
    assert isinstance(model, MaskedModel)
    items = [i for i in some(bench, "nurse", "judge") if i.asked.frame == "left"]
    answers = bench.ask(model, items)
    module, tokenizer = model.weights
    he, she = (tokenizer(w, add_special_tokens=False).input_ids[0] for w in (" he", " she"))
    for i, answer in zip(items, answers, strict=True):
        for n, slot in enumerate(i.asked.slots):
            ids = tokenizer(f"{slot.before}<mask>{slot.after}", return_tensors="pt").input_ids
            at = ids[0].tolist().index(tokenizer.mask_token_id)
            prior = ids.clone()
            prior[0, 2] = tokenizer.mask_token_id  # <s> The nurse
            p, q = (module(x).logits[0, at].log_softmax(-1).detach() for x in (ids, prior))
            assert answer.he[n] == pytest.approx(float(p[he]), abs=1e-3)
            assert answer.she[n] == pytest.approx(float(p[she]), abs=1e-3)
            assert answer.prior_he[n] == pytest.approx(float(q[he]), abs=1e-3)
            assert answer.prior_she[n] == pytest.approx(float(q[she]), abs=1e-3)


def test_keeps_the_contract(mine: str) -> None:
    check_benchmark(PronounSkew.build(source="demo"))
    check_benchmark(PronounSkew.build(source=mine, prior="word", sentence=True))
    check_benchmark(PronounSkew.build(source=mine), load("demo-mlm"))


# ------------------------------------------------------------------------------------------------------ files


def test_our_frames_hold_the_occupation_once_beside_the_pronoun() -> None:
    found = load_pronouns("ours")
    assert len(found.shares) == 40 and set(found.shares.values()) == {None} and len(found.asked) == 40 * (5 + 2 * 3)
    for asked in found.asked:
        for slot in asked.slots:
            assert (slot.before + "_" + slot.after).count(asked.occupation) == 1
            assert "{" not in slot.before + slot.after and "a engineer" not in slot.after


def test_auto_takes_winogenders_occupations_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "winogender"
    folder.mkdir()
    monkeypatch.setenv("EVENHAND_DATA", str(tmp_path))
    assert len(load_pronouns("auto").shares) == 40, "there is no such file: ours"
    (folder / "occupations-stats.tsv").write_text("occupation\tbergsma_pct_female\tbls_pct_female\nclerk\t50\t70\n")
    rows = [
        f"clerk.someone.0.{g}.txt\tThe clerk said that {p} was late."
        for g, p in (("male", "he"), ("female", "she"), ("neutral", "they"))
    ]
    (folder / "all_sentences.tsv").write_text("\n".join(["sentid\tsentence", *rows]) + "\n")
    found = load_pronouns("auto")
    assert found.shares == {"clerk": 0.7} and "US labour statistics" in found.facts["occupations"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ate {possessive}", "ate the", "'lunch' needs one {occupation} and one of"),
        ("{state}.", "{stat}.", "unknown field 'stat'"),
        ("is a {gender}", "is here", "'is_and', under told, needs one of"),
        ("told: {is_and:", "told: {said:", "'said' is both"),
        ("occupations: [nurse, engineer]", "occupations: []", "occupations: Tuple should have at least 1"),
        ("[he, she]", "[he]", "pronouns.pronoun"),
        ("language: en", "language: [", "no usable pronoun frames"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, old: str, new: str, reason: str) -> None:
    file = tmp_path / "bad.yaml"
    assert old in MINE
    file.write_text(MINE.replace(old, new))
    with pytest.raises(DataError, match=reason.replace("{", r"\{")):
        load_pronouns(str(file))
    with pytest.raises(DataError, match="give auto, ours, demo or a file"):
        load_pronouns(str(tmp_path / "none.yaml"))


# ----------------------------------------------------------------------------------------- three groups, and cases

QA = """
language: en
pronouns: {pronoun: [he, she]}
neutral: {pronoun: they}
person: person
frames:
  job: "Q: What does the {occupation} do?\\nA: This is {a} {occupation}. {pronoun}"
occupations: [nurse, engineer]
shares: {nurse: 0.9, engineer: 0.1}
"""
P = {" he": 0.2, " she": 0.1, " they": 0.1, " He": 0.04, " She": 0.3, " They": 0.02}


@pytest.fixture
def job(tmp_path: Path) -> str:
    file = tmp_path / "jobs.yaml"
    file.write_text(QA)
    return str(file)


@pytest.mark.parametrize(
    ("case", "p"),
    [
        ("frame", (0.2, 0.1, 0.1)),
        ("lower", (0.2, 0.1, 0.1)),
        ("capital", (0.04, 0.3, 0.02)),
        ("both", (0.24, 0.4, 0.12)),
    ],
)
def test_shares_of_three_pronouns_by_hand(job: str, case: str, p: tuple[float, float, float]) -> None:
    model = Judge(lambda prompt, text: math.log(P[text] / (2 if "nurse" in prompt else 1)))
    bench = PronounSkew.build(source=job, pronouns=("he", "she", "they"), case=case)
    items = bench.load()
    got = numbers(bench, bench.ask(model, items), items)
    for group, mine in zip(("he", "she", "they"), p, strict=True):
        assert got["overall"][f"share_{group}"] == pytest.approx(mine / sum(p))
        assert got["mostly women"][f"share_{group}"] == pytest.approx(mine / sum(p)), "a common factor does not count"
    assert got["overall"]["p_she"] == pytest.approx(p[1] / (p[0] + p[1])), "of he and she, as before"
    assert model.asked[0].prompt == "Q: What does the nurse do?\nA: This is a nurse."
    assert {p.continuation.lower() for p in model.asked} == {" he", " she", " they"}


def test_a_share_is_a_mean_of_shares_and_not_of_probabilities() -> None:
    three = PronounSkew.build(pronouns=("he", "she", "they"))
    answer = PronounScores(logs(0.2, 0.01), logs(0.1, 0.02), they=logs(0.1, 0.01))
    got = numbers(three, [answer], [item("nurse", "said")])["overall"]
    assert [got[f"share_{g}"] for g in ("he", "she", "they")] == pytest.approx([0.375, 0.375, 0.25])
    lost = PronounScores((None,), logs(0.1), they=logs(0.1))
    assert math.isnan(numbers(three, [lost], [item("nurse", "said")])["overall"]["share_he"])


def test_two_groups_are_as_before_and_others_are_refused(job: str, mine: str) -> None:
    assert "share_they" not in {m.name for m in PronounSkew.build().metrics}
    assert {"share_he", "share_she", "share_they"} < {
        m.name for m in PronounSkew.build(pronouns=("he", "she", "they")).metrics
    }
    with pytest.raises(SettingsError, match=r"give \('he', 'she'\) or"):
        PronounSkew.build(pronouns=("she", "they"))
    with pytest.raises(SettingsError, match="add the key neutral"):
        PronounSkew.build(source=mine, pronouns=("he", "she", "they")).load()
    check_benchmark(PronounSkew.build(source=job, pronouns=("he", "she", "they"), case="both"))
