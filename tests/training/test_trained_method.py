"""`TrainedMethod`: how short a new method is, and what its base class takes care of."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import DivergedError
from evenhand.interfaces import Model, OverlapRemoved, Passage, TrainData, TrainedOn
from evenhand.models.fingerprint import of_weights
from evenhand.models.tiny import tiny_model
from evenhand.prompting.remarks import remark, remarked
from evenhand.testing import check_method
from evenhand.training import Fitted
from evenhand.training.finite import probes, refuse_broken
from evenhand.training.loop import Training


def shown(file: str) -> ModuleType:
    """A plugin that docs/plugins.md shows, as a module."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text()
    (code,) = re.findall(rf"```python\n# {re.escape(file)}\n(.*?)```", page, flags=re.DOTALL)
    module = ModuleType(file.removesuffix(".py"))
    sys.modules[module.__name__] = module  # where pydantic looks up the types of settings
    exec(compile(code, f"docs/plugins.md: {file}", "exec"), vars(module))  # our own page
    return module


PLUGIN = vars(shown("imitation.py"))
Imitation: Any = PLUGIN["Imitation"]


TEXTS = tuple(f"There was {a} little {b} upon the {c}" for a in "abc" for b in ("dog", "cat") for c in ("time", "once"))
DATA = TrainData(texts=TEXTS)


def likely(model: Model) -> float:
    return sum(s.logprob for s in model.score([Passage(text) for text in TEXTS]))


def test_a_new_method_trains_saves_and_is_found_again(tmp_path: Path) -> None:
    model = tiny_model()
    before, weights = likely(model), of_weights(*model.weights)
    with artefacts(tmp_path / "kept"):
        made = Imitation().apply(model, DATA)
        again = Imitation().apply(model, DATA)
    assert likely(made) > before + 10 and of_weights(*model.weights) == weights
    assert made.name == "tiny-llama+imitation" and made.fingerprint == again.fingerprint != model.fingerprint
    (kept,) = [f for f in (tmp_path / "kept").iterdir() if f.is_dir()]
    assert not list(kept.glob("checkpoint*"))
    opened = evenhand.load(made.save(tmp_path / "saved"))
    assert likely(opened) == pytest.approx(likely(made), abs=1e-4)


def test_the_record_says_what_the_method_knows_and_what_the_kit_knows(tmp_path: Path) -> None:
    removed = OverlapRemoved(questions=5, texts=3, pairs=2)
    model = tiny_model()
    made = Imitation(epochs=2, seed=7).apply(model, DATA._replace(overlap_removed=removed))
    record = made.training
    assert record is not None
    assert (record.method, record.spec, record.seed) == ("imitation", "imitation(epochs=2,seed=7)", 7)
    assert record.settings == {"epochs": 2, "learning_rate": 1e-2, "validation_fraction": 0.25, "seed": 7}
    assert (record.base.name, record.base.fingerprint) == (model.name, model.fingerprint)
    assert record.data == TrainedOn(unit="texts", training=9, validation=3, overlap_removed=3)
    assert record.epochs == 2 and len(record.curve) == 2 and record.best_epoch in (0, 1)
    assert record.results == {"rank": 4} and "torch" in record.versions
    assert evenhand.load(made.save(tmp_path / "saved")).training == record


def test_nothing_need_be_held_out() -> None:
    record = Imitation(epochs=2, validation_fraction=0).apply(tiny_model(), DATA).training
    assert record is not None and record.data == TrainedOn(unit="texts", training=12, validation=0)
    assert record.best_epoch == 1 and [sorted(row) for row in record.curve] == [["epoch", "train_loss"]] * 2


def test_held_out_texts_may_fill_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = TrainData(texts=tuple(f"{text} {n}" for text in TEXTS for n in range(4)))
    sizes: list[int] = []
    real = PLUGIN["pack"]

    def small(sequences: Any, layout: Any, **given: Any) -> Any:
        batches = real(sequences, layout, **(given or {"length": 8, "tokens": 8}))  # those of the training say it
        sizes.append(len(batches))
        return batches

    monkeypatch.setitem(PLUGIN, "pack", small)
    curve = Imitation(epochs=2, validation_fraction=0.5).apply(tiny_model(), texts).training.curve
    monkeypatch.setitem(PLUGIN, "pack", real)
    whole = Imitation(epochs=2, validation_fraction=0.5).apply(tiny_model(), texts).training.curve
    assert sizes[0] > 3, "the held-out texts are packed first"
    assert [row["held_out_loss"] for row in curve] == pytest.approx([row["held_out_loss"] for row in whole], rel=0.1)


def test_what_a_method_reads_by_itself_was_not_compared_with_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Imitation.train

    def own(self: Imitation, *given: Any) -> Fitted:
        made = real(self, *given)
        return made._replace(known={**made.known, "data": TrainedOn(unit="texts", source="own.txt", training=9)})

    monkeypatch.setattr(Imitation, "train", own)
    made = Imitation(epochs=1).apply(tiny_model(), DATA._replace(overlap_removed=OverlapRemoved(texts=3)))
    assert made.training is not None and made.training.data.overlap_removed is None


def test_it_keeps_the_contract_of_methods() -> None:
    check_method(Imitation(epochs=1), tiny_model(), DATA)


def test_nothing_is_trained_twice_and_everything_that_decides_is_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    real = Imitation.train
    monkeypatch.setattr(Imitation, "train", lambda self, *given: (trained.append(self.spec), real(self, *given))[1])
    with artefacts(tmp_path):
        Imitation(epochs=1).apply(tiny_model(), DATA)
        Imitation(epochs=1).apply(tiny_model(), DATA)
        assert len(trained) == 1
        Imitation(epochs=1, seed=1).apply(tiny_model(), DATA)
        Imitation(epochs=1).apply(tiny_model(), TrainData(texts=TEXTS[1:]))
        Imitation(epochs=1).apply(tiny_model(seed=1), DATA)
        assert len(trained) == 4
        monkeypatch.setattr(Imitation, "training_version", 2)
        Imitation(epochs=1).apply(tiny_model(), DATA)
        assert len(trained) == 5


def test_a_killed_training_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Imitation().apply(tiny_model(), DATA)
    real, epochs = Training._epoch, []

    def dying(self: Any, processes: Any, optimizer: Any, epoch: int) -> float:
        epochs.append(epoch)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return real(self, processes, optimizer, epoch)

    monkeypatch.setattr(Training, "_epoch", dying)
    with artefacts(tmp_path):
        with pytest.raises(KeyboardInterrupt):
            Imitation().apply(tiny_model(), DATA)
        made = Imitation().apply(tiny_model(), DATA)
    assert epochs == [0, 1, 1, 2] and made.fingerprint == whole.fingerprint


def test_a_result_without_finite_logits_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Imitation.train

    def diverged(self: Imitation, *given: Any) -> Fitted:
        made = real(self, *given)
        for name, p in made.module.named_parameters():
            if "lora_B" in name:
                p.data.fill_(1e30)
        return made

    monkeypatch.setattr(Imitation, "train", diverged)
    with (
        artefacts(tmp_path),
        pytest.raises(DivergedError, match=r"not finite in float32 with what imitation has trained: take a lower"),
    ):
        Imitation(epochs=1).apply(tiny_model(), DATA)
    assert not [f for f in tmp_path.iterdir() if f.is_dir() and not f.name.startswith(".")]


def test_remarks_stay_with_the_result_and_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Imitation.train

    def noted(self: Imitation, *given: Any) -> Fitted:
        remark("the texts are few")
        return real(self, *given)

    monkeypatch.setattr(Imitation, "train", noted)
    with artefacts(tmp_path):
        with pytest.warns(UserWarning, match="the texts are few"):
            made = Imitation(epochs=1).apply(tiny_model(), DATA)
        with remarked() as heard, pytest.warns(UserWarning, match="the texts are few"):
            Imitation(epochs=1).apply(tiny_model(), DATA)
    assert made.facts()["remarks"] == heard == ["the texts are few"]


def test_without_remarks_there_are_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert "remarks" not in Imitation(epochs=1).apply(tiny_model(), DATA).facts()


def test_what_was_not_finite_before_is_not_the_trainings_fault() -> None:
    model = tiny_model()
    broken = tiny_model()
    broken.weights.module.get_input_embeddings().weight.data.fill_(float("nan"))
    texts = probes(model.weights.tokenizer, 64)
    refuse_broken(broken.weights.module, broken.weights.module, texts, "")
    with pytest.raises(DivergedError, match="with the training: lower"):
        refuse_broken(broken.weights.module, model.weights.module, texts, "lower", what="the training")
