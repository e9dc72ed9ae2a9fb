"""Several seeds and wordings of one method: repetitions of one row, not rivals."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand import Method, Mitigated, Model, TrainData, settings
from evenhand.cli import app
from evenhand.core import registry
from evenhand.core.registry import BUILT_IN, Registry, build_method
from evenhand.core.repeats import Repeated, repeated, variants_of
from evenhand.errors import SettingsError
from evenhand.experiment.comparison import compare
from evenhand.experiment.sweep import varied
from evenhand.interfaces import Stack
from evenhand.testing import tiny_model

DEMO = "bbq(source=demo)"
ASKED: dict[str, Any] = {"limit": 16, "show_progress": False, "replicates": 200}


@settings
class Shuffled(Method):
    """Says something drawn by a seed before every question."""

    name: ClassVar[str] = "shuffled"
    wording_setting: ClassVar[str] = "word"

    word: str = "dog"
    seed: int = 0

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        told = f"{self.word} " * (self.seed + 1)
        return Mitigated(model, self, choose=lambda qs: model.choose([replace(q, header=told) for q in qs]))


@settings
class OwnWords(Method):
    """Has settings of the two names itself."""

    name: ClassVar[str] = "own_words"

    seeds: int = 7
    wordings: tuple[str, ...] = ()

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return model


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "methods", Registry("methods", BUILT_IN["methods"]))
    registry.methods.register(Shuffled)
    registry.methods.register(OwnWords)
    yield


def specs(method: Method) -> list[str]:
    return [m.spec for m in variants_of(method).values()]


# --------------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize(
    ("written", "variants"),
    [
        ("shuffled(seeds=3)", ["shuffled", "shuffled(seed=1)", "shuffled(seed=2)"]),
        ("shuffled(seed=5,seeds=2)", ["shuffled(seed=5)", "shuffled(seed=6)"]),
        ("shuffled(wordings=('dog', 'cat'))", ["shuffled", "shuffled(word=cat)"]),
        (
            "shuffled(seeds=2,wordings=('a', 'b'))",
            ["shuffled(word=a)", "shuffled(word=b)", "shuffled(word=a,seed=1)", "shuffled(word=b,seed=1)"],
        ),
        ("instruction(wordings=('low_1', 'medium_1'))", ["instruction", "instruction(wording=medium_1)"]),
        ("self_debias(wordings=('en', 'de'))", ["self_debias", "self_debias(prompts=de)"]),
        ("self_debias(preset=paper,seeds=2)", ["self_debias(preset=paper)", "self_debias(preset=paper,seed=1)"]),
        (
            "shuffled(seeds=2)+instruction(wordings=('low_1', 'low_2'))",
            [
                "shuffled+instruction",
                "shuffled+instruction(wording=low_2)",
                "shuffled(seed=1)+instruction",
                "shuffled(seed=1)+instruction(wording=low_2)",
            ],
        ),
        ("shuffled(seeds=2)+pcgu(seed=3,seeds=2)", ["shuffled+pcgu(seed=3)", "shuffled(seed=1)+pcgu(seed=4)"]),
    ],
)
def test_a_spec_repeats_a_method_and_builds_it_again(written: str, variants: list[str]) -> None:
    method = build_method(written)
    assert isinstance(method, Repeated) and method.spec == written and build_method(method.spec) == method
    assert specs(method) == variants and len(set(specs(method))) == len(variants)


def test_the_words_are_understood_in_a_mapping_and_where_there_is_only_one() -> None:
    assert build_method({"shuffled": {"seeds": 2}}) == build_method("shuffled(seeds=2)")
    assert build_method({"instruction": {"wordings": ["low_1", "low_2"]}}).spec == (
        "instruction(wordings=('low_1', 'low_2'))"
    )
    assert build_method("shuffled(seeds=1)").spec == "shuffled"
    assert build_method("instruction(wordings=('high_1',))").spec == "instruction(wording=high_1)"
    assert build_method("instruction(wordings=high_1)").spec == "instruction(wording=high_1)"


def test_seeds_of_a_stack_advance_together() -> None:
    once = build_method("shuffled(seeds=2)+pcgu")
    assert specs(once) == ["shuffled+pcgu", "shuffled(seed=1)+pcgu(seed=1)"]
    assert once.spec == "shuffled(seeds=2)+pcgu(seeds=2)"
    assert specs(build_method("self_debias+shuffled(seeds=2)")) == [
        "self_debias+shuffled",
        "self_debias+shuffled(seed=1)",
    ]


def test_a_method_that_has_such_a_setting_keeps_it() -> None:
    method = build_method("own_words(seeds=3,wordings=('a','b'))")
    assert method == OwnWords(seeds=3, wordings=("a", "b"))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("shuffled(seeds=0)", "shuffled: seeds=0 must be a whole number of at least 1"),
        ("shuffled(seeds=2.5)", "seeds=2.5 must be"),
        ("shuffled(seeds=many)", "seeds='many' must be"),
        ("instruction(seeds=2)", "instruction: seeds=2, but it has no seed"),
        ("self_debias(seeds=2)", "self_debias: seeds=2, but with these settings its seed decides nothing"),
        ("permutation(seeds=2)", "its seed decides nothing"),
        ("pcgu(wordings=('a','b'))", r"pcgu: wordings=\('a', 'b'\), but it has no setting that decides a wording"),
        ("instruction(wordings=('low_1','lw_2'))", "unknown instruction 'lw_2'"),
        ("self_debias(wordings=('en','xx'))", "unknown prompt pack 'xx'"),
        ("instruction(wordings=('low_1','low_1'))", "one is there twice"),
        ("instruction(wordings=())", r"wordings=\(\): give values"),
        ("instruction(wordings=(1,2))", r"wordings=\(1, 2\): give values"),
        ("instruction(wording=low_1,wordings=('low_1','low_2'))", "give one of the two"),
        ("shuffled(seeds=2)+pcgu(seeds=3)", "seeds=2 and seeds=3; all parts advance together"),
        ("instruction(wordings=('low_1','low_2'))+shuffled(wordings=('a','b','c'))", "2 and 3 wordings"),
    ],
)
def test_what_cannot_be_repeated_is_refused(written: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_method(written)


def test_a_comparison_repeats_what_can_be() -> None:
    assert repeated(build_method("shuffled"), 2).spec == "shuffled(seeds=2)"
    assert repeated(build_method("shuffled(seeds=3)"), 2).spec == "shuffled(seeds=3)", "its own number goes first"
    assert repeated(build_method("self_debias"), 2).spec == "self_debias", "its seed decides nothing"
    assert repeated(build_method("none"), 2).spec == "none"
    both = repeated(build_method("shuffled(seeds=2)+instruction"), 4, ("low_1", "low_2"))
    assert both.spec == "shuffled(seeds=2,wordings=('low_1', 'low_2'))+instruction(wordings=('low_1', 'low_2'))"
    assert len(variants_of(both)) == 4
    with pytest.raises(SettingsError, match=r"low_9.*in its own settings"):
        repeated(build_method("instruction"), 1, ("low_9", "low_1"))


def test_seeds_that_repeat_nothing_are_said() -> None:
    with pytest.warns(UserWarning, match="seeds=2: no method here has a seed that decides anything"):
        report = compare(tiny_model(name="m"), "instruction", DEMO, seeds=2, **ASKED)
    assert [u["method"] for u in report.manifest["usage"]] == ["none", "instruction"]


def test_seeded_says_whether_a_seed_decides_anything() -> None:
    decides = [
        "self_debias(preset=paper)",
        "moral_self_correction(temperature=1.0)",
        "permutation(orders=sampled)",
        "pcgu",
        "intent_self_correction(temperature=1.0)",
        "task_vector",
        "task_vector(tuned='x',control=random)",
        "none(temperature=1.0)",
        "instruction+pcgu",
    ]
    nothing = [
        "self_debias",
        "moral_self_correction(temperature=1.0,variant=instruction)",
        "intent_self_correction",
        "permutation",
        "instruction",
        "task_vector(tuned='x')",
        "none",
        "none(temperature=0.0)",
        "instruction+permutation",
    ]
    assert all(build_method(m).seeded for m in decides) and not any(build_method(m).seeded for m in nothing)


# ------------------------------------------------------------------------------------------------------ comparing


def test_seeds_and_wordings_are_cells_of_one_row_and_stay_so_when_resumed(tmp_path: Path) -> None:
    given: dict[str, Any] = {"out": tmp_path, "seeds": 2, "wordings": ["dog", "cat"], **ASKED}
    row = "shuffled(seeds=2,wordings=('dog', 'cat'))"
    model = tiny_model(name="m")
    first = compare(model, "shuffled", DEMO, **given)
    assert list(dict.fromkeys(r.method for r in first.records)) == ["none", row]
    usage = [(u["method"], tuple(u["variant"]), u["spec"], u["baseline"]) for u in first.manifest["usage"]]
    assert usage == [
        ("none", (0, 0), "none", ""),
        (row, (0, 0), "shuffled", "none"),
        (row, (0, 1), "shuffled(word=cat)", "none"),
        (row, (1, 0), "shuffled(seed=1)", "none"),
        (row, (1, 1), "shuffled(word=cat,seed=1)", "none"),
    ]
    assert len(list((tmp_path / "answers").iterdir())) == 5
    again = tiny_model(name="m")
    second = compare(again, "shuffled", DEMO, **given)
    assert again.engine.sequences == 0 and repr(first.records) == repr(second.records)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["methods"] == ["none", row] and (manifest["seeds"], manifest["wordings"]) == (2, ["dog", "cat"])
    assert manifest["variants"][row][3] == {
        "seed": 1,
        "wording": 1,
        "method": "shuffled(word=cat,seed=1)",
        "words": "cat",
    }


def test_a_row_is_the_mean_of_its_repetitions_and_costs_their_mean() -> None:
    model = tiny_model(name="m")
    apart = compare(model, "shuffled,shuffled(seed=1)", DEMO, **ASKED)
    together = compare(model, "shuffled(seeds=2)", DEMO, **ASKED)

    def value(report: Any, method: str) -> float:
        (found,) = [
            r.value for r in report.records if (r.method, r.metric, r.group) == (method, "position_1", "overall")
        ]
        return float(found)

    own = [value(apart, "shuffled"), value(apart, "shuffled(seed=1)")]
    assert value(together, "shuffled(seeds=2)") == pytest.approx(sum(own) / 2)
    cost = {c.method: c for c in [*apart.costs(), *together.costs()]}
    one, two, both = (cost[m] for m in ("shuffled", "shuffled(seed=1)", "shuffled(seeds=2)"))
    assert both.items == one.items and both.prompt_tokens == pytest.approx((one.prompt_tokens + two.prompt_tokens) / 2)
    assert both.extra_prompt_tokens == pytest.approx(both.prompt_tokens - cost["none"].prompt_tokens)


def test_a_repetition_that_fails_costs_only_itself() -> None:
    @settings
    class Fragile(Method):
        """Breaks at the second seed."""

        name: ClassVar[str] = "fragile"
        seed: int = 0

        def apply(self, model: Model, data: TrainData | None = None) -> Model:
            if self.seed == 1:
                raise SettingsError("seed 1 is bad luck")
            return Mitigated(model, self, choose=model.choose)

    report = compare(tiny_model(name="m"), [repeated(Fragile(), 2)], DEMO, **ASKED)
    assert [u["variant"] for u in report.manifest["usage"]] == [[0, 0], [0, 0]]
    assert [r.note for r in report.records if r.status == "failed"] == ["seed 1 is bad luck"]


def test_several_models_are_neither_applied_nor_saved_nor_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    method = build_method("self_debias(preset=paper,seeds=3)")
    with pytest.raises(SettingsError, match=r"is 3 models.*take one of them, such as self_debias\(preset=paper\)"):
        method.apply(tiny_model())
    for words in (
        ["debias", "no/such/model", method.spec, "--out", str(tmp_path / "m")],
        ["serve", "no/such/model", "--method", method.spec],
    ):
        monkeypatch.setattr(sys, "argv", ["evenhand", *words])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert end.value.code == 2 and "is 3 models" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
    with pytest.raises(SettingsError, match="is 3 models"):
        Stack((method, build_method("instruction"))).apply(tiny_model())


def test_the_command_line_and_the_run_file_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["evenhand", *words, "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert not end.value.code, capsys.readouterr().err
        manifest: dict[str, Any] = json.loads((tmp_path / "manifest.json").read_text())
        return manifest

    common = ["--benchmarks", DEMO, "--limit", "8", "--replicates", "200"]
    words = ["--methods", "instruction,self_debias(preset=paper)", "--seeds", "2"]
    made = run("compare", *words, *common)
    assert made["methods"] == ["none", "instruction", "self_debias(preset=paper,seeds=2)"]
    made = run("compare", "--methods", "instruction", "--wordings", "low_1,medium_1", *common)
    assert made["methods"] == ["none", "instruction(wordings=('low_1', 'medium_1'))"]
    reading = ["--answer-by", "generation", "--temperature", "1", "--samples", "2"]
    made = run("evaluate", "demo", *common[:4], *reading)
    assert (made["answer_by"], made["temperature"], made["samples"]) == ("generation", 1.0, 2)
    assert [u["variant"] for u in made["usage"]] == [[0, 0], [1, 0]]
    file = tmp_path / "run.yaml"
    file.write_text(
        f"models: demo\nmethods: [{{instruction: {{}}}}]\nbenchmarks: ['{DEMO}']\nlimit: 8\nreplicates: 200\n"
        "answer_by: generation\ntemperature: 1\nsamples: 2\nseeds: 2\n"
        "wordings: [low_1, high_1]\nload: {answer_by: text}\n"
    )
    made = run("compare", str(file))
    assert (
        made["methods"] == ["none", "instruction(wordings=('low_1', 'high_1'))"] and made["answer_by"] == "generation"
    )
    assert sorted(u["variant"] for u in made["usage"]) == [[0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [1, 1]]


def test_a_sweep_takes_repeated_methods() -> None:
    _, steps, _ = varied("shuffled(seeds=2)", "word=a,b")
    assert [m.spec for _, m in steps] == ["shuffled(word=a,seeds=2)", "shuffled(word=b,seeds=2)"]  # type: ignore[union-attr]


def test_wordings_of_a_run_leave_methods_alone_that_know_none_of_them() -> None:
    kept = repeated(build_method("self_debias"), 1, ("low_1", "medium_1"))
    assert not isinstance(kept, Repeated)
    assert isinstance(repeated(build_method("instruction"), 1, ("low_1", "medium_1")), Repeated)
    with pytest.raises(SettingsError):
        repeated(build_method("instruction"), 1, ("low_1", "mediun_1"))
