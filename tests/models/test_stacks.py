"""Methods on top of one another, and of trained models: what they are called, how they are saved, what they tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

import evenhand
from evenhand.core.training_record import record_of
from evenhand.data.io.demo import MODELS
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Method, Model, TrainData, TrainedOn, TrainingRecord, settings
from evenhand.methods.prompting.instruction import Instruction
from evenhand.methods.unlearning._pcgu.delta import Delta
from evenhand.methods.unlearning._pcgu.edited import edited
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models import demo_names, outside
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Mitigated
from evenhand.testing import questions
from evenhand.training.lora import Adapter, adapted, lora_config

QUESTIONS = questions(4)


@settings
class Taught(Method):
    """Learns nothing, and has a record."""

    name: ClassVar[str] = "taught"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        record = record_of(self, model, data=TrainedOn(unit="texts", training=27, validation=3), results={"demo": True})
        return Mitigated(model, self, training=record)


def edited_demo() -> Model:
    """The demo model with an edit that changes nothing."""
    base = evenhand.load("demo")
    return edited(base, PCGU(epochs=1), Delta({}, {}), record_of(PCGU(epochs=1), base))


def content_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "evenhand.json").read_text())
    return content


# ------------------------------------------------------------------------------------------------------- names


def test_a_stack_over_an_edited_model_keeps_its_name_from_save_to_save(tmp_path: Path) -> None:
    stack: Model = Instruction().apply(Instruction().apply(edited_demo()))
    name, fingerprint = stack.name, stack.fingerprint
    assert name == "demo+pcgu(epochs=1)+instruction+instruction"
    for n in range(3):
        stack = evenhand.load(stack.save(tmp_path / str(n)))
        assert (stack.name, stack.fingerprint) == (name, fingerprint)
    assert evenhand.load(tmp_path / "0", name="x").name == "x+pcgu(epochs=1)+instruction+instruction"


def test_a_stack_that_was_saved_with_the_name_of_the_whole_for_its_base_opens_under_its_own(tmp_path: Path) -> None:
    folder = Instruction().apply(edited_demo()).save(tmp_path / "m")
    content = content_of(folder)
    assert "name" not in content["base"]["options"] and content["base"]["folder"] == "base"
    content["base"]["options"]["name"] = "demo+pcgu(epochs=1)"
    (folder / "evenhand.json").write_text(json.dumps(content))
    assert evenhand.load(folder).name == "demo+pcgu(epochs=1)+instruction"


def test_a_base_that_was_given_a_name_keeps_it(tmp_path: Path, tiny: LocalModel) -> None:
    named = evenhand.load("demo", name="mine")
    for base in (named, tiny):
        stack = Instruction().apply(base)
        assert evenhand.load(stack.save(tmp_path / base.name)).name == f"{base.name}+instruction"


def test_only_a_base_that_lies_in_the_folder_is_inside_of_it(tmp_path: Path, tiny: LocalModel) -> None:
    inner = evenhand.load(Instruction().apply(tiny).save(tmp_path / "inside"))
    outer = evenhand.load(Instruction().apply(inner).save(tmp_path / "outer"))
    by_name = evenhand.load(Instruction().apply(Instruction().apply(evenhand.load("demo"))).save(tmp_path / "named"))
    assert inner.inside_saved and outer.inside_saved and not by_name.inside_saved


# ----------------------------------------------------------------------------------------- adapters on demo models


def adapter_on_demo() -> LocalModel:
    module, tokenizer = evenhand.load("demo").weights
    tuned = adapted(module, lora_config(module, Adapter(2, 4)), seed=0)
    return LocalModel(tuned, tokenizer, name="tuned")


def base_in(folder: Path) -> str:
    return str(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])


def test_an_adapter_on_a_demo_model_names_it_and_opens_within_a_saved_folder(tmp_path: Path) -> None:
    tuned = adapter_on_demo()
    plain = tuned.save(tmp_path / "plain")
    assert base_in(plain) == "demo"
    opened = evenhand.load(plain)
    assert opened.choose(QUESTIONS) == tuned.choose(QUESTIONS)
    stack = Instruction().apply(tuned)
    again = evenhand.load(stack.save(tmp_path / "stack"))
    assert again.choose(QUESTIONS) == stack.choose(QUESTIONS)
    assert evenhand.load(plain, base="demo").choose(QUESTIONS) == opened.choose(QUESTIONS)
    assert base_in(opened.save(tmp_path / "again")) == "demo"


def test_an_adapter_that_was_saved_with_the_path_of_a_demo_model_opens_within_a_saved_folder(tmp_path: Path) -> None:
    folder = Instruction().apply(adapter_on_demo()).save(tmp_path / "stack")
    file = folder / "base" / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "base_model_name_or_path": str(MODELS / "demo")}))
    assert evenhand.load(folder).name == "tuned+instruction"
    shutil.copytree(MODELS / "demo", tmp_path / "demo")
    file.write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "demo")}))
    with pytest.raises(SettingsError, match=r"asks for the local path .*/demo' \(base of the adapter base\)"):
        evenhand.load(folder)


def test_a_demo_model_is_known_by_its_folder_and_by_nothing_like_it() -> None:
    assert demo_names.NAMES == outside.DEMOS
    for name in demo_names.NAMES:
        assert demo_names.name_of(demo_names.located(name)) == name
    for other in ("demo", "", "some/demo", "/demo", str(MODELS), str(MODELS / "demo" / "config.json")):
        assert demo_names.name_of(other) == ""
    assert demo_names.located("org/demo") == "org/demo"


# ------------------------------------------------------------------------------------------------------- facts


def test_facts_say_which_method_was_trained(tiny: LocalModel) -> None:
    taught = Taught().apply(tiny)
    facts = Instruction().apply(taught).facts()
    assert facts["method"] == "instruction" and "texts" not in facts and "held_out_texts" not in facts
    assert taught.training is not None and facts["training"] == taught.training.facts()
    assert (facts["training"]["method"], facts["training"]["held_out_texts"]) == ("taught", 3)
    assert facts["demo"] is False and facts["training"]["demo"] is True
    own = taught.facts()
    assert (own["texts"], own["training"]) == (27, taught.training.facts())
    assert "training" not in Instruction().apply(tiny.__class__(*tiny.weights, name="untrained")).facts()


def test_facts_of_the_model_stay_where_the_record_of_its_training_says_the_same() -> None:
    model = evenhand.load("demo")
    model.training = TrainingRecord(method="taught", results={"demo": True, "answer_by": "letters", "more": 1})
    facts = Instruction().apply(model).facts()
    assert facts["demo"] is True and facts["answer_by"] == "letters" and "more" not in facts


def test_a_training_that_began_with_a_stack_names_no_source_for_it() -> None:
    model = evenhand.load("demo")
    stack = Instruction().apply(model)
    assert stack.source == "demo" and record_of(Taught(), model).base.source == "demo"
    base = record_of(Taught(), stack).base
    assert (base.name, base.source, base.fingerprint) == ("demo+instruction", None, stack.fingerprint)


# -------------------------------------------------------------------------------------------------- double keys


@pytest.mark.parametrize("key", ["kind", "answer_by"])
def test_a_key_that_is_there_twice_is_refused(key: str, tmp_path: Path) -> None:
    folder = Instruction().apply(evenhand.load("demo")).save(tmp_path / "m")
    file = folder / "evenhand.json"
    value = {"kind": "mitigated", "answer_by": "letters"}[key]
    said = f'"{key}": "{value}"'
    text = file.read_text()
    assert text.count(said) == 1
    file.write_text(text.replace(said, f"{said}, {said}"))
    for options in ({}, {"trust_folder": True}):
        with pytest.raises(EvenhandError, match=rf"evenhand\.json: the key '{key}' occurs twice in one object"):
            evenhand.load(folder, **options)
