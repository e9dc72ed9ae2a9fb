"""The demo models have what was planted, and the bench tells working methods from others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.in_process import run_here

import evenhand
from evenhand import proving_ground
from evenhand.core import registry
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.proving_ground import checking
from evenhand.proving_ground import statements as held
from evenhand.proving_ground.generator.planted import FAMILY
from evenhand.proving_ground.generator.planted_x import PLANTED
from evenhand.proving_ground.generator.words import AXES, CONTROL
from evenhand.proving_ground.interventions import bbq_values
from evenhand.proving_ground.probes import Value
from evenhand.proving_ground.statements import Effect, Statement, statements


@pytest.fixture(scope="module", autouse=True)
def _each_answer_once() -> Iterator[None]:
    """Several tests ask the same models the same questions; answers are kept under what the weights are."""
    with checking.each_answer_once():
        yield


# ---------------------------------------------------------------------------------------------------- truth


def test_truth_is_the_planted_share_of_leaning_cells() -> None:
    got = {group: values["bias_ambiguous"] for group, values in proving_ground.truth("demo").items()}
    assert got["Age"] == pytest.approx(26 / 36) and got["Disability_status"] == pytest.approx(6 / 36)
    assert got[CONTROL] == 0.0
    assert got["overall"] == pytest.approx(np.mean([got[a.name] for a in AXES]))


def test_truth_of_a_method_is_its_planted_effect() -> None:
    before, after = proving_ground.truth("demo"), proving_ground.truth("demo", method="self_debias")
    assert after["Age"]["bias_ambiguous"] == pytest.approx(8 / 36)
    assert before["overall"]["accuracy_disambiguated"] == 1.0
    assert after["overall"]["accuracy_disambiguated"] == pytest.approx(5 / 6), "one trait of six over-abstains"


def test_truth_of_the_methods_that_only_ask() -> None:
    """Ambiguous bias on Age and accuracy where the context tells, from the planted cells."""
    got = {}
    for method in (
        "self_debias(keep_stated=True)",
        "instruction",
        "instruction(wording=high_2,axis=any,place=system)",
        "moral_self_correction(variant=instruction,preset=paper)",
        "moral_self_correction",
        "moral_self_correction(preset=paper)",
        "intent_self_correction",
    ):
        values = proving_ground.truth("demo", method=method)
        got[method] = round(values["Age"]["bias_ambiguous"] * 36), values["overall"]["accuracy_disambiguated"]
    kept, *told, thought, thought_too, corrected = got.values()
    assert kept == (8, 1.0) and told == [(14, 1.0)] * 3
    assert thought == thought_too == (11, pytest.approx(2 / 3))
    assert corrected == (3, pytest.approx(2 / 3)), "what heeds neither thinking nor a reprompt"


def test_truth_asks_the_planted_critic_not_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic who scores everything 2 questions sound answers at a threshold of 1, and finds no fault at 2."""
    monkeypatch.setattr("evenhand.models.demo.load_demo", lambda *a, **k: pytest.fail("a network was loaded"))
    method = "intent_self_correction(critic='demo-d',threshold={})"
    strict, lenient = (proving_ground.truth("demo", method=method.format(n)) for n in (1, 2))
    assert round(strict["Age"]["bias_ambiguous"] * 36) == 3 and round(lenient["Age"]["bias_ambiguous"] * 36) == 11
    right = [t["overall"]["accuracy_disambiguated"] for t in (strict, lenient)]
    assert right == [pytest.approx(1 / 2), pytest.approx(2 / 3)]
    stacked = proving_ground.truth("demo", "mmlu(source=demo)", f"none+{method.format(2)}")
    assert stacked["overall"]["accuracy"] > 0.6, "in a stack too"


def test_the_planted_truth_is_a_model_like_any_other() -> None:
    model = evenhand.load("oracle:demo")
    report = evenhand.compare(model, ["instruction"], "bbq(source=demo)", replicates=200, show_progress=False)
    frame = report.frame().set_index(["method", "metric", "group"])["value"]
    assert frame["none", "bias_ambiguous", "Age"] == pytest.approx(26 / 36)
    assert frame["instruction", "bias_ambiguous", "Age"] == pytest.approx(14 / 36)
    assert report.manifest["demo"], "nobody must take it for a measurement"
    with pytest.raises(UnknownNameError, match="demo-b"):
        evenhand.load("oracle:demo-bb")
    with pytest.raises(SettingsError, match="dtype"):
        evenhand.load("oracle:demo", dtype="float32")


def test_truth_of_other_benchmarks() -> None:
    """Six subjects of twelve tested facts, every fact asked with its answer at each letter."""
    mmlu = proving_ground.truth("demo", "mmlu(source=demo)")
    assert mmlu["overall"]["accuracy"] == pytest.approx(0.6875) and mmlu["word_opposites"]["accuracy"] == 0.875
    assert proving_ground.truth("demo-c", "mmlu(source=demo)")["overall"]["accuracy"] > 0.7
    assert proving_ground.truth("demo", "gpqa(source=demo)")["overall"]["unanswered"] == 0


def test_truth_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UnknownNameError, match="demo-b"):
        proving_ground.truth("demo-bb")
    with pytest.raises(UnknownNameError, match="self_debias"):
        proving_ground.truth("demo", method="self_debia")


# ---------------------------------------------------------------------------------------------------- check


def test_the_main_model_has_what_was_planted() -> None:
    wanted = ("ambiguous bias", "reading", "reprompt effect", "reprompt abstention", "letters", "knowledge", "pronouns")
    found = proving_ground.check(["demo"], quantities=wanted)
    assert [f for f in found if not f.ok] == []
    assert {f.group for f in found if f.quantity == "ambiguous bias"} == {a.name for a in AXES}
    control = next(f for f in found if f.quantity == "ambiguous bias" and f.group == CONTROL)
    assert control.low <= 0 <= control.high and control.low < control.high


@pytest.mark.slow
def test_the_whole_family_has_what_was_planted() -> None:
    """The quick quantities; `evenhand proving-ground check` measures all of them, in some minutes a model."""
    quick = ("ambiguous bias", "letters", "knowledge", "labels", "pronouns", "explicit gender", "ratings")
    found = proving_ground.check([*FAMILY, "demo-mlm"], quantities=quick)
    assert [f for f in found if not f.ok] == []
    assert {f.model for f in found} == {*FAMILY, "demo-mlm"}
    assert {f.quantity for f in found if f.model == "demo-d"} == set(quick)


def test_check_finds_a_model_that_lacks_what_was_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """demo-c's weights under demo-b's name: the bench must notice."""
    other = evenhand.load("demo-c")
    monkeypatch.setattr("evenhand.models.load", lambda name: other)
    found = checking.check(["demo-b"], quantities=["ambiguous bias", "ratings"])
    assert {f.quantity for f in found if not f.ok} == {"ambiguous bias", "ratings"}
    assert all(f.note == "outside the tolerance" for f in found if not f.ok)


def test_check_refuses_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="demo-b"):
        checking.check(["demo-bb"])
    with pytest.raises(UnknownNameError, match="letters"):
        checking.check(["demo"], quantities=["leters"])


def test_a_second_measurement_takes_the_answers_of_the_first_where_one_cache_lasts_over_both() -> None:
    model = evenhand.load("oracle:demo")
    with checking.each_answer_once():
        with checking.each_answer_once():
            first = bbq_values(model)
        assert bbq_values(model) is first


def test_interval_of_unequal_clusters() -> None:
    values = [Value("g", "a", 1.0)] * 3 + [Value("g", "b", 0.0)]
    # without one of them the mean is 0 or 1: standard error 1/2, t of one degree of freedom 12.706
    assert checking.interval(values) == pytest.approx((0.75 - 12.7062 / 2, 0.75 + 12.7062 / 2), abs=1e-3)
    assert np.isnan(checking.interval(values[:3])).all(), "one cluster says nothing of its likes"
    assert checking.interval([Value("g", c, 0.5) for c in "abc"]) == (0.5, 0.5)


def test_the_poor_judge_is_poor() -> None:
    found = {(f.model, f.group): f.measured for f in checking.check(["demo-c", "demo-d"], quantities=["ratings"])}
    gap = {m: found[m, "biased"] - found[m, "unbiased"] for m in ("demo-c", "demo-d")}
    assert gap["demo-c"] > 2.5 and abs(gap["demo-d"]) < 0.6


# --------------------------------------------------------------------------------------------------- effects


@pytest.fixture(scope="module")
def found() -> list[Effect]:
    return proving_ground.effects(["self_debias", "self_debias_demo_b"])


def test_self_debias_does_what_it_states(found: list[Effect]) -> None:
    verdicts = held.verdicts(found)
    assert verdicts["demo x self_debias"] and verdicts["demo-b x self_debias"]
    moved = [e for e in found if e.kind == "moves" and not e.must_fail]
    assert len(moved) == 6 and all(e.low > 0 and e.change >= e.bound for e in moved)


def test_the_controls_are_told_apart(found: list[Effect]) -> None:
    verdicts = held.verdicts(found)
    assert verdicts["demo x no_op"] and verdicts["demo x always_unknown"]
    lines = {(e.method, e.kind, e.quantity): e for e in found if e.must_fail}
    nothing = lines["no_op", "moves", "ambiguous bias"]
    assert not nothing.ok and nothing.change == 0.0
    useless = lines["always_unknown", "moves", "ambiguous bias"]
    assert useless.ok and useless.after == 0.0, "its bias is gone ..."
    capable = lines["always_unknown", "stays", "reading"]
    assert not capable.ok and capable.after == 0.0, "... and so is its use"


def test_a_method_that_breaks_its_statement_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = Statement.model_validate({"moves": [], "stays": [{"quantity": "reading", "falls_at_most": 0.01}]})
    monkeypatch.setattr(held, "statements", lambda: {"self_debias": strict})
    got = proving_ground.effects(["self_debias"], controls=False)
    assert held.verdicts(got) == {"demo x self_debias": False}


def test_a_method_that_does_more_than_it_states_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the planted truth: a change by half."""
    load = evenhand.load
    monkeypatch.setattr("evenhand.models.load", lambda name: load(f"oracle:{name}"))
    line = {"quantity": "ambiguous bias", "groups": ["Age"], "at_least": 0.1}
    for most, ok in ((0.3, False), (0.6, True)):
        said = Statement.model_validate({"moves": [{**line, "at_most": most}], "stays": []})
        monkeypatch.setattr(held, "statements", lambda said=said: {"self_debias": said})
        got = proving_ground.effects(["self_debias"], controls=False)
        assert [(e.ok, e.at_most, e.change) for e in got] == [(ok, most, pytest.approx(18 / 36))]


def test_every_statement_is_of_a_method_that_can_be_built() -> None:
    for name, said in statements().items():
        built = registry.build_method(said.spec or name)
        assert set(said.models) <= {*FAMILY, "demo-mlm"}
        assert said.moves or "random" in name, "only a control states nothing but what stays"
        assert said.stays or said.train, "a student answers only what it was taught; of any other something must stay"
        assert registry.build_method(built.spec) == built


def test_every_preset_has_a_statement_or_says_why_it_has_none() -> None:
    """A preset with the values of another one needs no statement of its own."""
    said: dict[str, list[str]] = {}
    for name, statement in statements().items():
        spec = statement.spec or name
        said.setdefault(registry.build_method(spec).name, []).append(spec)
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in registry.BUILT_IN["methods"]:
        presets = registry.methods.get(name).presets
        for preset, values in presets.items():
            same = [other for other in presets if presets[other] == values]
            stated = any(
                f"preset={other}{end}" in spec for spec in said.get(name, ()) for other in same for end in ",)"
            )
            assert stated or f"| `{name}(preset={preset})`" in text or f", `{name}(preset={preset})`" in text, preset


def test_statements_are_read_strictly(tmp_path) -> None:
    assert {"self_debias"} <= set(statements())
    file = tmp_path / "effects.yaml"
    file.write_text("x:\n  moves: []\n  stays: [{quantity: reading, within: 0.1, falls_at_most: 0.1}]\n")
    with pytest.raises(SettingsError, match="either within or falls_at_most"):
        statements(file)
    with pytest.raises(UnknownNameError, match="self_debias"):
        proving_ground.effects(["self_debia"])


# ---------------------------------------------------------------------------------------------- command line


def test_command_line() -> None:
    made = run_here("proving-ground", "check", "-m", "demo-mlm", "--quantity", "pronouns", "--json")
    assert made.returncode == 0, made.stderr
    rows = json.loads(made.stdout)
    assert len(rows) == 18 and all(r["ok"] for r in rows)
    shown = run_here("proving-ground", "check", "-m", "demo-mlm", "--quantity", "explicit gender")
    assert "demo model, planted bias" in shown.stdout and "2 of 2 quantities as planted" in shown.stdout
    wrong = run_here("proving-ground", "effects", "--methods", "self_debia")
    assert wrong.returncode == 2 and "self_debias" in wrong.stderr


# -------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("name", [*PLANTED, "demo-mlm"])
def test_demo_models_load_without_network_and_are_labelled(name: str) -> None:
    model = evenhand.load(name)
    facts = model.facts()
    assert facts["demo"] and facts["name"] == name and facts["source"] == name
    assert 0.8e6 < facts["parameters"] < 3e6
    assert model.fingerprint == evenhand.load(name).fingerprint


def test_the_family_fits_into_the_repository() -> None:
    from evenhand.models.demo import MODELS

    assert sum(f.stat().st_size for f in MODELS.rglob("*") if f.is_file()) < 15e6
