"""Votes: expected labels, parsed replies, hidden authors, and nobody on its own answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evenhand.data.adjudication import load_texts
from evenhand.errors import DataError, SettingsError
from evenhand.methods.adjudication._answering import Candidate
from evenhand.methods.adjudication._asking import CHUNK, Journal
from evenhand.methods.adjudication._groups import Prompt
from evenhand.methods.adjudication._judging import ballots, expected, parsed, rated, shuffled
from evenhand.methods.adjudication._members import Member, look, stated
from evenhand.prompting.rendering import letter_variants
from evenhand.testing import ScriptedModel, tiny_model

from .pool import Killed, Rater

EN, DEMO = load_texts("en").texts, load_texts("demo").texts
PROMPTS = {
    name: Prompt(
        name,
        f"I love {name} people.",
        "age",
        "x",
        name,
        "I love {plural_noun_phrase}.",
        "person",
        f"{name} people",
        "fit",
    )
    for name in ("old", "young")
}


def rate(text: str) -> float:
    return 4.0 if "bad" in text else 1.0 if "so-so" in text else 0.0


def members(*raters: Rater) -> list[tuple[Member, str]]:
    return [(Member(r.name, lambda r=r: r, writes=False), r.fingerprint) for r in raters]  # type: ignore[misc]


def answers_of(*authors: str) -> list[Candidate]:
    return [
        Candidate(p, a, f"{p} {words}")
        for p in PROMPTS
        for a, words in zip(authors, ("bad", "so-so", "good"), strict=False)
    ]


def test_an_expected_label_by_hand() -> None:
    vote = expected(np.log([0.1, 0.2, 0.3, 0.05, 0.05]), [0, 1, 2, 3, 4])
    assert vote.mass == pytest.approx(0.7)
    assert vote.value == pytest.approx((0.2 + 0.6 + 0.15 + 0.2) / 0.7)


def test_a_judge_that_ignores_the_format_gives_no_vote() -> None:
    assert expected(np.log([1e-4, 1e-4]), [0, 1]).value is None
    assert expected([float("nan"), float("-inf")], [0, 1]).value is None


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("3", 3),
        (" 3. It is", 3),
        ("Rating: 2", 2),
        ("<think>4</think>1", 1),
        ("7", None),
        ("2.5", None),
        ("", None),
        ("13", None),
    ],
)
def test_a_written_digit_is_read(reply: str, value: float | None) -> None:
    assert parsed(reply, DEMO.rubrics["bias"].labels) == value


def test_yes_and_no_are_read() -> None:
    labels = EN.rubrics["refusal"].labels
    assert [parsed(r, labels) for r in ("Yes, it does.", "NO", "unknown")] == [1, 0, None]


def test_a_judge_without_probabilities_writes_its_vote() -> None:
    model = ScriptedModel(reply=lambda d: "4 of 4" if "bad" in d.messages[-1].content else "none")
    votes = rated(model, ["so bad", "fine"], DEMO.rubrics["bias"])
    assert [v.value for v in votes] == [4.0, None]


def test_a_local_model_gives_expected_labels() -> None:
    vote = rated(tiny_model(), ["Was it there?"], DEMO.rubrics["bias"])[0]
    assert vote.mass is not None and (vote.value is None or 0 <= vote.value <= 4)


def test_nobody_votes_on_its_own_answers(tmp_path: Path) -> None:
    raters = [Rater(name, rate) for name in ("a", "b", "c")]
    candidates = answers_of("a", "b", "c")
    cast = ballots(members(*raters), candidates, PROMPTS, DEMO, Journal(tmp_path / "j"), "votes", seed=0)
    for i, c in enumerate(candidates):
        for j, judge in enumerate(cast.judges):
            assert np.isnan(cast.votes["bias"][i, j]) == (judge == c.author)
            if judge == c.author:
                assert not any(c.text in asked for asked in raters[j].requests)


def test_the_order_of_judges_and_of_answers_changes_no_vote(tmp_path: Path) -> None:
    raters = [Rater(name, rate) for name in ("a", "b", "c")]
    candidates = answers_of("a", "b", "c")
    one = ballots(members(*raters), candidates, PROMPTS, DEMO, Journal(tmp_path / "1"), "votes", seed=0)
    other = ballots(members(*raters[::-1]), candidates[::-1], PROMPTS, DEMO, Journal(tmp_path / "2"), "votes", seed=0)
    for name in one.votes:
        assert one.votes[name] == pytest.approx(other.votes[name][::-1, ::-1], nan_ok=True)


def test_authors_are_hidden_and_the_order_is_the_judges_own() -> None:
    assert EN.anonymous("I am Qwen, made by Alibaba Cloud.") == "I am [a model], made by [a model]."
    assert EN.anonymous("I am demo-b.", ("demo", "demo-b")) == "I am [a model]."
    assert EN.anonymous("Gemmology") == "Gemmology"
    candidates = answers_of("a", "b", "c") * 1
    orders = [shuffled(range(len(candidates)), candidates, f"0/{judge}") for judge in "xyz"]
    assert len({tuple(o) for o in orders}) > 1 and all(sorted(o) == list(range(6)) for o in orders)
    turned = shuffled(range(6), candidates[::-1], "0/x")
    assert [candidates[::-1][i] for i in turned] == [candidates[i] for i in orders[0]]


def test_a_judge_that_was_cut_off_is_not_asked_twice(tmp_path: Path) -> None:
    candidates = [Candidate("old", "w", f"answer {n}") for n in range(300)]
    chunk = CHUNK * len(letter_variants("0")) * len(DEMO.rubrics["bias"].labels)  # passages that go out together
    judge = Rater("a", rate, ends_after=chunk + chunk // 2)
    with pytest.raises(Killed):
        ballots(members(judge), candidates, PROMPTS, DEMO, Journal(tmp_path / "j"), "votes", seed=0)
    judge.ends_after, before = 0, judge.requests.copy()
    ballots(members(judge), candidates, PROMPTS, DEMO, Journal(tmp_path / "j"), "votes", seed=0)
    twice = sum(judge.requests[r] > 1 for r in before)
    assert len(before) - twice == chunk and twice == chunk // 2 + 1  # only what was under way is asked again
    done = judge.requests.copy()
    cast = ballots(members(judge), candidates, PROMPTS, DEMO, Journal(tmp_path / "j"), "votes", seed=0)
    assert judge.requests == done and not np.isnan(cast.votes["bias"]).any()


def test_a_pool_of_one_is_refused_and_one_of_two_works() -> None:
    alone = Member("a", lambda: ScriptedModel())
    with pytest.raises(SettingsError, match="a pool of 1 cannot judge"):
        look([alone])
    other = Member("b", lambda: Rater("b", rate), writes=False)
    assert [s.name for s in look([alone, other])] == ["a", "b"]


def test_pools_that_cannot_adjudicate_are_refused() -> None:
    same = [Member(n, lambda: ScriptedModel()) for n in "ab"]
    with pytest.raises(SettingsError, match="the same model"):
        look(same)
    with pytest.raises(SettingsError, match="no member judges a"):
        look([Member("a", lambda: ScriptedModel()), Member("b", lambda: Rater("b", rate), writes=True, judges=False)])
    with pytest.raises(SettingsError, match="no member of the pool answers"):
        look([Member(n, lambda n=n: Rater(n, rate), writes=False) for n in "ab"])  # type: ignore[misc]


def test_a_base_model_is_named_as_one() -> None:
    base = tiny_model(chat=False)
    with pytest.warns(UserWarning, match="has no chat template"):
        seen = look([Member("base", lambda: base, given=True), Member("b", lambda: Rater("b", rate), writes=False)])
    assert not seen[0].chat and seen[1].chat


def test_the_largest_member_decides_the_memory() -> None:
    tiny = tiny_model()
    given, other = Member("a", lambda: tiny, given=True), Member("b", lambda: Rater("b", rate), writes=False)
    size = sum(p.numel() * p.element_size() for p in tiny.weights.module.parameters())
    found = stated(look([given, other]), [given, other])
    assert found["weights_bytes"] == {"a": size, "b": 0} and found["largest_member"] == "a"
    assert found["peak_weights_bytes"] == 2 * size and json.dumps(found)


def test_texts_of_a_file_are_checked(tmp_path: Path) -> None:
    good = (Path(__file__).parents[3] / "data" / "templates" / "adjudication_en.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(good.replace("{critique}", "it"))
    with pytest.raises(DataError, match="revise"):
        load_texts(path)
    path.write_text(good)
    assert load_texts(path).texts == EN
    assert EN.refuses("I'm sorry, but I can't discuss that.") and EN.refuses("As an AI language model, I have none.")
    assert not EN.refuses("I can help with that. I'm sorry they feel so.")
