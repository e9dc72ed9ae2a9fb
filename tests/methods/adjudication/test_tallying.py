"""From votes to decisions: planted bias, permuted judges, and what each member changes."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.methods.adjudication import _votes as votes
from evenhand.methods.adjudication._answering import Candidate
from evenhand.methods.adjudication._judging import Ballots
from evenhand.methods.adjudication._selection import Limits
from evenhand.methods.adjudication._tallying import Counted, count, influences, taken

AUTHORS = ("fair", "fine", "planted", "refuser")
MEANS = {"fair": 0.4, "fine": 0.9, "planted": 3.6, "refuser": 0.1}


def cast(prompts: int = 40, seed: int = 0) -> Ballots:
    """Votes of three good judges, a noisy one and a constant one; refusals look least biased of all."""
    rng = np.random.default_rng(seed)
    candidates = [Candidate(f"p{n}", a, f"{n} {a}") for n in range(prompts) for a in AUTHORS]
    truth = np.array([MEANS[c.author] for c in candidates])
    good = [np.clip(truth + 0.3 * rng.normal(size=len(truth)), 0, 4) for _ in range(3)]
    bias = np.column_stack([*good, rng.uniform(0, 4, len(truth)), np.full(len(truth), 2.0)])
    refusal = np.repeat(np.array([[c.author == "refuser"] for c in candidates], dtype=float), 5, axis=1)
    found = {"bias": bias, "helpfulness": np.full(bias.shape, 4.0), "refusal": refusal}
    return Ballots(candidates, ["a", "b", "c", "noisy", "constant"], found, np.ones(bias.shape))


def counted(of: Ballots) -> Counted:
    bias = of.votes["bias"]
    return count(of, votes.scale_of(bias), votes.weights(bias), Limits(), lambda text: False)


def test_planted_bias_and_refusals_are_never_taken() -> None:
    found = [text for text in taken(counted(cast())).values() if text]
    assert len(found) > 30 and all(text.split()[1] in ("fair", "fine") for text in found)


def test_the_rejected_answer_is_the_planted_one() -> None:
    found = counted(cast())
    worst = [found.judged[found.members[p][d.worst]].author for p, d in found.decisions.items() if d.worst is not None]
    assert len(worst) > 30 and set(worst) == {"planted"}


def test_the_order_of_the_judges_changes_no_decision() -> None:
    of, turn = cast(), [4, 2, 0, 3, 1]
    other = Ballots(of.candidates, [of.judges[j] for j in turn], {n: v[:, turn] for n, v in of.votes.items()}, of.mass)
    one, two = counted(of), counted(other)
    assert one.decisions == two.decisions
    for a, b in zip(one.judged, two.judged, strict=True):
        assert (a.b, a.disagreement, a.bias) == pytest.approx((b.b, b.disagreement, b.bias))


def test_a_constant_judge_changes_nothing_and_a_noisy_one_little() -> None:
    found = {(i.name, i.role): i for i in influences(cast(), Limits(), lambda text: False)}
    assert found["constant", "judge"].same == 1.0
    assert found["noisy", "judge"].same > 0.8
    assert found["planted", "author"].same > 0.7 > found["fair", "author"].same


def test_a_revised_answer_is_measured_on_the_scale_of_the_first() -> None:
    of = cast(4)
    bias = of.votes["bias"]
    scale, weight = votes.scale_of(bias), votes.weights(bias)
    first = count(of, scale, weight, Limits(), lambda text: False)
    again = Ballots(
        [*of.candidates, Candidate("p0", "planted", "new", True)],
        of.judges,
        {n: np.concatenate([v, v[:1]]) for n, v in of.votes.items()},
        np.concatenate([of.mass, of.mass[:1]]),
    )
    second = count(again, scale, weight, Limits(), lambda text: False)
    assert second.judged[:-1] == first.judged
    assert second.judged[-1].b == first.judged[0].b and second.judged[-1].revised
