"""`counterfactual_distillation`: groups become equal where nothing tells them apart, and stay where something does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import evenhand
from evenhand.errors import SettingsError
from evenhand.interfaces import Passage, TrainData
from evenhand.methods.distillation.counterfactual_distillation import CounterfactualDistillation
from evenhand.models.fingerprint import of_weights
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_tokenizer
from evenhand.testing import check_method, tiny_model

JOBS = ("nurse", "doctor", "pilot", "baker", "cook")
TEXTS = tuple(
    f"the {job} {verb} that {pronoun} was late"
    for job in JOBS
    for verb in ("said", "knew", "saw")
    for pronoun in ("he", "she")
)
DATA = TrainData(texts=TEXTS)


def masked() -> MaskedModel:
    """Says he three times as often as she."""
    words = tiny_tokenizer(TEXTS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    module: Any = BertForMaskedLM(config).eval()
    he, she = (int(words.vocab[word]) for word in ("he", "she"))
    with torch.no_grad():
        module.bert.embeddings.word_embeddings.weight.mul_(10)
        module.cls.predictions.bias[[he, she]] = torch.tensor([4.1, 3.0])
    return MaskedModel(module, words, name="tiny-masked")


def method(**more: Any) -> CounterfactualDistillation:
    given = {"epochs": 10, "batch_tokens": 128, "device": "cpu", "learning_rate": 5e-3, "hard": 0, "patience": 0}
    return CounterfactualDistillation.build(**{**given, **more})  # type: ignore[no-any-return]


def skew(model: Any) -> float:
    pairs = np.array(model.fill([f"the {job} said that <mask> was late" for job in JOBS], [("he", "she")] * len(JOBS)))
    return float(np.mean(np.abs(1 / (1 + np.exp(pairs[:, 1] - pairs[:, 0])) - 0.5)))


def test_the_skew_falls_and_the_teacher_stays(tmp_path: Path) -> None:
    model = masked()
    before, own = skew(model), of_weights(model.weights.module, model.weights.tokenizer)
    result = method().apply(model, DATA)
    assert before > 0.1
    assert skew(result) < 0.35 * before
    assert of_weights(model.weights.module, model.weights.tokenizer) == own
    again = evenhand.load(result.save(tmp_path / "student"))
    assert skew(again) == pytest.approx(skew(result), abs=1e-5)
    assert "he <->  she" in result.facts()["rules_report"]


def test_it_keeps_the_contract() -> None:
    check_method(method(epochs=1), tiny_model(texts=TEXTS), DATA)


def test_strength_0_leaves_the_skew() -> None:
    model = masked()
    assert skew(method(strength=0.0, epochs=2).apply(model, DATA)) == pytest.approx(skew(model), abs=0.03)


def test_causal_models_are_students_too() -> None:
    model = tiny_model(texts=TEXTS, chat=False)
    result = method(epochs=1).apply(model, DATA)
    assert result.abilities == model.abilities
    assert result.score([Passage("the nurse was late")])[0].tokens == 4
    assert result.fingerprint != model.fingerprint


def test_a_list_of_swaps_may_be_a_file_and_its_content_counts(tmp_path: Path) -> None:
    file = tmp_path / "swaps.txt"
    file.write_text("nurse doctor\n")
    one = method(swaps=str(file))
    before = one.rule_hash
    file.write_text("nurse pilot\n")
    assert one.rule_hash != before
    with pytest.raises(SettingsError, match="is not a file"):
        method(swaps="fr").apply(masked(), DATA)
