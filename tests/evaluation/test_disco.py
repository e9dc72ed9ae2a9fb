"""DisCo: the test by hand and against scipy, the tally, the demo's planted fills, files, and the contract."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy import stats

from evenhand.data.disco import Blank, Template, load_blanks
from evenhand.errors import DataError, MissingAbilityError, SettingsError
from evenhand.evaluation.disco import DisCo, Filled, TemplateItem, gendered_fills
from evenhand.models.loading import load
from evenhand.models.local import LocalModel
from evenhand.proving_ground.generator import texts
from evenhand.proving_ground.generator.planted import MAIN
from evenhand.testing import check_benchmark


def test_the_test_by_hand() -> None:
    men = [("a", "b")] * 8 + [("a", "c")] * 2
    women = [("a", "b")] * 1 + [("a", "c")] * 9
    # b: 8 of 10 against 1 of 10: 20 (8*9 - 1*2)^2 / (9 * 11 * 10 * 10) = 9.899, p = .00165 < .05 / 3; c is the reverse
    assert gendered_fills(men, women) == (["b", "c"], 3)
    assert gendered_fills(men, women, alpha=0.004)[0] == [], "p must be below alpha / 3"
    assert gendered_fills([], []) == ([], 0)


def test_the_test_agrees_with_scipy_in_groups_of_unequal_size() -> None:
    men, women = [("x",)] * 6 + [("y",)] * 7, [("x",)] * 17 + [("y",)] * 3
    p = stats.chi2_contingency([[6, 17], [7, 3]], correction=False).pvalue
    assert gendered_fills(men, women, alpha=2 * p * 1.001) == (["x", "y"], 2)
    assert gendered_fills(men, women, alpha=2 * p * 0.999) == ([], 2)


def test_what_everybody_has_goes_with_nobody() -> None:
    assert gendered_fills([("a",)] * 50, [("a",)] * 30) == ([], 1)


def template(name: str, pairs: int, kind: str = "names") -> TemplateItem:
    people = tuple((f"m{i}", f"w{i}") for i in range(pairs))
    blanks = tuple((Blank(m, "."), Blank(w, ".")) for m, w in people)
    return TemplateItem(f"{kind}/{name}", Template(kind, name, people, blanks))


def filled(*pairs: tuple[str, str]) -> Filled:
    """Fills by letter; an upper-case one has P 0.3, a lower-case one 0.05."""

    def logs(fills: str) -> tuple[float, ...]:
        return tuple(math.log(0.3 if c.isupper() else 0.05) for c in fills)

    return Filled(tuple((tuple(m), tuple(w)) for m, w in pairs), tuple((logs(m), logs(w)) for m, w in pairs))


def numbers(bench: DisCo, items: list[TemplateItem], answers: list[Filled]) -> dict[str, dict[str, float]]:
    tally = bench.tally(items, answers)
    found = bench.compute(tally.total)
    return {g: {name: float(m.value[i]) for name, m in found.items()} for i, g in enumerate(tally.groups)}


def test_the_numbers_by_hand() -> None:
    items = [template("one", 12), template("two", 2, "nouns")]
    answers = [filled(*[("Ab", "Cb")] * 12), filled(("Ab", "AB"), ("ab", "dC"))]
    got = numbers(DisCo.build(k=2), items, answers)
    assert got["names"]["disco"] == 2, "A goes with men, C with women: 24 people, chi-squared 24"
    assert got["names"]["fills"] == 3 and got["names"]["differing"] == 0.5 and got["names"]["differing_likely"] == 2
    assert got["names"]["top_mass"] == pytest.approx(0.35)
    assert got["nouns"]["disco"] == 0 and got["nouns"]["fills"] == 6
    assert got["nouns"]["differing"] == pytest.approx((1 / 2 + 1) / 2)
    assert got["nouns"]["differing_likely"] == pytest.approx((1 + 1) / 2), "B alone; C alone"
    assert got["nouns"]["top_mass"] == pytest.approx((0.35 + 0.6 + 0.1 + 0.35) / 4)
    assert got["overall"]["disco"] == 1 and got["overall"]["differing"] == pytest.approx((12 * 0.5 + 1.5) / 14)


def test_templates_are_resampled_within_their_kind_unless_one_is_alone() -> None:
    items = [template("one", 1), template("two", 1), template("one", 1, "nouns"), template("two", 1, "nouns")]
    answers = [filled(("A", "B"))] * 4
    assert DisCo.build().tally(items, answers).strata == ("names", "names", "nouns", "nouns")
    assert set(DisCo.build().tally(items[:3], answers[:3]).strata) == {"templates"}


def test_one_who_has_several_twins_counts_once() -> None:
    people, blanks = (("m0", "w"), ("m1", "w")), ((Blank("a", ""), Blank("c", "")), (Blank("b", ""), Blank("c", "")))
    item = TemplateItem("x", Template("x", "x", people, blanks))
    got = numbers(DisCo.build(k=1), [item], [filled(("A", "c"), ("B", "c"))])["overall"]
    assert got["top_mass"] == pytest.approx((0.3 + 0.3 + 0.05) / 3) and got["differing"] == 1.0


def planted(blank: Blank) -> dict[str, float]:
    """Probability of each single word in a blank, given the rest of the sentence, in the text world."""
    before, after = blank
    found = {
        t[len(before) : len(t) - len(after)]: p
        for t, p in texts.world(MAIN).items()
        if t.startswith(before) and t.endswith(after) and len(t) > len(before) + len(after)
    }
    words = {word: p for word, p in found.items() if " " not in word}
    return {word: p / sum(words.values()) for word, p in words.items()}


def test_the_demo_fills_blanks_as_planted() -> None:
    bench, model = DisCo.build(source="demo"), load("demo-mlm")
    items = bench.load()
    answers = bench.ask(model, items)
    assert answers[0].usage.calls == 3, "Women are asked once"
    for item, answer in zip(items, answers, strict=True):
        for blanks, fills in zip(item.template.blanks, answer.fills, strict=True):
            for blank, mine in zip(blanks, fills, strict=True):
                truth = planted(blank)
                third = sorted(truth.values())[-3]
                assert all(truth[f] > 0.9 * third for f in mine), "ties decide which of the likeliest"
    got = numbers(bench, items, answers)
    assert got["groups"]["differing"] == 1.0, "men and women get the opposite of each trait"
    assert got["kin"]["differing"] == 0.0, "a descriptor does not depend on the gender of the noun"
    assert got["overall"]["differing"] == pytest.approx(2 / 8)


def test_a_causal_model_is_told_why_not(tiny: LocalModel) -> None:
    bench = DisCo.build(source="demo")
    with pytest.raises(MissingAbilityError, match="needs a masked language model; tiny-llama is not one"):
        bench.ask(tiny, bench.load())


def test_keeps_the_contract() -> None:
    check_benchmark(DisCo.build(source="demo"), load("demo-mlm"))
    check_benchmark(DisCo.build(people="all", k=2), load("demo-mlm"))


def test_our_templates_are_sentences_about_twins() -> None:
    found = load_blanks("auto").templates
    assert {t.kind: len(t.people) for t in found} == {"names": 25, "nouns": 20} and len(found) == 26
    for t in found:
        assert len({p for twins in t.people for p in twins}) == 2 * len(t.people)
        for (man, woman), (his, hers) in zip(t.people, t.blanks, strict=True):
            assert his.before[0].isupper() and (his.before + his.after).count("{") == 0
            said = [b.before + "_" + b.after for b in (his, hers)]
            assert said[0].lower().replace(man.lower(), woman.lower()) == said[1].lower()
    assert [i.id for i in DisCo.build().load()][:2] == ["names/is", "names/is_a"]
    assert DisCo.build(people="nouns").facts()["people"] == {"nouns": {"men": 20, "women": 20}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("language: en\nsubjects: {x: [[a, b]]}\ntemplates: {t: '{person} is.'}", r"'t' needs .* it has \['person'\]"),
        ("language: en\nsubjects: {x: []}\ntemplates: {t: '{person} {blank}'}", "subjects.x"),
        ("language: en\ntemplates: {t: '{person} {blank}'}", "subjects: Field required"),
        ("a: [", "no usable templates"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(DataError, match=reason):
        load_blanks(str(file))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(DataError, match="give auto, demo or a file"):
        DisCo.build(source="/nowhere.yaml").load()
    with pytest.raises(SettingsError, match=r"no people 'nams' there\. Did you mean 'names'"):
        DisCo.build(people="nams").load()
    with pytest.raises(SettingsError, match="k=0"):
        DisCo.build(k=0)
    with pytest.raises(SettingsError, match=r"alpha=1\.0"):
        DisCo.build(alpha=1.0)
