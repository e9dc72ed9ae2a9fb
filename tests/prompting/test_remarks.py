"""Draws that never differ: when that is told, and that it stays with the result."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import evenhand
from evenhand.interfaces import Choice, Dialogue, Question, Reply, Sampling
from evenhand.prompting.permutation_ensemble import debiased
from evenhand.prompting.remarks import remark, remarked, unsampled
from evenhand.report import Report
from evenhand.testing import ScriptedModel


class Server(ScriptedModel):
    """Answers without probabilities: always the same, or drawn."""

    def __init__(self, draws: bool) -> None:
        super().__init__()
        self.draws = draws

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        return [Choice(self._draw(q.id, q.order, q.draw, len(q.options)), reply="as written") for q in questions]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        return [Reply(f"{self._draw(d.messages[-1].content, len(d.messages), d.draw, 9)}") for d in dialogues]

    def _draw(self, *what: Any) -> int:
        *prompt, draw, count = what
        return random.Random(repr((prompt, draw if self.draws else 0))).randrange(count)


def several(prompts: int, each: int, differ: bool = False) -> list[tuple[int, str | None]]:
    found: list[tuple[int, str | None]] = [(p, f"reply {p}") for p in range(prompts) for _ in range(each)]
    return [*found[:-1], (prompts - 1, "another")] if differ else found


@pytest.mark.parametrize(
    ("draws", "temperature", "told"),
    [
        (several(10, 5), 1.0, True),
        (several(10, 5), 0.5, True),
        (several(10, 5), 0.4, False),  # cold: a sure model repeats itself
        (several(10, 5, differ=True), 1.0, False),  # one that differs is enough
        (several(4, 100), 1.0, False),  # few prompts may all be certain
        (several(10, 4), 1.0, True),
        (several(10, 3), 1.0, False),  # 20 repeats
        (several(100, 1), 1.0, False),  # nothing to compare
        ([*several(10, 5), *((p, None) for p in range(10))], 1.0, True),  # no reply is no other reply
        ([], 1.0, False),
    ],
)
def test_when_draws_look_as_if_nothing_was_sampled(draws: Any, temperature: float, told: bool) -> None:
    found = unsampled(draws, temperature, "it")
    assert bool(found) == told
    assert not told or 0 < found.find("as good as certain") < found.find("ignore temperature")


def test_remarks_are_warned_of_and_collected_once() -> None:
    with remarked() as heard, pytest.warns(UserWarning, match="odd"):
        for _ in range(2):
            remark("odd")
    assert heard == ["odd"]


QUESTIONS = [Question(f"q{i}", "Which?", ("one", "two")) for i in range(6)]


def test_who_collects_around_another_hears_the_same() -> None:
    with remarked() as outer, pytest.warns(UserWarning, match="heard"):
        remark("heard before")
        with remarked() as inner:
            remark("heard inside")
            remark("heard before")
    assert inner == ["heard inside", "heard before"] and outer == ["heard before", "heard inside"]


def test_a_sampled_ensemble_of_a_server_that_does_not_sample() -> None:
    with pytest.warns(UserWarning, match=r"all 192 draws from 12 prompts at temperature 1 .*sampled decisions"):
        debiased(Server(draws=False), QUESTIONS, decisions="sampled")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        debiased(Server(draws=True), QUESTIONS, decisions="sampled")


@pytest.mark.parametrize(
    ("spec", "benchmark", "metric"),
    [
        ("none", "b_score(source=demo,preset=quick)", "b_score"),
        ("permutation(decisions=sampled)", "bbq(source=demo)", "accuracy_ambiguous"),
    ],
)
def test_it_stays_with_the_result_also_when_that_is_read_from_the_folder(
    spec: str, benchmark: str, metric: str, tmp_path: Path
) -> None:
    def compared() -> Report:
        return evenhand.compare(
            Server(draws=False), spec, benchmark, out=tmp_path, limit=8, replicates=200, show_progress=False
        )

    with pytest.warns(UserWarning, match="may measure nothing"):
        compared()
    report = compared()
    (record, *_) = [r for r in report.records if r.metric == metric and r.method == spec and r.group == "overall"]
    assert "may measure nothing: the model is as good as certain of its replies, or (for a model served" in record.note
    assert any("may measure nothing" in str(v) for v in report.untold()), "shown below the verdicts"
    others = [r for r in report.records if r.method != spec]
    assert not any("measure nothing" in r.note for r in others), "a cell that draws nothing has no such note"
