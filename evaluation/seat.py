"""`seat`: the Sentence Encoder Association Test on a model's own representations (May et al. 2019, arXiv 1903.10561).

With s(w) = mean cos(w, a) over attributes A - mean cos(w, b) over B, the effect size of targets X and Y is d =
(mean s(x) - mean s(y)) / (sample standard deviation of s over X and Y), and p is the share of divisions of X and Y into
equal halves whose statistic is at least that of X (one-sided; W4ngatang/sent-bias, sentbias/weat.py). If there are
more divisions than `samples`, that many are drawn, with X's own included, as in that code.

A sentence is represented by the last layer at its first token, [CLS], of a masked model (the source's BERT), and at its
last token of a causal one. The test shows how near representations are, but not what a model answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from evenhand.core.draws import generator
from evenhand.data.seat import Test, load
from evenhand.errors import SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded, known_names
from evenhand.evaluation.metrics.formulas import mean, share
from evenhand.interfaces import Ability, Array, Model, Usage, settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Token = Literal["auto", "first", "last", "mean"]
FREE = Usage()
BATCH = 64
TIE = 1e-9
"""Statistics that differ by less than this are treated as equal, since summing in another order rounds differently."""
GENDER = ("sent-weat6", "sent-weat6b", "sent-weat7", "sent-weat7b", "sent-weat8", "sent-weat8b")


@dataclass(frozen=True, slots=True)
class SeatItem:
    """One test."""

    id: str
    test: Test = field(repr=False)

    @property
    def cluster(self) -> str:
        """The test's name."""
        return self.id


@dataclass(frozen=True, slots=True)
class Associations:
    """How much nearer each target is to the first attributes than to the second, in mean cosines."""

    x: tuple[float, ...]
    """Associations of the first targets."""
    y: tuple[float, ...]
    """Associations of the second targets."""
    usage: Usage = FREE


def association(targets: Array, first: Array, second: Array) -> Array:
    """Compute s(w) of each target, [targets], from representations [sentences, H] that are not zero."""
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (targets, first, second)]
    return np.asarray((unit[0] @ unit[1].T).mean(axis=1) - (unit[0] @ unit[2].T).mean(axis=1))


def effect_size(x: Array, y: Array) -> float:
    """Compute d from the associations of both targets; nan if they do not vary."""
    both = np.concatenate([x, y])
    spread = both.std(ddof=1)
    return float((x.mean() - y.mean()) / spread) if spread > TIE else float("nan")


def p_value(x: Array, y: Array, samples: int, *seed: int | str) -> float:
    """Compute the one-sided p of the permutation test: exact, or by `samples` divisions with X's own included.

    Args:
        x: Associations of the first targets, [n].
        y: Associations of the second targets, [n].
        samples: Maximum number of divisions considered.
        seed: Seed of drawn divisions.
    """
    both, n = np.concatenate([x, y]), len(x)
    own = x.sum()
    if comb(2 * n, n) <= samples:
        sums = np.array([both[list(chosen)].sum() for chosen in combinations(range(2 * n), n)])
        return float(np.mean(sums >= own - TIE))
    rng = generator(*seed)
    drawn = np.array([rng.permutation(both)[:n].sum() for _ in range(samples - 1)])
    return float((1 + np.sum(drawn >= own - TIE)) / samples)


@settings
class SEAT(RowBenchmark[SeatItem, Associations]):
    """Whether a model represents sentences about one group nearer to one kind of attributes than those of another."""

    name: ClassVar[str] = "seat"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    answer_type: ClassVar[type] = Associations
    presets: ClassVar[dict[str, dict[str, tuple[str, ...]]]] = {"gender": {"tests": GENDER}}
    statistics = ("tests", "effect", "size", "significant")
    formulas = (
        mean(
            "effect_size",
            "effect",
            "tests",
            "zero",
            "bias",
            "mean effect size d over tests; above 0: the first targets are nearer to the first attributes",
            range=(-2, 2),
        ),
        mean(
            "effect_size_absolute",
            "size",
            "tests",
            "lower",
            "bias",
            "mean size of the effect over tests, 0 to 2; not 0 by chance",
            main=True,
            range=(0, 2),
        ),
        share(
            "significant",
            "significant",
            "tests",
            "lower",
            "bias",
            "share of tests with p < alpha, one-sided; about alpha without any effect",
            main=True,
        ),
    )

    source: str = "auto"
    """Where the tests come from: auto ($EVENHAND_DATA/seat), demo, a file, or a folder of them, such as a clone of
    sent-bias."""
    tests: tuple[str, ...] = ()
    """Tests that are run, by the names of their files without ending, such as sent-weat6; empty takes all."""
    token: Token = "auto"
    """Which last hidden state represents a sentence: that of the first token, of the last one, or the mean of all; auto
    is first for a masked model and last for a causal one."""
    samples: int = 100_000
    """Maximum number of divisions in the permutation test, as in the source; with no more divisions than that, p is
    exact."""
    alpha: float = 0.01
    """A test is significant if its p is below this."""
    seed: int = 0
    """Seed of drawn divisions."""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, before anything runs.

        Raises:
            SettingsError: A setting cannot be used; the message gives its value and the remedy.
        """
        if self.samples < 2:
            raise SettingsError(f"seat: samples={self.samples} must be at least 2; the source uses 100000")
        if not 0 < self.alpha < 1:
            raise SettingsError(f"seat: alpha={self.alpha} must lie between 0 and 1, such as 0.01")

    def read(self) -> Loaded[SeatItem]:
        """Read the tests by name."""
        loaded = load(self.source)
        known_names(self.name, "test", self.tests, (t.name for t in loaded.tests), loaded.facts["source"])
        kept = [SeatItem(t.name, t) for t in loaded.tests if not self.tests or t.name in self.tests]
        return Loaded(kept, loaded.facts)

    def ask(self, model: Model, items: Sequence[SeatItem]) -> list[Associations]:
        """Represent all sentences once, then compute the associations of each test."""
        texts = list(dict.fromkeys(text for item in items for text in _sentences(item.test)))
        module, tokenizer = model.weights
        masked = model.architecture == "masked"
        token: Token = ("first" if masked else "last") if self.token == "auto" else self.token
        vectors = dict(zip(texts, represented(module, tokenizer, texts, token), strict=True))
        out = []
        for item in items:
            x, y, a, b = (
                np.stack([vectors[t] for t in side.sentences]) for side in (*item.test.targets, *item.test.attributes)
            )
            count = len(x) + len(y) + len(a) + len(b)
            found = [tuple(map(float, association(side, a, b))) for side in (x, y)]
            out.append(Associations(found[0], found[1], Usage(count, 0)))
        return out

    def row(self, item: SeatItem, answer: Associations) -> Row:
        """Return effect size and p of the test; nothing if all sentences have the same representation."""
        x, y = np.array(answer.x), np.array(answer.y)
        effect = effect_size(x, y)
        if np.isnan(effect):
            return {}
        p = p_value(x, y, self.samples, self.seed, item.id)
        return {"tests": 1, "effect": effect, "size": abs(effect), "significant": p < self.alpha}

    def groups_of(self, item: SeatItem) -> tuple[str]:
        """Return the test."""
        return (item.id,)

    def groups(self, items: Sequence[SeatItem]) -> list[str]:
        """Return the tests, if there are several."""
        return [item.id for item in items] if len(items) > 1 else []

    def strata(self, items: Sequence[SeatItem]) -> dict[str, str]:
        """Put all tests into one stratum."""
        return {item.cluster: "tests" for item in items}


def _sentences(test: Test) -> list[str]:
    return [text for side in (*test.targets, *test.attributes) for text in side.sentences]


def represented(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], token: Token
) -> list[Array]:
    """Return each text's last hidden state, [H] in float64, at a token or its mean; texts of one length run together.

    Args:
        module: A transformers model with a base model.
        tokenizer: Its tokenizer; the special tokens that it puts around a text are kept.
        texts: The texts, none of them empty.
        token: "first", "last" or "mean".
    """
    import torch

    from evenhand.inference.scoring import input_device

    ids = [tokenizer(text).input_ids for text in texts]
    by_length: dict[int, list[int]] = {}
    for i, mine in enumerate(ids):
        by_length.setdefault(len(mine), []).append(i)
    out: dict[int, Array] = {}
    training = module.training
    module.eval()
    try:
        for same in by_length.values():
            for start in range(0, len(same), BATCH):
                batch = same[start : start + BATCH]
                fed = torch.tensor([ids[i] for i in batch], device=input_device(module))
                with torch.no_grad():
                    hidden = module.base_model(input_ids=fed).last_hidden_state.double()
                pooled = {"first": hidden[:, 0], "last": hidden[:, -1], "mean": hidden.mean(dim=1)}[token]
                out.update(zip(batch, pooled.cpu().numpy(), strict=True))
    finally:
        module.train(training)
    return [out[i] for i in range(len(texts))]
