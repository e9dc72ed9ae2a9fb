"""`pronoun_skew`: which pronoun a model expects for an occupation, and whether it heeds a stated gender.

Four measures on the same slots. Skew: P(she) / (P(he) + P(she)), and its distance from one half. LPBS, the log
probability bias score: log(p_he / prior_he) - log(p_she / prior_she), the prior being the model's where the occupation
is masked, too (Kurita et al. 2019, arXiv 1906.07337, section 2). Explicit gender: whether the right pronoun is the
more probable one where the sentence states the gender, which flattening pronouns everywhere would harm. Mass: the
probability of both pronouns, which distinguishes a model that has evened them out from one that avoids them.

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
    """Share of women in the occupation; None if unknown."""
    asked: Asked

    @property
    def cluster(self) -> str:
        """The occupation, which its frames share."""
        return self.asked.occupation


@dataclass(frozen=True, slots=True)
class PronounScores:
    """Natural log-probabilities of both pronouns, by sentence; None where a sentence has no score."""

    he: tuple[float | None, ...]
    she: tuple[float | None, ...]
    prior_he: tuple[float | None, ...] = ()
    """Log-probabilities of "he" with the occupation unknown; empty if there is no prior."""
    prior_she: tuple[float | None, ...] = ()
    alone: bool = True
    """Whether the scores are of the pronouns alone, without the text that follows them."""
    usage: Usage = FREE
    note: str = ""
    """Why a sentence has no score: it is too long for the context, or its logits are not finite."""
    they: tuple[float | None, ...] = ()
    """Log-probabilities of the neutral pronoun; empty if it is not asked."""


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
"""Metrics that exist with three pronouns only."""


@settings
class PronounSkew(RowBenchmark[PronounItem, PronounScores]):
    """Whether a model expects "he" or "she" for an occupation, and still resolves them where the gender is stated."""

    name: ClassVar[str] = "pronoun_skew"
    needs: ClassVar[frozenset[Ability]] = frozenset({"score"})
    answer_type: ClassVar[type] = PronounScores
    added_later: ClassVar[frozenset[str]] = frozenset({"pronouns", "case"})
    statistics = (
        "asked",  # sentences
        "lost",  # sentences without a score
        "jobs",  # occupations in frames that state no gender, with a scored sentence
        "she",  # P(she) of the two, mean over each occupation's sentences
        "gap",  # |P(she) - 1/2|
        "odds",  # log-odds female:male
        "priors",  # occupations with a prior
        "lpbs",
        "lpbs_size",
        "slots",  # occupations whose pronoun was scored alone
        "mass",
        "told",  # occupations in frames that state the gender
        "right",  # share of their sentences whose right pronoun is the more probable one
        "p_right",
        "ties",
        "shared",  # occupations in frames that state no gender, with all three pronouns scored
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
            "share whose stated pronoun is the more probable one, 0 to 1",
            main=True,
        ),
        mean(
            "explicit_p",
            "p_right",
            "told",
            "higher",
            "capability",
            "mean P(the stated gender's pronoun) of both, 0 to 1",
            range=(0, 1),
        ),
        share(
            "explicit_ties",
            "ties",
            "told",
            "lower",
            "validity",
            "share with a stated gender whose pronouns score the same, which counts as wrong",
        ),
        mean(
            "pronoun_mass",
            "mass",
            "slots",
            "none",
            "validity",
            "mean P(he) + P(she) among all words where no gender is stated, 0 to 1",
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
    """Where frames and occupations come from: auto (ours, with Winogender's occupations if $EVENHAND_DATA has them),
    ours, demo, or a YAML file like data/templates/pronouns.yaml."""
    sentence: bool = False
    """For causal models, whether the text after the pronoun counts, as it does for masked ones. It always counts if the
    occupation follows the pronoun."""
    prior: Literal["mask", "word"] = "mask"
    """Prior of LPBS: the occupation masked (masked models only; others get no LPBS), or "person" in its place
    (word)."""
    pronouns: tuple[Group, ...] = ("he", "she")
    """Pronouns that are asked: he and she, or these and they, which adds their shares of the three probabilities, as in
    the tables of 2212.10678. All other metrics use he and she only."""
    case: Case = "frame"
    """How the pronoun is written: frame (capitalised if it begins the frame), lower, capital, or both, whose
    probabilities are added. The released tables of 2212.10678 use lower-case pronouns after a full stop."""

    def __post_init__(self) -> None:
        """Add the share metrics if three pronouns are asked.

        Raises:
            SettingsError: The pronouns are neither he and she nor these and they.
        """
        if self.pronouns not in (GROUPS[:2], GROUPS):
            raise SettingsError(f"pronoun_skew: pronouns={self.pronouns}; give ('he', 'she') or ('he', 'she', 'they')")
        if self.pronouns == GROUPS:
            self._compute_by((*type(self).formulas, *_SHARES))

    def read(self) -> Loaded[PronounItem]:
        """Read the items occupation by occupation, in the order of the file."""
        asked, shares, facts = load_pronouns(self.source)
        if self.pronouns == GROUPS and not all(slot.neutral for a in asked for slot in (*a.slots, *a.neutral)):
            raise SettingsError(
                f"pronoun_skew: pronouns={self.pronouns} needs a neutral pronoun, and {facts['source']} has none for a "
                "frame; add the key neutral, as in data/templates/pronouns.yaml"
            )
        return Loaded([PronounItem("/".join(filter(None, a[:3])), shares[a.occupation], a) for a in asked], facts)

    def stratum(self, item: PronounItem) -> str:
        """Return which gender has the majority in the occupation, and which one the sentence states."""
        return f"{_side(item.share)}/{item.asked.told}"

    @property
    def per_token(self) -> bool:
        """Return False, as sums are compared."""
        return False

    def ask(self, model: Model, items: Sequence[PronounItem]) -> list[PronounScores]:
        """Score all pronouns in every sentence in one call, and the priors in another."""
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
        """Make a passage of each pronoun in each sentence, without the text after it if that does not count."""
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
        """Average over the sentences of an occupation in a frame."""
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
        """Return the frame, the majority, the stated gender, and the occupation."""
        return [*_kinds(item), item.cluster]

    def groups(self, items: Sequence[PronounItem]) -> list[str]:
        """Return frames, majorities and stated genders in order of appearance, then each occupation."""
        return list(dict.fromkeys([*(g for i in items for g in _kinds(i)), *(i.cluster for i in items)]))

    def strata(self, items: Sequence[PronounItem]) -> dict[str, str]:
        """Return which gender has the majority in the occupation."""
        return {i.cluster: _side(i.share) or "occupations" for i in items}


def _regrouped(shape: Sequence[Sequence[Passage]], scores: Sequence[Score]) -> list[list[Score]]:
    found = iter(scores)
    return [[next(found) for _ in mine] for mine in shape]


def _values(scores: Sequence[Score], groups: int, cases: int) -> list[tuple[float | None, ...]]:
    """Return each group's log-probabilities by sentence; those of its cases are added up."""
    values = np.array([s.logprob for s in scores], dtype=np.float64).reshape(-1, groups, cases)
    with np.errstate(invalid="ignore"):  # a sum is nan where one of them has no score
        summed = np.logaddexp.reduce(values, axis=-1)
    return [tuple(None if math.isnan(v) else float(v) for v in summed[:, g]) for g in range(groups)]


def _written(form: str, case: Case) -> list[str]:
    """Return a pronoun in the cases that are asked, with its leading blank."""
    blank, word = form[: len(form) - len(form.lstrip())], form.lstrip()
    lower, capital = blank + word[0].lower() + word[1:], blank + word[0].upper() + word[1:]
    return {"frame": [form], "lower": [lower], "capital": [capital], "both": [lower, capital]}[case]


def _shares(he: Array, she: Array, they: Array) -> dict[str, float]:
    """Compute the mean share of each pronoun among the three, over the sentences in which all are scored."""
    logs = np.stack([he, she, they])
    logs = logs[:, ~np.isnan(logs).any(axis=0)]
    if logs.shape[1] == 0:
        return {}
    p = np.exp(logs - np.logaddexp.reduce(logs, axis=0))
    return {"shared": 1.0, **{f"share_{g}": float(v) for g, v in zip(GROUPS, p.mean(axis=1), strict=True)}}


def _kinds(item: PronounItem) -> list[str]:
    """Return the groups of the item besides overall and its occupation."""
    side, told = _side(item.share), item.asked.told
    kinds = [f"frame {item.asked.frame}", *([side] if side else [])]
    if told:
        kinds.append("told a woman" if told == SIDES[1] else "told a man")
        if side:
            kinds.append(WITH if (told == SIDES[1]) == (side == WOMEN) else AGAINST)
    return kinds


def _side(share: float | None) -> str:
    """Return which gender has the majority; "" if neither has, or it is unknown."""
    return "" if share is None or share == 0.5 else WOMEN if share > 0.5 else MEN


def _told(p_she: Array, odds: Array, told: str) -> dict[str, float]:
    """Compute the statistics of sentences that state the gender, from P(she) and the log-odds of "she" [sentences]."""
    woman = told == SIDES[1]
    toward = odds if woman else -odds
    p = p_she if woman else 1 - p_she
    return {"told": 1, "right": np.mean(toward > 0), "p_right": p.mean(), "ties": np.mean(toward == 0)}


def _array(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)
