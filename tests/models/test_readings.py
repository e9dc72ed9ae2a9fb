"""How answers are read: what methods declare is what a model is really asked, and baselines are read alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import evenhand
from evenhand import Choice, Method, Mitigated, Model, Question, Sampling, TrainData, settings
from evenhand.core import registry
from evenhand.core.registry import build_benchmark, build_method
from evenhand.errors import SettingsError
from evenhand.experiment.comparison import compare
from evenhand.experiment.plan import DRAWS, Plan, Wishes
from evenhand.interfaces import OPEN, Benchmark, Reading, Usage, stacked
from evenhand.methods.none import Untouched
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models.readings import Side, fixed_by, labels, none_settings, own_reading, settled, unwrapped
from evenhand.testing import ScriptedModel, tiny_model

DEMO = "bbq(source=demo)"
PAPER = "self_debias(preset=paper)"
DRAWN = "none (generation, T=1)"
TEXTS: dict[str, Any] = {"show_progress": False, "replicates": 200}


class Recorder(ScriptedModel):
    """Gives probabilities, can be guided, and keeps what it was asked with its own way to read."""

    def __init__(self, answer_by: str = "letters", sampling: Sampling = Sampling(max_new_tokens=25)) -> None:
        super().__init__(reply=lambda d: "0 (A)")
        self.answer_by, self.sampling = answer_by, sampling

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.questions += questions
        return [Choice(0, tuple(1 / len(q.options) for _ in q.options), usage=Usage(1)) for q in questions]

    def behind(self, prefixes: object, combine: object, settings: object) -> Model:
        return self

    def read(self, item: str) -> Reading:
        """How the last question about an item was read."""
        asked = [q for q in self.questions if q.id == item][-1]
        return settled(Reading(asked.answer_by or self.answer_by, asked.sampling or self.sampling))  # type: ignore[arg-type]


OWN = [
    ("letters", Sampling(max_new_tokens=25)),
    ("generation", Sampling(max_new_tokens=25)),
    ("generation", Sampling(0.7, 9, seed=4, stop=("\n",))),
]
FIXED = [OPEN, Reading("text"), Reading("generation"), Reading("letters", Sampling(0.2, 5)), Reading(None, Sampling(2))]


def applicable() -> list[str]:
    """Every registered method and preset that applies without weights or training data."""
    found = []
    for name in registry.BUILT_IN["methods"]:
        cls = registry.methods.get(name)
        for preset in ("default", *cls.presets):
            method = cls.build(preset=preset)
            if not method.unsupported_reason(Recorder()):
                found.append(method.spec)
    return found


VARIED = [
    "none(answer_by=text)",
    "none(answer_by=generation,temperature=1.0)",
    "none(temperature=0.5,max_new_tokens=3)",
    "self_debias(variant=explanation,preset=paper)",
    "self_debias(answer_by=letters)",
    "self_debias(temperature=0.5)",
    "moral_self_correction(variant=instruction,answer_by=generation,temperature=1.0)",
    "moral_self_correction(answer_by=generation,temperature=1.0,max_new_tokens=7)",
    "intent_self_correction(answer_by=generation,temperature=0.3,seed=2)",
    f"{PAPER}+instruction",
    f"instruction+{PAPER}",
    f"{PAPER}+moral_self_correction(answer_by=letters)",
    f"moral_self_correction(answer_by=letters)+{PAPER}",
    f"{PAPER}+self_debias(temperature=0.2,max_new_tokens=3)",
    "none(answer_by=text)+self_debias(answer_by=generation)",
    f"{PAPER}+prior_matching",
]
COUNTED = {"permutation(preset=paper_black_box)"}
"""Their draws are counted: the answer is the likeliest one, as a greedy reading gives it, and no draw itself."""


# The recorder's only reply is no rewrite, so that self_help asks the original, and says so.
@pytest.mark.filterwarnings("ignore:self_help. 2 of 2 items were asked as they stand:UserWarning")
@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("spec", [*applicable(), *VARIED])
def test_what_a_method_declares_is_what_the_model_is_asked_and_the_baseline_too(
    spec: str, own: tuple[str, Sampling]
) -> None:
    method = build_method(spec)
    for fixed in FIXED:
        question = Question("q", "Who?", ("a", "b", "c"), answer_by=fixed.answer_by, sampling=fixed.sampling)
        model = Recorder(*own)
        side = Side(*unwrapped(model), fixed=fixed)
        method.apply(model).choose([question, replace(question, id="other")])
        declared = side.read(method.reading(model))
        if spec not in COUNTED:
            assert model.read("q") == declared
        base = Recorder(*own)
        Untouched.build(**none_settings(declared, side.own)).apply(base).choose([question])
        assert base.read("q") == declared, "the baseline is read like the method"


def test_counted_draws_are_not_a_reading() -> None:
    for spec in COUNTED:
        assert spec in applicable() and build_method(spec).reading(Recorder()) is None


# ---------------------------------------------------------------------------------------------------- readings


def test_labels_name_the_temperature_only_where_something_is_generated() -> None:
    hot = Sampling(temperature=1.0)
    assert Reading("generation", hot).label == "generation, T=1" and Reading("letters", hot).label == "letters"
    assert Reading("generation", Sampling(temperature=0.25)).label == "generation, T=0.25"
    assert Reading("text").label == "text" and Reading(None, hot).label == "T=1" and OPEN.label == ""


def test_labels_say_as_much_as_it_takes_to_tell_readings_apart() -> None:
    short, long = (Reading("generation", Sampling(1.0, n)) for n in (25, 99))
    assert labels([short]) == {short: "generation, T=1"}
    assert labels([short, long]) == {short: "generation, T=1, 25 tokens", long: "generation, T=1, 99 tokens"}
    other = Reading("generation", Sampling(1.0, 25, seed=3))
    assert labels([short, other])[other] == "generation, T=1, seed 3"
    assert labels([short, Reading("letters"), short])[short] == "generation, T=1"
    rest = Reading("generation", Sampling(1.0, 25, top_p=0.5, stop=("x",)))
    assert labels([short, rest])[rest] == "generation, T=1, top_p=0.5, stop=('x',)"


def test_of_stacked_readings_the_innermost_answers_and_the_outermost_samples() -> None:
    hot, cold = Sampling(1.0), Sampling(0.0)
    assert stacked([Reading("generation", hot), None, Reading("letters", cold)]) == Reading("generation", cold)
    assert stacked([Reading(None, hot), Reading("text")]) == Reading("text", hot) and stacked([None]) == OPEN


def test_what_decides_nothing_is_left_out() -> None:
    assert settled(Reading("letters", Sampling(1.0, 7))) == Reading("letters")
    assert settled(Reading("generation", Sampling(0.0, 7, 0.5, 3))) == Reading("generation", Sampling(0.0, 7))


def test_a_mitigated_model_reads_as_its_methods_do() -> None:
    model = Recorder()
    mitigated = build_method(f"{PAPER}+instruction").apply(model)
    assert own_reading(mitigated) == Reading("generation", Sampling(1.0, 25))
    assert own_reading(model) == Reading("letters", Sampling(max_new_tokens=25))
    assert own_reading(ScriptedModel()).answer_by == "letters", "a model that does not say is read by letters"


def test_none_with_settings_is_a_model_that_is_saved_and_loaded(tmp_path: Path) -> None:
    spec = "none(answer_by=generation,temperature=1.0,seed=3)"
    made = build_method(spec).apply(tiny_model(source="demo"))
    assert made.facts()["method"] == spec
    again = evenhand.load(made.save(tmp_path / "m"))
    assert own_reading(again) == Reading("generation", Sampling(1.0, 64, seed=3))
    model = Recorder()
    assert build_method("none").apply(model) is model and build_method(spec).spec == spec
    with pytest.raises(SettingsError, match="temperature=-1"):
        build_method("none(temperature=-1)")


@pytest.mark.parametrize(
    ("benchmark", "fixed"),
    [
        (DEMO, OPEN),
        ("bbq(source=demo,answer_by=generation)", Reading("generation")),
        ("option_order(of='bbq(answer_by=letters)',source=demo)", Reading("letters")),
        ("label_bias(source=demo)", Reading("text_per_token")),
        ("mmlu(source=demo)", OPEN),
    ],
)
def test_what_questions_say_is_found_out_without_asking(benchmark: str, fixed: Reading) -> None:
    built = build_benchmark(benchmark)
    assert fixed_by(built, built.load()[:3]) == fixed


# --------------------------------------------------------------------------------------------------- baselines


def plan(model: Model, methods: str, benchmark: str = DEMO, **wishes: Any) -> Plan:
    built = build_benchmark(benchmark)
    return Plan(
        model, [build_method(m) for m in registry.split_specs(methods)], [(built, built.load()[:2])], Wishes(**wishes)
    )


def rows(model: Model, methods: str, benchmark: str = DEMO, **wishes: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    """Row, baseline and variant of every cell."""
    return [
        (t.cell.row, "" if t.cell.is_baseline else t.cell.baseline, tuple(t.cell.variant))
        for t in plan(model, methods, benchmark, **wishes).tasks
    ]


FIRST = (0, 0)


def test_the_baseline_is_asked_once_for_every_way_of_reading() -> None:
    found = rows(Recorder(), f"none,{PAPER},self_debias,instruction,intent_self_correction(answer_by=text),{PAPER}")
    assert found[:3] == [("none", "", FIRST), (DRAWN, "", FIRST), ("none (text)", "", FIRST)]
    assert found[3:7] == [
        (PAPER, DRAWN, FIRST),
        ("self_debias", "none", FIRST),
        ("instruction", "none", FIRST),
        ("intent_self_correction(answer_by=text)", "none (text)", FIRST),
    ]


def test_a_reading_that_is_the_models_own_needs_no_row() -> None:
    own = Recorder("generation", Sampling(1.0, 25))
    assert rows(own, f"none,{PAPER}") == [("none", "", FIRST), (PAPER, "none", FIRST)]
    base = "none (generation, T=0)"
    greedy = rows(own, "none,self_debias")
    assert greedy == [("none", "", FIRST), (base, "", FIRST), ("self_debias", base, FIRST)]
    saved = build_method(PAPER).apply(Recorder())
    assert {base for _, base, _ in rows(saved, f"none,{PAPER},instruction")} == {"", "none"}


def test_readings_of_one_label_are_told_apart() -> None:
    found = rows(Recorder(), f"none,{PAPER},self_debias(preset=paper,max_new_tokens=9)")
    assert [r for r, base, _ in found if not base] == [
        "none",
        "none (generation, T=1, 25 tokens)",
        "none (generation, T=1, 9 tokens)",
    ]
    tokens = Recorder("generation", Sampling(1.0, 99))
    assert rows(tokens, f"none,{PAPER}")[1][0] == "none (generation, T=1, 25 tokens)"


def test_a_question_that_fixes_the_way_is_answered_as_the_method_wants_and_the_baseline_likewise() -> None:
    """Of `answer_by` the method has the first word; a method without one leaves it to the question."""
    for benchmark in ("bbq(source=demo,answer_by=letters)", "label_bias(source=demo)"):
        assert rows(Recorder(), f"none,{PAPER}", benchmark)[2] == (PAPER, DRAWN, FIRST)
        assert rows(Recorder(), "none,self_debias", benchmark)[1] == ("self_debias", "none", FIRST)
    generated = "bbq(source=demo,answer_by=generation)"
    own = Recorder(sampling=Sampling(0.7, 25))
    assert rows(own, "none,self_debias", generated)[2] == ("self_debias", "none (generation, T=0)", FIRST)
    assert rows(own, "none,instruction", generated)[1] == ("instruction", "none", FIRST)


def test_a_reading_matters_only_where_questions_are_asked() -> None:
    assert rows(Recorder(), f"none,{PAPER}", "ifeval(source=demo)") == [("none", "", FIRST), (PAPER, "none", FIRST)]


def test_none_with_settings_is_a_row_and_not_a_second_one() -> None:
    spec = "none(answer_by=generation,temperature=1.0)"
    assert rows(Recorder(), f"none,{spec},{PAPER}") == [("none", "", FIRST), (DRAWN, "", FIRST), (PAPER, DRAWN, FIRST)]
    assert rows(Recorder(), f"none,{spec}", "ifeval(source=demo)") == [("none", "", FIRST)]


def test_what_cannot_be_applied_needs_no_baseline() -> None:
    class Mute(Recorder):
        @property
        def abilities(self) -> Any:
            return frozenset({"choose"})

    moral = "moral_self_correction(answer_by=generation,temperature=1.0)"
    assert rows(Mute(), f"none,{moral}") == [("none", "", FIRST), (moral, "none", FIRST)]


@settings
class OnlyReads(Method):
    """Changes nothing but how answers are read."""

    name: ClassVar[str] = "only_reads"

    def reading(self, model: Model) -> Reading:
        return Reading("generation", Sampling(1.0, 25))

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        reading = self.reading(model)
        return Mitigated(model, self, choose=lambda questions: model.choose([reading.put(q) for q in questions]))


def test_a_change_of_reading_alone_is_no_effect() -> None:
    report = compare("demo", [OnlyReads(), "instruction"], DEMO, limit=120, **TEXTS)
    mine = [r for r in report.records if r.method == "only_reads" and r.kind != "cost"]
    assert {r.status for r in mine} == {"no effect"}
    assert {r.baseline for r in mine if r.group == "overall"} == {DRAWN}
    assert {r.difference for r in mine if r.group == "overall" and r.difference == r.difference} == {0.0}
    value = {r.method: r.value for r in report.records if (r.metric, r.group) == ("bias_ambiguous", "overall")}
    assert value["only_reads"] == value[DRAWN] != value["none"]


def test_self_debias_as_in_the_paper_is_compared_with_the_same_reading(tmp_path: Path) -> None:
    report = compare("demo", PAPER, DEMO, limit=120, out=tmp_path, **TEXTS)
    rows = {r.method: r for r in report.records if (r.metric, r.group) == ("bias_ambiguous", "overall")}
    assert list(rows) == ["none", DRAWN, PAPER] and rows[PAPER].baseline == DRAWN
    assert rows[PAPER].difference == pytest.approx(rows[PAPER].value - rows[DRAWN].value)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["baselines"] == {"demo": {DRAWN: "none(answer_by=generation,temperature=1.0,max_new_tokens=25)"}}
    assert [(u["method"], u["baseline"]) for u in manifest["usage"]][-1] == (PAPER, DRAWN)
    cost = {c.method: c for c in report.costs()}
    assert cost[PAPER].extra_calls == 1 and cost[PAPER].extra_new_tokens == pytest.approx(
        cost[PAPER].new_tokens - cost[DRAWN].new_tokens
    )


# ------------------------------------------------------------------------------------------------ what a run wants


def test_the_run_decides_where_neither_benchmark_nor_method_does() -> None:
    model = Recorder(sampling=Sampling(0.2, 9))
    wants = {"answer_by": "generation", "temperature": 1.0}
    read = {t.cell.row: t.reading for t in plan(model, "none,instruction,self_debias", **wants).tasks}
    hot = Reading("generation", Sampling(1.0, 9))
    greedy = Reading("generation", Sampling(0.0, 64))
    assert read == {"none": hot, "instruction": hot, "self_debias": greedy, "none (generation, T=0)": greedy}
    (task,) = plan(model, "none", "bbq(source=demo,answer_by=letters)", **wants).tasks
    assert task.reading == Reading("letters")
    for task in plan(model, f"none,instruction,self_debias,{PAPER}", **wants).tasks:
        asked = Recorder(sampling=Sampling(0.2, 9))
        task.cell.benchmark.ask(task.posed(task.cell.method.apply(asked)), task.items)
        assert asked.read(task.items[0].question.id) == task.reading, task.cell.row


def test_every_sampled_answer_is_drawn_as_often_as_asked() -> None:
    found = rows(Recorder(), f"none,{PAPER},instruction", samples=3)
    assert found == [
        ("none", "", FIRST),
        *((DRAWN, "", (s, 0)) for s in range(3)),
        *((PAPER, DRAWN, (s, 0)) for s in range(3)),
        ("instruction", "none", FIRST),
    ]
    written = rows(Recorder(), "none,instruction", "ifeval(source=demo,temperature=0.7)", samples=2)
    assert [v for _, _, v in written] == [(0, 0), (1, 0)] * 2


def test_samples_are_independent_draws_also_of_methods_that_draw_themselves() -> None:
    draws: dict[int, set[int]] = {}
    wants = {"answer_by": "generation", "temperature": 1.0, "samples": 3}
    for task in plan(Recorder(), "none,permutation(preset=paper_black_box)", **wants).tasks:
        if not task.cell.is_baseline:
            model = Recorder()
            task.cell.benchmark.ask(task.posed(task.cell.method.apply(model)), task.items)
            draws[task.sample] = {q.draw for q in model.questions if q.id == task.items[0].question.id}
    assert [len(d) for d in draws.values()] == [32] * 3 and len(set.union(*draws.values())) == 96


def test_a_sample_moves_the_draw_of_ready_dialogues_and_of_written_replies() -> None:
    (task,) = [
        t for t in plan(Recorder(), "none", answer_by="generation", temperature=1.0, samples=2).tasks if t.sample
    ]
    model = Recorder()
    ready = evenhand.Dialogue((), draw=4).user("Who?")
    question = Question("q", "", ("a", "b"), dialogue=ready, draw=4)
    task.posed(model).choose([question])
    (asked,) = model.questions
    assert asked.draw == DRAWS + 4 == (asked.dialogue and asked.dialogue.draw)
    task.posed(model).generate([ready], Sampling(1.0))
    task.posed(model).generate([ready], Sampling(0.0))
    assert [d.draw for d in model.dialogues] == [DRAWS + 4, 4]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"answer_by": "lettrs"}, "answer_by 'lettrs' is not known. Did you mean 'letters'"),
        ({"temperature": -0.5}, "temperature=-0.5 must be a number of at least 0"),
        ({"temperature": float("nan")}, "temperature=nan must be"),
        ({"temperature": "hot"}, "temperature='hot' must be"),
        ({"samples": 0}, "samples=0 must be a whole number of at least 1"),
        ({"samples": 2.5}, "samples=2.5 must be"),
        ({"seeds": 0}, "seeds=0 must be"),
        ({"seeds": True}, "seeds=True must be"),
        ({"wordings": ["low_1", "low_1"]}, "one is there twice"),
        ({"wordings": ["low_1", "low_2"]}, "no method here has a wording"),
        ({"samples": 2}, r"samples=2: no answer is sampled here.*--answer-by generation --temperature 1"),
        ({"samples": 2, "answer_by": "generation"}, "samples=2: no answer is sampled here"),
        ({"temperature": 1.0}, r"temperature=1: no answer to a question is generated here.*--answer-by generation"),
    ],
)
def test_wishes_that_cannot_be_followed_are_refused_before_anything_is_asked(
    wanted: dict[str, Any], message: str
) -> None:
    model = Recorder()
    with pytest.raises(SettingsError, match=message):
        compare(model, "none", DEMO, limit=4, **wanted, **TEXTS)
    assert model.questions == []


def test_samples_are_refused_only_where_no_model_samples() -> None:
    drawing = Recorder("generation", Sampling(1.0, 25))
    drawing.name = "drawing"
    found = compare([Recorder(), drawing], "none", DEMO, limit=6, samples=2, **TEXTS).manifest["usage"]
    assert [(u["model"], u["variant"]) for u in found] == [
        ("scripted", [0, 0]),
        ("drawing", [0, 0]),
        ("drawing", [1, 0]),
    ]


def test_a_models_own_options_go_before_the_runs(tmp_path: Path) -> None:
    made = [{"demo": {"answer_by": "text"}}, "demo-b(answer_by=text_per_token)", "demo-c"]
    compare(made, "none", DEMO, limit=4, answer_by="generation", out=tmp_path, **TEXTS)  # type: ignore[arg-type]
    usage = json.loads((tmp_path / "manifest.json").read_text())["usage"]
    assert [u["new_tokens"] > 0 for u in usage] == [False, False, True]


# ------------------------------------------------------------------------------------------------------ resuming


def test_a_resumed_run_never_takes_the_answers_of_another_reading(tmp_path: Path) -> None:
    """The weights, and so the fingerprint, are the same."""
    kinds: list[dict[str, Any]] = [{}, {"answer_by": "generation"}, {"answer_by": "generation", "temperature": 1.0}]
    for wishes in kinds:
        model = tiny_model(name="m")
        compare(model, "none", DEMO, out=tmp_path, limit=12, **wishes, **TEXTS)
        assert len(list((tmp_path / "answers").iterdir())) == kinds.index(wishes) + 1
    own = tiny_model(name="m", answer_by="generation")
    compare(own, "none", DEMO, out=tmp_path, limit=12, **TEXTS)
    assert own.engine.sequences == 0, "generation asked for by the run or by the model is the same"
    sampled = {"answer_by": "generation", "temperature": 1.0, "samples": 3}
    model = tiny_model(name="m")
    first = compare(model, "none", DEMO, out=tmp_path, limit=12, **sampled, **TEXTS)
    assert model.engine.sequences > 0 and len(list((tmp_path / "answers").iterdir())) == 5
    again = tiny_model(name="m")
    second = compare(again, "none", DEMO, out=tmp_path, limit=12, **sampled, **TEXTS)
    assert again.engine.sequences == 0 and repr(first.records) == repr(second.records)


def test_samples_differ_and_the_first_is_that_of_a_run_without() -> None:
    from evenhand.experiment.plan import Task

    items = build_benchmark(DEMO).load()[:40]
    model = tiny_model(answer_by="generation", sampling=Sampling(1.0, 4))
    (a, b) = (t for t in Plan(model, [Untouched()], [(build_benchmark(DEMO), items)], Wishes(samples=2)).tasks)

    def replies(task: Task) -> list[str]:
        return [c.reply for c in task.cell.benchmark.ask(task.posed(model), items)]

    assert replies(a) == [c.reply for c in model.choose([i.question for i in items])] != replies(b)


# --------------------------------------------------------------------------------------------- reasons of no effect


@settings
class Same(Method):
    """Asks the same, and answers the same."""

    name: ClassVar[str] = "same"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self, choose=lambda questions: model.choose(questions))


@settings
class Otherwise(Method):
    """Asks something else, and gets the same answers from a model that does not listen."""

    name: ClassVar[str] = "otherwise"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self, choose=lambda qs: model.choose([replace(q, header="Please.\n") for q in qs]))


@settings
class Copied(Method):
    """Edits nothing in a copy of the weights."""

    name: ClassVar[str] = "copied"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        import copy

        module, tokenizer = model.weights
        return evenhand.wrap(copy.deepcopy(module), tokenizer, name="copy")


@settings
class Noting(Method):
    """Says why it did nothing."""

    name: ClassVar[str] = "noting"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self, choose=lambda qs: [replace(c, note="too few") for c in model.choose(qs)])


@settings
class Drowsy(Method):
    """Leaves the model as it is."""

    name: ClassVar[str] = "drowsy"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return model


def notes(report: Any) -> dict[str, str]:
    found = (r for r in report.records if r.method != "none" and r.group == "overall" and r.kind != "cost")
    return {r.method: f"{r.status}: {r.note}" for r in found}


def test_no_effect_says_why(tmp_path: Path) -> None:
    model = Recorder()
    for _ in range(2):  # the second time from the folder
        report = compare(model, [Same(), Otherwise(), Noting(), Drowsy()], DEMO, limit=12, out=tmp_path, **TEXTS)
        found = notes(report)
        assert found["same"].startswith("no effect: the prompts are the baseline's")
        assert found["noting"].startswith("no effect: too few")
        assert found["drowsy"].startswith("no effect: the weights are the baseline's")
        assert found["otherwise"].startswith("no effect: the answers are the baseline's")
    assert "choose" not in vars(model), "nobody listens any more"


def test_a_verb_that_a_method_leaves_alone_is_the_reason() -> None:
    report = compare(tiny_model(name="m"), "instruction,permutation", "perplexity(source=demo)", limit=20, **TEXTS)
    found = notes(report)
    assert found["instruction"].startswith(
        "no effect: the benchmark scores texts, and instruction acts on choose and generate only"
    )
    assert found["permutation"].startswith("no effect: the benchmark scores texts, and permutation acts on choose only")


def test_equal_weights_are_the_reason_also_in_a_copy() -> None:
    found = notes(compare("demo", [Copied()], DEMO, limit=12, **TEXTS))
    assert found["copied"].startswith("no effect: the weights are the baseline's")


def test_a_method_that_is_asked_by_another_verb_too_has_another_reason() -> None:
    """Of a stack on edited weights nothing is said about verbs."""
    from evenhand.interfaces import Stack

    found = notes(
        compare(
            tiny_model(name="m"),
            [Stack((Copied(), build_method("instruction")))],
            "perplexity(source=demo)",
            limit=20,
            **TEXTS,
        )
    )
    assert found["copied+instruction"].startswith("no effect: the answers are the baseline's")


@settings
class Odd(Benchmark):
    """Not to be probed."""

    name: ClassVar[str] = "odd"
    needs: ClassVar[frozenset[Any]] = frozenset({"choose"})
    metrics: ClassVar[tuple[Any, ...]] = ()

    def load(self) -> Sequence[Any]:
        return []

    def ask(self, model: Model, items: Sequence[Any]) -> list[Any]:
        raise ZeroDivisionError(model.name)

    def tally(self, items: Any, answers: Any) -> Any: ...

    def compute(self, sums: Any) -> Any: ...


def test_a_benchmark_that_cannot_be_probed_fixes_nothing() -> None:
    assert fixed_by(Odd(), []) == OPEN


def test_seeds_of_one_method_are_one_baseline() -> None:
    found = rows(Recorder(), f"none,{PAPER[:-1]},seeds=2)")
    row = "self_debias(preset=paper,seeds=2)"
    assert found == [
        ("none", "", FIRST),
        (DRAWN, "", (0, 0)),
        (DRAWN, "", (1, 0)),
        (row, DRAWN, (0, 0)),
        (row, DRAWN, (1, 0)),
    ]
    tasks = plan(Recorder(), f"none,{PAPER[:-1]},seeds=2)").tasks
    assert [t.reading and t.reading.sampling and t.reading.sampling.seed for t in tasks] == [None, 0, 1, 0, 1]
    own = Recorder("generation", Sampling(1.0, 25))
    assert [r[:1] + r[2:] for r in rows(own, f"none,{PAPER[:-1]},seeds=2)")][:2] == [("none", (0, 0)), ("none", (1, 0))]
    assert SelfDebias(seed=2).seeded is False


def test_a_baseline_of_the_second_benchmark_is_asked_before_the_methods() -> None:
    benchmarks = [build_benchmark(b) for b in ("ifeval(source=demo)", DEMO)]
    made = Plan(Recorder(), [Untouched(), build_method(PAPER)], [(b, b.load()[:2]) for b in benchmarks])
    assert [m.spec for m in made.applied] == ["none", "none(answer_by=generation,temperature=1.0)", PAPER]


def test_a_sweep_shows_every_setting_beside_the_model_read_alike(tmp_path: Path) -> None:
    from evenhand.experiment.sweep import sweep, varied

    given: dict[str, Any] = {"bias": DEMO, "cost": "perplexity(source=demo)", "limit": 40, **TEXTS}
    _, steps, _ = varied("self_debias(answer_by=generation,max_new_tokens=4)", "temperature=0.5,1.0")
    found = sweep("demo", steps, **given)
    assert [s.label for s in found.steps] == ["none (generation, T=0.5)", DRAWN, "0.5", "1.0"]
    for base, step in ((0, 2), (1, 3)):
        assert found.steps[step].bias.difference == pytest.approx(
            found.steps[step].bias.value - found.steps[base].bias.value
        )
    assert {s.cost.value for s in found.steps} == {found.steps[0].cost.value}, "nothing scored depends on the reading"
    left = found.plot().axes[0]
    assert len(left.lines[0].get_xdata()) == 2, "two baselines are joined to nothing"  # type: ignore[arg-type]
    one = sweep("demo", steps[1:], answer_by="generation", **given)
    assert [s.label for s in one.steps] == [DRAWN, "1.0"]
    with pytest.raises(SettingsError, match="none is what a sweep compares with"):
        sweep("demo", varied("none(answer_by=generation)", "temperature=0.5,1.0")[1], **given)


def test_a_plugins_mistake_in_its_reading_is_told_before_anything_is_asked() -> None:
    @settings
    class Wrong(Same):
        """Cannot say how it is read."""

        name: ClassVar[str] = "wrong"

        def reading(self, model: Model) -> Reading | None:
            raise KeyError("answer_by")

    @settings
    class Picky(Same):
        """Fails when it is asked whether it fits."""

        name: ClassVar[str] = "picky"

        def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
            raise KeyError("fit")

    model = Recorder()
    with pytest.raises(SettingsError, match=r"wrong: reading\(model\) failed with KeyError: 'answer_by'"):
        compare(model, [Wrong()], DEMO, limit=4, **TEXTS)
    assert model.questions == []
    with pytest.warns(RuntimeWarning, match="KeyError"):
        report = compare(model, [Picky()], DEMO, limit=4, **TEXTS)
    assert {r.status for r in report.records if r.method == "picky"} == {"failed"}
