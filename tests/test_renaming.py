"""Old names of settings, fields and functions work for one release: one warning gives the new name."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import evenhand
from evenhand import Mitigated
from evenhand.core import registry
from evenhand.core.hashing import digest
from evenhand.core.registry import BUILT_IN, Registry, build_method, methods
from evenhand.data.pairs import apart
from evenhand.errors import DataError, SettingsError
from evenhand.experiment import sweep
from evenhand.experiment.training_sources import load as load_train
from evenhand.interfaces import (
    Choice,
    HasSettings,
    Method,
    Model,
    Pair,
    Passage,
    Question,
    Shot,
    TrainData,
    first_names,
    in_first_names,
    settings,
)
from evenhand.models import outside
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.proving_ground.training import Recipe
from evenhand.renaming import RenamedWarning, old_arguments, old_fields
from evenhand.testing import tiny_model
from evenhand.training.loop import Schedule


@settings
class Base(Method):
    """What two methods share; the first setting has been renamed twice."""

    renamed: ClassVar[dict[str, str]] = {"part": "fraction", "portion": "fraction"}

    fraction: float = 0.1

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self)


@settings
class Renamed(Base):
    name: ClassVar[str] = "renamed_one"
    needs: ClassVar[frozenset[str]] = frozenset()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"size": 64}}
    renamed: ClassVar[dict[str, str]] = {"many": "size"}

    size: int = 8
    file: Path | None = None


@settings
class Unchanged(Method):
    """The same settings under the names that they first had."""

    name: ClassVar[str] = "renamed_one"

    part: float = 0.1
    many: int = 8
    file: Path | None = None

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "methods", Registry("methods", BUILT_IN["methods"]))
    registry.methods.register(Renamed)
    yield


# --------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("renamed_one(many=3)", "renamed_one(size=3)"),
        ("renamed_one(portion=0.5)", "renamed_one(fraction=0.5)"),
        ("renamed_one(part=0.5,size=3)", "renamed_one(fraction=0.5,size=3)"),
        ("renamed_one(preset=paper,many=3)", "renamed_one(size=3)"),
        ({"renamed_one": {"many": 3}}, "renamed_one(size=3)"),
        ("renamed_one(many=3)+none", "renamed_one(size=3)+none"),
    ],
)
def test_specifications_and_mappings_take_an_old_name(written: str | dict[str, Any], spec: str) -> None:
    with pytest.warns(RenamedWarning, match="^renamed_one: .* is now .*; the old name works for one release$") as told:
        assert build_method(written).spec == spec
    assert len(told) == 1
    assert told[0].filename == __file__


def test_several_old_names_give_one_warning() -> None:
    with pytest.warns(RenamedWarning) as told:
        assert build_method("renamed_one(many=3,part=0.5)") == Renamed(size=3, fraction=0.5)
    assert [str(w.message) for w in told] == [
        "renamed_one: many is now size, part is now fraction; the old names work for one release"
    ]


def test_a_call_takes_and_reads_an_old_name() -> None:
    with pytest.warns(RenamedWarning, match="many is now size") as told:
        method = Renamed(many=3)
    assert len(told) == 1 and method == Renamed(size=3)
    with pytest.warns(RenamedWarning, match="many is now size"):
        assert method.many == 3
    assert method.settings == {"fraction": 0.1, "size": 3, "file": None}


def test_present_names_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build_method("renamed_one(fraction=0.5,size=3)").spec == Renamed(fraction=0.5, size=3).spec


@pytest.mark.parametrize("text", ["renamed_one(many=3,size=3)", "renamed_one(size=4,many=3)"])
def test_both_names_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="many is the old name of size, and both are given; leave many out"):
        build_method(text)


def test_unknown_names_still_get_suggestions_of_present_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'fractoin'\. Did you mean 'fraction'"):
        build_method("renamed_one(fractoin=1)")


def test_values_under_an_old_name_are_checked() -> None:
    with pytest.raises(SettingsError, match="size='x'"), pytest.warns(RenamedWarning):
        build_method("renamed_one(many=x)")


def test_no_class_has_settings_of_both_names() -> None:
    with pytest.raises(SettingsError, match="many is the old name of its setting size"):

        @settings
        class Again(Renamed):
            name: ClassVar[str] = "again"
            many: int = 1
            size: int = 1


def test_a_subclass_may_override_a_setting_and_presets_by_old_names() -> None:
    with pytest.warns(DeprecationWarning, match="^Narrow: many is now size, portion is now fraction; ") as told:

        @settings
        class Narrow(Renamed):
            name: ClassVar[str] = "narrow"
            presets: ClassVar[dict[str, dict[str, Any]]] = {"wide": {"portion": 0.9, "many": 7}}
            many: int = 2

            def apply(self, model: Model, data: TrainData | None = None) -> Model:
                return super().apply(model) if self.many == 2 else model

    assert len(told) == 1 and told[0].filename == __file__
    assert Narrow().settings == {"fraction": 0.1, "size": 2, "file": None}
    wide = Narrow.build(preset="wide")
    assert wide == Narrow(fraction=0.9, size=7) and wide.spec == "narrow(preset=wide)"
    assert Narrow().key_settings() == {"part": 0.1, "many": 2, "file": None}
    with pytest.warns(RenamedWarning, match="many is now size") as told:
        assert isinstance(Narrow().apply(tiny_model(source="demo")), Mitigated)
    assert [w.filename for w in told] == [__file__]


def test_a_preset_has_no_setting_under_both_names() -> None:
    with pytest.raises(SettingsError, match="preset p: many is the old name of size, and both are given"):

        @settings
        class Both(Renamed):
            name: ClassVar[str] = "both"
            presets: ClassVar[dict[str, dict[str, Any]]] = {"p": {"many": 1, "size": 2}}


def test_copies_with_changed_settings_take_old_names() -> None:
    with pytest.warns(RenamedWarning, match="many is now size") as told:
        assert replace(Renamed(size=3, fraction=0.5), many=4) == Renamed(size=4, fraction=0.5)  # type: ignore[call-arg]
    assert [w.filename for w in told] == [__file__]
    with pytest.raises(SettingsError, match="both are given"):
        replace(Renamed(size=3), many=4, size=5)  # type: ignore[call-arg]
    with pytest.warns(RenamedWarning, match="other is now counter_stereotyped"):
        assert Pair("a", "b", axis="Age")._replace(other="c") == Pair("a", "c", axis="Age")  # type: ignore[call-arg]
    with pytest.warns(RenamedWarning, match="topic is now axis"):
        assert replace(Question("q", "?", ("a",), axis="x"), topic="y").axis == "y"  # type: ignore[call-arg]


def test_copies_and_pickles_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in (Renamed(size=3), Pair("a", "b", suffix="c"), Passage("a", suffix="b"), Question("q", "?", ("a",))):
            assert copy.deepcopy(made) == made == copy.copy(made) == pickle.loads(pickle.dumps(made))
        assert replace(Renamed(size=3), fraction=0.5).spec == "renamed_one(fraction=0.5,size=3)"


def test_signatures_show_present_names_only() -> None:
    assert list(inspect.signature(Renamed).parameters) == ["fraction", "size", "file"]
    assert list(inspect.signature(Pair).parameters) == list(Pair._fields)


# ------------------------------------------------------------------------------------- what is stored under a key


def test_a_setting_that_was_added_later_is_in_keys_only_where_it_is_not_the_default() -> None:
    class Base(HasSettings):
        name: ClassVar[str] = "base"
        added_later: ClassVar[frozenset[str]] = frozenset({"decay"})

    @settings
    class Later(Base):
        added_later: ClassVar[frozenset[str]] = frozenset({"words"})
        size: int = 2
        decay: float = 0.01
        words: tuple[str, ...] = ("a",)

    assert Later().key_settings() == {"size": 2}
    assert Later(decay=0.0, words=("b",)).key_settings() == {"size": 2, "decay": 0.0, "words": ["b"]}
    assert Later(decay=0.01, size=3).key_settings() == {"size": 3}
    assert Later().settings == {"size": 2, "decay": 0.01, "words": ["a"]}


@pytest.mark.parametrize("name", ["fair_distillation", "permutation_distillation", "task_vector", "preference"])
def test_methods_that_train_name_what_a_step_is_alike(name: str) -> None:
    cls = methods.get(name)
    one, other = cls.build(), cls.build(weight_decay=0.5, max_grad_norm=0.25)
    assert {"weight_decay", "max_grad_norm"} & one.key_settings().keys() <= {"weight_decay"}
    assert "max_grad_norm" not in one.key_settings()
    assert other.key_settings() == {**one.key_settings(), "weight_decay": 0.5, "max_grad_norm": 0.25}
    assert "gradient_accumulation_steps" in one.settings


def test_a_key_has_each_setting_under_its_first_name() -> None:
    given = {"part": 0.5, "many": 3, "file": None}
    method = Renamed(fraction=0.5, size=3)
    assert method.key_settings() == given == Unchanged(**given).key_settings()
    assert method.key_settings(leave_out=("size", "file")) == {"part": 0.5}


def test_a_renamed_setting_changes_no_fingerprint() -> None:
    model = tiny_model(source="demo")
    before = Unchanged(part=0.5, many=3).apply(model).fingerprint
    assert Renamed(fraction=0.5, size=3).apply(model).fingerprint == before


# ----------------------------------------------------------------------------------- saved models, sweeps, run files


def test_a_saved_model_with_an_old_name_opens_with_one_warning(tmp_path: Path) -> None:
    saved = Renamed(size=3).apply(tiny_model(source="demo")).save(tmp_path / "saved")
    file = saved / "evenhand.json"
    content = json.loads(file.read_text())
    content["method"] = {"renamed_one": {"part": 0.5, "many": 3, "file": None}}
    file.write_text(json.dumps(content))
    with pytest.warns(RenamedWarning, match="part is now fraction, many is now size") as told:
        model = evenhand.load(saved)
    assert len(told) == 1
    assert isinstance(model, Mitigated) and model.method == Renamed(fraction=0.5, size=3)
    resaved = json.loads((model.save(tmp_path / "again") / "evenhand.json").read_text())
    assert resaved["method"] == {"renamed_one": {"fraction": 0.5, "size": 3, "file": None}}


@settings
class Placed(Base):
    name: ClassVar[str] = "placed"
    renamed: ClassVar[dict[str, str]] = {"where": "place"}

    place: Path | None = None


def test_an_old_name_hides_no_path_of_a_saved_model() -> None:
    registry.methods.register(Placed)
    assert outside.of_method({"placed": {"place": "there"}}) == ["the local path 'there' (placed's setting place)"]
    assert outside.of_method({"placed": {"where": "there"}}) == ["the local path 'there' (placed's setting place)"]


def test_a_sweep_takes_old_names_with_one_warning_each() -> None:
    with pytest.warns(RenamedWarning) as told:
        name, steps, controls = sweep.varied("renamed_one(part=0.5)", "many=3,4", ["many=5,part=0.2"])
    assert name == "size"
    assert [m.spec for _, m in steps] == ["renamed_one(fraction=0.5,size=3)", "renamed_one(fraction=0.5,size=4)"]
    assert [(label, m.spec) for label, m in controls] == [("size=5, fraction=0.2", "renamed_one(fraction=0.2,size=5)")]
    assert [str(w.message).partition(";")[0] for w in told] == [
        "renamed_one: part is now fraction",
        "renamed_one: many is now size",
        "renamed_one: many is now size",
        "renamed_one: part is now fraction",
    ]


def test_a_sweep_of_a_stack_finds_whose_old_name_it_is() -> None:
    with pytest.warns(RenamedWarning, match="many is now size"):
        name, steps, _ = sweep.varied("none+renamed_one", "renamed_one.many=3,4")
    assert name == "renamed_one.size"
    assert [m.spec for _, m in steps] == ["none+renamed_one(size=3)", "none+renamed_one(size=4)"]


def test_a_comparison_takes_old_names(tmp_path: Path) -> None:
    with pytest.warns(RenamedWarning, match="many is now size"):
        report = evenhand.compare("demo", methods=["renamed_one(many=3)"], benchmarks="bbq(source=demo)", limit=2)
    assert {r.method for r in report.records} == {"none", "renamed_one(size=3)"}


# ------------------------------------------------------------------------------------------- what has been renamed

TEXTS: dict[str, tuple[str, Any]] = {
    "warm_up": ("warmup_ratio", 0.2),
    "accumulate": ("gradient_accumulation_steps", 3),
    "held_out": ("validation_fraction", 0.3),
    "most_texts": ("max_texts", 40),
}
DISTILLED: dict[str, tuple[str, Any]] = {**TEXTS, "locality": ("retain_kl_weight", 0.5)}
OLD_NAMES: dict[str, dict[str, tuple[str, Any]]] = {
    "fair_distillation": DISTILLED,
    "counterfactual_distillation": DISTILLED,
    "deep_to_shallow": {**TEXTS, "most_groups": ("max_groups", 4)},
    "permutation_distillation": {"held_out": ("validation_fraction", 0.3), "warm_up": ("warmup_ratio", 0.2)},
    "task_vector": {
        "most_texts": ("max_texts", 40),
        "keep": ("retain_kl_weight", 2.0),
        "warm_up": ("warmup_ratio", 0.2),
        "warm_up_steps": ("warmup_steps", 7),
        "held_out": ("validation_fraction", 0.3),
        "topics": ("axes", ("Age",)),
    },
    "pcgu": {
        "share": ("edit_fraction", 0.2),
        "batch": ("batch_size", 8),
        "held_out": ("validation_fraction", 0.3),
        "most_tokens": ("max_length", 99),
        "retain": ("retain_kl_weight", 2.0),
        "retain_batch": ("retain_batch_size", 5),
        "topics": ("axes", ("Age",)),
        "micro": ("micro_batch_size", 8),
    },
    "preference": {
        "most_pairs": ("max_pairs", 40),
        "warm_up": ("warmup_ratio", 0.2),
        "accumulate": ("gradient_accumulation_steps", 4),
        "held_out": ("validation_fraction", 0.3),
        "topics": ("axes", ("Age",)),
    },
    "cross_model_adjudication": {
        "validation": ("validation_fraction", 0.1),
        "most_bias": ("max_bias", 1.0),
        "least_helpfulness": ("min_helpfulness", 2.0),
        "most_refusal": ("max_refusal", 0.4),
        "most_disagreement": ("max_disagreement", 2.0),
        "accumulate": ("gradient_accumulation_steps", 3),
        "least_gain": ("min_gain", 0.1),
        "fit": ("fit_fraction", 0.5),
        "general_share": ("general_fraction", 0.1),
        "texts": ("prompts", "demo"),
    },
    "batch_calibration": {"least": ("min_answers", 4), "per_head": ("per_preamble", True)},
    "prior_matching": {"least": ("min_answers", 4), "per_head": ("per_preamble", True)},
    "pride": {"share": ("estimation_fraction", 0.1), "least": ("min_questions", 4)},
    "bbq": {"categories": ("axes", ("Age",))},
}
REQUIRED: dict[str, dict[str, Any]] = {"cross_model_adjudication": {"judges": ("judge:demo",)}}
EACH = [(name, old, *new) for name, names in OLD_NAMES.items() for old, new in names.items()]


def test_options_of_a_server_take_old_names() -> None:
    with (
        pytest.warns(RenamedWarning, match="^vllm: batch is now batch_size; ") as told,
        pytest.raises(SettingsError, match="concurrency and batch_size must be >= 1"),
    ):
        evenhand.load("vllm:http://127.0.0.1:9#m(batch=0)")
    assert [w.filename for w in told] == [__file__]


def test_a_setting_of_a_benchmark_may_be_called_marks() -> None:
    mmlu = registry.benchmarks.get("mmlu")

    @settings
    class Marked(mmlu):  # type: ignore[misc, valid-type]
        name: ClassVar[str] = "marked"
        marks: str = "x"

    bench = Marked(source="demo")
    items = bench.load()[:3]
    given = bench.grades(items, [Choice(0)] * 3)
    assert bench.marks == "x" and given == mmlu(source="demo").grades(items, [Choice(0)] * 3) is not None


def test_the_table_has_every_renamed_setting() -> None:
    every = {name: registry.methods.get(name) for name in BUILT_IN["methods"]}
    every |= {name: registry.benchmarks.get(name) for name in BUILT_IN["benchmarks"]}
    declared = {name: cls.old_names() for name, cls in every.items() if cls.old_names()}
    assert declared == {name: {old: new for old, (new, _) in names.items()} for name, names in OLD_NAMES.items()}


@pytest.mark.parametrize(("name", "old", "new", "value"), EACH, ids=[f"{name}.{old}" for name, old, *_ in EACH])
def test_every_old_name_is_its_new_one(name: str, old: str, new: str, value: Any) -> None:
    cls = (registry.methods if name in BUILT_IN["methods"] else registry.benchmarks).get(name)
    others = REQUIRED.get(name, {})
    expected = cls.build(**others, **{new: value})
    assert expected.settings[new] == (list(value) if isinstance(value, tuple) else value)
    with pytest.warns(
        RenamedWarning, match=f"^{name}: {old} is now {new}; the old name works for one release$"
    ) as told:
        assert cls.build(**others, **{old: value}) == expected
    assert len(told) == 1
    keyed = expected.key_settings()
    assert new not in keyed and old in keyed


FIRST_KEYS = {
    "batch_calibration": "401403fc1310fde68f938906842d24d1",
    "bbq": "cb5695a9b4a64de45b4261d02d1797d0",
    "counterfactual_distillation": "03423cbc7122e4ffca5a80da60553a28",
    "cross_model_adjudication": "ef29dff6130b8c325a67d94db704883d",
    "deep_to_shallow": "8f244369ee795f154a24f34aa6fdb994",
    "fair_distillation": "c072e415fe258fb7df1b4cab082fa5ed",
    "pcgu": "d5da96b30e712cc22e5a93591e3469dd",
    "permutation_distillation": "b3ef0386e142cdac93882c5a6f5934f5",
    "preference": "ae9874a138b9a620328c5f411703e3b0",
    "pride": "6daea1c8737231fb65775b43822b4629",
    "prior_matching": "90913eedc106dac84650ae7242bdeb05",
    "task_vector": "fb7026a4481936566e83c56eb03fbe8a",
}
"""Computed with the version before the settings were renamed, from what was then the settings."""


@pytest.mark.parametrize("name", OLD_NAMES)
def test_keys_of_default_settings_are_those_before_the_renaming(name: str) -> None:
    cls = (registry.methods if name in BUILT_IN["methods"] else registry.benchmarks).get(name)
    assert digest("fp", name, cls.build(**REQUIRED.get(name, {})).key_settings()) == FIRST_KEYS[name]


@pytest.mark.parametrize(
    ("made", "old", "new"),
    [
        (Question("q", "?", ("a", "b"), axis="Age"), "topic", "axis"),
        (Question("q", "?", ("a", "b"), header="H"), "head", "preamble"),
        (Passage("text", suffix="end"), "after", "suffix"),
        (Pair("a", "b", suffix="end"), "after", "suffix"),
        (Pair("a", "b", axis="Age"), "topic", "axis"),
        (Pair("a", "b"), "other", "counter_stereotyped"),
        (Schedule(epochs=1, learning_rate=1.0, warmup_ratio=0.3), "warm_up", "warmup_ratio"),
        (Schedule(epochs=1, learning_rate=1.0), "accumulate", "gradient_accumulation_steps"),
    ],
)
def test_old_names_of_fields_can_be_read(made: Any, old: str, new: str) -> None:
    with pytest.warns(RenamedWarning, match=f"^{type(made).__name__}: {old} is now {new}; ") as told:
        assert getattr(made, old) == getattr(made, new)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("cls", "given", "old", "new", "value"),
    [
        (Question, {"id": "q", "question": "?", "options": ("a", "b")}, "topic", "axis", "Age"),
        (Passage, {"continuation": "text"}, "after", "suffix", "end"),
        (Pair, {"stereotyped": "a"}, "other", "counter_stereotyped", "b"),
        (Pair, {"stereotyped": "a", "counter_stereotyped": "b"}, "after", "suffix", "end"),
        (Pair, {"stereotyped": "a", "counter_stereotyped": "b"}, "topic", "axis", "Age"),
        (Schedule, {"epochs": 1, "learning_rate": 1.0}, "warm_up", "warmup_ratio", 0.3),
        (Schedule, {"epochs": 1, "learning_rate": 1.0}, "accumulate", "gradient_accumulation_steps", 2),
        (Schedule, {"epochs": 1, "learning_rate": 1.0}, "clip", "max_grad_norm", 0.5),
        (Recipe, {"steps": 10}, "warm_up", "warmup_steps", 3),
    ],
)
def test_old_names_of_fields_can_be_given(cls: Any, given: dict[str, Any], old: str, new: str, value: Any) -> None:
    with pytest.warns(RenamedWarning, match=f"^{cls.__name__}: {old} is now {new}; ") as told:
        assert cls(**given, **{old: value}) == cls(**given, **{new: value})
    assert len(told) == 1


def test_keys_made_of_questions_and_pairs_have_the_first_names() -> None:
    question = Question("q", "?", ("a", "b"), axis="Age", shots=(Shot("s", Question("r", "?", ("a",), axis="SES"), 0),))
    text = in_first_names(question)
    assert "topic='Age'" in text and "topic='SES'" in text and "axis" not in text
    assert in_first_names(Pair("a", "b", axis="Age")) == (
        "Pair(stereotyped='a', other='b', prompt='', after='', topic='Age', id='')"
    )
    values = asdict(question, dict_factory=first_names)
    assert values["topic"] == "Age" and values["shots"][0]["question"]["topic"] == "SES"


def test_marks_are_grades() -> None:
    with pytest.warns(RenamedWarning, match="Mark is now Grade"):
        from evenhand.interfaces import Mark
    with pytest.warns(RenamedWarning, match="Mark is now Grade"):
        assert evenhand.Mark is Mark is evenhand.Grade
    bench = registry.build_benchmark("mmlu(source=demo)")
    items = bench.load()[:3]
    answers = [Choice(0)] * 3
    with pytest.warns(RenamedWarning, match=r"^mmlu: marks\(\) is now grades\(\); the old name works for one release$"):
        assert bench.marks(items, answers) == bench.grades(items, answers) is not None


def test_checkpoints_of_an_earlier_version_are_of_the_same_training() -> None:
    settings = Schedule(epochs=1, learning_rate=1.0, warmup_ratio=0.3).for_checkpoints()
    assert settings["warm_up"] == 0.3 and settings["accumulate"] == 1
    assert not {"warmup_ratio", "gradient_accumulation_steps"} & set(settings)


def test_files_of_pairs_may_have_the_old_keys(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    new = {"stereotyped": " he", "counter_stereotyped": " she", "prompt": "x", "suffix": "end", "axis": "gender"}
    old = {"stereotyped": " he", "other": " she", "prompt": "x", "after": "end", "topic": "gender"}
    read = []
    for row in (new, old):
        file.write_text(json.dumps({**row, "id": "1"}))
        read.append(load_train(str(file)).data.pairs)
    assert read[0] == read[1] == (Pair(**new, id="1"),)
    file.write_text(json.dumps({**new, **old}))
    with pytest.raises(DataError, match='"other" is the old name of "counter_stereotyped", and both are given'):
        load_train(str(file))


# ------------------------------------------------------------------------------------------------ plain dataclasses


@old_fields(after="suffix")
@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    suffix: str = field(default="")


def test_a_dataclass_takes_and_reads_the_old_name_of_a_field() -> None:
    with pytest.warns(RenamedWarning, match="^Sentence: after is now suffix; the old name works for one release$"):
        sentence = Sentence("a", after="b")
    assert sentence == Sentence("a", "b")
    with pytest.warns(RenamedWarning, match="after is now suffix"):
        assert sentence.after == "b"
    with pytest.raises(SettingsError, match="both are given"):
        Sentence("a", suffix="b", after="b")


# -------------------------------------------------------------------------------------------- arguments of functions


@old_arguments(topic="axis")
def joined(text: str, axis: str = "") -> str:
    """What is decorated."""
    return f"{text}/{axis}"


def test_a_function_takes_the_old_name_of_an_argument() -> None:
    with pytest.warns(
        RenamedWarning, match=r"^joined\(\): topic is now axis; the old name works for one release$"
    ) as told:
        assert joined("a", topic="b") == joined("a", axis="b") == joined("a", "b") == "a/b"  # type: ignore[call-arg]
    assert [w.filename for w in told] == [__file__]
    with pytest.raises(SettingsError, match="topic is the old name of axis, and both are given"):
        joined("a", topic="b", axis="b")  # type: ignore[call-arg]
    assert list(inspect.signature(joined).parameters) == ["text", "axis"] and joined.__doc__ == "What is decorated."


def test_arguments_of_the_previous_release_are_accepted() -> None:
    with pytest.warns(RenamedWarning, match=r"^apart\(\): topic is now axis; "):
        assert apart("a b", "a c", topic="x") == apart("a b", "a c", axis="x")  # type: ignore[call-arg]
    pack = prompt_pack()
    with pytest.warns(RenamedWarning, match=r"^PromptPack.axis\(\): topic is now item_axis; "):
        assert pack.axis("auto", topic="Age") == pack.axis("auto", "Age")  # type: ignore[call-arg]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack.axis("auto", item_axis="Age")
