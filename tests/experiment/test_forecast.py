"""What `evenhand plan` says, against what a run then costs."""

from __future__ import annotations

from collections import Counter

import pytest

import evenhand
from evenhand.core.registry import build_method
from evenhand.errors import SettingsError
from evenhand.evaluation.bbq import BBQ
from evenhand.evaluation.mmlu import MMLU
from evenhand.experiment import forecast as core
from evenhand.experiment.forecast import SAMPLE, forecast
from evenhand.models import hugging_face
from evenhand.models.sketch import SketchedModel

BBQ_DEMO, MMLU_DEMO = "bbq(source=demo)", "mmlu(source=demo)"


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were opened")

    monkeypatch.setattr(hugging_face, "open_model", refuse)


def test_calls_and_tokens_are_those_of_the_run():
    methods = ["none", "self_debias", "instruction", "permutation"]
    made = forecast("demo", methods, [BBQ_DEMO, MMLU_DEMO], limit=12, sample=12)
    report = evenhand.compare("demo", methods, [BBQ_DEMO, MMLU_DEMO], limit=12, show_progress=False)
    planned = {(c.row, c.benchmark): c.cost for c in made.models[0].cells}
    found = {(u["method"], u["benchmark"]): u for u in report.manifest["usage"]}
    assert planned.keys() == found.keys()
    for key, cost in planned.items():
        assert (cost.calls, cost.prompt_tokens) == (found[key]["calls"], found[key]["prompt_tokens"]), key


@pytest.mark.usefixtures("without_weights")
def test_items_that_are_left_out_cost_the_same_on_average():
    every = forecast("demo", "none", BBQ_DEMO, sample=10**9).models[0].cost
    some = forecast("demo", "none", BBQ_DEMO).models[0].cost
    assert some.calls == every.calls == 3456
    assert some.prompt_tokens == pytest.approx(every.prompt_tokens, rel=0.1)


@pytest.mark.usefixtures("without_weights")
def test_five_hundred_cells_ask_few_items(monkeypatch: pytest.MonkeyPatch):
    asked: Counter[str] = Counter()
    real = SketchedModel.choose

    def choose(self: SketchedModel, questions: list[evenhand.Question]) -> list[evenhand.Choice]:
        asked["questions"] += len(questions)
        return real(self, questions)

    monkeypatch.setattr(SketchedModel, "choose", choose)
    methods = [f"self_debias_decoding(decay={n})" for n in range(1, 250)]
    made = forecast("demo", methods, [BBQ_DEMO, MMLU_DEMO])
    assert made.cells == 500
    assert asked["questions"] <= 500 * SAMPLE


@pytest.mark.usefixtures("without_weights")
def test_what_trains_is_not_trained_and_its_tokens_are_counted(monkeypatch: pytest.MonkeyPatch):
    made = forecast("demo", ["task_vector(epochs=2)"], BBQ_DEMO, train="demo:texts", limit=12)
    model = made.models[0]
    twice = forecast("demo", ["task_vector(epochs=4)"], BBQ_DEMO, train="demo:texts", limit=12).models[0]
    assert {c.row for c in model.cells if not c.refused} == {"none", "task_vector(epochs=2)"}
    assert sum(twice.trained_tokens.values()) == 2 * sum(model.trained_tokens.values()) > 0


@pytest.mark.usefixtures("without_weights")
def test_refused_cells_say_why_and_cost_nothing():
    made = forecast("demo", ["none", "pcgu"], [BBQ_DEMO], limit=12)
    refused = {c.row: c.refused for c in made.models[0].cells if c.refused}
    assert list(refused) == ["pcgu"] and "training data with pairs" in refused["pcgu"]
    assert made.cells == 1


@pytest.mark.usefixtures("without_weights")
def test_a_cell_that_cannot_be_counted_costs_what_the_baseline_does(monkeypatch: pytest.MonkeyPatch):
    real = BBQ.ask

    def ask(self: BBQ, model: evenhand.Model, items: list[object]) -> list[object]:
        if "instruction" in model.name:
            raise ValueError("needs true answers")
        return real(self, model, items)

    monkeypatch.setattr(BBQ, "ask", ask)
    base, other = forecast("demo", "instruction", BBQ_DEMO, limit=12).models[0].cells
    assert other.uncounted == "ValueError: needs true answers" and other.cost == base.cost


@pytest.mark.usefixtures("without_weights")
def test_several_seeds_are_cells_of_their_own():
    method = "self_debias(answer_by=generation,temperature=1)"
    one = forecast("demo", method, BBQ_DEMO, limit=12).cells
    assert one == 3  # the baseline in the model's way and in the method's
    assert forecast("demo", method, BBQ_DEMO, limit=12, seeds=3).cells > one


@pytest.mark.usefixtures("without_weights")
def test_families_decide_how_many_tests_there_are():
    def tests(family: str) -> int:
        methods = ["none", "self_debias", "instruction"]
        return forecast("demo", methods, [BBQ_DEMO, MMLU_DEMO], limit=12, family=family).benchmarks[0].tests

    main = sum(metric.main for metric in BBQ.metrics)
    assert (tests("metric"), tests("benchmark")) == (2, 2 * main)
    assert tests("run") > tests("benchmark")


@pytest.mark.usefixtures("without_weights")
def test_families_of_a_benchmark_that_is_not_registered():
    class Own(BBQ):
        name = "not_registered"

    made = forecast("demo", ["none", "self_debias"], Own(source="demo"), limit=4, family="run")
    assert made.benchmarks[0].tests == sum(metric.main for metric in BBQ.metrics)


@pytest.mark.usefixtures("without_weights")
def test_a_refused_method_is_not_trained_and_a_partly_refused_one_is(monkeypatch: pytest.MonkeyPatch):
    method = "task_vector(fit=full,epochs=1)"
    no_texts = forecast("demo", method, BBQ_DEMO, train="demo:pairs", limit=4, seeds=2).models[0]
    if all(cell.refused for cell in no_texts.cells if cell.row != "none"):
        assert not no_texts.trained_tokens
    monkeypatch.setattr(MMLU, "needs", frozenset({"choose", "a new ability"}))
    model = forecast("demo", method, [BBQ_DEMO, MMLU_DEMO], train="demo:texts", limit=4).models[0]
    parameters = model.sketched.parameters
    assert parameters is not None and any(cell.refused for cell in model.cells if cell.row == method)
    assert sum(model.trained_tokens.values()) > 0
    assert model.memory == (4 + core.TRAINING_BYTES) * parameters + core.WORKING


def test_what_trains_an_adapter_needs_no_memory_for_all_weights():
    whole = {"deep_to_shallow", "pcgu", "task_vector(fit=full)"}
    adapters = {"pairwise", "preference", "cross_model_adjudication", "task_vector", "fair_distillation", "steering"}
    assert {spec for spec in whole | adapters if not core._by_adapter(build_method(spec))} == whole


@pytest.mark.usefixtures("without_weights")
def test_sizes_and_hours(monkeypatch: pytest.MonkeyPatch):
    device = core.ComputeDevice("a device", 1e9, {"float32": 1e12})
    monkeypatch.setattr(core, "devices", lambda: [device])
    made = forecast("demo", "none", BBQ_DEMO, workers=4)
    (model,), (benchmark,) = made.models, made.benchmarks
    parameters = model.sketched.parameters
    assert parameters is not None and model.hours is not None
    assert model.memory == 4 * parameters + core.WORKING
    # 2 operations per parameter and token, of 1e12 a second, of which a third less a tenth is reached
    assert model.hours == pytest.approx(2 * parameters * model.cost.prompt_tokens / (0.3 * 1e12) / 3600)
    assert (benchmark.items, benchmark.clusters, made.workers) == (3456, 72, 4)


def test_wrong_settings_are_refused():
    with pytest.raises(SettingsError, match="temperature"):
        forecast("demo", "none", BBQ_DEMO, temperature=-1)
