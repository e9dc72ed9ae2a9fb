"""One record of training for every method: in the model, in evenhand.json and back; and what was written before."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Method, Model, OverlapRemoved, Pair, Passage, TrainData, TrainingRecord
from evenhand.methods.calibration.domain_calibration import DomainCalibration
from evenhand.methods.calibration.pride import PriDe
from evenhand.methods.distillation.counterfactual_distillation import CounterfactualDistillation
from evenhand.methods.distillation.deep_to_shallow import DeepToShallow
from evenhand.methods.distillation.fair_distillation import FairDistillation
from evenhand.methods.permutation.permutation_distillation import PermutationDistillation
from evenhand.methods.prompting.instruction import Instruction
from evenhand.methods.unlearning._pcgu.delta import Delta
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.methods.unlearning.preference import Preference
from evenhand.methods.unlearning.task_vector import TaskVectorNegation
from evenhand.models import saved
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.testing import questions
from evenhand.training import trl_support
from evenhand.training.loop import Training

JOBS = ("nurse", "doctor", "pilot", "baker")
STATES = ("late", "tired", "here", "there", "sad", "glad")
PAIRS = tuple(
    Pair(f" he was {state}", f" she was {state}", f"the {job} said that", axis="gender", id=f"{job} {state}")
    for job in JOBS
    for state in STATES
)
TEXTS = tuple(f"{p.prompt}{side}" for p in PAIRS for side in (p.stereotyped, p.counter_stereotyped))
QUESTIONS = tuple(questions(24))
DATA = TrainData(questions=QUESTIONS, texts=TEXTS, pairs=PAIRS)
OLD = ("unlearning.json", "distillation.json", "curve.json", "training.json", "priors.json", "trained.json")
CPU = {"device": "cpu", "precision": "no"}


def causal() -> LocalModel:
    words = tiny_tokenizer([*TEXTS, *(f"{q.context} {q.question} {' '.join(q.options)}" for q in QUESTIONS)])
    return LocalModel(tiny_module(len(words), scale=1.0), words, name="tiny")


def masked() -> MaskedModel:
    words = tiny_tokenizer(TEXTS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    return MaskedModel(BertForMaskedLM(config).eval(), words, name="tiny-masked")


class Case(NamedTuple):
    """A method that trains, and what its record has to say."""

    method: Method
    model: Callable[[], Model]
    unit: str
    training: int
    validation: int | None
    old: str
    """The file in which earlier versions wrote it; "" in evenhand.json or in the edit."""

    @property
    def id(self) -> str:
        return self.method.name


CASES = [
    Case(Preference(epochs=1, batch_size=8, seed=2), causal, "pairs", 22, 2, "unlearning.json"),
    Case(TaskVectorNegation(epochs=1, seed=2, **CPU), causal, "texts", 43, 5, "training.json"),
    Case(PCGU(epochs=1, learning_rate=1e-3, gate=False, seed=2, **CPU), causal, "pairs", 22, 2, ""),
    Case(FairDistillation(epochs=1, seed=2, **CPU), causal, "texts", 43, 5, "distillation.json"),
    Case(CounterfactualDistillation(epochs=1, seed=2, **CPU), masked, "texts", 43, 5, "distillation.json"),
    Case(DeepToShallow(epochs=1, seed=2, **CPU), masked, "texts", 43, 5, "distillation.json"),
    Case(PermutationDistillation(student="lora", epochs=1, seed=2), causal, "questions", 22, 2, ""),
    Case(PriDe(seed=2), causal, "questions", 24, None, "priors.json"),
    Case(DomainCalibration(seed=2), causal, "questions", 24, None, "priors.json"),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore:the student of:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:methods. preference is now:evenhand.renaming.RenamedWarning"),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
kept = pytest.mark.parametrize("case", CASES[:7], ids=lambda case: case.id)
"""Those that keep what they trained under a key."""


def applied(case: Case, model: Model) -> Model:
    if case.method.name == "preference":
        pytest.importorskip("trl")
    return case.method.apply(model, DATA)


def answered(model: Model) -> list[Any]:
    """What a model says: its answers to questions, or scores of texts where it is a masked one."""
    if "choose" in model.abilities:
        return [choice.probabilities for choice in model.choose(QUESTIONS[:4])]
    return [score.logprob for score in model.score([Passage(prompt="", continuation=text) for text in TEXTS[:4]])]


def recorded(model: Model) -> TrainingRecord:
    assert model.training is not None
    return model.training


def told(model: Model) -> dict[str, Any]:
    """The facts of a record, those that were not written before left out."""
    return {key: value for key, value in recorded(model).facts().items() if key not in ("base", "questions")}


class _SeenError(Exception):
    """Training would begin now."""


@pytest.mark.parametrize("case", [c for c in CASES[:7] if c.id != "pcgu"], ids=lambda case: case.id)
def test_the_settings_of_a_step_reach_the_training(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(self: Training[Any]) -> None:
        seen.update(asdict(self.schedule))
        raise _SeenError

    def trainer(*_: Any, args: Any, **__: Any) -> None:
        seen.update({name: getattr(args, name) for name in wanted})
        raise _SeenError

    monkeypatch.setattr(Training, "run", run)
    monkeypatch.setattr(trl_support, "dpo_trainer", trainer)
    wanted = {"weight_decay": 0.5, "max_grad_norm": 0.25, "gradient_accumulation_steps": 2}
    with pytest.raises(_SeenError):
        applied(case._replace(method=replace(case.method, **wanted)), case.model())
    assert {name: seen[name] for name in wanted} == wanted


@every
def test_a_record_says_how_it_was_trained_and_comes_back_from_evenhand_json(case: Case, tmp_path: Path) -> None:
    model = case.model()
    fingerprint = model.fingerprint
    made = applied(case, model)
    record = recorded(made)
    assert (record.method, record.spec, record.settings) == (case.id, case.method.spec, case.method.settings)
    assert (record.base.name, record.base.source, record.base.fingerprint) == (model.name, None, fingerprint)
    assert (record.data.unit, record.data.training, record.data.validation) == case[2:5]
    assert record.data.hash and record.data.overlap_removed is None and record.seed == 2
    assert set(record.versions) == {"evenhand", "torch", "transformers"}
    if case.validation is not None:
        assert record.precision == "no" and record.epochs == 1 and record.curve
        assert all(math.isfinite(v) for row in record.curve for v in row.values() if v is not None)
    folder = made.save(tmp_path / "saved")
    files = {path.name for path in folder.rglob("*")}
    assert "evenhand.json" in files and not files & set(OLD)
    again = evenhand.load(folder)
    assert recorded(again) == record
    assert recorded(evenhand.load(again.save(tmp_path / "again"))) == record


@every
def test_a_saved_copy_of_a_saved_model_needs_neither_that_folder_nor_its_own_place(case: Case, tmp_path: Path) -> None:
    first = applied(case, case.model()).save(tmp_path / "first")
    opened = evenhand.load(first)
    fingerprint, answers = opened.fingerprint, answered(opened)
    second = opened.save(tmp_path / "second")
    shutil.rmtree(first)
    for place in ("second", "moved"):
        again = evenhand.load(second.rename(tmp_path / place))
        assert again.fingerprint == fingerprint and answered(again) == answers
        second = tmp_path / place
        third = again.save(tmp_path / "third")
    assert evenhand.load(third).fingerprint == fingerprint


@every
def test_a_model_may_be_saved_where_it_was_opened(case: Case, tmp_path: Path) -> None:
    folder = applied(case, case.model()).save(tmp_path / "saved")
    opened = evenhand.load(folder)
    fingerprint, answers = opened.fingerprint, answered(opened)
    again = evenhand.load(opened.save(folder))
    assert again.fingerprint == fingerprint and answered(again) == answers


@every
def test_a_record_counts_what_a_comparison_left_out(case: Case) -> None:
    if case.id == "preference":
        pytest.importorskip("trl")
    removed = OverlapRemoved(questions=5, texts=3, pairs=2)
    one, two = case.model(), case.model()
    record = recorded(case.method.apply(one, DATA._replace(overlap_removed=removed)))
    assert record.data.overlap_removed == asdict(removed)[record.data.unit]
    assert case.method.apply(two, DATA).fingerprint == case.method.apply(one, DATA).fingerprint


@every
def test_a_record_says_how_long_the_training_took(case: Case) -> None:
    assert recorded(applied(case, case.model())).seconds is not None


@every
def test_a_saving_that_was_interrupted_is_told_and_can_be_repeated(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = applied(case, case.model())
    folder = made.save(tmp_path / "saved")  # what lay there before is no excuse

    def killed(folder: Path, content: dict[str, Any]) -> None:
        if content["kind"] != "unfinished":
            raise KeyboardInterrupt
        write(folder, content)

    write = saved.write
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saved, "write", killed)
        made.save(folder)
    for refuse in (evenhand.load, lambda place: saved.check(place, trusted=True, base=False)):
        with pytest.raises(EvenhandError, match="unfinished: its saving was interrupted; save the model again"):
            refuse(folder)
    assert recorded(evenhand.load(made.save(folder))) == made.training


def as_before(folder: Path, case: Case) -> None:
    """Make of an artefact or a saved model what the version before would have written."""
    for file in folder.rglob("evenhand.json"):
        content = json.loads(file.read_text())
        if "training" not in content:
            continue
        record = saved.training_of(file.parent)
        assert record is not None
        facts = {k: v for k, v in record.facts().items() if k not in ("base", "questions")}
        if content["kind"] == "student":
            (file.parent / "curve.json").write_text(json.dumps(facts.pop("curve")))
            rest = {k: v for k, v in content.items() if k != "training"}
            file.write_text(json.dumps({**rest, "version": 1, "facts": facts}))
            continue
        file.unlink()
        if case.id == "pcgu":
            delta = Delta.load(file.parent / "delta.safetensors")
            Delta(delta.vectors, {**facts, "base": "tiny"}).save(file.parent / "delta.safetensors")
        elif case.old == "priors.json":
            (file.parent / "priors.json").write_text(json.dumps(dict(record.results)))
        elif case.old == "training.json" and content["kind"] == "trained":
            (file.parent / "unlearning.json").write_text(json.dumps(facts))
        else:
            (file.parent / case.old).write_text(json.dumps(facts))


@kept
def test_what_was_trained_before_is_found_and_not_trained_again(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with artefacts(tmp_path):
        made = applied(case, case.model())
        (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
        as_before(folder, case)
        (tmp_path / f".{folder.name}.sha256").unlink()  # versions that wrote such files wrote no checksums
        assert not list(folder.rglob("evenhand.json")) or case.id == "permutation_distillation"
        monkeypatch.setattr(type(case.method), "train", lambda *_: pytest.fail("trained again"))
        again = case.method.apply(case.model(), DATA)
    assert again.fingerprint == made.fingerprint
    for key, value in told(made).items():
        assert key == "vectors" or told(again)[key] == value
    if case.id == "task_vector":
        one, two = (told(model)["vectors"][0] for model in (made, again))
        assert one == two and {"source", "texts", "held_out_texts", "norm", "curve"} <= set(one)


@every
def test_a_model_that_was_saved_before_is_opened_with_its_record(case: Case, tmp_path: Path) -> None:
    made = applied(case, case.model())
    folder = made.save(tmp_path / "saved")
    as_before(folder, case)
    again = evenhand.load(folder)
    if case.old == "priors.json":
        assert recorded(again).results == recorded(made).results and recorded(again).method == case.id
        assert isinstance(again, Mitigated) and isinstance(made, Mitigated)
        assert again._depends_on == made._depends_on and recorded(again).base.name is None
    else:
        assert told(again) == told(made) and recorded(again).settings is None
    resaved = again.save(tmp_path / "again")
    assert recorded(evenhand.load(resaved)) == again.training
    assert not {path.name for path in resaved.rglob("*")} & set(OLD)


# --------------------------------------------------------------------------------------- folders of somebody else


def trained(folder: Path, **training: Any) -> Path:
    """A plain model whose evenhand.json says something of its training."""
    causal().save(folder)
    content = {"version": 2, "kind": "trained", "training": {"method": "pcgu", **training}}
    (folder / "evenhand.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"method": "../../x"}, r"training\.method is '\.\./\.\./x'"),
        ({"curve": [{}] * 100_001}, "training.curve has 100001 rows"),
        ({"curve": [{"loss": "low"}]}, r"training\.curve\[0\]\.loss is 'low'"),
        ({"data": {"training": -3}}, r"training\.data\.training is -3"),
        ({"settings": 5}, r"training\.settings is 5"),
        ({"run": "me"}, "a key of training is 'run'"),
    ],
)
def test_a_record_that_nobody_writes_is_refused_before_anything_is_opened(
    training: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained(tmp_path / "m", **training)
    monkeypatch.setattr("evenhand.models.hugging_face.open_model", lambda *a, **k: pytest.fail("opened"))
    for allowed in ({}, {"trust_folder": True}):
        with pytest.raises(EvenhandError, match=message) as caught:
            evenhand.load(folder, **allowed)
        assert str(folder / "evenhand.json") in str(caught.value)


def test_a_file_larger_than_any_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = trained(tmp_path / "m", results={"x": "y" * 2000})
    monkeypatch.setattr("evenhand.models.json_files.LARGEST_FILE", 1000)
    with pytest.raises(EvenhandError, match=r"evenhand\.json: it has [\d,]+ bytes, more than 1,000"):
        evenhand.load(folder)


def test_a_record_opens_nothing_and_takes_the_place_of_no_fact(tmp_path: Path) -> None:
    lies = {"name": "other", "source": "/etc", "demo": True, "parameters": 1, "abilities": []}
    folder = trained(tmp_path / "m", base={"source": "/etc"}, settings={"text": "/etc/passwd"}, results=lies)
    plain = causal()
    facts = evenhand.load(folder).facts()
    assert (facts["source"], facts["demo"], facts["name"]) == (str(folder), False, "m")
    assert facts["parameters"] == plain.facts()["parameters"] and facts["method"] == "pcgu"


@pytest.mark.parametrize("content", ['["x"]', '{"steps": 3}', '{"method": 3}'])
def test_somebody_elses_file_of_the_name_of_an_old_one_is_no_record(content: str, tmp_path: Path) -> None:
    folder = causal().save(tmp_path / "m")
    for name in OLD:
        (folder / name).write_text(content)
    assert evenhand.load(folder).training is None


def test_an_old_file_that_names_a_method_is_checked(tmp_path: Path) -> None:
    folder = causal().save(tmp_path / "m")
    (folder / "unlearning.json").write_text(json.dumps({"method": "preference", "seconds": "long"}))
    with pytest.raises(EvenhandError, match=r"unlearning\.json is not as evenhand writes it: .*seconds is 'long'"):
        evenhand.load(folder)


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"priors": {"k": {"about": "2 positions", "prior": [0.5, "x"]}}, "fillings": []},
        {"priors": {"k": {"about": "2 positions", "prior": [0.5, -0.5]}}, "fillings": []},
        {"priors": {"k": {"about": 2, "prior": [0.5, 0.5]}}, "fillings": []},
        {"priors": [], "fillings": []},
        {"priors": {}, "fillings": [["N/A"]]},
        {"priors": {}, "fillings": [["N/A", [1]]]},
    ],
)
def test_priors_that_no_method_writes_are_refused(results: dict[str, Any], tmp_path: Path) -> None:
    folder = PriDe().apply(causal(), DATA).save(tmp_path / "saved")
    file = folder / "learned" / "evenhand.json"
    content = json.loads(file.read_text())
    content["training"]["results"] = results
    file.write_text(json.dumps(content))
    with pytest.raises(EvenhandError, match="no priors as evenhand writes them"):
        evenhand.load(folder)


def test_what_a_method_learned_is_no_model(tmp_path: Path) -> None:
    folder = PriDe().apply(causal(), DATA).save(tmp_path / "saved")
    with pytest.raises(SettingsError, match="contains what a method learned, not a model"):
        evenhand.load(folder / "learned")


# ------------------------------------------------------------------------------------------------------ in a stack


def test_a_stack_has_the_record_of_the_outermost_method_that_trains() -> None:
    one = PriDe(seed=1).apply(causal(), DATA)
    two = DomainCalibration(seed=3).apply(one, DATA)
    assert recorded(one).method == "pride" and recorded(two).method == "domain_calibration"
    untrained = PriDe().apply(causal())
    assert isinstance(untrained, Mitigated) and untrained.training is None
    assert PriDe().apply(two).training == two.training


def test_facts_of_a_method_have_its_own_record_and_no_other() -> None:
    one = PriDe(seed=1).apply(causal(), DATA)
    two = DomainCalibration(seed=3).apply(one, DATA._replace(questions=QUESTIONS[:12]))
    assert (one.facts()["questions"], one.facts()["method"], one.facts()["source"]) == (24, "pride(seed=1)", "memory")
    assert (two.facts()["questions"], two.facts()["name"]) == (12, two.name)
    assert two.facts()["parameters"] == causal().facts()["parameters"]


@every
def test_a_prompt_around_a_demo_model_that_was_trained_opens_with_nothing_allowed(case: Case, tmp_path: Path) -> None:
    made = applied(case, evenhand.load("demo-mlm" if case.model is masked else "demo"))
    stack = Instruction().apply(made)
    again = evenhand.load(stack.save(tmp_path / "stack"))
    assert (again.name, recorded(again)) == (f"{made.name}+instruction", made.training)
    assert answered(again) == answered(stack)
    assert again.facts()["training"] == recorded(made).facts()


def test_an_adapter_is_saved_with_the_base_that_the_caller_named(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    folder = Preference(epochs=1, batch_size=8).apply(causal(), DATA).save(tmp_path / "adapter")
    base = (folder / "base").rename(tmp_path / "elsewhere")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, base / name)
    opened = evenhand.load(folder, base=str(base))
    again = evenhand.load(opened.save(tmp_path / "again"))
    assert answered(again) == answered(opened)


def test_an_adapter_with_a_record_names_its_base_by_path_as_before(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    base = causal().save(tmp_path / "base")
    made = Preference(epochs=1, batch_size=8).apply(evenhand.load(base), DATA)
    assert recorded(made).base.source == str(base)
    folder = made.save(tmp_path / "adapter")
    assert not (folder / "base").exists()
    assert recorded(evenhand.load(folder)) == made.training
    outer = PriDe().apply(evenhand.load(folder), DATA).save(tmp_path / "outer")
    with pytest.raises(SettingsError, match="trust_folder=True"):
        evenhand.load(outer)
