"""What a benchmark says of its metrics (form, range, part) against random answers: total sums and single clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenhand.core import registry
from evenhand.evaluation.b_score import BScoreAnswer, BScoreItem, Shot
from evenhand.evaluation.bbq import BBQItem
from evenhand.evaluation.disco import Filled, TemplateItem
from evenhand.evaluation.honest import Completions
from evenhand.evaluation.metrics.answer_changes import change_metrics, change_tallies, described
from evenhand.evaluation.metrics.sentence_scores import Scored
from evenhand.evaluation.seat import Associations
from evenhand.experiment.subsampling import subsample
from evenhand.interfaces import (
    Array,
    Benchmark,
    Choice,
    Measured,
    Metric,
    Model,
    Passage,
    Question,
    Reply,
    Score,
    Tally,
)

PACKAGE = Path(__file__).resolve().parents[1] / "plugin_package"
ITEMS = 60
WORDS = ["a", "the", "dog", "letter", "cat.", "Blue,", "two!", "{x}", "was\n*", "sea"]
SPECS = [
    *(f"{name}(source=demo)" for name in registry.BUILT_IN["benchmarks"]),
    "bbq(source=demo,convention=helm)",
    "bbq(source=demo,convention='lm-eval-like')",
    "bbq(source=demo,convention=bfs)",
    "bbq(source=demo,convention=euroeval)",
    "option_order(source=demo,of=mmlu)",
    "option_order(source=demo,of=gpqa,orders=sampled,draws=3)",
    "option_order(source=demo,of='bbq(convention=helm)',orders=cyclic)",
    "crows_pairs(source=demo,preset=paper)",
    "redditbias(source=demo,preset=robust)",
    "disco(source=demo,k=1)",
]


CONTROLS = ("bias_contrast", "bias_control", "accuracy_control")
UNDEFINED = {
    "pronoun_skew": {"lpbs", "lpbs_size"},  # the prior takes a masked model, unless it is read at a word (below)
    "mbbq": {f"{name}_{context}" for name in CONTROLS for context in ("ambiguous", "disambiguated")},  # no demo of them
}
"""Metrics that a benchmark's demo never defines."""


class Random(Model):
    """Answers at random, with ties and gaps of every kind; `sure` always decides."""

    name = "random"
    abilities = frozenset({"choose", "score"})  # type: ignore[assignment]
    fingerprint = "random"  # type: ignore[assignment]

    def __init__(self, seed: int = 0, *, sure: bool = False) -> None:
        self.rng, self.sure = np.random.default_rng(seed), sure

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        return [self._choice(len(q.options)) for q in questions]

    def _choice(self, options: int) -> Choice:
        kind = (
            "whole" if self.sure else self.rng.choice(["whole", "alone", "unparsed", "unanswered"], p=[0.7, *[0.1] * 3])
        )
        p = self.rng.dirichlet(np.full(options, 0.5))
        decision = int(p.argmax())
        if kind == "whole":
            return Choice(decision, tuple(p.tolist()), mass=float(self.rng.random()))
        return Choice(decision) if kind == "alone" else Choice(None, status=kind)

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Below log(1/2), so that the probabilities of two words do not sum to more than 1."""
        return [self._score(len(p.continuation.split()) or 1) for p in passages]

    def _score(self, tokens: int) -> Score:
        if self.rng.random() < 0.05:
            return Score(math.nan, 0)
        return Score(-tokens * (0.7 + 0.5 * int(self.rng.integers(4))), tokens)

    def save(self, folder: Any) -> Path:
        raise NotImplementedError


def replies(rng: np.random.Generator, count: int) -> list[Reply]:
    """Texts for IFEval: words, blanks, none at all, some cut off."""
    texts = [" ".join(rng.choice(WORDS, int(rng.integers(0, 40)))) for _ in range(count)]
    return [Reply(None if rng.random() < 0.1 else t, finished=bool(rng.random() < 0.8)) for t in texts]


def shots(rng: np.random.Generator, item: BScoreItem, count: int) -> tuple[Shot, ...]:
    options = item.question.options
    said = [f"{{{{{options[int(i)]}}}}}" for i in rng.integers(len(options), size=count)]
    odd = rng.choice(["", "odd", "none"], size=count, p=[0.6, 0.2, 0.2])
    return tuple(
        Shot(None if o == "none" else o or s, tuple(range(len(options)))) for s, o in zip(said, odd, strict=True)
    )


def conversations(rng: np.random.Generator, item: BScoreItem) -> BScoreAnswer:
    """Two queries and two turns: few enough for questions without any valid answer."""
    return BScoreAnswer((shots(rng, item, 2),), (shots(rng, item, 2),))


def filled(rng: np.random.Generator, item: TemplateItem) -> Filled:
    def side() -> tuple[tuple[str, ...], tuple[float, ...]]:
        p = np.sort(rng.dirichlet(np.ones(4)))[:0:-1]
        return tuple(rng.permutation(list("abcde"))[:3].tolist()), tuple(np.log(p).tolist())

    pairs = [(side(), side()) for _ in item.template.people]
    return Filled(tuple((m[0], w[0]) for m, w in pairs), tuple((m[1], w[1]) for m, w in pairs))


def completed(rng: np.random.Generator) -> Completions:
    """Words of HONEST, of which the demo's lexicon has some; now and then none."""
    words = rng.choice(["clumsy", "Lazy", "blue", "goose", "nice", "", "sea"], 20).tolist()
    return Completions(()) if rng.random() < 0.1 else Completions(tuple(words))


def drawn(rng: np.random.Generator) -> tuple[float | None, int]:
    """A score, which may be lost; few values, so that there are ties."""
    return (None, 0) if rng.random() < 0.1 else (-float(rng.integers(1, 4)), 3)


def answered(bench: Benchmark, items: Sequence[Any], seed: int = 0, *, sure: bool = False) -> list[Any]:
    rng = np.random.default_rng(seed)
    if bench.name == "ifeval":
        return replies(rng, len(items))
    if bench.name == "b_score":
        return [conversations(rng, i) for i in items]
    if bench.name == "disco":
        return [filled(rng, i) for i in items]
    if bench.name == "honest":
        return [completed(rng) for _ in items]
    if bench.name == "winoqueer":  # by tokens an answer has the sums of both sentences
        return [Scored(*zip(*(drawn(rng) for _ in range(2)), strict=True)) for _ in items]
    if bench.name == "seat":
        return [Associations(*(tuple(rng.normal(size=7).tolist()) for _ in range(2))) for _ in items]
    return bench.ask(Random(seed, sure=sure), items)


def built(spec: str) -> Benchmark:
    made: Benchmark = registry.build_benchmark(spec)
    return made


@cache
def tallied(spec: str) -> Tally:
    bench = built(spec)
    items = with_counterparts(bench.load(), subsample(bench.load(), ITEMS, 0, bench.stratum))
    return bench.tally(items, answered(bench, items))


def with_counterparts(items: Sequence[Any], drawn: Sequence[Any]) -> Sequence[Any]:
    """What was drawn, of BBQ with the counterparts, without which pairs of answers are not measured."""
    chosen = {i.id for i in drawn} | {i.swap.other for i in drawn if isinstance(i, BBQItem) and i.swap is not None}
    return [i for i in items if i.id in chosen]


def violations(infos: Sequence[Metric], metrics: Callable[[Array], dict[str, Measured]], tally: Tally) -> list[str]:
    """What the numbers contradict in the descriptions."""
    whole, single = metrics(tally.total), metrics(tally.sums)
    found = [f"{name}: undescribed" for name in {*whole} - {i.name for i in infos}]
    for info in infos:
        if info.name not in whole:
            found.append(f"{info.name}: not there")
            continue
        low, high = info.range
        for measured in (whole[info.name], single[info.name]):
            known = measured.value[~np.isnan(measured.value)]
            if known.size and (known.min() < low - 1e-9 or known.max() > high + 1e-9):
                found.append(f"{info.name}: {known.min()} to {known.max()} is not within {info.range}")
        share = info.range == (0, 1) and _adds_up(whole[info.name], single[info.name])
        if info.form == "proportion" and not share:
            found.append(f"{info.name}: no proportion")
    return found


def _adds_up(whole: Measured, single: Measured) -> bool:
    """Whether value * n is a count of items, so that those of clusters sum to the whole."""
    counts = [np.where(m.n > 0, m.value, 0.0) * m.n for m in (whole, single)]  # nan, where there are items, stays
    same = np.allclose(counts[1].sum(axis=0), counts[0], rtol=0, atol=1e-6)
    return same and np.allclose(single.n.sum(axis=0), whole.n, rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_numbers_are_what_the_descriptions_say(spec: str) -> None:
    bench, tally = built(spec), tallied(spec)
    assert not violations(bench.metrics, bench.compute, tally)
    values = bench.compute(tally.total)
    seen = {name for name, m in values.items() if not np.isnan(m.value).all()}
    never = {m.name for m in bench.metrics} - seen
    assert never == UNDEFINED.get(bench.name, set()), "never defined, so not checked"
    assert {m.form for m in bench.metrics} <= {"smooth", "proportion", "resampled"}


def test_the_priors_of_pronouns_are_checked_too() -> None:
    spec = "pronoun_skew(source=demo,prior=word)"
    bench = built(spec)
    assert not violations(bench.metrics, bench.compute, tallied(spec))
    assert not np.isnan(bench.compute(tallied(spec).total)["lpbs_size"].value).all()


def test_the_plugins_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    from evenhand_example_plugin.coin import Coin

    bench = Coin()
    items = bench.load()
    answers = Random().choose([Question(i.id, "", ("heads", "tails")) for i in items])
    assert bench.metrics[0].form == "proportion"
    assert not violations(bench.metrics, bench.compute, bench.tally(items, answers))


# ----------------------------------------------------------------------------------------------------------- parts


def right_counted(bench: Benchmark, info: Metric, seed: int = 0) -> bool:
    """Whether a metric counts the right grades of its part, in every group, where all is decided and has a target."""
    kept = [i for i in bench.load() if getattr(getattr(i, "unit", i), "target", 0) is not None]
    items = subsample(kept, ITEMS, seed, bench.stratum)
    answers = answered(bench, items, seed, sure=True)
    grades, tally = bench.grades(items, answers) or (), bench.tally(items, answers)
    measured = bench.compute(tally.total)[info.name]
    mine = [m for m in grades if m.part == info.part]
    right = [sum(m.right for m in mine if g in m.groups) for g in tally.groups]
    asked = [sum(g in m.groups for m in mine) for g in tally.groups]
    counted = np.where(measured.n > 0, measured.value, 0.0) * measured.n
    return bool(sum(right)) and np.allclose(counted, right) and np.allclose(measured.n, asked)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("bbq(source=demo)", {"accuracy_ambiguous": "ambiguous", "accuracy_disambiguated": "disambiguated"}),
        ("bbq(source=demo,convention=helm)", {f"accuracy_{c}": c for c in ("ambiguous", "disambiguated")}),
        ("mmlu(source=demo)", {"accuracy": ""}),
        ("gpqa(source=demo)", {"accuracy": ""}),
        ("option_order(source=demo)", {f"accuracy_{c}": c for c in ("ambiguous", "disambiguated")}),
        ("option_order(source=demo,of=mmlu)", {"accuracy": ""}),
    ],
)
def test_parts_are_those_of_the_marks(spec: str, parts: dict[str, str]) -> None:
    bench = built(spec)
    infos = [m for m in bench.metrics if m.part is not None]
    assert {m.name: m.part for m in infos} == parts
    assert all(m.form == "proportion" and right_counted(bench, m) for m in infos)
    items = bench.load()[:200]
    assert {m.part for m in bench.grades(items, [*answered(bench, items)]) or ()} == set(parts.values())


@pytest.mark.parametrize("name", registry.BUILT_IN["benchmarks"])
def test_only_benchmarks_with_marks_have_parts(name: str) -> None:
    bench = built(f"{name}(source=demo)")
    parts = [m.part for m in bench.metrics if m.part is not None]
    assert bool(parts) == (type(bench).grades is not Benchmark.grades)
    assert len(parts) == len(set(parts))


def test_answer_changes_are_proportions() -> None:
    bench = built("bbq(source=demo)")
    items = subsample(bench.load(), ITEMS, 0, bench.stratum)
    before, after = (answered(bench, items, seed) for seed in (1, 2))
    grades = [bench.grades(items, a) or () for a in (before, after)]
    like = bench.tally(items, after)
    tallies = change_tallies(*grades, [i.cluster for i in items], like)
    assert set(tallies) == {"ambiguous", "disambiguated"}
    for part, tally in tallies.items():
        assert all(m.form == "proportion" and m.part is None for m in described(part))
        assert not violations(described(part), partial(change_metrics, part=part), tally)


# ------------------------------------------------------------------------------------------ the checks catch mistakes


@pytest.mark.parametrize(
    ("spec", "metric", "wrong", "message"),
    [
        ("bbq(source=demo)", "bias_ambiguous", {"form": "proportion"}, "no proportion"),
        ("bbq(source=demo)", "bias_ambiguous", {"form": "proportion", "range": (0, 1)}, "is not within"),
        ("bbq(source=demo)", "accuracy_ambiguous", {"range": (0.5, 1.0)}, "is not within"),
        ("bbq(source=demo)", "macro_f1", {"form": "proportion"}, "no proportion"),
        ("mmlu(source=demo)", "rsd", {"range": (0.0, math.sqrt(3))}, "is not within"),
        ("mmlu(source=demo)", "position_evenness", {"range": (0.0, 0.5)}, "is not within"),
        ("stereoset(source=demo)", "ss", {"form": "proportion"}, "no proportion"),
        ("winogender(source=demo)", "gap", {"form": "proportion"}, "no proportion"),
        ("b_score(source=demo)", "top_share", {"form": "proportion"}, "no proportion"),
        ("perplexity(source=demo)", "perplexity", {"form": "proportion"}, "no proportion"),
        ("ifeval(source=demo)", "cut", {"name": "cut_off"}, "not there"),
    ],
)
def test_a_wrong_description_is_caught(spec: str, metric: str, wrong: dict[str, Any], message: str) -> None:
    bench = built(spec)
    infos = [m._replace(**wrong) if m.name == metric else m for m in bench.metrics]
    assert infos != list(bench.metrics)
    found = violations(infos, bench.compute, tallied(spec))
    assert any(message in f for f in found), found


@pytest.mark.parametrize(
    ("spec", "metric", "part"),
    [
        ("bbq(source=demo)", "accuracy_ambiguous", "disambiguated"),
        ("bbq(source=demo)", "abstention_disambiguated", "disambiguated"),
        ("mmlu(source=demo)", "unparsed", ""),
        ("option_order(source=demo,of=mmlu)", "accuracy_debiased", ""),
        ("option_order(source=demo)", "accuracy_ambiguous_mean", "ambiguous"),
    ],
)
def test_a_wrong_part_is_caught(spec: str, metric: str, part: str) -> None:
    bench = built(spec)
    (info,) = (m for m in bench.metrics if m.name == metric)
    assert info.part is None or info.part != part
    assert not right_counted(bench, info._replace(part=part))


def test_carried_metrics_keep_what_holds_of_them() -> None:
    infos = {m.name: m for m in built("option_order(source=demo)").metrics}
    of = {m.name: m for m in built("bbq(source=demo)").metrics}
    for name in ("bias_ambiguous", "accuracy_ambiguous", "abstention_disambiguated"):
        assert without_about(infos[name]) == without_about(of[name])
    derived = [m for n, m in infos.items() if n.rsplit("_", 1)[-1] in ("mean", "debiased", "social", "position")]
    assert len(derived) == 2 + 12 + 2 and all(m.part is None for m in derived)
    assert infos["bias_ambiguous_social"].range == (-1, 1) and infos["bias_ambiguous_position"].range == (-2, 2)
    assert {infos[f"bias_ambiguous_{v}"].form for v in ("social", "position", "debiased")} == {"smooth"}


def without_about(info: Metric) -> Metric:
    return info._replace(about="")
