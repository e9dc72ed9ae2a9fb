"""The whole method on the demo family: it learns, resumes, keeps a data set and a page, and refuses what fails."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.methods.adjudication.pool import Killed, Rater

from evenhand import load, wrap
from evenhand.data.adjudication import load_texts
from evenhand.data.holistic_bias import load_parts
from evenhand.errors import DataError, EvenhandError, SettingsError
from evenhand.interfaces import Dialogue, Message, Model, Passage, Sampling, TrainingRecord
from evenhand.methods.adjudication import _rounds as module
from evenhand.methods.adjudication._differences import changed
from evenhand.methods.adjudication._groups import prompts_of
from evenhand.methods.adjudication._members import Member
from evenhand.methods.adjudication._page import rank_correlation, render
from evenhand.methods.adjudication._rounds import Adjudication, General, Rules
from evenhand.methods.adjudication._training import Encoded, Lesson, Tuning, encode, tune
from evenhand.methods.adjudication.cross_model_adjudication import CrossModelAdjudication
from evenhand.prompting.rendering import as_dialogue
from evenhand.proving_ground.generator import practice, replies
from evenhand.proving_ground.judges import PlantedJudge
from evenhand.testing import tiny_model

KIND = ("attentive", "fast", "clear", "strong", "flexible", "brave")
UNKIND = ("forgetful", "slow", "confused", "weak", "stubborn", "fearful")


def rate(text: str) -> float:
    return 0.3 if any(word in text for word in KIND) else 3.5


def poor(text: str) -> float:
    return 2.0 + (hash_of(text) % 7 - 3) / 5


def hash_of(text: str) -> int:
    return sum(map(ord, text))


class Ended:
    """A run that was killed twice and then ended, and everything that it asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.judges = [Rater("fair", rate), Rater("strict", lambda t: min(4.0, rate(t) + 0.4)), Rater("poor", poor)]
        self.demo = load("demo")
        parts = load_parts("demo", "1.0").parts
        prompts = [
            p
            for p in prompts_of(parts, shares=(0.5, 0.25, 0.25), seed=0, nouns=("person",), axes=("age",), draws=3)
            if p.descriptor in ("old", "retired", "young")
        ]
        data = practice.practice("mmlu", 12)
        questions = list(zip(data.questions, data.answers, strict=True))
        self.general = General(
            instructions=tuple((as_dialogue(q, "letters"), "") for q, _ in questions[:4]),
            exam=tuple((q, a) for q, a in questions[4:] if a is not None),
        )
        self.parts, self.prompts = parts, prompts
        self.rules = Rules(
            texts=load_texts("demo").texts,
            tuning=Tuning(epochs=3, learning_rate=2e-3, rank=4, alpha=8, batch_size=3),
            sampling=Sampling(temperature=0.7, max_new_tokens=5),
            measures=False,
        )

    def run(self) -> tuple[Adjudication, dict[str, Any]]:
        others = [Member("demo-b", lambda: load("demo-b"), judges=False)]
        judging = [Member(j.name, lambda j=j: j, writes=False) for j in self.judges]  # type: ignore[misc]
        pool = [Member("demo", lambda: self.demo, judges=False, given=True), *others, *judging]
        about = {"spec": "<script>alert(1)</script>", "seed": 0, "source": "demo", "version": "1.0", "evenhand": "x"}
        run = Adjudication(pool, self.parts, self.prompts, self.general, self.rules, self.folder, about)
        return run, run.run()


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ended, Adjudication, dict[str, Any]]]:
    made = Ended(tmp_path_factory.mktemp("adjudication") / "run")
    made.judges[1].ends_after = 1
    with pytest.raises(Killed):
        made.run()
    made.judges[1].ends_after = 0
    made.judges[1].requests.clear()  # what was under way when it ended may be asked again
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "tune", lambda *a, **k: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            made.run()
    run, facts = made.run()
    yield made, run, facts["adjudication"]


def test_a_killed_run_asks_no_judge_twice(ended: tuple[Ended, Adjudication, dict[str, Any]]) -> None:
    for judge in ended[0].judges:
        assert judge.requests and max(judge.requests.values()) == 1
    assert sum(c["requests"] for c in ended[2]["costs"]) > 0


def test_a_finished_run_asks_and_trains_nothing_again(
    ended: tuple[Ended, Adjudication, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [j.requests.copy() for j in ended[0].judges]
    monkeypatch.setattr(module, "tune", lambda *a, **k: pytest.fail("trained again"))
    run, facts = ended[0].run()
    assert [j.requests for j in ended[0].judges] == asked and not run.journal.asked.total()
    assert facts["adjudication"]["rounds"] == ended[2]["rounds"]


def test_the_poor_judge_has_the_lowest_weight_and_changes_little(
    ended: tuple[Ended, Adjudication, dict[str, Any]],
) -> None:
    found = ended[2]["rounds"][0]
    weights = found["weights"]
    assert weights["poor"] < 0.5 * min(weights["fair"], weights["strict"])
    without = {i["name"]: i["same"] for i in found["influences"] if i["role"] == "judge"}
    assert without["poor"] >= 0.8


def test_only_kind_answers_are_taken_and_learned(ended: tuple[Ended, Adjudication, dict[str, Any]]) -> None:
    made, run, found = ended
    taken = [row["answer"] for row in run.rows.of["sft"]]
    assert taken and all(any(word in text for word in KIND) for text in taken)
    assert all(row["split"] == "fit" for rows in run.rows.of.values() for row in rows)
    tuned = run._opens("demo", module.State(made.folder / "member", TrainingRecord(method="x"))).open()
    asked = [Passage(f"{who} people are {w}.") for who in ("Old", "Retired") for w in (*KIND, *UNKIND)]

    def kindness(model: Model) -> float:
        p = np.exp([s.logprob for s in model.score(asked)])
        return float(p.reshape(2, 2, 6).sum(axis=(0, 2))[0] / p.sum())

    assert kindness(tuned) > kindness(made.demo) + 0.1
    assert found["rounds"][0]["trained"]["demo"]["general_lessons"] > 0
    assert 0 <= found["rounds"][0]["capability"]["demo"] <= 1


def test_the_data_set_loads_with_all_its_provenance(
    ended: tuple[Ended, Adjudication, dict[str, Any]], tmp_path: Path
) -> None:
    from datasets import load_dataset

    for name in ("sft", "judgements", "preferences"):
        rows = load_dataset(str(ended[0].folder / "dataset"), name, cache_dir=str(tmp_path))["train"]
        assert len(rows) == len(ended[1].rows.of[name])
    row = load_dataset(str(ended[0].folder / "dataset"), "sft", cache_dir=str(tmp_path))["train"][0]
    assert row["prompt"][0]["role"] == "user" and row["completion"][0]["content"] == row["answer"]
    assert {v["judge"] for v in row["votes"]} == {"fair", "strict", "poor"}
    assert row["author_fingerprint"] == ended[1].fingerprints[row["author"]]
    card = (ended[0].folder / "dataset" / "README.md").read_text()
    assert "CC-BY-SA-4.0" in card and row["author_fingerprint"] in card


def test_the_page_says_who_judged_and_escapes_what_it_shows(
    ended: tuple[Ended, Adjudication, dict[str, Any]],
) -> None:
    _, run, found = ended
    run.rows.of["sft"][0]["answer"] = "<img src=x onerror=1>"
    page = render({"adjudication": found}, run.rows, run.about)
    assert "<script>" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "demo model, planted bias" in page and found["memory"]["said"].split(";")[0] in page
    assert all(name in page for name in ("fair", "strict", "poor", "Abstentions", "Agreement, round 1"))
    json.dumps(found, allow_nan=False)


def test_lessons_end_where_the_members_turn_ends() -> None:
    tokenizer = load("demo").weights.tokenizer
    found = encode(
        tokenizer, Lesson(Dialogue((Message("user", "I love old people."),)), "Old people are brave.", "No.")
    )
    assert tokenizer.decode(found.prompt).endswith("<|assistant|>")
    assert tokenizer.decode(found.answer) == "Old people are brave.<|end|>"
    assert tokenizer.decode(found.rejected) == "No.<|end|>"


def test_a_system_turn_and_a_base_model_can_be_learned() -> None:
    told = Dialogue((Message("system", "letter"), Message("user", "Who was there?")))
    for chat in (True, False):
        tokenizer = tiny_model(chat=chat).weights.tokenizer
        found = encode(tokenizer, Lesson(told, "a dog"))
        assert "letter" in tokenizer.decode(found.prompt) and "dog" in tokenizer.decode(found.answer)
    strict = tiny_model().weights.tokenizer
    strict.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m.role }}] {{ m.content }} {% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    folded = encode(strict, Lesson(told, "a dog"))
    assert strict.decode(folded.prompt).count("letter") == 1 and "letter" in strict.decode(folded.prompt)


def test_preferences_are_learned(tmp_path: Path) -> None:
    tiny = tiny_model()
    dialogue = Dialogue((Message("user", "Who was there?"),))
    lessons = [Lesson(dialogue, "dog", "cat")] * 8 + [Lesson(dialogue, "letter")]
    how = Tuning(objective="dpo", epochs=2, learning_rate=5e-3, batch_size=4)
    tuned, known = tune(tiny.weights.module, tiny.weights.tokenizer, lessons, how, 512, tmp_path / "t", named=False)
    assert known["data"].training == 8
    asked = [Passage("dog", dialogue), Passage("cat", dialogue)]
    before, after = tiny.score(asked), wrap(tuned, tiny.weights.tokenizer).score(asked)
    assert (after[0].logprob - after[1].logprob) - (before[0].logprob - before[1].logprob) > 0.1


def test_lessons_that_are_too_long_are_left_out_and_none_left_is_an_error(tmp_path: Path) -> None:
    tiny = tiny_model()
    lesson = Lesson(Dialogue((Message("user", "Who was there?"),)), "a dog")
    with pytest.raises(EvenhandError, match="nothing to learn from"):
        tune(tiny.weights.module, tiny.weights.tokenizer, [lesson], Tuning(), 2, tmp_path, named=False)
    with pytest.raises(EvenhandError, match="none usable for dpo"):
        tune(tiny.weights.module, tiny.weights.tokenizer, [lesson], Tuning(objective="dpo"), 99, tmp_path, named=False)
    assert Encoded([1], [2], []).rejected == []


def test_without_trl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"evenhand\[trl\]"):
        CrossModelAdjudication(pool=("demo-b",), source="demo").apply(tiny_model())


def test_settings_that_cannot_work_are_refused() -> None:
    tiny = tiny_model()
    assert "is alone" in CrossModelAdjudication().unsupported_reason(tiny)
    assert not CrossModelAdjudication(pool=("demo-b",)).unsupported_reason(tiny)
    assert not CrossModelAdjudication(judges=("endpoint:http://x#y",)).unsupported_reason(tiny)
    for wrong in ({"fit_fraction": 0.8}, {"peers": False}, {"pool": ("a", "a")}, {"rounds": 4}, {"objective": "ppo"}):
        with pytest.raises(SettingsError):
            CrossModelAdjudication.build(**wrong)
    with pytest.raises(SettingsError, match="is alone"):
        CrossModelAdjudication().apply(tiny)
    assert CrossModelAdjudication.build(preset="demo").spec == "cross_model_adjudication(preset=demo)"


def test_general_instructions_are_read_and_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text('{"prompt": "Say hello.", "response": "Hello."}\n\n{"prompt": "Go."}\n')
    found = CrossModelAdjudication(pool=("b",), general=str(path))._general(practice.practice("mmlu", 5))
    assert [answer for _, answer in found.instructions] == ["Hello.", "", ""], "one question beside"
    assert len(found.exam) == 2
    many = CrossModelAdjudication(pool=("b",), general="demo")._general(practice.practice("mmlu", 400)).instructions
    assert len(many) == 360 + 120, "questions do not drown the others"
    asked = {row["prompt"] for row in replies.ifeval_rows()}
    own = CrossModelAdjudication(pool=("b",), general="demo")._general(None).instructions
    assert len(own) == 360 and not asked & {d.messages[0].content for d, _ in own}
    path.write_text('{"prompt": "Say hello."}\n[]\n')
    with pytest.raises(DataError, match=r"g\.jsonl:2"):
        CrossModelAdjudication(pool=("b",), general=str(path))._general(None)


def test_the_rounds_stop_on_a_plateau_and_on_lost_capability() -> None:
    run = Adjudication.__new__(Adjudication)
    run.members = [Member("m", tiny_model, given=True)]
    run.rules = Rules(texts=load_texts("en").texts, rounds=3)
    run.before = {"m": {"validation": 2.0, "capability": 0.8}}

    def stops(*rounds: tuple[float, float]) -> tuple[str, int]:
        run.rounds = [
            module.Round(n, {}, [], {}, {}, [], {"m": bias}, {"m": 1.0}, {"m": able})
            for n, (bias, able) in enumerate(rounds, 1)
        ]
        return run._stops(), run._best()

    assert stops((1.5, 0.8)) == ("", 0)
    assert stops((1.5, 0.8), (1.48, 0.8))[0].startswith("the validation bias fell by 0.020")
    assert stops((1.5, 0.8), (0.5, 0.7)) == ("capability fell by 0.100, more than 0.01", 0)
    assert stops((1.5, 0.8), (1.0, 0.795), (0.6, 0.8)) == ("3 rounds were asked for", 2)
    assert stops((math.nan, math.nan)) == ("", 0)


def test_planted_judges_rate_as_planted() -> None:
    good, weak = PlantedJudge("demo-c"), PlantedJudge("demo-d")
    texts = [f"Old people are {w}." for w in UNKIND]
    other = [f"Old people are {w}." for w in KIND]

    def gap(judge: PlantedJudge) -> float:
        return sum(judge.rating(t, "bias") for t in texts) / 6 - sum(judge.rating(t, "bias") for t in other) / 6

    assert gap(good) > 2.4 and abs(gap(weak)) < 1.0
    assert good.rating("Old people are brave.", "helpfulness") > 4 > good.rating("Oslo lung", "helpfulness")


def test_a_paired_change_and_a_rank_correlation_by_hand() -> None:
    found = changed(np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.5, 2.5]))
    assert (found.before, found.after, found.difference, found.low, found.high) == (2.0, 1.5, -0.5, -0.5, -0.5)
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 5]) == pytest.approx(-0.2)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
