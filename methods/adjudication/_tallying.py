"""Turn votes into decisions, and measure how much each member matters for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evenhand.interfaces import Array
from evenhand.methods.adjudication import _votes as votes
from evenhand.methods.adjudication._answering import Candidate
from evenhand.methods.adjudication._judging import Ballots
from evenhand.methods.adjudication._selection import Decision, Judged, Limits, decide


class Counted(NamedTuple):
    """The votes of a round, counted."""

    judged: list[Judged]
    """The judged candidates."""
    z: Array
    """Standardised ratings of bias, [candidates, judges]."""
    decisions: dict[str, Decision]
    """Decisions by prompt; indices are into `members[prompt]`."""
    members: dict[str, list[int]]
    """Rows of the candidates by prompt."""


class Influence(NamedTuple):
    """What the result would have been without a member."""

    name: str
    role: str
    """"judge" or "author"."""
    same: float
    """Share of prompts with the same selected answer, or again none."""
    taken: int
    """Number of prompts with a selected answer."""


def count(cast: Ballots, scale: votes.Scale, weight: Array, limits: Limits, refuses: Callable[[str], bool]) -> Counted:
    """Compute weighted means, and a decision for each prompt.

    Args:
        cast: The votes.
        scale: Scale of each judge, from the initial answers, so that revised answers are measured on the same one.
        weight: Weight of each judge.
        limits: Requirements of an answer.
        refuses: Returns whether an answer begins like a refusal.
    """
    z = votes.standardised(cast.votes["bias"], scale)
    b = votes.combined(z, weight)
    raw = {name: votes.combined(values, weight).mean for name, values in cast.votes.items()}
    nothing = np.full(len(cast.candidates), np.nan)
    helpful, refusal = raw.get("helpfulness", nothing), raw.get("refusal", nothing)
    judged = [
        Judged(
            c.author,
            c.text,
            float(b.mean[i]),
            float(b.spread[i]),
            float(raw["bias"][i]),
            float(helpful[i]),
            float(refusal[i]),
            int(b.voters[i]),
            refuses(c.text),
            c.revised,
        )
        for i, c in enumerate(cast.candidates)
    ]
    members = by_prompt(cast.candidates)
    asked = frozenset(cast.votes) - {"bias"}
    decisions = {p: decide([judged[i] for i in rows], limits, asked=asked) for p, rows in members.items()}
    return Counted(judged, z, decisions, members)


def by_prompt(candidates: Sequence[Candidate]) -> dict[str, list[int]]:
    """Group the rows of candidates by prompt."""
    out: dict[str, list[int]] = {}
    for i, c in enumerate(candidates):
        out.setdefault(c.prompt, []).append(i)
    return out


def taken(counted: Counted) -> dict[str, str | None]:
    """Return the selected text of each prompt."""
    return {
        p: None if d.best is None else counted.judged[counted.members[p][d.best]].text
        for p, d in counted.decisions.items()
    }


def without_judge(cast: Ballots, judge: int) -> Ballots:
    """Return the same votes as if a judge had not taken part."""
    keep = [j for j in range(len(cast.judges)) if j != judge]
    return Ballots(
        cast.candidates,
        [cast.judges[j] for j in keep],
        {n: v[:, keep] for n, v in cast.votes.items()},
        cast.mass[:, keep],
    )


def without_author(cast: Ballots, author: str) -> Ballots:
    """Return the same votes as if a member had written nothing."""
    rows = [i for i, c in enumerate(cast.candidates) if c.author != author]
    candidates = [cast.candidates[i] for i in rows]
    return Ballots(candidates, cast.judges, {n: v[rows] for n, v in cast.votes.items()}, cast.mass[rows])


def influences(cast: Ballots, limits: Limits, refuses: Callable[[str], bool]) -> list[Influence]:
    """Compute how each judge and each author changes the result, by counting again without it.

    Only existing votes are used; nothing is asked.
    """
    whole = _taken_from(cast, limits, refuses)
    out = []
    for n, judge in enumerate(cast.judges):
        if len(cast.judges) > 1:
            out.append(_influence(judge, "judge", whole, _taken_from(without_judge(cast, n), limits, refuses)))
    for author in sorted({c.author for c in cast.candidates}):
        rest = without_author(cast, author)
        if rest.candidates:
            out.append(_influence(author, "author", whole, _taken_from(rest, limits, refuses)))
    return out


def _taken_from(cast: Ballots, limits: Limits, refuses: Callable[[str], bool]) -> dict[str, str | None]:
    bias = cast.votes["bias"]
    return taken(count(cast, votes.scale_of(bias), votes.weights(bias), limits, refuses))


def _influence(name: str, role: str, whole: Mapping[str, str | None], rest: Mapping[str, str | None]) -> Influence:
    same = [rest.get(p) == text for p, text in whole.items()]
    return Influence(
        name, role, float(np.mean(same)) if same else float("nan"), sum(t is not None for t in rest.values())
    )
