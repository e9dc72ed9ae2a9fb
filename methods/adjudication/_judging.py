"""Let members judge the answers of others, one answer at a time, authors hidden, in an order of each judge's own.

A vote is the expected value over the log-probabilities of the rubric's labels, from one forward pass, if the judge
gives them; otherwise the label with which its written reply begins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evenhand.core.answer_cache import key
from evenhand.core.draws import seeded_order
from evenhand.data.adjudication import AdjudicationTexts, Rubric
from evenhand.interfaces import Array, Dialogue, Message, Model, Passage, Sampling
from evenhand.methods.adjudication._answering import Candidate
from evenhand.methods.adjudication._asking import Journal
from evenhand.methods.adjudication._groups import Prompt
from evenhand.methods.adjudication._members import Member, opened
from evenhand.prompting import rendering as prompting

LEAST_MASS = 0.01
"""A judge that gives all labels together less probability than this does not follow the format and casts no vote."""
WRITING = Sampling(temperature=0.0, max_new_tokens=8)


class Vote(NamedTuple):
    """A judge's rating of an answer under a rubric."""

    value: float | None
    """The rating; None without a readable one."""
    mass: float | None
    """Probability of all labels together; None for a written reply."""


class Ballots(NamedTuple):
    """All votes of a round; matrices are [candidates, judges], nan without a vote."""

    candidates: list[Candidate]
    judges: list[str]
    votes: dict[str, Array]
    """Ratings by rubric."""
    mass: Array
    """Label mass for the rubric `bias`."""


def ballots(
    judges: Sequence[tuple[Member, str]],
    candidates: Sequence[Candidate],
    prompts: Mapping[str, Prompt],
    texts: AdjudicationTexts,
    journal: Journal,
    stage: str,
    *,
    seed: int,
    names: tuple[str, ...] = (),
) -> Ballots:
    """Collect the votes of all judges; nobody votes on its own answers.

    Args:
        judges: Judges with the fingerprints of their models.
        candidates: The answers.
        prompts: Prompts by id.
        texts: The rubrics.
        journal: Stores the votes.
        stage: Name of the stage.
        seed: Seed of the order in which each judge sees the answers.
        names: Further names to hide, such as the pool's.
    """
    shape = (len(candidates), len(judges))
    found: dict[str, Array] = {rubric: np.full(shape, np.nan) for rubric in texts.rubrics}
    mass = np.full(shape, np.nan)
    for column, (judge, fingerprint) in enumerate(judges):
        rows = [i for i, c in enumerate(candidates) if c.author != judge.name and c.text.strip()]
        rows = shuffled(rows, candidates, f"{seed}/{judge.name}")
        requests = [
            (name, i, request(rubric, prompts[candidates[i].prompt], texts.anonymous(candidates[i].text, names)))
            for name, rubric in texts.rubrics.items()
            for i in rows
        ]
        for (name, i, _), vote in zip(
            requests, _asked(judge, fingerprint, requests, texts, journal, stage), strict=True
        ):
            found[name][i, column] = np.nan if vote.value is None else vote.value
            if name == "bias" and vote.mass is not None:
                mass[i, column] = vote.mass
    return Ballots(list(candidates), [judge.name for judge, _ in judges], found, mass)


def request(rubric: Rubric, prompt: Prompt, answer: str) -> str:
    """Return the text shown to a judge, without anything about the author."""
    return rubric.prompt.format(asked=prompt.text, answer=answer)


def shuffled(rows: Sequence[int], candidates: Sequence[Candidate], seed: str) -> list[int]:
    """Return the rows in the judge's own order, which does not depend on the pool's order."""
    where = {f"{candidates[i].prompt}\n{candidates[i].text}\n{candidates[i].author}": i for i in rows}
    return [where[name] for name in seeded_order(where, 0, seed)]


def rated(model: Model, requests: Sequence[str], rubric: Rubric) -> list[Vote]:
    """Return votes under one rubric."""
    dialogues = [Dialogue((Message("user", text),)) for text in requests]
    if "score" not in model.abilities:
        return [Vote(parsed(r.text or "", rubric.labels), None) for r in model.generate(dialogues, WRITING)]
    variants = [(v, worth) for label, worth in rubric.labels.items() for v in prompting.letter_variants(label)]
    passages = [Passage(v, d) for d in dialogues for v, _ in variants]
    scores = np.array([s.logprob for s in model.score(passages)]).reshape(len(dialogues), len(variants))
    return [expected(row, [worth for _, worth in variants]) for row in scores]


def expected(logprobs: Sequence[float] | Array, worth: Sequence[float]) -> Vote:
    """Compute the expected worth under the labels' probabilities, normalised to sum to one."""
    p = np.exp(np.nan_to_num(np.asarray(logprobs, dtype=np.float64), nan=-math.inf))
    mass = float(p.sum())
    if not mass >= LEAST_MASS:
        return Vote(None, mass)
    return Vote(float(p @ np.asarray(worth)) / mass, mass)


def parsed(reply: str, labels: Mapping[str, float]) -> float | None:
    """Return the worth of the first label in a written reply; None without one."""
    worth = {label.casefold(): value for label, value in labels.items()}
    pattern = "|".join(map(re.escape, sorted(worth, key=len, reverse=True)))
    hit = re.search(rf"(?<![\w.])(?:{pattern})(?!\w|\.\d)", prompting.strip_thinking(reply).casefold())
    return worth[hit[0]] if hit else None


def _asked(
    judge: Member,
    fingerprint: str,
    requests: Sequence[tuple[str, int, str]],
    texts: AdjudicationTexts,
    journal: Journal,
    stage: str,
) -> list[Vote]:
    rubrics: dict[str, Rubric] = {str(name): rubric for name, rubric in texts.rubrics.items()}
    keys = [key("vote", fingerprint, rubrics[name].labels, text) for name, _, text in requests]
    if not journal.missing(keys):
        return [Vote(*vote) for vote in journal.once(stage, keys, lambda rows: [])]
    with opened(judge) as model:

        def ask(rows: Sequence[int]) -> list[Vote]:
            out: dict[int, Vote] = {}
            for name in dict.fromkeys(requests[i][0] for i in rows):
                own = [i for i in rows if requests[i][0] == name]
                votes = rated(model, [requests[i][2] for i in own], rubrics[name])
                out |= dict(zip(own, votes, strict=True))
            return [out[i] for i in rows]

        return [Vote(*vote) for vote in journal.once(stage, keys, ask)]
