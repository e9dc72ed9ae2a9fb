"""From votes to decisions, and how much each member matters for them."""

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
    """One per candidate."""
    z: Array
    """[candidates, judges] standardised ratings of bias."""
    decisions: dict[str, Decision]
    """By prompt; indices are into `members[prompt]`."""
    members: dict[str, list[int]]
    """By prompt the rows of its candidates."""


class Influence(NamedTuple):
    """What would have come out without a member."""

    name: str
    role: str
    """judge or author."""
    same: float
    """Share of prompts with the same answer taken, or none as before."""
    taken: int
    """Prompts with an answer taken."""


def count(cast: Ballots, scale: votes.Scale, weight: Array, limits: Limits, refuses: Callable[[str], bool]) -> Counted:
    """Weighted means, and a decision a prompt.

    Args:
        cast: The votes.
        scale: Of each judge, from the answers that all began with: revised answers are measured on the same.
        weight: Of each judge.
        limits: What an answer must keep.
        refuses: Whether an answer begins as refusals do.
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
    """Rows of each prompt's candidates."""
    out: dict[str, list[int]] = {}
    for i, c in enumerate(candidates):
        out.setdefault(c.prompt, []).append(i)
    return out


def taken(counted: Counted) -> dict[str, str | None]:
    """By prompt the text that was taken."""
    return {
        p: None if d.best is None else counted.judged[counted.members[p][d.best]].text
        for p, d in counted.decisions.items()
    }


def without_judge(cast: Ballots, judge: int) -> Ballots:
    """The same votes as if a judge had not been there."""
    keep = [j for j in range(len(cast.judges)) if j != judge]
    return Ballots(
        cast.candidates,
        [cast.judges[j] for j in keep],
        {n: v[:, keep] for n, v in cast.votes.items()},
        cast.mass[:, keep],
    )


def without_author(cast: Ballots, author: str) -> Ballots:
    """The same votes as if a member had written nothing."""
    rows = [i for i, c in enumerate(cast.candidates) if c.author != author]
    candidates = [cast.candidates[i] for i in rows]
    return Ballots(candidates, cast.judges, {n: v[rows] for n, v in cast.votes.items()}, cast.mass[rows])


def influences(cast: Ballots, limits: Limits, refuses: Callable[[str], bool]) -> list[Influence]:
    """What each judge, and each author, changes: everything is counted anew without it.

    Only the votes that are there are used; nobody is asked.
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
