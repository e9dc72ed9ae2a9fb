"""Recipes: every shipped one is whole and runs small; what a recipe may not say; what counts as the same figure."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from evenhand.core import registry
from evenhand.core.records import Record
from evenhand.data import wikitext
from evenhand.data.io.locate import FOLDER_VARIABLE
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.experiment import recipe_checks, recipes, reproduction, training_data
from evenhand.experiment.estimates import WORKING, estimate
from evenhand.experiment.recipes import Recipe
from evenhand.report import Report

BBQ = "bbq(source=demo)"
SHIPPED = recipes.names()
CONTENT: dict[str, Any] = {
    "title": "A recipe",
    "paper": "arXiv 0000.00000",
    "kind": "published",
    "model": {"name": "org/model", "dtype": "bfloat16", "parameters": 1e9},
    "methods": {"told": "instruction"},
    "benchmarks": {"bbq": BBQ},
    "data": [{"name": "bbq"}],
    "rows": [
        {"name": "base", "benchmark": "bbq", "metric": "bias_ambiguous", "published": 0.4, "where": "Table 1"}
        | {"tolerance": 0.05, "why": "ours"},
        {"name": "change", "benchmark": "bbq", "metric": "bias_ambiguous", "method": "told", "of": "difference"}
        | {"published": -0.1, "where": "Table 1", "accepted": [-0.2, -0.05], "why": "ours"},
        {"name": "ratio", "benchmark": "bbq", "metric": "bias_ambiguous", "method": "told", "of": "ratio"},
        {
            "name": "Age",
            "benchmark": "bbq",
            "metric": "bias_ambiguous",
            "group": "Age",
            "published": 0.2,
            "where": "p. 2",
        },
    ],
    "bytes_per_parameter": {"weights": 2, "copy": 4},
    "work": [{"what": "questions", "count": 1000, "read": 297, "written": 29.67, "trained": 99}],
    "smoke": {"methods": {"told": "instruction"}, "benchmarks": {"bbq": BBQ}, "limit": 8},
}


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(CONTENT | changes))
    return file


def record(method: str, value: float, difference: float = math.nan, **more: Any) -> Record:
    baseline = "" if method.startswith("none") else "none"
    return Record(
        model="m",
        method=method,
        benchmark=BBQ,
        metric="bias_ambiguous",
        value=value,
        difference=difference,
        baseline=baseline,
        low=value - 0.01,
        high=value + 0.01,
        **more,
    )


def outcomes(records: list[Record], *, smoke: bool = False) -> dict[str, reproduction.Outcome]:
    recipe = Recipe(**CONTENT)
    asked = reproduction.plan(recipe, smoke=smoke)
    return {o.name: o for o in reproduction.outcomes(recipe, asked, records, smoke=smoke)}


# ------------------------------------------------------------------------------------------- the shipped recipes


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_names_what_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "somewhere")
    recipe = recipes.read(name)
    for smoke in (False, True):
        asked = reproduction.plan(recipe, smoke=smoke)
        assert {n: registry.build_method(m).name for n, m in asked.methods.items()}.keys() == recipe.methods.keys()
        known = {n: {m.name for m in registry.build_benchmark(b).metrics} for n, b in asked.benchmarks.items()}
        assert not [row.name for row in recipe.rows if row.metric not in known[row.benchmark]]
        assert [m for m in asked.methods.values() if registry.build_method(m).name == "none"] == []
    labels = [*(row.name for row in recipe.rows), *(order.name for order in recipe.orders)]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_model_and_the_methods_of_a_smoke_are_those_of_the_recipe_made_small(name: str) -> None:
    recipe = recipes.read(name)
    kinds = [
        {key: registry.build_method(m).name for key, m in recipes.filled_in(methods).items()}
        for methods in (_without_data(recipe.methods), recipe.smoke.methods)
    ]
    assert kinds[0] == kinds[1]


def _without_data(methods: dict[str, Any]) -> dict[str, Any]:
    return {k: yaml.safe_load(yaml.safe_dump(m).replace(recipes.DATA, "data")) for k, m in methods.items()}


def test_published_figures_are_those_of_the_sources() -> None:
    rows = {(name, row.name): row for name in SHIPPED for row in recipes.read(name).rows}
    by_hand = {
        ("self_debias_llama3", "baseline, ambiguous bias"): 0.374,
        ("self_debias_llama3", "explanation, ambiguous bias"): 0.077,
        ("self_debias_llama3", "reprompting, ambiguous bias"): 0.070,
        ("task_vector_tv2k", "baseline, |t|"): 7.17,
        ("task_vector_tv2k", "strength_1.0, |t|"): 6.01,
        ("task_vector_tv14k", "strength_0.2, |t|"): 5.34,
        ("pcgu_llama2", "pcgu, |t|"): 1.14,
        ("dpo_llama2", "dpo, |t|"): 5.17,
        ("permutation_race", "teacher, gain"): 0.071,
        ("permutation_summeval", "teacher, gain"): 0.035,
        ("adjudication_gemma2_9b", "adjudicated, B-score"): 0.11,
        ("b_score_llama31_70b", "B-score, mean"): 0.22,
        ("pronouns_llama3_8b", "prefix 6, jobs of mostly women, they"): 0.148,
        ("pronouns_gemma2_9b_it", "prefix 0, jobs of mostly men, he"): 0.669,
    }
    assert {key: rows[key].published for key in by_hand} == by_hand
    for (name, label), row in rows.items():
        if name.startswith("pronouns_") and label.startswith("prefix 0"):
            assert row.tolerance == 0.02
    shares: dict[tuple[str, str, str], float] = {}
    for (name, _), row in rows.items():
        if name.startswith("pronouns_") and row.published is not None:
            key = (name, row.benchmark, row.group)
            shares[key] = shares.get(key, 0) + row.published
    assert len(shares) == 34 and all(abs(total - 1) < 0.0025 for total in shares.values()), shares


@pytest.mark.parametrize("name", ["task_vector_tv2k", "task_vector_tv14k"])
def test_no_strength_is_judged_by_a_figure_whose_strength_is_not_known(name: str) -> None:
    rows = recipes.read(name).rows
    assert [row.name for row in rows if row.bounds] == ["baseline, |t|"]
    assert sum(row.method.startswith("strength_") and row.published is not None for row in rows) == 15


def test_a_figure_judges_one_row_at_most() -> None:
    """In every shipped recipe; the one of two benchmarks, groups or kinds of difference is another figure."""
    for name in SHIPPED:
        judged = [(r.benchmark, r.metric, r.group, r.of, r.where) for r in recipes.read(name).rows if r.bounds]
        assert len(set(judged)) == len(judged), name


def test_students_are_trained_on_as_many_questions_as_the_article_says() -> None:
    students = [name for name in SHIPPED if name.startswith("permutation_student_")]
    assert len(students) == 7
    for name in students:
        recipe = recipes.read(name)
        given = registry.build_method(recipe.methods["student"]).settings
        assert (given["max_questions"], given["seed"]) == (30_000, 0)
        assert {work.count for work in recipe.work} == {30_000}
        assert any("30,000" in note and "seed 0" in note for note in recipe.notes)


@pytest.mark.parametrize("name", [name for name in SHIPPED if recipes.read(name).orders])
def test_published_shares_are_in_their_own_order(name: str) -> None:
    """Ours being the published figures, every order is kept; with prefixes 0 and 6 exchanged, some order is not."""
    recipe = recipes.read(name)
    published = {row.name: row.published or 0.0 for row in recipe.rows}
    exchanged = {n: published[n.translate(str.maketrans("06", "60"))] for n in published}
    assert len(recipe.orders) == 6 and all(len(order.rows) == 3 for order in recipe.orders)
    for ours, kept in ((published, True), (exchanged, False)):
        found = [reproduction._ordered(order, published, ours, False) for order in recipe.orders]
        assert all((o.within == "yes") == (o.ours == 1) for o in found)
        assert all(o.within == "yes" for o in found) is kept


def test_what_lies_in_the_folder_names_no_place_and_no_code() -> None:
    assert len(SHIPPED) == 33
    for file in recipes.FOLDER.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert not any(word in text for word in ("/home", "/work", "/tmp", "~", *recipes.FORBIDDEN)), file


MOST_ASKED, MOST_TRAINED = 1_200, 600
"""Items asked and examples trained on in all smokes together, which are 922 and 416; what a method reads by itself does
not count. So they took 72 to 94 s in one process on a quiet machine with two cores, and may take 120."""


def test_all_smokes_together_are_small() -> None:
    """What they ask and train on, each plan once, which does not depend on the clock or the machine."""
    plans = {repr(p): p for p in (reproduction.plan(recipes.read(name), smoke=True) for name in SHIPPED)}
    asked = sum(_asked(plan) for plan in plans.values())
    trained = sum(_trained(plan) for plan in plans.values())
    assert 0 < asked <= MOST_ASKED and 0 < trained <= MOST_TRAINED, (asked, trained)
    endless = plans[next(iter(plans))]._replace(options={"limit": 10**6})
    assert _asked(endless) >= _asked(plans[next(iter(plans))]), "without its limit a plan asks more"


def _asked(plan: reproduction.Plan) -> int:
    """Items of all benchmarks, for each method and the baseline."""
    limit = plan.options.get("limit")
    items = [len(registry.build_benchmark(b).load()) for b in plan.benchmarks.values()]
    return sum(min(n, limit or n) for n in items) * (1 + len(plan.methods))


def _trained(plan: reproduction.Plan) -> int:
    """Examples of all epochs, for each method that trains."""
    if plan.train is None:
        return 0
    data = training_data.load(plan.train).data
    examples = len(data.questions) + len(data.texts) + len(data.pairs)
    epochs = [registry.build_method(m).settings.get("epochs") for m in plan.methods.values()]
    return sum(examples * count for count in epochs if count)


@pytest.mark.slow
def test_every_smoke_runs_and_has_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one process; recipes that run the same small plan share it."""
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)  # a smoke needs no data
    done: dict[str, Report] = {}
    for name in SHIPPED:
        recipe = recipes.read(name)
        asked = reproduction.plan(recipe, smoke=True)
        if repr(asked) not in done:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of students that learned nothing and the like: there is little to learn
                done[repr(asked)] = reproduction.run(asked, show_progress=False)
        found = reproduction.outcomes(recipe, asked, done[repr(asked)].records, smoke=True)
        assert [o.name for o in found if o.within != "smoke"] == [], name


# --------------------------------------------------------------------------------------------- what comes of a run


def test_what_counts_as_the_published_figure() -> None:
    found = outcomes([record("none", 0.44), record("instruction", 0.34, -0.10), record("none", 0.3, group="Age")])
    assert (found["base"].within, found["base"].ours) == ("yes", 0.44)
    assert found["base"].difference == pytest.approx(0.04) and (found["base"].low, found["base"].high) == (0.43, 0.45)
    assert found["change"].within == "yes" and found["change"].ours == -0.10
    assert found["ratio"].ours == pytest.approx(0.34 / 0.44) and found["ratio"].within == "not judged"
    assert found["Age"].within == "not judged" and found["Age"].difference == pytest.approx(0.1)
    found = outcomes([record("none", 0.46), record("instruction", 0.25, -0.21)])
    assert (found["base"].within, found["change"].within, found["Age"].within) == ("no", "no", "not run")
    assert math.isnan(found["Age"].difference) and "'Age'" in found["Age"].note


ORDER = {"name": "order", "rows": ["base", "Age"], "why": "ours"}


def test_the_order_of_rows_by_hand() -> None:
    """Published: Age .2, base .4. Of two rows there is one pair, and none where .2 apart is not told apart."""
    for base, age, apart, ours, within in (
        (0.44, 0.30, 0.02, 1.0, "yes"),
        (0.30, 0.44, 0.02, 0.0, "no"),
        (0.30, 0.30, 0.02, 0.0, "no"),
        (0.30, 0.44, 0.2, 1.0, "yes"),
    ):
        recipe = Recipe(**CONTENT | {"orders": [ORDER | {"apart": apart}]})
        records = [record("none", base), record("instruction", 0.2, -0.1), record("none", age, group="Age")]
        (found,) = reproduction.outcomes(recipe, reproduction.plan(recipe), records)[4:]
        assert (found.name, found.published, found.ours, found.within) == ("order", 1.0, ours, within)
        assert found.difference == ours - 1 and ("'Age' below 'base'" in found.note) == (within == "no")
    (found,) = reproduction.outcomes(recipe, reproduction.plan(recipe), records[:1])[4:]
    assert (found.within, found.note) == ("not run", "no figure of ours for 'Age'")
    (found,) = reproduction.outcomes(recipe, reproduction.plan(recipe, smoke=True), records, smoke=True)[4:]
    assert found.within == "smoke" and math.isnan(found.difference)


def test_a_failed_method_is_not_run_and_says_why() -> None:
    failed = Record(
        model="m", method="instruction", benchmark=BBQ, status="failed", note="out of memory", baseline="none"
    )
    found = outcomes([record("none", 0.4), failed])
    assert (found["change"].within, found["change"].note) == ("not run", "out of memory")
    assert found["base"].within == "yes"


def test_the_baseline_is_the_one_that_the_method_is_compared_with() -> None:
    read_so = "none (generation, T=1)"
    other = Record(
        model="m",
        method="instruction",
        benchmark=BBQ,
        metric="bias_ambiguous",
        value=0.3,
        difference=-0.1,
        baseline=read_so,
    )
    found = outcomes([record("none", 0.9), record(read_so, 0.4), other])
    assert found["base"].ours == 0.4


def test_a_smoke_is_compared_with_nothing() -> None:
    found = outcomes([record("none", 0.4), record("instruction", 0.3, -0.1)], smoke=True)
    assert found["base"].within == "smoke" and math.isnan(found["base"].difference)
    with pytest.raises(SettingsError, match="leave the model out"):
        reproduction.plan(Recipe(**CONTENT), smoke=True, model="folder")


def test_a_revision_belongs_to_the_hub_and_not_to_a_copy() -> None:
    recipe = Recipe(**CONTENT | {"model": CONTENT["model"] | {"revision": "abc"}})
    assert reproduction.plan(recipe).options == {"dtype": "bfloat16", "revision": "abc", "seed": 0, "samples": 1}
    assert "revision" not in reproduction.plan(recipe, model="folder").options


# --------------------------------------------------------------------------------------- memory, hours, data


def test_memory_and_hours_by_hand() -> None:
    needs = estimate(Recipe(**CONTENT))
    assert needs.memory == 6e9 + WORKING
    # 1e12 parameters times questions: (2 * 297 + 6 * 99) / (989e12 * .3) + 2 * 29.67 / (989e12 * .03), in seconds
    assert needs.hours == pytest.approx((1e12 * 1188 / 2.967e14 + 1e12 * 59.34 / 2.967e13) / 3600)
    assert needs.hours * 3600 == pytest.approx(4.004 + 2.0, abs=1e-3)


def test_memory_and_data_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    needs = [{"name": "stereoset"}, {"file": "mine/texts.txt", "how": "a text a line"}]
    recipe = Recipe(**CONTENT | {"data": needs})
    stereoset, file, memory = recipe_checks.checks(recipe, free=1e9, device="cuda")
    assert not stereoset.ok and "moinnadeem" in stereoset.found
    assert not file.ok and file.found == "there is no $EVENHAND_DATA/mine/texts.txt: a text a line"
    assert not memory.ok and "8.15 GB of 1.00 GB free on cuda; take a larger device" in memory.found
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "texts.txt").write_text("a\n")
    (tmp_path / "bbq").mkdir()
    (tmp_path / "bbq" / "Age.jsonl").write_text("{}\n")
    recipe = Recipe(**CONTENT | {"data": [{"name": "bbq"}, needs[1]]})
    bbq, file, memory = recipe_checks.checks(recipe, free=9e9, device="cpu")
    assert not bbq.ok and "Age.jsonl is not the published file" in bbq.found
    assert file.ok and memory.ok


def test_a_tokenised_wikitext_is_not_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    recipe = Recipe(**CONTENT | {"data": [{"name": "wikitext2"}]})
    file = tmp_path / "wikitext2" / "test.txt"
    file.parent.mkdir()
    rows = wikitext.ROWS["test"]
    file.write_text("a raw row\n" * rows)
    assert recipe_checks.checks(recipe, free=9e9, device="cpu")[0].ok
    file.write_text("a raw row\n" * (rows - 1) + "a <unk> row\n")
    found = recipe_checks.checks(recipe, free=9e9, device="cpu")[0]
    assert not found.ok and "not comparable with published perplexities: the tokenised version" in found.found
    file.write_text("a raw row\n" * (rows - 1))
    found = recipe_checks.checks(recipe, free=9e9, device="cpu")[0]
    assert not found.ok and "4,357 rows" in found.found
    file.unlink()
    found = recipe_checks.checks(recipe, free=9e9, device="cpu")[0]
    assert not found.ok and "no file" in found.found


def test_settings_and_metrics_are_checked_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, rows = recipe_checks.settings_checks(Recipe(**CONTENT))
    assert (settings.ok, settings.found) == (True, f"instruction, {BBQ}")
    assert rows.ok and rows.found.startswith("4, ")
    for changed in ({"methods": {"told": "instruction(wordng=low_1)"}}, {"benchmarks": {"bbq": "bbq(sorce=demo)"}}):
        (settings,) = recipe_checks.settings_checks(Recipe(**CONTENT | changed))
        assert not settings.ok and ("wordng" in settings.found or "sorce" in settings.found)
    wrong = CONTENT | {"rows": [CONTENT["rows"][0] | {"metric": "bias_ambigous"}]}
    rows = recipe_checks.settings_checks(Recipe(**wrong))[1]
    assert not rows.ok and "bbq has no metric 'bias_ambigous'. Did you mean 'bias_ambiguous'" in rows.found
    for strength in ("nan", "1e999", "-1e999"):
        endless = CONTENT | {"methods": {"told": f"task_vector(strength={strength})"}}
        (settings,) = recipe_checks.settings_checks(Recipe(**endless))
        assert not settings.ok and "give a finite number" in settings.found
    small = CONTENT["smoke"] | {"methods": {"told": "instruction(wordng=low_1)"}}
    assert recipe_checks.settings_checks(Recipe(**CONTENT | {"smoke": small}))[0].ok
    assert not recipe_checks.settings_checks(Recipe(**CONTENT | {"smoke": small}), smoke=True)[0].ok
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    unset = CONTENT | {"benchmarks": {"bbq": "bbq(source=$EVENHAND_DATA/bbq)"}}
    assert "which is not set" in recipe_checks.settings_checks(Recipe(**unset))[0].found


def test_refused_questions_are_dropped_where_the_recipe_says_so() -> None:
    assert "drop_refused" not in reproduction.plan(Recipe(**CONTENT)).options
    for smoke in (False, True):
        assert reproduction.plan(recipes.read("self_debias_llama3"), smoke=smoke).options["drop_refused"] is True


@pytest.mark.parametrize("name", ["task_vector_tv2k", "task_vector_tv14k", "pcgu_llama2", "dpo_llama2"])
def test_perplexity_of_llama_2_is_by_windows_of_its_context_in_tokens(name: str) -> None:
    recipe = recipes.read(name)
    given = registry.build_benchmark(recipe.benchmarks["perplexity"]).settings
    assert (given["window_unit"], given["window"], given["stride"]) == ("tokens", 4096, 4096)
    assert any("stride" in note and "assumptions" in note for note in recipe.notes)


def test_folders_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(SettingsError, match="which is not set"):
        recipes.filled_in({"source": "$EVENHAND_DATA/x.yaml"})
    monkeypatch.setenv(FOLDER_VARIABLE, "there")
    assert recipes.filled_in({"a": ["$EVENHAND_DATA/x"], "b": 1}) == {"a": ("there/x",), "b": 1}
    assert recipes.filled_in("$RECIPES/smoke/pronouns.yaml") == str(recipes.FOLDER / "smoke" / "pronouns.yaml")


# ------------------------------------------------------------------------------------------ what a recipe may not say


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plugins": ["x.py"]}, "unknown key 'plugins'"),
        ({"model": CONTENT["model"] | {"name": "x(trust_remote_code=True)"}}, "without options"),
        ({"model": CONTENT["model"] | {"trust_remote_code": True}}, "model.trust_remote_code"),
        ({"model": CONTENT["model"] | {"name": "/srv/model"}}, "without options"),
        ({"benchmarks": {"bbq": "bbq(source='/srv/bbq')"}}, "place on a machine"),
        ({"benchmarks": {"bbq": {"bbq": {"source": "~/bbq"}}}}, "place on a machine"),
        ({"train": "$EVENHAND_DATA/../secret.txt"}, "place on a machine"),
        ({"data": [{"file": "../secret"}]}, "place on a machine"),
        ({"data": [{"file": "x", "name": "bbq"}]}, "either name"),
        ({"data": [{"name": "bqb"}]}, "unknown data set 'bqb'"),
        ({"methods": {"told": "intent_self_correction(critic='x(trust_remote_code=True)')"}}, "code to be loaded"),
        ({"kind": "demonstration"}, "demonstration, but a row has a published figure"),
        ({"rows": [{"name": "a", "benchmark": "bbq", "metric": "m"}]}, "published, but no row has a published figure"),
        ({"rows": [CONTENT["rows"][0] | {"where": ""}]}, "where"),
        ({"rows": [CONTENT["rows"][0] | {"why": None}]}, "why"),
        ({"rows": [CONTENT["rows"][0] | {"accepted": [0, 1]}]}, "not both"),
        ({"rows": [CONTENT["rows"][0] | {"method": "tolld"}]}, "names no method or benchmark"),
        ({"rows": [CONTENT["rows"][0] | {"of": "ratio"}]}, "ratio is of a method"),
        ({"rows": [CONTENT["rows"][0], CONTENT["rows"][0] | {"name": "b"}]}, "'base' and 'b' are judged by one"),
        ({"orders": [{"name": "o", "rows": ["base", "Agee"], "why": "ours"}]}, "unknown row 'Agee'.*Age"),
        ({"orders": [{"name": "o", "rows": ["base", "ratio"], "why": "ours"}]}, "'ratio' has no published figure"),
        ({"orders": [{"name": "o", "rows": ["base"], "why": "ours"}]}, "orders.0.rows"),
        ({"orders": [{"name": "o", "rows": ["base", "base"], "why": "ours"}]}, "order 'o': 'base' stands there twice"),
        ({"orders": [ORDER, ORDER]}, "the rows: 'order' stands there twice"),
        ({"orders": [ORDER | {"name": "Age"}]}, "the rows: 'Age' stands there twice"),
        ({"rows": [*CONTENT["rows"], CONTENT["rows"][-1] | {"published": 0.3}]}, "the rows: 'Age' stands there twice"),
        ({"smoke": {"benchmarks": {"bbq": BBQ}}}, "every method and benchmark"),
        ({"settings": {"out": "x"}}, "settings.out"),
        ({"train": "demo:pairs:16 & /etc/hosts"}, "place on a machine"),
        ({"train": "demo:pairs:16 &~/texts.txt"}, "place on a machine"),
        ({"train": "  /etc/hosts"}, "place on a machine"),
        ({"train": "demo:texts & ../secret.txt"}, "place on a machine"),
        ({"train": "demo:texts & C:/secret.txt"}, "place on a machine"),
        ({"benchmarks": {"bbq": "bbq(source='../bbq')"}}, "place on a machine"),
        ({"benchmarks": {"bbq": "bbq(source= '/srv/bbq')"}}, "place on a machine"),
        ({"benchmarks": {"bbq": r"bbq(source='\x2fsrv/bbq')"}}, "place on a machine"),
        ({"benchmarks": {"bbq": "bbq(source='.' './bbq')"}}, "place on a machine"),
        ({"benchmarks": {"bbq": r"bbq(source='\x')"}}, "escape that cannot be read"),
        ({"methods": {"told": "told(critic='x(trust_remote_' 'code=True)')"}}, "code to be loaded"),
        ({"model": CONTENT["model"] | {"parameters": math.inf}}, "model.parameters.*finite"),
        ({"bytes_per_parameter": {"weights": math.nan}}, "bytes_per_parameter.weights.*finite"),
        ({"rows": [CONTENT["rows"][0] | {"published": math.nan}]}, "rows.0.published.*finite"),
        ({"rows": [CONTENT["rows"][0] | {"tolerance": math.inf}]}, "rows.0.tolerance.*finite"),
        ({"rows": [CONTENT["rows"][0] | {"tolerance": None, "accepted": [0, math.inf]}]}, "accepted.1.*finite"),
        ({"rows": [CONTENT["rows"][0] | {"tolerance": None, "accepted": [0.5, 0.1]}]}, "from 0.5 down to 0.1"),
        ({"methods": {"told": {"task_vector": {"strength": math.nan}}}}, "is nan: give a finite number"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        recipes.read(written(tmp_path, **changes))


def test_a_recipe_of_ones_own_and_wrong_names(tmp_path: Path) -> None:
    assert recipes.read(written(tmp_path)) == Recipe(**CONTENT)
    capitals = written(tmp_path).rename(tmp_path / "MINE.YAML")
    assert recipes.read(capitals) == Recipe(**CONTENT)
    with pytest.raises(UnknownNameError, match="self_debias_llama3"):
        recipes.read("self_debias_llama")
    with pytest.raises(SettingsError, match="cannot read"):
        recipes.read(tmp_path / "none.yaml")
    twice = tmp_path / "twice.yaml"
    twice.write_text("title: a\ntitle: b\n")
    with pytest.raises(SettingsError, match="twice"):
        recipes.read(twice)
    twice.write_text("!!python/object/apply:os.system [true]\n")
    with pytest.raises(SettingsError, match="not YAML"):
        recipes.read(twice)
