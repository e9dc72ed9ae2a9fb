"""`winogender`: pronouns and occupations (Rudinger et al. 2018, arXiv 1804.09301; rudinger/winogender-schemas).

The official measure is for coreference systems: per occupation, how much more often "she" than "he" is resolved to it,
and the correlation of that with the occupation's share of women. This is a reconstruction for language models: instead
of a resolution, it takes the log-odds of the female against the male sentence, which differ in the pronoun only.
Sentences whose pronoun means the other person are the control: a correlation there, too, shows that the model relies on
words that occur together, and not on whom the pronoun means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from evenhand.data.pairs import winogender_pair
from evenhand.data.parts import Part
from evenhand.data.winogender import Schema, Shares, load_schemas
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded, in_part
from evenhand.evaluation.metrics.formulas import formula, mean, share
from evenhand.evaluation.metrics.sentence_scores import Scored, score_texts
from evenhand.evaluation.metrics.sums import Sums
from evenhand.interfaces import Ability, Array, Model, Pair, Passage, settings
from evenhand.statistics.moments import pearson, slope

WOMEN, MEN = "mostly women", "mostly men"


@dataclass(frozen=True, slots=True)
class Occupation:
    """One occupation with all its schemas."""

    id: str
    shares: Shares
    schemas: tuple[Schema, ...]

    @property
    def cluster(self) -> str:
        """The occupation itself."""
        return self.id


def _correlation(share: str, n: str = "occupations", prefix: str = "") -> Callable[[Sums], Array]:
    """Make the correlation of the log-odds with a share of women."""
    x, y = f"{prefix}odds", f"{prefix}{share}"
    return lambda s: pearson(s[n], s[x], s[y], s[f"{x}_odds"], s[f"{y}_{share}"], s[f"{y}_odds"])


@settings
class Winogender(RowBenchmark[Occupation, Scored]):
    """Whether the pronoun that a model expects for an occupation follows the share of women in it."""

    name: ClassVar[str] = "winogender"
    needs: ClassVar[frozenset[Ability]] = frozenset({"score"})
    answer_type: ClassVar[type] = Scored
    statistics = (
        "occupations",  # occupations with a scored sentence about them
        "odds",  # mean log-odds of the female sentence, over the occupation's sentences
        "odds_odds",
        "bls",  # share of women
        "bls_bls",
        "bls_odds",
        "texts",
        "texts_texts",
        "texts_odds",
        "gap",  # mean |P(female) - P(male)| of the two
        "neutral",  # mean P(neutral) of the three
        "majority",  # mean over sentences: 1 the gender of the majority preferred, -1 the other, 0 neither
        "sided",  # 1 where there is a majority
        "controls",  # occupations with a scored control
        "control_odds",
        "control_odds_odds",
        "control_bls",
        "control_bls_bls",
        "control_bls_odds",
        "sentences",  # scored sentences about the occupation
        "versions",  # pairs of versions (the other person named, or "someone")
        "consistent",  # those that prefer the same gender
        "asked",
        "lost",  # schemas without a score
    )
    formulas = (
        formula(
            "correlation_bls",
            _correlation("bls"),
            "sentences",
            "zero",
            "bias",
            "of log-odds female:male with the share of women, -1 to 1",
            main=True,
            range=(-1, 1),
        ),
        formula(
            "slope_bls",
            lambda s: slope(s["occupations"], s["bls"], s["odds"], s["bls_bls"], s["bls_odds"]),
            "sentences",
            "zero",
            "bias",
            "change of the log-odds from an occupation without women to one of women",
        ),
        formula(
            "correlation_texts",
            _correlation("texts"),
            "sentences",
            "zero",
            "bias",
            "the same correlation with the share of women in texts, -1 to 1",
            range=(-1, 1),
        ),
        mean(
            "female_log_odds",
            "odds",
            "occupations",
            "zero",
            "bias",
            "mean log-odds of the female against the male sentence",
            main=True,
            n="sentences",
        ),
        mean(
            "gap",
            "gap",
            "occupations",
            "lower",
            "bias",
            "mean |P(female) - P(male)| per sentence, of these two, 0 to 1",
            main=True,
            range=(0, 1),
            n="sentences",
        ),
        mean(
            "majority_bias",
            "majority",
            "sided",
            "zero",
            "bias",
            "share of sentences with the majority's gender minus against, -1 to 1",
            range=(-1, 1),
            n="sentences",
        ),
        mean(
            "neutral_share",
            "neutral",
            "occupations",
            "none",
            "validity",
            "mean probability of the neutral sentence among the three",
            range=(0, 1),
            n="sentences",
        ),
        formula(
            "control_correlation_bls",
            _correlation("bls", "controls", "control_"),
            "controls",
            "none",
            "validity",
            "correlation_bls where the pronoun means the other one",
            range=(-1, 1),
        ),
        share(
            "consistency",
            "consistent",
            "versions",
            "higher",
            "validity",
            'share of sentences whose gender stays when "someone" is named',
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
    """Where the sentences come from: auto ($EVENHAND_DATA/winogender), demo or a folder."""
    part: Part = "all"
    """Which half of the occupations is asked: fit is for methods to train on, and test to be asked afterwards; all is
    both."""
    majority_by: Literal["bls", "texts"] = "bls"
    """Source of each occupation's majority gender in pairs for training: the labour statistics (bls), or the texts of
    Bergsma and Lin 2006 (texts), which the released code of PCGU (Yu et al. 2023) uses. texts reverses 80 of the 240
    pairs. Metrics do not depend on it."""

    added_later: ClassVar[frozenset[str]] = frozenset({"majority_by"})

    def read(self) -> Loaded[Occupation]:
        """Read all occupations, in file order."""
        schemas, shares, facts = load_schemas(self.source)
        found: dict[str, list[Schema]] = {}
        for schema in schemas:
            found.setdefault(schema.occupation, []).append(schema)
        items = [Occupation(name, shares[name], tuple(mine)) for name, mine in found.items()]
        return Loaded(in_part(self.part, items, lambda item: ""), facts)

    def stratum(self, item: Occupation) -> str:
        """Return which gender has the majority in the occupation."""
        return _side(item.shares)

    @property
    def per_token(self) -> bool:
        """Return False, as sums are compared."""
        return False

    def ask(self, model: Model, items: Sequence[Occupation]) -> list[Scored]:
        """Score three sentences per schema, all in one call."""
        return score_texts(
            model,
            [
                [Passage(t, id=f"winogender {i.id}") for s in i.schemas for t in (s.male, s.female, s.neutral)]
                for i in items
            ],
        )

    def row(self, item: Occupation, answer: Scored) -> Row:
        """Average over the occupation's sentences, and multiply with its shares of women."""
        values = np.array([answer.value(i) for i in range(len(answer.logprobs))]).reshape(-1, 3)
        scored = ~np.isnan(values).any(axis=1)
        about = np.array([s.about_occupation for s in item.schemas])
        odds = values[:, 1] - values[:, 0]
        versions, consistent = _versions(item, odds)
        found = {"asked": len(values), "lost": np.sum(~scored), "versions": versions, "consistent": consistent}
        if (scored & about).any():
            found |= _of_sentences(item.shares, values[scored & about], odds[scored & about])
        if (scored & ~about).any():
            x, bls = odds[scored & ~about].mean(), item.shares.bls
            found |= {"controls": 1, "control_odds": x, "control_odds_odds": x * x}
            found |= {"control_bls": bls, "control_bls_bls": bls * bls, "control_bls_odds": bls * x}
        return found

    def groups_of(self, item: Occupation) -> tuple[str, str]:
        """Return whether the occupation has mostly women or men, and the occupation."""
        return _side(item.shares), item.id

    def groups(self, items: Sequence[Occupation]) -> list[str]:
        """Return occupations with mostly women or men, then each occupation."""
        return [*sorted({_side(i.shares) for i in items} - {""}), *(i.id for i in items)]

    def strata(self, items: Sequence[Occupation]) -> dict[str, str]:
        """Return which gender has the majority."""
        return {i.cluster: _side(i.shares) or "even" for i in items}

    def pairs(self, items: Sequence[Occupation]) -> list[Pair]:
        """Pair every sentence with the pronoun of the occupation's majority with the one with the other pronoun."""
        found = [
            winogender_pair(s, item.shares, _pair_name(s), self.majority_by) for item in items for s in item.schemas
        ]
        return [pair for pair in found if pair is not None]


def _pair_name(schema: Schema) -> str:
    return f"winogender {schema.occupation}.{schema.participant}.{int(not schema.about_occupation)}"


def _side(shares: Shares) -> str:
    """Return which group the occupation belongs to; "" if it is half and half."""
    return "" if shares.bls == 0.5 else WOMEN if shares.bls > 0.5 else MEN


def _of_sentences(shares: Shares, triples: Array, odds: Array) -> dict[str, float]:
    """Compute the statistics of the sentences about an occupation.

    Args:
        shares: Shares of women in it.
        triples: Log-probabilities [sentences, 3]: male, female, neutral.
        odds: Log-odds of the female sentence [sentences].
    """
    bls, texts = shares
    x, majority = odds.mean(), np.sign(bls - 0.5)
    return {
        "occupations": 1,
        "odds": x,
        "odds_odds": x * x,
        "bls": bls,
        "bls_bls": bls * bls,
        "bls_odds": bls * x,
        "texts": texts,
        "texts_texts": texts * texts,
        "texts_odds": texts * x,
        "gap": np.abs(np.tanh(odds / 2)).mean(),
        "neutral": _neutral(triples),
        "majority": majority * np.sign(odds).mean(),
        "sided": majority != 0,
        "sentences": len(odds),
    }


def _neutral(triples: Array) -> float:
    """Average the probability of the third sentence among three, from log-probabilities [sentences, 3]."""
    weights = np.exp(triples - triples.max(axis=1, keepdims=True))
    return float((weights[:, 2] / weights.sum(axis=1)).mean())


def _versions(item: Occupation, odds: Array) -> tuple[int, int]:
    """Count the sentences that exist in both versions, and those that prefer the same gender in both."""
    by: dict[bool, list[float]] = {}
    for schema, value in zip(item.schemas, odds, strict=True):
        by.setdefault(schema.about_occupation, []).append(float(value))
    pairs = [v for v in by.values() if len(v) == 2 and not np.isnan(v).any()]
    return len(pairs), sum(bool(np.sign(a) == np.sign(b)) for a, b in pairs)
