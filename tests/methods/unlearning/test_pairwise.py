"""`pairwise` end to end: it takes a planted bias out of pairs that it never saw, and stops at parity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.core.registry import build_method
from evenhand.errors import SettingsError
from evenhand.experiment.training_sources import load
from evenhand.interfaces import Model, Pair, Passage, TrainData
from evenhand.methods.unlearning import _choosing as choosing
from evenhand.methods.unlearning._pairwise.parity import by_axis
from evenhand.methods.unlearning._pairwise.run import FARTHEST, NEAREST, Run
from evenhand.methods.unlearning._pairwise.sequence_nll import as_reference
from evenhand.methods.unlearning.pairwise import Pairwise
from evenhand.models.fingerprint import of_weights
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.testing import ScriptedModel

JOBS = ("nurse", "doctor", "pilot", "baker", "clerk", "guard")
STATES = ("late", "tired", "here", "there", "sad", "glad")
PAIRS = tuple(
    Pair(f" he was {state}", f" she was {state}", f"the {job} said that", axis="ab"[n % 2], id=f"{job} {state}")
    for n, job in enumerate(JOBS)
    for state in STATES
)
TRAIN, UNSEEN = PAIRS[:-12], PAIRS[-12:]
TEXTS = tuple(f"the {job} was {state}" for job in JOBS[:3] for state in STATES)
DATA = TrainData(pairs=TRAIN, texts=TEXTS)
QUICK = {
    "learning_rate": 1e-2,
    "batch_size": 8,
    "validation_fraction": 0.25,
    "retain_batch_size": 8,
    "warmup_ratio": 0.1,
}
PRESETS = ("dpo", "cda", "equalise", "npo", "simnpo", "biasunlearn", "biasunlearn_released")


@pytest.fixture(scope="module")
def biased() -> LocalModel:
    """A model that was taught to say "he"."""
    words = tiny_tokenizer([f"{p.prompt}{p.stereotyped}{p.counter_stereotyped}" for p in PAIRS], chat=False)  # type: ignore[arg-type]
    fresh = LocalModel(tiny_module(len(words), scale=1.0), words, name="tiny")
    teach = Pairwise.build(lm_weight=1, stop="none", **{**QUICK, "steps": 24, "validation_fraction": 0})
    made = teach.apply(fresh, TrainData(pairs=tuple(map(mirrored, PAIRS))))
    assert isinstance(made, LocalModel) and choosing.log_odds(made, PAIRS) > 1.5
    return made


def built(preset: str, **more: Any) -> Pairwise:
    return Pairwise.build(**{"preset": preset, **QUICK, "steps": 24, "check_steps": 2, "patience": 3, **more})  # type: ignore[no-any-return]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_takes_the_planted_bias_out_of_unseen_pairs(preset: str, biased: LocalModel) -> None:
    before, weights = choosing.log_odds(biased, UNSEEN), of_weights(*biased.weights)
    # a few pairs that are much alike have a share of preferred sides of 0 or 1 only
    made = built(preset, measure="probability").apply(biased, DATA)
    assert abs(choosing.log_odds(made, UNSEEN)) < before / 2
    assert of_weights(*biased.weights) == weights


def mirrored(pair: Pair) -> Pair:
    return pair._replace(stereotyped=pair.counter_stereotyped, counter_stereotyped=pair.stereotyped)


def test_shuffled_sides_teach_no_direction(biased: LocalModel) -> None:
    """Half of the pairs the other way round, all in every step: no direction is left."""
    shuffled = tuple(mirrored(p) if (n + n // 6) % 2 else p for n, p in enumerate(TRAIN))
    before = choosing.log_odds(biased, UNSEEN)
    real, control = (
        built("dpo", stop="none", steps=8, batch_size=24, validation_fraction=0, learning_rate=3e-3).apply(
            biased, TrainData(pairs=pairs)
        )
        for pairs in (TRAIN, shuffled)
    )
    assert choosing.log_odds(real, UNSEEN) < before - 1
    assert abs(choosing.log_odds(control, UNSEEN) - before) < 0.5


def test_training_ends_at_parity_on_validation_pairs_and_the_nearest_check_is_kept(biased: LocalModel) -> None:
    slow = {"tolerance": 5.0, "steps": 60, "check_steps": 1, "learning_rate": 1e-3}
    record = built("dpo", **slow).apply(biased, DATA).training
    assert record is not None
    curve = record.curve
    assert curve[0]["epoch"] == -1 and _points(curve[0]) > 20  # before training
    assert _points(curve[-1]) < 5 < min(_points(row) for row in curve[:-1])
    assert record.best_epoch == len(curve) - 2 and record.steps == len(curve) - 1 < 60
    assert set(by_axis({k: v for k, v in curve[0].items() if v is not None})) == {"a", "b"}
    again = (
        built("dpo", **{**slow, "stop": "none", "check_steps": 60, "learning_rate": 3e-3}).apply(biased, DATA).training
    )
    assert again is not None and again.steps == 60
    assert (again.curve[-1]["parity_distance"] or 0) < -20  # without the stop it turns the bias around


def test_swapping_ends_with_every_axis_near_parity(biased: LocalModel) -> None:
    made = built("biasunlearn", tolerance=8.0, steps=60, dropout=0.0, learning_rate=5e-3, patience=0).apply(
        biased, DATA
    )
    record = made.training
    assert record is not None
    assert record.curve[-1][FARTHEST] is not None and (record.curve[-1][FARTHEST] or 0) < 8
    assert record.results["retained_texts"] == len(TEXTS)


def test_a_model_at_parity_stays_as_it_is(biased: LocalModel) -> None:
    made = built("dpo", tolerance=60.0).apply(biased, DATA)
    assert made.training is not None and (made.training.steps, made.training.best_epoch) == (0, -1)
    assert scored(made) == pytest.approx(scored(biased), abs=1e-5)


def _points(row: Mapping[str, float | None]) -> float:
    found = row[NEAREST]
    assert found is not None
    return found


def scored(model: Model) -> list[float]:
    return [s.logprob for s in model.score([Passage(p.counter_stereotyped, p.prompt) for p in PAIRS])]


def test_a_term_of_weight_0_changes_no_bit(biased: LocalModel) -> None:
    plain = built("npo", steps=6).apply(biased, TrainData(pairs=TRAIN))
    none = dict.fromkeys(("retain_kl_weight", "retain_lm_weight", "gap_weight", "ga_weight", "reward_weight"), 0.0)
    zero = built("npo", steps=6, **none).apply(biased, DATA)
    assert of_weights(*plain.weights) == of_weights(*zero.weights)
    other = built("npo", steps=6, retain_kl_weight=0.5).apply(biased, DATA)
    assert of_weights(*plain.weights) != of_weights(*other.weights)


def test_parts_of_a_step_give_its_result(biased: LocalModel) -> None:
    every = [
        built("biasunlearn", steps=4, dropout=0.0, gradient_accumulation_steps=parts).apply(biased, DATA)
        for parts in (1, 4)
    ]
    first, *others = [scored(made) for made in every]
    for found in others:
        assert found == pytest.approx(first, abs=2e-4)
    assert first != pytest.approx(scored(biased), abs=1e-2)


def test_the_reference_has_no_adapter_and_no_dropout_and_is_scored_once(
    biased: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = Run._sums

    def sums(self: Run, network: Any, rows: Any) -> Any:
        if not torch.is_grad_enabled() and rows is self.lesson.train:
            seen.append(len(rows))
            assert not any(part.training for part in network.modules())
        return real(self, network, rows)

    monkeypatch.setattr(Run, "_sums", sums)
    method = built("dpo", steps=4, dropout=0.5)
    lesson = method.prepared(biased, DATA)
    method.apply(biased, DATA)
    assert seen == [len(lesson.train)]


def test_the_reference_leaves_the_adapter_as_it_was(biased: LocalModel) -> None:
    made = built("dpo", steps=4).apply(biased, DATA)
    module = made.weights.module.train()
    ids = torch.tensor([[1, 5, 6]])
    with as_reference(module):
        found = module(input_ids=ids).logits
        assert not module.training and not torch.is_grad_enabled()
    assert module.training and torch.is_grad_enabled()
    module.eval()
    with torch.no_grad():
        assert not torch.allclose(found, module(input_ids=ids).logits)
        base = biased.weights.module(input_ids=ids).logits
    assert torch.allclose(found, base, atol=1e-5)


def test_a_killed_training_continues_with_the_turn_that_its_curve_gives(
    biased: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = built("biasunlearn", steps=12, dropout=0.0, tolerance=0.01)
    with artefacts(tmp_path / "whole"):
        whole = method.apply(biased, DATA)
    calls, real = {"n": 0}, Run.loss

    def killed(self: Run, *args: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == 8:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Run, "loss", killed)
    with artefacts(tmp_path / "halves"):
        with pytest.raises(KeyboardInterrupt):
            method.apply(biased, DATA)
        made = method.apply(biased, DATA)
    assert calls["n"] == 8 + 12 - 6  # three rounds of two steps were finished
    assert made.training is not None and whole.training is not None
    assert made.training.curve == whole.training.curve
    assert of_weights(*made.weights) == of_weights(*whole.weights)


def test_a_result_is_saved_and_opened(biased: LocalModel, tmp_path: Path) -> None:
    made = built("equalise", steps=6).apply(biased, DATA)
    opened = evenhand.load(made.save(tmp_path / "saved"))
    assert scored(opened) == pytest.approx(scored(made), abs=1e-5)
    assert opened.training == made.training


def test_what_cannot_be_trained_is_refused(biased: LocalModel) -> None:
    for given, message in (
        ({"dpo_weight": 0}, "no loss of pairs or questions has a weight"),
        ({"validation_fraction": 0}, "set stop=none"),
        ({"swap": True, "stop": "none"}, "leave stop=none out"),
        ({"gradient_accumulation_steps": 3}, "gradient_accumulation_steps=3"),
        ({"preset": "expected_reward", "stop": "parity"}, "set stop=none"),
    ):
        with pytest.raises(SettingsError, match=message):
            Pairwise.build(**given)
    with pytest.raises(SettingsError, match="needs weights"):
        Pairwise.build().apply(ScriptedModel(), DATA)
    with pytest.raises(SettingsError, match="needs pairs"):
        Pairwise.build().apply(biased, TrainData(texts=TEXTS))
    with pytest.raises(SettingsError, match="needs texts that have nothing to do with the bias"):
        Pairwise.build(preset="biasunlearn").apply(biased, TrainData(pairs=TRAIN))
    with pytest.raises(SettingsError, match="needs multiple-choice questions"):
        Pairwise.build(preset="expected_reward").apply(biased, DATA)
    with pytest.raises(SettingsError, match="no pairs about c; the training data has: a, b"):
        Pairwise.build(axes=("c",)).apply(biased, DATA)
    with pytest.raises(
        SettingsError, match=r"at least 20 different pairs of at most .* tokens, not 2: of 6 pairs, 4 rep"
    ):
        Pairwise.build().apply(biased, TrainData(pairs=TRAIN[:2] * 3))


def test_the_values_of_the_sources() -> None:
    ours = Pairwise.build(preset="biasunlearn")
    assert (ours.npo_weight, ours.lm_weight, ours.retain_kl_weight, ours.dpo_weight) == (0.5, 0.3, 0.2, 0)
    assert (ours.rank, ours.alpha, ours.dropout, ours.beta, ours.learning_rate) == (8, 16, 0.1, 0.1, 4e-5)
    assert (ours.batch_size, ours.retain_batch_size, ours.steps, ours.max_length) == (4, 28, 1000, 100)
    assert ours.warmup_ratio * 1000 == 10 and ours.tolerance == 2 and ours.adversarial_fraction == 0.25
    released = Pairwise.build(preset="biasunlearn_released")
    assert (released.npo_form, released.retain_kl_form, released.measure) == (
        "batch_mean",
        "cross_entropy",
        "stereotype_score",
    )
    simnpo = Pairwise.build(preset="simnpo")
    assert (simnpo.simnpo_weight, simnpo.simnpo_beta, simnpo.simnpo_delta, simnpo.lm_weight) == (0.125, 4.5, 0, 1)
    assert Pairwise.build(preset="expected_reward").reward_beta == 0.04


# -------------------------------------------------------------------------------------------------------- the demo

DEMO = {
    "dpo": "learning_rate=0.0005",
    "cda": "learning_rate=0.0005",
    "equalise": "learning_rate=0.0005",
    "npo": "learning_rate=0.0003",
    "simnpo": "learning_rate=0.0005",
    "biasunlearn": "learning_rate=0.0005,steps=150",
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", DEMO)
def test_planted_bias_of_the_demo_falls_on_unseen_pairs(preset: str) -> None:
    data = load("demo:pairs & demo:texts").data
    unseen = [p for p in data.pairs if p.axis == "Age"][-40:]
    model = evenhand.load("demo")
    before = choosing.log_odds(model, unseen)
    seen = data._replace(pairs=tuple(p for p in data.pairs if p not in unseen))
    made = build_method(f"pairwise(preset={preset},check_steps=10,epochs=1,{DEMO[preset]})").apply(model, seen)
    assert before > 1 and abs(choosing.log_odds(made, unseen)) < before - 0.4


@pytest.mark.slow
def test_shuffled_pairs_of_the_demo_teach_nothing() -> None:
    random, data = Random(0), load("demo:pairs").data
    unseen = [p for p in data.pairs if p.axis == "Age"][-40:]
    shuffled = tuple(mirrored(p) if random.random() < 0.5 else p for p in data.pairs if p not in unseen)
    model = evenhand.load("demo")
    before = choosing.log_odds(model, unseen)
    method = build_method("pairwise(preset=dpo,stop=none,epochs=1,learning_rate=0.0005)")
    made = method.apply(model, TrainData(pairs=shuffled))
    assert abs(choosing.log_odds(made, unseen) - before) < 0.4


@pytest.mark.slow
def test_expected_reward_raises_the_reward_of_held_out_questions_and_lowers_the_bias() -> None:
    data, pairs = load("demo:bbq:600").data, load("demo:pairs").data.pairs
    unseen = [p for p in pairs if p.axis == "Age"][:40]
    model = evenhand.load("demo")
    before = choosing.log_odds(model, unseen)
    method = build_method("pairwise(preset=expected_reward,steps=60,check_steps=20,learning_rate=0.001)")
    made = method.apply(model, data)
    assert made.training is not None
    rewards = [row["held_out_reward"] for row in made.training.curve]
    assert None not in rewards and (rewards[-1] or math.nan) > (rewards[0] or math.nan) + 0.1
    assert choosing.log_odds(made, unseen) < before - 0.2
