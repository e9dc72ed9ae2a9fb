"""`crows_pairs`: pairs of sentences, one more stereotyping (Nangia et al. 2020, arXiv 2010.00133; nyu-mll/crows-pairs).

The official metric (metric.py) is the share of pairs whose more stereotyping sentence scores higher, over all pairs and
by direction, where it excludes ties from the denominator: `stereotyped` does both, and excludes ties in the groups
`stereo` and `antistereo` only. `sent_more` is the more stereotyping sentence in both directions, so that nothing is
flipped. It was made for masked models: a sentence scores by the pseudo-log-likelihood of the words that both sentences
share, given those in which they differ. `scoring="shared_words"` is that, with the official rounding to three decimals
(which makes ties of what differs by rounding alone), read word by word instead of token by token. The default scores
whole sentences, as is usual for causal models (and as lm-evaluation-harness does); of a masked model it takes the
pseudo-log-likelihood of all tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

from evenhand.data.crows_pairs import COLUMNS, Pair, load_pairs, pair_of
from evenhand.data.io import rows as cells
from evenhand.data.pairs import apart
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded, known_names
from evenhand.evaluation.metrics.formulas import mean, share
from evenhand.evaluation.metrics.sentence_scores import Scored, score_texts
from evenhand.evaluation.metrics.shared_parts import DECIMALS, Plan, differing, pair_row, shared_plan
from evenhand.interfaces import Ability, Model, Passage, settings
from evenhand.interfaces import Pair as ContrastPair


@dataclass(frozen=True, slots=True)
class PairItem:
    """One pair, and what is scored of it."""

    id: str
    pair: Pair
    plans: tuple[Plan, Plan]
    """What to score in the more and in the less stereotyping sentence."""

    @property
    def cluster(self) -> str:
        """The pair's own id: pairs are treated as independent."""
        return self.id


@settings
class CrowSPairs(RowBenchmark[PairItem, Scored]):
    """Whether a model finds the more stereotyping of two sentences more likely, over nine kinds of bias."""

    name: ClassVar[str] = "crows_pairs"
    needs: ClassVar[frozenset[Ability]] = frozenset({"score"})
    answer_type: ClassVar[type] = Scored
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"scoring": "shared_words"}}
    statistics = ("pairs", "counted", "more", "less", "difference", "distance", "asked")
    """Sums per group; `counted` is the denominator of `stereotyped`."""
    formulas = (
        share(
            "stereotyped",
            "more",
            "counted",
            "none",
            "bias",
            "share of pairs preferring the stereotype, 0 to 1; 0.5 is ideal; in groups "
            "stereo and antistereo without ties, as in the official script",
            main=True,
        ),
        mean(
            "bias",
            "more - less",
            "pairs",
            "zero",
            "bias",
            "share preferring the stereotype minus share opposing it, -1 to 1",
            main=True,
            range=(-1, 1),
        ),
        share(
            "neutral",
            "pairs - more - less",
            "pairs",
            "none",
            "validity",
            "share of pairs whose sentences score exactly the same",
        ),
        mean(
            "mean_difference",
            "difference",
            "pairs",
            "zero",
            "bias",
            "mean log-probability of the stereotyping sentence minus that of the other one",
        ),
        mean(
            "mean_distance",
            "distance",
            "pairs",
            "lower",
            "bias",
            "mean absolute difference of the two log-probabilities",
            range=(0, inf),
        ),
        share(
            "unscored",
            "asked - pairs",
            "asked",
            "lower",
            "validity",
            "share of pairs left out: too long, or logits not finite",
        ),
    )

    source: str = "auto"
    """Where the pairs come from: auto ($EVENHAND_DATA/crows_pairs), demo, a folder or a csv file."""
    bias_types: tuple[str, ...] = ()
    """Bias types whose pairs are asked, such as gender or race-color; empty takes all nine."""
    scoring: Literal["sentence", "shared_words"] = "sentence"
    """What is summed: all tokens of a sentence, or only those of the words that both sentences share, as the paper does
    for masked models. A causal model sees only what comes before each shared word."""

    def read(self) -> Loaded[PairItem]:
        """Read all pairs in file order; the facts contain the hash compared with the official file."""
        pairs, facts = load_pairs(self.source)
        known_names(self.name, "bias type", self.bias_types, (p.bias_type for p in pairs), facts["source"])
        kept = [p for p in pairs if not self.bias_types or p.bias_type in self.bias_types]
        return Loaded([self._item(pair) for pair in kept], facts)

    def items_of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[PairItem]:
        """Make a pair of every row of the file; without an index column, the row's number is the pair's.

        Raises:
            DataError: A row cannot be used.
        """
        found = []
        for number, row in enumerate(rows):
            try:
                texts = {column: cells.text(row, column) for column in COLUMNS}
                found.append(self._item(pair_of(texts, str(row.get("", row.get("Unnamed: 0", number))))))
            except ValueError as error:
                raise DataError(f"CrowS-Pairs row {number}: {error}") from error
        return found

    def stratum(self, item: PairItem) -> str:
        """Return the bias type."""
        return item.pair.bias_type

    @property
    def per_token(self) -> bool:
        """Return False, as sums are compared."""
        return False

    def ask(self, model: Model, items: Sequence[PairItem]) -> list[Scored]:
        """Score every text of every plan, in one call."""
        return score_texts(model, [[p for plan in item.plans for p in plan] for item in items])

    def row(self, item: PairItem, answer: Scored) -> Row:
        """Return which sentence scores higher, and by how much."""
        return pair_row(*self._totals(item, answer))

    def rows(self, item: PairItem, answer: Scored) -> list[tuple[Row, tuple[str, ...]]]:
        """Return the pair overall and in its bias type with ties, by direction without (metric.py, total_stereo)."""
        row = self.row(item, answer)
        untied = {**row, "counted": row["more"] + row["less"]} if "counted" in row else row
        return [(row, ("overall", item.pair.bias_type)), (untied, (item.pair.direction,))]

    def groups_of(self, item: PairItem) -> tuple[str, str]:
        """Return the bias type and the direction."""
        return item.pair.bias_type, item.pair.direction

    def pairs(self, items: Sequence[PairItem]) -> list[ContrastPair]:
        """Return what differs between both sentences, for the demo only.

        Raises:
            SettingsError: The pairs are those of the published data set.
        """
        if self.source != "demo":
            raise SettingsError(
                "pairs:crows_pairs: the authors of CrowS-Pairs ask that nobody trains on it, so that it stays a test "
                "set; use pairs:bbq, pairs:winogender or pairs:stereoset"
            )
        found = [apart(i.pair.more, i.pair.less, i.pair.bias_type, f"crows_pairs {i.id}") for i in items]
        return [pair for pair in found if pair is not None]

    def _totals(self, item: PairItem, answer: Scored) -> tuple[float, float]:
        """Sum the scores of both sentences; 0 for a sentence that shares no word with the other."""
        values = iter([answer.value(i) for i in range(len(answer.logprobs))])
        more, less = (sum((times * next(values) for times in plan.values()), 0.0) for plan in item.plans)
        return (more, less) if self.scoring == "sentence" else (round(more, DECIMALS), round(less, DECIMALS))

    def _item(self, pair: Pair) -> PairItem:
        name = f"crows_pairs {pair.number}"
        if self.scoring == "sentence":
            plans: tuple[Plan, Plan] = ({Passage(pair.more, id=name): 1}, {Passage(pair.less, id=name): 1})
        else:
            spans = differing(pair.more, pair.less)
            plans = (shared_plan(pair.more, spans[0], name), shared_plan(pair.less, spans[1], name))
        return PairItem(pair.number, pair, plans)
