"""Coverage of intervals and error rates of tests, on simulated tallies with known rates.

make coverage        or        python benchmarks/coverage.py [--runs 2000]

Clusters are a random sample: each has rates of its own, from Beta distributions of concentration 4 (intra-cluster
correlation .2), and 24 items, or a lognormal number (sigma 1.2, mean 24, at least 4). Every simulated run is a group of
one tally, so that thousands go through `evenhand.statistics` at once, and records and verdicts are those of a real run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from tables import markdown

from evenhand import statistics
from evenhand.core.records import Record
from evenhand.evaluation.bbq import BBQ
from evenhand.experiment.cells import Cell
from evenhand.experiment.scoring import values
from evenhand.interfaces import Ability, Array, Benchmark, Measured, Metric, Tally, settings
from evenhand.methods.none import Untouched
from evenhand.report import verdict
from evenhand.statistics import Design, Estimate, Flips
from evenhand.statistics.criteria import Criteria
from evenhand.statistics.moments import ratio
from evenhand.statistics.scored import compared

CONCENTRATION = 4.0
ITEMS = 24
CELLS = 40_000
"""Maximum number of clusters of all runs of one tally together, to bound memory."""
Draw = np.random.Generator
AT = {name: n for n, name in enumerate(BBQ.statistics)}
WIDTH = len(BBQ.statistics)
"""Columns of each kind of context in a tally of BBQ."""


class Sample(NamedTuple):
    """Sizes and strata of the clusters of one design."""

    strata: tuple[str, ...]
    skewed: bool

    @property
    def label(self) -> str:
        """Description of the design."""
        alone = sum(self.strata.count(s) == 1 for s in self.strata)
        count = len(set(self.strata))
        kind = f", {alone} alone" if alone else f" in {count} strata" if count > 1 else ""
        return f"{len(self.strata)}{kind}, {'lognormal' if self.skewed else 'equal'}"

    def sizes(self, draw: Draw, runs: int) -> Array:
        """Draw the number of items per cluster and run, [C, R]."""
        shape = (len(self.strata), runs)
        if not self.skewed:
            return np.full(shape, float(ITEMS))
        return np.maximum(4.0, np.round(draw.lognormal(np.log(ITEMS) - 1.2**2 / 2, 1.2, shape)))


def strata(clusters: int, count: int = 1, alone: int = 0) -> tuple[str, ...]:
    """Return names: `alone` strata of one cluster, the other clusters evenly in `count` strata."""
    return tuple(f"alone {c}" if c < alone else f"stratum {c % count}" for c in range(clusters))


DESIGNS = tuple(
    Sample(names, skewed)
    for names in (
        *(strata(c) for c in (3, 5, 8, 12, 15, 30, 72, 185)),
        strata(12, 3),
        strata(30, 3),
        strata(72, 6),
        strata(185, 9),
        strata(12, 1, 6),
        strata(12, 1, 10),
        strata(30, 1, 28),
        strata(60, 14, 18),
    )
    for skewed in (False, True)
)


def rates(draw: Draw, mean: float, shape: tuple[int, int]) -> Array:
    """Draw a rate per cluster and run, with a given mean."""
    if mean in (0.0, 1.0):
        return np.full(shape, mean)
    return draw.beta(CONCENTRATION * mean, CONCENTRATION * (1 - mean), shape)


# ------------------------------------------------------------------------------------------------------------- BBQ


@dataclass(frozen=True)
class World:
    """Mean rates of a model on BBQ."""

    unknown: float = 0.5
    """Ambiguous items: share answered with the unknown option."""
    stereotyped: float = 0.68
    """Ambiguous items, and wrong answers of disambiguated ones: share of named persons that are the stereotype's."""
    right: float = 0.85
    """Disambiguated items: share of right answers, half of which are the stereotype's."""
    lost: float = 0.5
    """Disambiguated items: share of wrong answers that are the unknown option."""
    unparsed: float = 0.05

    def truth(self, other: World | None = None, share: float = 0.0) -> dict[str, float]:
        """Return the limits of the main metrics for growing samples of clusters.

        Args:
            other: A model that answers some of the items instead; it leaves as many unparsed.
            share: Fraction of the items that are the other's. Sums mix, metrics do not.
        """
        sums = (1 - share) * self._sums + share * (other or self)._sums
        u, stereotyped, named, biased, right, lost = sums.tolist()
        return {
            "bias_ambiguous": 2 * stereotyped - (1 - u),
            "accuracy_ambiguous": u,
            "abstention_ambiguous": u,
            "bias_disambiguated": 2 * biased / named - 1,
            "accuracy_disambiguated": right,
            "abstention_disambiguated": lost,
            "unparsed": self.unparsed,
        }

    @property
    def _sums(self) -> Array:
        """Sums per parsed item: unknown, stereotyped; named, stereotyped among these, right, lost."""
        wrong_named = (1 - self.right) * (1 - self.lost)
        biased = self.right / 2 + wrong_named * self.stereotyped
        ambiguous = [self.unknown, (1 - self.unknown) * self.stereotyped]
        return np.array([*ambiguous, self.right + wrong_named, biased, self.right, (1 - self.right) * self.lost])


class Drawn(NamedTuple):
    """Answers of one model by kind, [kinds, C, R]: ambiguous, then disambiguated."""

    ambiguous: Array
    """Kinds of ambiguous answers: unknown, biased, counter, unparsed."""
    disambiguated: Array
    """Kinds: right and biased, right and counter, unknown, wrong and biased, wrong and counter, unparsed."""


class Rates(NamedTuple):
    """Probabilities of the kinds, [kinds, C, R]."""

    ambiguous: Array
    disambiguated: Array


def drawn_rates(draw: Draw, world: World, shape: tuple[int, int]) -> Rates:
    """Draw the rates of every cluster."""
    u, s, a, v, e = (rates(draw, getattr(world, name), shape) for name in vars(world))
    ambiguous = np.array([u * (1 - e), (1 - u) * s * (1 - e), (1 - u) * (1 - s) * (1 - e), e])
    named = (1 - a) * (1 - v)
    disambiguated = np.array([a / 2, a / 2, (1 - a) * v, named * s, named * (1 - s)]) * (1 - e)
    return Rates(ambiguous, np.concatenate([disambiguated, e[None]]))


def answers(draw: Draw, p: Array, sizes: Array) -> Array:
    """Draw how many items of every cluster are of every kind."""
    return np.moveaxis(draw.multinomial(sizes.astype(int), np.moveaxis(p, 0, -1)), -1, 0).astype(float)


def redrawn(draw: Draw, counts: Array, p: Array, share: float) -> Array:
    """Return the same answers except for a share of the items, which are answered again."""
    kept = draw.binomial(counts.astype(int), 1 - share).astype(float)
    return kept + answers(draw, p, counts.sum(axis=0) - kept.sum(axis=0))


def tally_of(sample: Sample, drawn: Drawn) -> Tally:
    """Return BBQ's sums; every run is a group."""
    clusters, runs = drawn.ambiguous.shape[1:]
    sums = np.zeros((clusters, runs, 2 * WIDTH))
    unknown, biased, counter, open_ = drawn.ambiguous
    named = biased + counter
    _fill(sums[..., :WIDTH], unknown + named, unknown, unknown, biased, open_)
    right_b, right_c, lost, wrong_b, wrong_c, open_ = drawn.disambiguated
    parsed = right_b + right_c + lost + wrong_b + wrong_c
    _fill(sums[..., WIDTH:], parsed, right_b + right_c, lost, right_b + wrong_b, open_)
    return Tally(_names(clusters), sample.strata, _names(runs), sums)


def _fill(half: Array, parsed: Array, correct: Array, unknown: Array, biased: Array, unparsed: Array) -> None:
    filled = {
        "rows": parsed + unparsed,
        "parsed": parsed,
        "scored": parsed,
        "correct": correct,
        "correct_all": correct,
        "unknown": unknown,
        "biased": biased,
        "open": unparsed,
    }
    for name, value in filled.items():
        half[..., AT[name]] = value


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"{n:06d}" for n in range(count))


MAIN = [m for m in BBQ.metrics if m.name in World().truth()]
SMOOTH = [m.name for m in MAIN if m.form == "smooth"]


def estimated(tally: Tally, benchmark: Any, infos: Sequence[Metric]) -> tuple[Design, dict[str, Estimate]]:
    """Return the estimates of one tally."""
    design = Design.of(tally.clusters, tally.strata, np.ones(tally.sums.shape[:2], dtype=bool))
    return design, statistics.estimates({(0, 0): tally}, design, benchmark.compute, infos)


def batches(sample: Sample, runs: int) -> Iterator[int]:
    """Return the sizes of the parts in which the runs of a design are done."""
    most = max(1, CELLS // len(sample.strata))
    while runs > 0:
        yield min(most, runs)
        runs -= most


def bbq_coverage(sample: Sample, runs: int, seed: int = 0, *, before: World = World()) -> dict[str, float]:
    """Return shares of runs whose intervals contain the true values, and true paired differences ("... difference")."""
    share, after = 0.4, World(0.7, 0.6, 0.8, 0.7, before.unparsed)
    truth, true_after = before.truth(), before.truth(after, share)
    bench, draw = BBQ(source="demo"), np.random.default_rng([seed, len(sample.strata), sample.skewed])
    inside: dict[str, list[Any]] = {}
    for count in batches(sample, runs):
        sizes = sample.sizes(draw, count)
        first, second = (drawn_rates(draw, w, sizes.shape) for w in (before, after))
        drawn = Drawn(*(answers(draw, p, sizes) for p in first))
        moved = Drawn(*(redrawn(draw, c, p, share) for c, p in zip(drawn, second, strict=True)))
        design, old = estimated(tally_of(sample, drawn), bench, MAIN)
        _, new = estimated(tally_of(sample, moved), bench, MAIN)
        for name, estimate in old.items():
            inside.setdefault(name, []).append(_holds(estimate.interval(0.05), truth[name]))
            pair = statistics.paired(design, estimate, new[name])
            gap = true_after[name] - truth[name]
            inside.setdefault(f"{name} difference", []).append(_holds(pair.interval(0.05), gap))
    return {name: float(np.concatenate(parts).mean()) for name, parts in inside.items()}


def _holds(ends: tuple[Array, Array], truth: float) -> Array:
    return np.asarray((ends[0] <= truth) & (truth <= ends[1]))


# ---------------------------------------------------------------------------------------------------- proportions


@settings
class Exam(Benchmark):
    """Share of right answers, like MMLU's accuracy."""

    name: ClassVar[str] = "exam"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "higher", "capability", "", True, form="proportion", range=(0.0, 1.0), part=""),
    )

    def load(self) -> Sequence[Any]:
        """Return no items: tallies are simulated."""
        return ()

    def ask(self, model: Any, items: Sequence[Any]) -> list[Any]:
        """Return no answers."""
        return []

    def tally(self, items: Sequence[Any], answers: Sequence[Any]) -> Tally:
        """Refuse to tally: tallies are simulated."""
        raise NotImplementedError

    def compute(self, sums: Array) -> dict[str, Measured]:
        """Compute the accuracy from the columns n and right."""
        return {"accuracy": Measured(ratio(sums[..., 1], sums[..., 0]), sums[..., 0])}


def exam_tally(sample: Sample, sizes: Array, right: Array) -> Tally:
    """Make a tally in which every run is a group."""
    return Tally(_names(sizes.shape[0]), sample.strata, _names(sizes.shape[1]), np.stack([sizes, right], axis=-1))


def proportion_coverage(sample: Sample, rate: float, runs: int, seed: int = 0) -> float:
    """Return the share of runs whose interval contains a true rate."""
    draw, found = np.random.default_rng([seed, int(1000 * rate), len(sample.strata), sample.skewed]), []
    for count in batches(sample, runs):
        sizes = sample.sizes(draw, count)
        right = draw.binomial(sizes.astype(int), rates(draw, rate, sizes.shape))
        _, made = estimated(exam_tally(sample, sizes, right), Exam(), Exam.metrics)
        found.append(_holds(made["accuracy"].interval(0.05), rate))
    return float(np.concatenate(found).mean())


# --------------------------------------------------------------------------------------------------------- errors


def false_held(
    sample: Sample,
    lose: Callable[[Draw, tuple[int, int]], Array],
    right: float,
    margin: float,
    runs: int,
    seed: int = 0,
) -> float:
    """Return the share of runs with the verdict "held" although the true loss is the margin or more.

    Args:
        sample: The design.
        lose: Draws the share of right answers that each cluster loses, [C, R].
        right: The baseline's accuracy.
        margin: Margin of the verdict.
        runs: Number of runs.
        seed: Seed of the draws.
    """
    draw, held, criteria = np.random.default_rng([seed, len(sample.strata)]), 0, Criteria(margin=margin)
    for count in batches(sample, runs):
        sizes = sample.sizes(draw, count)
        was = draw.binomial(sizes.astype(int), right)
        lost = draw.binomial(was, lose(draw, sizes.shape))
        records = exam_records(sample, sizes, was, np.zeros_like(lost), lost, criteria)
        held += sum(r.loss_high < margin for r in records)
    return held / runs


def exam_records(
    sample: Sample, sizes: Array, was: Array, gained: Array, lost: Array, criteria: Criteria
) -> list[Record]:
    """Return records of a method compared with its baseline, one per run."""
    design, old = estimated(exam_tally(sample, sizes, was), Exam(), Exam.metrics)
    _, new = estimated(exam_tally(sample, sizes, was + gained - lost), Exam(), Exam.metrics)
    flips = Flips(*(design.pick(x) for x in (gained, lost, sizes)))
    pair = statistics.paired(design, old["accuracy"], new["accuracy"], flips)
    cell = Cell("model", Untouched(), Exam(), row="method")
    mine = values(cell, _names(sizes.shape[1]), new["accuracy"], criteria)
    return criteria.adjusted(compared(list(mine), "none", old["accuracy"], pair, criteria))


def family_wise(sample: Sample, runs: int, methods: int = 5, seed: int = 0) -> dict[str, float]:
    """Return, per metric, the share of runs in which any of several methods without average effect is starred."""
    bench, draw = BBQ(source="demo"), np.random.default_rng([seed, 7, len(sample.strata), sample.skewed])
    wrong: dict[str, list[Array]] = {}
    criteria = Criteria()
    for count in batches(sample, runs):
        sizes = sample.sizes(draw, count)
        p = drawn_rates(draw, World(), sizes.shape)
        drawn = Drawn(*(answers(draw, q, sizes) for q in p))
        design, old = estimated(tally_of(sample, drawn), bench, MAIN)
        found: list[Record] = []
        for n in range(methods):
            # every method has rates of its own in every cluster, with the same means
            other = drawn_rates(draw, World(), sizes.shape)
            moved = Drawn(*(redrawn(draw, c, q, 0.4) for c, q in zip(drawn, other, strict=True)))
            _, new = estimated(tally_of(sample, moved), bench, MAIN)
            found += _records(design, old, new, f"method {n}", criteria)
        starred = {(r.metric, r.group) for r in criteria.adjusted(found) if criteria.significant(r)}
        for m in MAIN:
            wrong.setdefault(m.name, []).append(np.array([(m.name, g) in starred for g in _names(count)]))
    return {name: float(np.concatenate(parts).mean()) for name, parts in wrong.items()}


def false_less_bias(sample: Sample, runs: int, stereotyped_varies: bool, seed: int = 0) -> float:
    """Return the share of runs in which always answering "unknown" is called less biased than an unbiased baseline."""
    bench, draw, claimed, criteria = BBQ(source="demo"), np.random.default_rng([seed, 9]), 0, Criteria()
    for count in batches(sample, runs):
        sizes = sample.sizes(draw, count)
        third = np.full(sizes.shape, 1 / 3)
        s = rates(draw, 0.5, sizes.shape) if stereotyped_varies else np.full(sizes.shape, 0.5)
        p = np.array([third, (1 - third) * s, (1 - third) * (1 - s), np.zeros(sizes.shape)])
        drawn = answers(draw, p, sizes)
        none = np.zeros((6, *sizes.shape))
        none[0] = sizes
        silent = np.zeros_like(drawn)
        silent[0] = sizes
        bias = [m for m in MAIN if m.name == "bias_ambiguous"]
        design, old = estimated(tally_of(sample, Drawn(drawn, none)), bench, bias)
        _, new = estimated(tally_of(sample, Drawn(silent, none)), bench, bias)
        records = criteria.adjusted(_records(design, old, new, "always unknown", criteria))
        claimed += sum(verdict.bias(r, criteria).endswith("less bias") for r in records)
    return claimed / runs


def _records(
    design: Design, old: Mapping[str, Estimate], new: Mapping[str, Estimate], row: str, criteria: Criteria
) -> list[Record]:
    cell = Cell("model", Untouched(), Exam(), row=row)
    out: list[Record] = []
    for name, estimate in new.items():
        mine = list(values(cell, _names(design.groups), estimate, criteria))
        out += compared(mine, "none", old[name], statistics.paired(design, old[name], estimate), criteria)
    return out


def scattered(loss: float) -> Callable[[Draw, tuple[int, int]], Array]:
    """Return a loss that is spread over all clusters."""
    return lambda draw, shape: rates(draw, loss, shape)


def concentrated(share: float) -> Callable[[Draw, tuple[int, int]], Array]:
    """Return a loss concentrated in a share of the clusters, which lose every right answer."""
    return lambda draw, shape: (draw.random(shape) < share).astype(float)


# --------------------------------------------------------------------------------------------------------- tables


def main() -> None:
    """Print the tables of docs/results.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    runs: int = parser.parse_args().runs
    print("\nCoverage of 95 % intervals, values and paired differences\n")
    rows = []
    for sample in DESIGNS:
        found = bbq_coverage(sample, runs)
        smooth = [found[n + d] for n in SMOOTH for d in ("", " difference")]
        others = [v for n, v in found.items() if n.removesuffix(" difference") not in SMOOTH]
        rows.append(
            {
                "clusters": sample.label,
                **{n.replace("_", " "): f"{100 * found[n]:.1f} / {100 * found[n + ' difference']:.1f}" for n in SMOOTH},
                "proportions, lowest": f"{100 * min(others):.1f}",
                "smooth, lowest": f"{100 * min(smooth):.1f}",
            }
        )
        print(rows[-1], flush=True)
    print(markdown(rows))
    print("\nProportions: coverage by rate\n")
    grid = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
    rows = [
        {"clusters": s.label, **{f"{r:g}": f"{100 * proportion_coverage(s, r, runs):.1f}" for r in grid}}
        for s in DESIGNS
    ]
    print(markdown(rows))
    print("\nErrors\n")
    rows = []
    for clusters in (5, 8, 12, 25, 30, 72, 185):
        sample = Sample(strata(clusters), False)
        family, everywhere = family_wise(sample, min(runs, 1000)), scattered(0.02 / 0.995)
        rows.append(
            {
                "clusters": clusters,
                "family-wise error, highest": f"{100 * max(family.values()):.1f}",
                "false less bias": " / ".join(
                    f"{100 * false_less_bias(sample, 5 * runs, v):.1f}" for v in (False, True)
                ),
                "false held, loss everywhere": f"{100 * false_held(sample, everywhere, 0.995, 0.02, runs):.1f}",
                "false held, loss in 2 / 4 % of the clusters": " / ".join(
                    f"{100 * false_held(sample, concentrated(s), 0.995, 0.02, runs):.1f}" for s in (0.0202, 0.04)
                ),
            }
        )
        print(rows[-1], flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
