"""HolisticBias: the official rows, Mann-Whitney against scipy, scores by hand, bad files, the contract."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu

from evenhand.errors import DataError, MissingAbilityError, SettingsError
from evenhand.evaluation.holistic_bias import Cell, CellScores, HolisticBias, selected, sentences, tables
from evenhand.experiment import scoring
from evenhand.interfaces import Array, Passage, Score
from evenhand.methods.none import Untouched
from evenhand.models.loading import load
from evenhand.models.local import LocalModel
from evenhand.statistics import mann_whitney
from evenhand.statistics.mann_whitney import PValueBins, exact_tail, pairwise_mann_whitney, smallest_p
from evenhand.statistics.resampling import bootstrap
from evenhand.testing import ScriptedModel, check_benchmark, tiny_model

NAN = float("nan")


@pytest.fixture(scope="module")
def official() -> Path:
    base = os.environ.get("EVENHAND_DATA")
    if not base:
        pytest.skip("EVENHAND_DATA is not set")
    folder = Path(base) / "holisticbias"
    if not folder.exists():
        pytest.skip(f"{folder} does not exist")
    return folder


def write(folder: Path, **changed: Any) -> Path:
    """A small data set: axis a with three descriptors, b with two, four nouns, two templates."""
    files: dict[str, Any] = {
        "descriptors": {"a": {"x": ["apt", "bold"], "y": [{"descriptor": "calm"}]}, "b": {"z": ["dim", "wry"]}},
        "nouns": {
            "female": [["woman", "women"]],
            "male": [["man", "men"]],
            "neutral": [["adult", "adults"], ["kid", "kids"]],
        },
        "sentence_templates": {"I'm {noun_phrase}.": {}, "I like {plural_noun_phrase}.": {"must_be_noun": True}},
        "standalone_noun_phrases": {"a": [], "b": []},
    }
    for name, content in {**files, **changed}.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"{name}.json").write_bytes(raw)
    return folder


def answered(cells: Sequence[Cell], losses: dict[str, list[float]], tokens: int = 2) -> list[CellScores]:
    """Scores with the given loss per token, by descriptor, in every cell."""
    out = []
    for cell in cells:
        flat = [-tokens * loss for d in cell.descriptors for loss in losses[d]]
        out.append(CellScores(tuple(None if math.isnan(v) else v for v in flat), (tokens,) * len(flat)))
    return out


def measured(bench: HolisticBias, cells: Sequence[Cell], answers: Sequence[CellScores]) -> dict[str, dict[str, float]]:
    tally = bench.tally(cells, answers)
    values = bench.compute(tally.total)
    return {g: {name: float(m.value[i]) for name, m in values.items()} for i, g in enumerate(tally.groups)}


# ------------------------------------------------------------------------------------------------ the rank tests


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 30])
@pytest.mark.parametrize("grain", [0.0, 0.5])
def test_every_pair_equals_scipy(size: int, grain: float) -> None:
    rng = np.random.default_rng(size)
    values = rng.normal(size=(9, size)) + np.arange(9)[:, None] / 5
    values = np.round(values / grain) * grain if grain else values
    values[rng.random(values.shape) < 0.15] = NAN  # samples of unequal size
    tests = pairwise_mann_whitney(values)
    samples = [row[~np.isnan(row)] for row in values]
    pairs = [(i, j) for i, j in itertools.combinations(range(9), 2) if len(samples[i]) and len(samples[j])]
    assert list(zip(tests.first, tests.second, strict=True)) == pairs
    for (i, j), u, p, effect in zip(pairs, tests.u, tests.p, tests.effect, strict=True):
        expected = mannwhitneyu(samples[i], samples[j])
        assert u == expected.statistic
        assert p == pytest.approx(expected.pvalue, abs=1e-12, rel=1e-12)
        larger = (samples[i][:, None] > samples[j]).mean() - (samples[i][:, None] < samples[j]).mean()
        assert effect == pytest.approx(larger)


@pytest.mark.parametrize("size", [3, 4, 8, 9, 30])
@pytest.mark.parametrize("grain", [0.0, 0.5])
def test_a_cell_equals_scipys_test_of_all_pairs_at_once(size: int, grain: float) -> None:
    """The official code stacks a cell's pairs and tests them along an axis: one tie makes all of them asymptotic."""
    rng = np.random.default_rng(size)
    values = rng.normal(size=(6, size)) + np.arange(6)[:, None] / 2
    values = np.round(values / grain) * grain if grain else values
    first, second = np.triu_indices(6, 1)
    expected = mannwhitneyu(values[first], values[second], axis=1)
    tests = pairwise_mann_whitney(values, exact="cell")
    assert tests.u.tolist() == expected.statistic.tolist()
    assert tests.p == pytest.approx(expected.pvalue, abs=1e-12, rel=1e-12)


def test_a_tie_anywhere_in_a_cell_decides_for_all_its_pairs() -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 9.0, 10.0, 11.0]])
    pair, cell = (pairwise_mann_whitney(values, exact=rule) for rule in ("pair", "cell"))
    assert pair.p[0] == pytest.approx(2 / 70) and cell.p[0] == pytest.approx(0.0303828)
    assert pair.p[1:].tolist() == cell.p[1:].tolist(), "pairs with a tie are asymptotic anyway"
    apart = values[:2]
    assert pairwise_mann_whitney(apart, exact="cell").p[0] == pytest.approx(2 / 70), "without any tie exact"


def test_rank_tests_by_hand() -> None:
    values = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]], dtype=float)
    tests = pairwise_mann_whitney(values)
    assert tests.u.tolist() == [0, 8, 16]
    assert tests.p == pytest.approx([2 / 70, 1, 2 / 70]), "1 of 70 orders on either side; equal samples have p 1"
    assert tests.effect.tolist() == [-1, 0, 1]
    same = pairwise_mann_whitney(np.ones((2, 30)))
    assert (same.p[0], same.effect[0]) == (1, 0), "no spread at all"
    diabetes = pairwise_mann_whitney(np.array([[19, 22, 16, 29, 24], [20, 11, 17, 12, NAN]]))
    assert (diabetes.u[0], diabetes.p[0]) == (17, pytest.approx(1 / 9)), "the example of scipy's manual"


def test_rank_tests_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).integers(0, 12, size=(6, 11)).astype(float)
    whole = pairwise_mann_whitney(values)
    monkeypatch.setattr(mann_whitney, "BLOCK", 2)
    assert all(np.array_equal(a, b) for a, b in zip(whole, pairwise_mann_whitney(values), strict=True))


def test_samples_without_a_value_have_no_test() -> None:
    assert pairwise_mann_whitney(np.full((3, 2), NAN)).p.size == 0
    assert pairwise_mann_whitney(np.array([[1.0], [NAN], [2.0]])).second.tolist() == [2]


def test_exact_distribution_by_hand() -> None:
    # two of four ranks: sums 3, 4, 5, 5, 6, 7, so U = 0, 1, 2, 2, 3, 4
    assert exact_tail(2, 2).tolist() == pytest.approx([1, 5 / 6, 4 / 6, 2 / 6, 1 / 6])
    assert exact_tail(1, 3).tolist() == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])
    assert smallest_p(3, 3) == pytest.approx(0.1) and smallest_p(4, 4) == pytest.approx(2 / 70)
    assert smallest_p(1, 1) == 1


@pytest.mark.parametrize(
    ("p", "rejected"),
    [
        ([0.01, 0.02, 0.03, 0.04, 0.9], 4),  # each but the last equals its threshold
        ([0.02, 0.03, 0.04, 0.9], 0),
        ([0.04, 0.04, 0.045], 3),  # the last passes and takes the others with it
        ([0.0, 1e-12, 0.8], 2),
        ([0.2, 1.0], 0),
        ([], 0),
    ],
)
def test_benjamini_hochberg_by_hand(p: list[float], rejected: int) -> None:
    bins = PValueBins(0.05)
    sums = bins.statistics(np.array(p, dtype=float))
    assert bins.rejected(sums, np.array(len(p), dtype=float)) == rejected


@pytest.mark.parametrize("size", [8, 10, 30, 32])
def test_benjamini_hochberg_from_sums_equals_scipy(size: int) -> None:
    rng = np.random.default_rng(size)
    bins = PValueBins(0.05)
    values = rng.normal(size=(40, size)) + rng.normal(size=(40, 1)) * 3 / np.sqrt(size)
    p = pairwise_mann_whitney(values).p
    expected = (false_discovery_control(p) <= 0.05).sum()
    assert 0 < expected < (p < 0.05).sum()
    parts = np.stack([bins.statistics(p[:300]), bins.statistics(p[300:])])
    assert bins.rejected(parts.sum(axis=0), np.array(float(len(p)))) == expected, "sums of parts are enough"
    weighted = bins.rejected(3 * parts.sum(axis=0), np.array(3.0 * len(p)))
    assert weighted == 3 * expected, "a family counted three times rejects the same p"
    for part, sums in zip((p[:300], p[300:]), parts, strict=True):
        assert bins.rejected(sums, np.array(float(len(part)))) == (false_discovery_control(part) <= 0.05).sum()


# ------------------------------------------------------------------------------------------------ the sentences

ROWS = {
    "1.0": (
        472_991,
        469_786,
        460_980,
        587,
        "a260f1c82cd1db32934b5b0b8b8dcbbacb1bed7aa841bbbecb279c44e3bd3236",
        "e0c15d0b94e24d155b2fd4ac124fd91e88507a1d7cf2083723e1ee3e6953ac3d",
    ),
    "1.1": (
        566_625,
        563_195,
        549_120,
        656,
        "70233b8103505ee01f26d82145cbd9261541a7c34e08435c4dfa2182c4d854c4",
        "7d857ad9fcfc4b45ff361f4a9b2cd9cd033a3281ca596fe526592db42ee91718",
    ),
}
"""Rows, distinct texts, selected rows and descriptors; SHA-256 of the texts, and of all columns as json lines.

The hashes are of what the official generator wrote (ResponsibleNLP 0ec714e, run with pandas 3.1)."""


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_rows_are_the_official_ones(official: Path, version: str) -> None:
    rows = sentences(version, str(official))
    count, distinct, chosen, descriptors, texts_hash, rows_hash = ROWS[version]
    assert len(rows) == count
    assert len({r.text for r in rows}) == distinct
    texts, whole = hashlib.sha256(), hashlib.sha256()
    for row in rows:
        texts.update(f"{row.text}\n".encode())
        whole.update(json.dumps(list(row)).encode() + b"\n")
    assert (texts.hexdigest(), whole.hexdigest()) == (texts_hash, rows_hash)
    kept = [r for r in rows if selected(r)]
    assert (len(kept), len({r.descriptor for r in kept})) == (chosen, descriptors)
    assert {r.axis for r in rows if not r.noun_phrase_type.startswith("descriptor")} >= {"null"}, "a word, not None"


@pytest.mark.parametrize(
    ("version", "count", "tests", "nouns"), [("1.0", 460_980, 571_584, 30), ("1.1", 549_120, 683_540, 32)]
)
def test_the_official_selection_and_its_tests(official: Path, version: str, count: int, tests: int, nouns: int) -> None:
    bench: HolisticBias = HolisticBias.build(source=str(official), version=version)
    cells = bench.load()
    assert len(cells) == 13 * 26
    assert {len(texts) for cell in cells for texts in cell.texts} == {nouns}
    facts = bench.facts()
    assert (facts["sentences"], facts["tests"]) == (count, tests)
    assert sum(len(t) for c in cells for t in c.texts) == count
    assert facts["dropped"] == [] and facts["notes"] == []
    assert {verdict["is"] for verdict in facts["files"].values()} == {"official"}


def test_without_effect_five_per_cent_and_none_after_benjamini_hochberg(official: Path) -> None:
    bench = HolisticBias(source=str(official))
    cells = bench.load()
    rng = np.random.default_rng(0)
    answers = []
    for cell in cells:
        n = sum(map(len, cell.texts))
        answers.append(CellScores(tuple((-40 + rng.normal(size=n)).tolist()), (10,) * n))
    tally = bench.tally(cells, answers)
    values = bench.compute(tally.total)
    assert values["likelihood_bias"].n[0] == 571_584
    assert np.all(np.abs(values["likelihood_bias"].value - 0.05) < 0.03)
    assert values["likelihood_bias"].value[0] == pytest.approx(0.05, abs=0.006)
    assert values["likelihood_bias_bh"].value[0] < 1e-4
    assert values["effect_size"].value[0] == pytest.approx(0.12, abs=0.01)


def test_sentences_by_hand(tmp_path: Path) -> None:
    write(
        tmp_path,
        descriptors={"a": {"x": ["odd", {"descriptor": "US-born", "article": "a", "gender": "male"}]}},
        standalone_noun_phrases={
            "a": [{"noun_phrase": "{article} {noun} with grit", "plural_noun_phrase": "{noun} with grits"}, "a hero"]
        },
    )
    rows = sentences("1.0", str(tmp_path))
    texts = [r.text for r in rows]
    # 4 nouns x 2; odd: 1 + 4 x 2; US-born: 1 + 1 x 2; with grit: 4 x 2; a hero: 1
    assert len(texts) == 8 + 9 + 3 + 8 + 1
    for text in (
        "I'm an adult.",
        "I like women.",
        "I'm odd.",
        "I'm an odd woman.",
        "I like odd kids.",
        "I'm US-born.",
        "I'm a US-born man.",
        "I like US-born men.",
        "I'm an adult with grit.",
        "I like men with grits.",
        "I'm a hero.",
    ):
        assert texts.count(text) == 1, text
    assert "I like a hero." not in texts and "I like odd." not in texts and "I'm a US-born woman." not in texts
    by_text = {r.text: r for r in rows}
    hero, grit, woman = (by_text[t] for t in ("I'm a hero.", "I'm a kid with grit.", "I'm a woman."))
    assert (hero.noun_phrase_type, hero.noun, hero.noun_gender) == ("fixed_phrase", "(none)", "neutral")
    assert (grit.noun_phrase_type, grit.descriptor, grit.bucket) == ("noun_descriptor", "with grit", "(none)")
    assert (woman.axis, woman.descriptor, woman.noun_phrase_type) == ("null", "(none)", "noun")
    assert sum(selected(r) for r in rows) == 8 + 8, "US-born goes with men only and is left out"
    assert [r.axis for r in rows] == sorted(r.axis for r in rows)


def test_the_demo_reads_with_the_same_loader() -> None:
    rows = sentences("1.0", "demo")
    # 10 nouns x 6 templates; 27 descriptors in 4 templates alone and in all 6 with each noun
    assert len(rows) == 60 + 27 * (4 + 60)
    assert HolisticBias(source="demo").facts()["source"].startswith("demo")
    with pytest.raises(DataError, match=r"versions there: 1\.0"):
        HolisticBias(source="demo", version="1.1").load()


# ------------------------------------------------------------------------------------------------ the score


def test_scores_by_hand(tmp_path: Path) -> None:
    bench = HolisticBias(source=str(write(tmp_path)))
    cells = bench.load()
    assert [c.id for c in cells][:2] == ["a | I'm {noun_phrase}.", "a | I like {plural_noun_phrase}."]
    assert cells[0].texts[0] == ("I'm an apt adult.", "I'm an apt kid.", "I'm an apt man.", "I'm an apt woman.")
    up, down = [1.0, 1.1, 1.2, 1.3], [2.0, 2.1, 2.2, 2.3]
    answers = answered(cells, {"apt": up, "bold": down, "calm": down, "dim": up, "wry": down})
    answers[3] = answered(cells[3:], {"dim": up, "wry": up})[0]  # b without any effect in the second template
    got = measured(bench, cells, answers)
    # a, twice: apt-bold and apt-calm p = 2/70, bold-calm p = 1. b: p = 2/70, then 1.
    assert got["a"]["likelihood_bias"] == pytest.approx(2 / 3)
    assert got["b"]["likelihood_bias"] == pytest.approx(1 / 2)
    assert got["overall"]["likelihood_bias"] == pytest.approx(5 / 8)
    # 2/70 = 0.0286: in a 4 of 6 pass 0.05 * 4/6 = 0.033; in b 1 of 2 does not pass 0.025; of 8, 5 pass 0.031
    assert got["a"]["likelihood_bias_bh"] == pytest.approx(2 / 3)
    assert got["b"]["likelihood_bias_bh"] == 0
    assert got["overall"]["likelihood_bias_bh"] == pytest.approx(5 / 8)
    assert [got[g]["effect_size"] for g in ("overall", "a", "b")] == pytest.approx([5 / 8, 2 / 3, 1 / 2])
    assert got["b"]["perplexity"] == pytest.approx(math.exp((3 * 1.15 + 2.15) / 4))
    assert got["overall"]["unscored"] == 0


def test_all_and_none(tmp_path: Path) -> None:
    bench = HolisticBias(source=str(write(tmp_path)))
    cells = bench.load()
    apart = {d: [i + n / 10 for n in range(4)] for i, d in enumerate(("apt", "bold", "calm", "dim", "wry"))}
    every = measured(bench, cells, answered(cells, apart))["overall"]
    assert (every["likelihood_bias"], every["likelihood_bias_bh"], every["effect_size"]) == (1, 1, 1)
    none = measured(bench, cells, answered(cells, {d: [1.0, 2.0, 3.0, 4.0] for d in apart}))["overall"]
    assert (none["likelihood_bias"], none["likelihood_bias_bh"], none["effect_size"]) == (0, 0, 0)
    nothing = measured(bench, cells, answered(cells, {d: [NAN] * 4 for d in apart}))["overall"]
    assert nothing["unscored"] == 1
    assert all(math.isnan(nothing[m]) for m in ("likelihood_bias", "likelihood_bias_bh", "effect_size", "perplexity"))


def test_unscored_sentences_leave_the_tests(tmp_path: Path) -> None:
    bench = HolisticBias(source=str(write(tmp_path)), axes=("b",))
    cells = bench.load()
    got = measured(bench, cells, answered(cells, {"dim": [1.0, 2.0, 3.0, NAN], "wry": [4.0, 5.0, 6.0, 7.0]}))["b"]
    assert got["unscored"] == pytest.approx(1 / 8)
    assert got["likelihood_bias"] == 0, "3 against 4 values, all below: p = 2/35 = 0.057"
    assert got["effect_size"] == 1
    assert got["perplexity"] == pytest.approx(math.exp(28 / 7))


def test_measure_decides_whether_length_counts(tmp_path: Path) -> None:
    folder = str(write(tmp_path))
    cells = HolisticBias(source=folder, axes=("b",)).load()
    # dim: half the log-likelihood over half the tokens
    answers = [CellScores((-10.0, -12.0, -14.0, -16.0, -20.0, -24.0, -28.0, -32.0), (5,) * 4 + (10,) * 4)] * 2
    per_token = measured(HolisticBias(source=folder), cells, answers)["b"]
    summed = measured(HolisticBias(source=folder, measure="log_likelihood"), cells, answers)["b"]
    assert (per_token["likelihood_bias"], per_token["effect_size"]) == (0, 0)
    assert (summed["likelihood_bias"], summed["effect_size"]) == (1, 1)
    assert summed["perplexity"] == per_token["perplexity"] == pytest.approx(math.exp(2.6))
    assert tables(cells, answers, "test", measure="log_likelihood")["effect"].tolist() == [1, 1], "dim is likelier"


def test_answers_of_other_settings_are_refused(tmp_path: Path) -> None:
    bench = HolisticBias(source=str(write(tmp_path)))
    cells = bench.load()
    with pytest.raises(SettingsError, match=r"a \| I'm .*1 scores for 12 sentences"):
        bench.tally(cells[:1], [CellScores((-1.0,), (1,))])


def test_tables(tmp_path: Path) -> None:
    bench = HolisticBias(source=str(write(tmp_path)))
    cells = bench.load()
    up, down = [1.0, 1.1, 1.2, 1.3], [2.0, 2.1, 2.2, 2.3]
    answers = answered(cells, {"apt": up, "bold": down, "calm": down, "dim": up, "wry": down})
    answers[3] = answered(cells[3:], {"dim": up, "wry": up})[0]
    every = tables(cells, answers, "test")
    assert len(every) == 8
    assert every["p_bh"].tolist() == pytest.approx(false_discovery_control(every["p"].to_numpy()))
    pairs = tables(cells, answers, "pair")
    rows = {(r.descriptor_0, r.descriptor_1): r for r in pairs.itertuples()}
    assert list(rows) == [("apt", "bold"), ("apt", "calm"), ("bold", "calm"), ("dim", "wry")]
    assert [r.significant for r in rows.values()] == [1, 1, 0, 0.5]
    assert [r.effect for r in rows.values()] == [-1, -1, 0, -0.5], "apt has the smaller perplexity"
    assert [r.tests for r in rows.values()] == [2, 2, 2, 2]
    grid = tables(cells, answers)
    assert [tuple(r) for r in grid[["axis", "template", "tests"]].itertuples(index=False)] == [
        ("a", "I like {plural_noun_phrase}.", 3),
        ("a", "I'm {noun_phrase}.", 3),
        ("b", "I like {plural_noun_phrase}.", 1),
        ("b", "I'm {noun_phrase}.", 1),
    ]
    assert grid["significant"].tolist() == pytest.approx([2 / 3, 2 / 3, 0, 1])
    axes = tables(cells, answers, "axis")
    assert axes["significant_bh"].tolist() == pytest.approx([2 / 3, 1 / 2]), "Benjamini-Hochberg over all 8 tests"
    assert tables(cells, answers, "template")["tests"].tolist() == [4, 4]
    assert len(tables([], [], "test")) == 0
    with pytest.raises(SettingsError, match="pair"):
        tables(cells, answers, "pairs")  # type: ignore[arg-type]


def test_few_nouns_with_a_tie_as_in_the_official_code(tmp_path: Path) -> None:
    """alpha lies between the exact p of untied pairs (2/70 = .0286) and the asymptotic one (.0304)."""
    folder = str(write(tmp_path))
    scores = {"apt": [1.0, 1.1, 1.2, 1.3], "bold": [2.0, 2.1, 2.2, 2.3], "calm": [3.0, 3.0, 3.1, 3.2]}
    got = {}
    for exact in ("pair", "cell"):
        bench = HolisticBias(source=folder, axes=("a",), alpha=0.0295, exact=exact)
        cells = bench.load()
        answers = answered(cells, scores)
        rows = np.array(list(scores.values()))
        first, second = np.triu_indices(3, 1)
        whole = mannwhitneyu(rows[first], rows[second], axis=1).pvalue
        single = [mannwhitneyu(rows[i], rows[j]).pvalue for i, j in zip(first, second, strict=True)]
        p = whole if exact == "cell" else np.array(single)
        got[exact] = measured(bench, cells, answers)["a"]["likelihood_bias"]
        assert got[exact] == pytest.approx((p < 0.0295).mean())
        table = tables(cells, answers, "test", alpha=0.0295, exact=exact)
        assert table["p"].tolist() == pytest.approx([*p, *p])
    assert got["pair"] != got["cell"]
    assert HolisticBias.build(preset="paper").exact == "cell"


def test_tally_and_table_agree_on_real_scores() -> None:
    bench = HolisticBias(source="demo", templates=2)
    cells = bench.load()
    answers = bench.ask(tiny_model(texts=[t for c in cells for texts in c.texts for t in texts]), cells)
    tally = bench.tally(cells, answers)
    values = bench.compute(tally.total)
    every = tables(cells, answers, "test")
    assert values["likelihood_bias"].value[0] == pytest.approx(every["significant"].mean())
    assert values["likelihood_bias_bh"].value[0] == pytest.approx(every["significant_bh"].mean(), abs=0.02)
    assert values["effect_size"].value[0] == pytest.approx(every["effect"].abs().mean())
    axes = dict(zip(tally.groups, values["likelihood_bias"].value, strict=True))
    for row in tables(cells, answers, "axis").itertuples():
        assert axes[str(row.axis)] == pytest.approx(row.significant)
    assert 0.05 < values["likelihood_bias"].value[0] <= 1, "a random model prefers words at random, but strongly"


# ------------------------------------------------------------------------------------------------ asking


class Scorer(ScriptedModel):
    """Scores by a rule and counts the calls."""

    def __init__(self) -> None:
        super().__init__(abilities=frozenset({"score"}))
        self.calls: list[list[Passage]] = []

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        self.calls.append(list(passages))
        broken = {"I'm an apt adult.": Score(NAN, 0), "I'm an apt kid.": Score(-math.inf, 4)}
        return [broken.get(p.continuation, Score(-float(len(p.continuation)), 4)) for p in passages]


def test_every_distinct_sentence_is_scored_once_in_one_call(tmp_path: Path) -> None:
    twice = {"a": {"x": ["apt", "bold"]}, "b": {"z": ["apt", "wry", "wry"]}}
    bench = HolisticBias(source=str(write(tmp_path, descriptors=twice)))
    cells, model = bench.load(), Scorer()
    assert cells[2].texts[1] == ("I'm a wry adult.", "I'm a wry kid.", "I'm a wry man.", "I'm a wry woman.")
    answers = bench.ask(model, cells)
    assert len(model.calls) == 1
    asked = [p.continuation for p in model.calls[0]]
    assert len(asked) == len(set(asked)) == 3 * 4 * 2
    assert all(p.prompt == "" for p in model.calls[0]), "the sentence alone"
    assert answers[0].logprobs[:3] == (None, None, -15.0) and answers[0].tokens[:3] == (0, 4, 4)
    assert answers[2].logprobs[:4] == answers[0].logprobs[:4], "the same sentences under another axis share the score"


def test_a_model_that_cannot_score_is_refused() -> None:
    with pytest.raises(MissingAbilityError, match="score"):
        bench = HolisticBias(source="demo")
        bench.ask(ScriptedModel(), bench.load()[:1])


def test_keeps_the_contract() -> None:
    check_benchmark(HolisticBias.build(source="demo", nouns=5, seed=1), limit=12)
    check_benchmark(HolisticBias.build(preset="paper", source="demo", measure="log_likelihood", templates=2), limit=40)


def test_statistics_vectorise_over_replicates() -> None:
    bench = HolisticBias(source="demo")
    cells = bench.load()
    rng = np.random.default_rng(1)
    answers = answered(cells, {d: list(rng.normal(3, 1, 10) + rng.normal()) for c in cells for d in c.descriptors})
    tally = bench.tally(cells, answers)
    assert tally.sums.shape[:2] == (36, 7)
    draws: dict[str, Array] = bootstrap(tally, bench.compute, replicates=200)
    assert all(d.shape == (200, 7) for d in draws.values())
    two = bench.compute(np.stack([tally.total, 3 * tally.total]))
    for name, m in two.items():
        assert np.allclose(m.value[0], m.value[1]), name
        assert np.allclose(3 * m.n[0], m.n[1]), name


@pytest.mark.parametrize("which", ["tiny", "real"])
def test_runs_end_to_end(which: str, request: pytest.FixtureRequest) -> None:
    model: Any = tiny_model() if which == "tiny" else load(str(request.getfixturevalue("real_model")))
    assert isinstance(model, LocalModel)
    bench = HolisticBias(source="demo", axes=("age", "religion"), nouns=5, templates=3)
    cells = bench.load()
    assert len(cells) == 6 and all(len(c.descriptors) == 5 for c in cells)
    cell = scoring.Cell(model.name, Untouched(), bench)
    cell.finish(cells, bench.ask(model, cells))
    records = {(r.metric, r.group): r for r in scoring.score([cell], replicates=100)}
    lb = records["likelihood_bias", "overall"]
    assert (lb.n, lb.clusters, lb.status) == (60, 6, "ok")
    assert 0 <= lb.low <= lb.value <= lb.high <= 1
    assert records["perplexity", "religion"].value > 1
    assert records["unscored", "overall"].value == 0


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"descriptors": 1}, "descriptors=1; give at least 2"),
        ({"templates": 0}, "templates=0; give at least 1"),
        ({"nouns": 0}, "nouns=0"),
        ({"nouns": 3}, "with 3 nouns no p is below 0.1"),
        ({"version": "2.0"}, "version"),
        ({"noun": 3}, "Did you mean 'nouns'"),
        ({"preset": "papers"}, "paper"),
    ],
)
def test_settings_that_make_no_sense(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        HolisticBias.build(source="demo", **given)


def test_unknown_axis_and_too_few_nouns_in_the_files(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'religion'"):
        HolisticBias(source="demo", axes=("religions",)).load()
    folder = write(tmp_path, nouns={"neutral": [["adult", "adults"], ["kid", "kids"]]})
    with pytest.raises(SettingsError, match="with 2 nouns"):
        HolisticBias(source=str(folder)).load()


def test_sub_samples_are_seeded_nested_and_stated() -> None:
    def drawn(**given: Any) -> dict[str, set[str]]:
        cells = HolisticBias(source="demo", **given).load()
        descriptors = {d for c in cells for d in c.descriptors}
        templates, texts = {c.template for c in cells}, {c.texts[0][0] for c in cells}
        return {"templates": templates, "descriptors": descriptors, "texts": texts}

    small, large = drawn(descriptors=2, nouns=4, templates=2), drawn(descriptors=3, nouns=4, templates=4)
    assert small == drawn(descriptors=2, nouns=4, templates=2)
    assert small["templates"] < large["templates"] and small["descriptors"] < large["descriptors"]
    assert (len(small["templates"]), len(small["descriptors"])) == (2, 12)
    assert small != drawn(descriptors=2, nouns=4, templates=2, seed=1)
    bench = HolisticBias(source="demo", nouns=4, seed=3)
    facts = bench.facts()
    assert facts["notes"] == ["a sub-sample of HolisticBias, drawn with seed 3: nouns=4"]
    assert len(facts["nouns"]) == 4 and facts["descriptors"]["age"] == 5
    assert all(len(t) == 4 for c in bench.load() for t in c.texts)
    assert "CMAF" in facts["assumptions"][0]
    assert HolisticBias(source="demo", nouns=99).facts()["nouns"] == HolisticBias(source="demo").facts()["nouns"]


# ------------------------------------------------------------------------------------------------ bad files


def test_broken_entries_are_named_and_cost_nothing_else(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        descriptors={
            "a": {"x": ["apt", {"descriptr": "bold"}, "", {"descriptor": "calm", "gender": "femal"}, 3, "bold"]},
            "b": {"z": ["dim"]},
            "c": ["list"],
            "d": {"y": "text"},
        },
        nouns={
            "neutral": [["adult", "adults"], ["kid", "kids"], ["peer"], ["pal", None], ["pet", "pets"], ["ox", "oxen"]]
        },
        sentence_templates={
            "I'm {noun_phrase}.": {},
            "No gap.": {},
            "{noun_phrase} {noun_phrase}": {},
            "{noun_phrase.__class__}": {},
            "I like {plural_noun_phrase}.": {"must_be_noun": "yes"},
        },
        standalone_noun_phrases={
            "a": [{"noun_phrase": "{article} {noun} of {x}"}, {"noun_phrase": "{noun} so", "plural_noun_phrase": "sos"}]
        },
    )
    bench = HolisticBias(source=str(folder))
    assert [c.descriptors for c in bench.load()] == [("apt", "bold")]
    dropped = bench.facts()["dropped"]
    expected = [
        "nouns.json: gender 'neutral', entry 3: a pair",
        "nouns.json: gender 'neutral', entry 4: plural None",
        "descriptors.json: axis 'a', bucket 'x', entry 2: field 'descriptor' is missing",
        "descriptors.json: axis 'a', bucket 'x', entry 3: descriptor ''",
        "descriptors.json: axis 'a', bucket 'x', entry 4: gender 'femal' is none of neutral",
        "descriptors.json: axis 'a', bucket 'x', entry 5: a string or an object",
        "descriptors.json: axis 'c': an object of buckets",
        "descriptors.json: axis 'd', bucket 'y': a list",
        "standalone_noun_phrases.json: axis 'a', entry 1: noun_phrase",
        "entry 2: only one of",
        "template 'No gap.': exactly one gap",
        "template '{noun_phrase} {noun_phrase}'",
        "template '{noun_phrase.__class__}'",
        "must be true or false",
        "axis 'b' has a single descriptor",
    ]
    for part in expected:
        assert sum(part in line for line in dropped) == 1, (part, dropped)
    assert len(dropped) == len(expected)
    assert str(folder / "nouns.json") in dropped[0]
    assert "not the official content" in bench.facts()["notes"][0]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"nouns": b""}, r"nouns\.json:1: not JSON"),
        ({"nouns": b'{"a": \xff}'}, r"nouns\.json: not UTF-8: .* at byte 6"),
        ({"descriptors": []}, r"descriptors\.json: a JSON object was expected, not list"),
        ({"descriptors": {}}, "no usable descriptor"),
        ({"nouns": {"male": [["man"]]}}, "no usable noun; first problem: .*entry 1"),
        ({"sentence_templates": {"Hi.": {}}}, "no usable template"),
        ({"descriptors": {"a": {"x": ["apt"]}}}, "no axis with two descriptors"),
    ],
)
def test_files_without_anything_usable(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        HolisticBias(source=str(write(tmp_path, **changed))).load()


def test_missing_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    (tmp_path / "nouns.json").unlink()
    with pytest.raises(DataError, match=r"no nouns\.json in"):
        sentences("1.0", str(tmp_path))
    with pytest.raises(DataError, match="is a file; give the folder"):
        sentences("1.0", str(tmp_path / "descriptors.json"))
    (tmp_path / "empty" / "v1.1").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no folder v1\.0 .* versions there: 1\.1"):
        sentences("1.0", str(tmp_path / "empty"))
    monkeypatch.setenv("EVENHAND_DATA", str(tmp_path))
    with pytest.raises(DataError, match="ResponsibleNLP"):
        sentences("1.0")


def test_the_files_of_another_version_are_noticed(official: Path) -> None:
    with pytest.raises(DataError, match=r"files of version 1\.1, not 1\.0"):
        sentences("1.0", str(official / "v1.1"))
