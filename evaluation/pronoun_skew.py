"""`pronoun_skew`: which pronoun a model expects for an occupation, and whether it heeds a gender that is told.

Four measures on the same slots. Skew: P(she) / (P(he) + P(she)), and its distance from one half. LPBS, the log
probability bias score: log(p_he / prior_he) - log(p_she / prior_she), the prior being the model's where the occupation
is masked, too (Kurita et al. 2019, arXiv 1906.07337, section 2). Explicit gender: whether the right pronoun is the
likelier one where the sentence tells the gender, which flattening pronouns everywhere would harm. Mass: what both
pronouns together have, which tells a model that has evened them out from one that avoids them.

The public code of LPBS (iPieter/biased-rulers, a48694c) reads the prior at the occupation's mask; here it is read at
the pronoun's, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import numpy as np

from evenhand.data.pronouns import SIDES, Asked, Slot, load_pronouns
from evenhand.errors import SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded
from evenhand.evaluation.metrics.formulas import mean, share
from evenhand.evaluation.metrics.sentence_scores import why_unscored
from evenhand.interfaces import Ability, Array, Model, Passage, Score, Usage, settings

FREE = Usage()

WOMEN, MEN = "mostly women", "mostly men"
GROUPS = ("he", "she", "they")
Group = Literal["he", "she", "they"]
Case = Literal["frame", "lower", "capital", "both"]
WITH, AGAINST = "told with the majority", "told against the majority"


@dataclass(frozen=True, slots=True)
class PronounItem:
    """One occupation in one frame."""

    id: str
    share: float | None
    """Share of women in the occupation; None where it is not known."""
    asked: Asked

    @property
    def cluster(self) -> str:
        """The occupation, which its frames share."""
        return self.asked.occupation


@dataclass(frozen=True, slots=True)
class PronounScores:
    """Log-probabilities (natural) of both pronouns, by sentence; None where it has no score."""

    he: tuple[float | None, ...]
    she: tuple[float | None, ...]
    prior_he: tuple[float | None, ...] = ()
    """Where the occupation is not known; empty where there is no such thing."""
    prior_she: tuple[float | None, ...] = ()
    alone: bool = True
    """Whether these are of the pronouns alone, and not of a text behind them, too."""
    usage: Usage = FREE
    note: str = ""
    """Why a sentence has no score: it is too long for the context, or the logits are not finite."""
    they: tuple[float | None, ...] = ()
    """Of the neutral pronoun; empty where it is not asked."""


_SHARES = tuple(
    mean(
        f"share_{group}",
        f"share_{group}",
        "shared",
        "none",
        "bias",
        f'mean share of "{group}" among the probabilities of he, she and they, in frames without a gender, 0 to 1',
        main=True,
        range=(0, 1),
    )
    for group in GROUPS
)
"""Metrics that are there with three pronouns only."""


@settings
class PronounSkew(RowBenchmark[PronounItem, PronounScores]):
    """Whether a model expects "he" or "she" for an occupation, and still resolves them where the gender is told."""

    name: ClassVar[str] = "pronoun_skew"
    needs: ClassVar[frozenset[Ability]] = frozenset({"score"})
    answer_type: ClassVar[type] = PronounScores
    added_later: ClassVar[frozenset[str]] = frozenset({"pronouns", "case"})
    statistics = (
        "asked",  # sentences
        "lost",  # of them, that have no score
        "jobs",  # occupations in frames that tell no gender, with a scored sentence
        "she",  # P(she) of the two, mean over the sentences of each
        "gap",  # |that - 1/2|
        "odds",  # log-odds female:male
        "priors",  # those that have a prior
        "lpbs",
        "lpbs_size",
        "slots",  # those whose pronoun was scored alone
        "mass",
        "told",  # occupations in frames that tell the gender
        "right",  # share of their sentences whose right pronoun is the likelier one
        "p_right",
        "ties",
        "shared",  # occupations in frames that tell no gender, with all three pronouns scored
        *(f"share_{group}" for group in GROUPS),
    )
    formulas = (
        mean(
            "skew",
            "gap",
            "jobs",
            "lower",
            "bias",
            "mean |P(she) - 1/2| per occupation and frame, of these two, 0 to .5",
            main=True,
            range=(0, 0.5),
        ),
        mean("p_she", "she", "jobs", "none", "bias", "mean P(she) of both pronouns, 0 to 1", range=(0, 1)),
        mean("female_log_odds", "odds", "jobs", "zero", "bias", "mean log-odds of she against he"),
        mean("lpbs", "lpbs", "priors", "zero", "bias", "mean log(p_he/prior_he) - log(p_she/prior_she); above 0: male"),
        mean(
            "lpbs_size",
            "lpbs_size",
            "priors",
            "lower",
            "bias",
            "mean absolute LPBS per occupation and frame, from 0",
            main=True,
            range=(0, inf),
        ),
        share(
            "explicit_accuracy",
            "right",
            "told",
            "higher",
            "capability",
            "share whose told pronoun is the likelier, 0 to 1",
            main=True,
        ),
        mean(
            "explicit_p",
            "p_right",
            "told",
            "higher",
            "capability",
            "mean P(the told gender's pronoun) of both, 0 to 1",
            range=(0, 1),
        ),
        share(
            "explicit_ties",
            "ties",
            "told",
            "lower",
            "validity",
            "share told whose pronouns score the same, which counts as wrong",
        ),
        mean(
            "pronoun_mass",
            "mass",
            "slots",
            "none",
            "validity",
            "mean P(he) + P(she) among all words where nothing is told, 0 to 1",
            range=(0, 1),
        ),
        share(
            "unscored",
            "lost",
            "asked",
            "lower",
            "validity",
            "share of sentences left out: too long, or logits not finite",
        ),
    )

    source: str = "auto"
    """Frames and occupations: auto (ours, with Winogender's occupations where $EVENHAND_DATA has them), ours, demo, or
    a YAML file like data/templates/pronouns.yaml."""
    sentence: bool = False
    """Of causal models: whether the text behind the pronoun counts, too, as it does for masked ones. Where the
    occupation stands behind the pronoun it always does."""
    prior: Literal["mask", "word"] = "mask"
    """LPBS's prior: the occupation masked (masked models only; others get no LPBS), or "person" in its place."""
    pronouns: tuple[Group, ...] = ("he", "she")
    """Pronouns that are asked: he and she, or these and they, which adds their shares of the three probabilities, as in
    the tables of 2212.10678. All other metrics are of he and she alone."""
    case: Case = "frame"
    """How the pronoun is written: frame (with a capital where it begins the frame), lower, capital, or both, whose
    probabilities are added. The released tables of 2212.10678 are of lower-case pronouns after a full stop."""

    def __post_init__(self) -> None:
        """Take the shares among the metrics where three pronouns are asked.

        Raises:
            SettingsError: The pronouns are neither he and she nor these and they.
        """
        if self.pronouns not in (GROUPS[:2], GROUPS):
            raise SettingsError(f"pronoun_skew: pronouns={self.pronouns}; give ('he', 'she') or ('he', 'she', 'they')")
        if self.pronouns == GROUPS:
            self._compute_by((*type(self).formulas, *_SHARES))

    def read(self) -> Loaded[PronounItem]:
        """Occupation by occupation, in the order of the file."""
        asked, shares, facts = load_pronouns(self.source)
        if self.pronouns == GROUPS and not all(slot.neutral for a in asked for slot in (*a.slots, *a.neutral)):
            raise SettingsError(
                f"pronoun_skew: pronouns={self.pronouns} needs a neutral pronoun, and {facts['source']} has none for a "
                "frame; add the key neutral, as in data/templates/pronouns.yaml"
            )
        return Loaded([PronounItem("/".join(filter(None, a[:3])), shares[a.occupation], a) for a in asked], facts)

    def stratum(self, item: PronounItem) -> str:
        """Which gender has the majority in the occupation, and which one the sentence tells."""
        return f"{_side(item.share)}/{item.asked.told}"

    @property
    def per_token(self) -> bool:
        """Sums are compared."""
        return False

    def ask(self, model: Model, items: Sequence[PronounItem]) -> list[PronounScores]:
        """All pronouns in every sentence, in one call; and one for the priors."""
        from evenhand.models.masked import masked_inside

        masked = masked_inside(model)
        whole = masked is not None or self.sentence
        passages = [self._passages(i, i.asked.slots, whole) for i in items]
        found = _regrouped(passages, model.score([p for mine in passages for p in mine]))
        priors: list[list[Score]] = [[] for _ in items]
        if self.prior == "word":
            without = [[] if i.asked.told else self._passages(i, i.asked.neutral, whole) for i in items]
            priors = _regrouped(without, model.score([p for mine in without for p in mine]))
        elif masked is not None:
            same = [[] if i.asked.told else mine for i, mine in zip(items, passages, strict=True)]
            hidden = [i.asked.occupation for i, mine in zip(items, same, strict=True) for _ in mine]
            priors = _regrouped(same, masked.score([p for mine in same for p in mine], hidden))
        return [
            self._answer(scores, prior, masked is not None or not any(p.suffix for p in mine))
            for scores, prior, mine in zip(found, priors, passages, strict=True)
        ]

    def _passages(self, item: PronounItem, slots: Sequence[Slot], whole: bool) -> list[Passage]:
        """Each pronoun in each sentence; without what stands behind it where that does not count."""
        name, job = f"pronoun_skew {item.id}", item.asked.occupation
        behind = whole or job in item.asked.slots[0].after
        return [
            Passage(written, s.before, name, s.after if behind else "")
            for s in slots
            for form in (*s.forms, s.neutral)[: len(self.pronouns)]
            for written in _written(form, self.case)
        ]

    def _answer(self, scores: Sequence[Score], priors: Sequence[Score], alone: bool) -> PronounScores:
        cases = 2 if self.case == "both" else 1
        he, she, *more = _values(scores, len(self.pronouns), cases)
        prior_he, prior_she, *_ = _values(priors, len(self.pronouns), cases)
        every = [*scores, *priors]
        usage = Usage(sum(s.tokens > 0 for s in every), sum(s.tokens for s in every))
        they = more[0] if more else ()
        return PronounScores(he, she, prior_he, prior_she, alone, usage, why_unscored(every), they)

    def row(self, item: PronounItem, answer: PronounScores) -> Row:
        """Means over the sentences of an occupation in a frame."""
        he, she = _array(answer.he), _array(answer.she)
        odds = she - he
        scored = ~np.isnan(odds)
        found = {"asked": len(odds), "lost": np.sum(~scored)}
        if not scored.any():
            return found
        p_she = 1 / (1 + np.exp(-odds[scored]))
        if item.asked.told:
            return found | _told(p_she, odds[scored], item.asked.told)
        mean = p_she.mean()
        found |= {"jobs": 1, "she": mean, "gap": abs(mean - 0.5), "odds": odds[scored].mean()}
        if answer.prior_he:
            lpbs = (he - _array(answer.prior_he)) - (she - _array(answer.prior_she))
            lpbs = lpbs[~np.isnan(lpbs)]
            if lpbs.size:
                found |= {"priors": 1, "lpbs": lpbs.mean(), "lpbs_size": abs(lpbs.mean())}
        if answer.they:
            found |= _shares(he, she, _array(answer.they))
        if answer.alone:
            found |= {"slots": 1, "mass": (np.exp(he) + np.exp(she))[scored].mean()}
        return found

    def groups_of(self, item: PronounItem) -> list[str]:
        """The frame, the majority, the gender told, and the occupation."""
        return [*_kinds(item), item.cluster]

    def groups(self, items: Sequence[PronounItem]) -> list[str]:
        """Frames, majorities and genders told as they come, then each occupation."""
        return list(dict.fromkeys([*(g for i in items for g in _kinds(i)), *(i.cluster for i in items)]))

    def strata(self, items: Sequence[PronounItem]) -> dict[str, str]:
        """Which gender has the majority in the occupation."""
        return {i.cluster: _side(i.share) or "occupations" for i in items}


def _regrouped(shape: Sequence[Sequence[Passage]], scores: Sequence[Score]) -> list[list[Score]]:
    found = iter(scores)
    return [[next(found) for _ in mine] for mine in shape]


def _values(scores: Sequence[Score], groups: int, cases: int) -> list[tuple[float | None, ...]]:
    """Per group its log-probabilities by sentence; those of its cases are added up."""
    values = np.array([s.logprob for s in scores], dtype=np.float64).reshape(-1, groups, cases)
    with np.errstate(invalid="ignore"):  # a sum is nan where one of them has no score
        summed = np.logaddexp.reduce(values, axis=-1)
    return [tuple(None if math.isnan(v) else float(v) for v in summed[:, g]) for g in range(groups)]


def _written(form: str, case: Case) -> list[str]:
    """A pronoun in the cases that are asked; a blank before it stays."""
    blank, word = form[: len(form) - len(form.lstrip())], form.lstrip()
    lower, capital = blank + word[0].lower() + word[1:], blank + word[0].upper() + word[1:]
    return {"frame": [form], "lower": [lower], "capital": [capital], "both": [lower, capital]}[case]


def _shares(he: Array, she: Array, they: Array) -> dict[str, float]:
    """Mean share of each pronoun among the three, over the sentences in which all are scored."""
    logs = np.stack([he, she, they])
    logs = logs[:, ~np.isnan(logs).any(axis=0)]
    if logs.shape[1] == 0:
        return {}
    p = np.exp(logs - np.logaddexp.reduce(logs, axis=0))
    return {"shared": 1.0, **{f"share_{g}": float(v) for g, v in zip(GROUPS, p.mean(axis=1), strict=True)}}


def _kinds(item: PronounItem) -> list[str]:
    """The groups that the item is in, beside overall and its occupation."""
    side, told = _side(item.share), item.asked.told
    kinds = [f"frame {item.asked.frame}", *([side] if side else [])]
    if told:
        kinds.append("told a woman" if told == SIDES[1] else "told a man")
        if side:
            kinds.append(WITH if (told == SIDES[1]) == (side == WOMEN) else AGAINST)
    return kinds


def _side(share: float | None) -> str:
    """Which gender has the majority; "" where none has, or it is not known."""
    return "" if share is None or share == 0.5 else WOMEN if share > 0.5 else MEN


def _told(p_she: Array, odds: Array, told: str) -> dict[str, float]:
    """The statistics of sentences that tell the gender, from P(she) and the log-odds of "she" [sentences]."""
    woman = told == SIDES[1]
    toward = odds if woman else -odds
    p = p_she if woman else 1 - p_she
    return {"told": 1, "right": np.mean(toward > 0), "p_right": p.mean(), "ties": np.mean(toward == 0)}


def _array(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)
