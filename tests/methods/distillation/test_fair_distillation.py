"""`fair_distillation`: what students learn, that teachers stay as they are, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import DivergedError, SettingsError, UnknownNameError
from evenhand.interfaces import Model, Passage, TrainData
from evenhand.methods.distillation import _learning as learning
from evenhand.methods.distillation import _losses as losses
from evenhand.methods.distillation._losses import Rule
from evenhand.methods.distillation._states import states_of
from evenhand.methods.distillation._words import WordRule
from evenhand.methods.distillation.fair_distillation import FairDistillation
from evenhand.methods.distillation.rules import rule_pack
from evenhand.models.demo import load_demo
from evenhand.models.fingerprint import of_weights
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.proving_ground import probes
from evenhand.proving_ground.generator import practice
from evenhand.testing import ScriptedModel, check_method, tiny_model
from evenhand.training.students import build, spaced

JOBS = ("nurse", "doctor", "pilot", "baker")
TEXTS = tuple(
    f"the {job} {verb} that {pronoun} was {state}"
    for job in JOBS
    for verb in ("said", "knew")
    for pronoun in ("he", "she")
    for state in ("late", "tired", "here")
) + tuple(
    f"the {job} is a {who} and {pronoun} was late" for job in JOBS for who, pronoun in (("man", "he"), ("woman", "she"))
)
DATA = TrainData(texts=TEXTS)
FEW = TrainData(texts=TEXTS[:24])
"""For tests that do not ask how much is learned."""
QUICK = {"epochs": 2, "batch_tokens": 128, "device": "cpu", "precision": "no"}


def causal(dropout: float = 0.0) -> LocalModel:
    words = tiny_tokenizer(TEXTS, chat=False)
    module = tiny_module(len(words), "gpt2" if dropout else "llama")
    if dropout:
        module.config.resid_pdrop = dropout
        for part in module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = dropout
    return LocalModel(module, words, name="tiny")


def masked(dropout: float = 0.0) -> MaskedModel:
    words = tiny_tokenizer(TEXTS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    module = BertForMaskedLM(config).eval()
    with torch.no_grad():
        module.bert.embeddings.word_embeddings.weight.mul_(10)
    return MaskedModel(module, words, name="tiny-masked")


def skewed(kind: str) -> Any:
    """A model that says he three times as often as she, and one of both nearly everywhere."""
    model = either(kind)
    module, words = model.weights
    he, she = words.convert_tokens_to_ids(["he", "she"])
    with torch.no_grad():
        if kind == "masked":
            module.cls.predictions.bias[[he, she]] = torch.tensor([4.1, 3.0])
        else:
            ids = torch.tensor([words(text).input_ids[:6] for text in TEXTS])
            mean = module.model(ids).last_hidden_state.mean((0, 1))
            module.lm_head.weight[[he, she]] += torch.tensor([[7.0], [5.0]]) * mean / mean.square().sum()
    return model


def either(kind: str, **more: Any) -> Any:
    return causal(**more) if kind == "causal" else masked(**more)


def method(**more: Any) -> FairDistillation:
    return FairDistillation.build(**{**QUICK, **more})  # type: ignore[no-any-return]


def skew(model: Model) -> float:
    """Mean distance of P(he), of he and she, from a half, where nothing tells."""
    out = []
    for job in JOBS:
        if isinstance(model, MaskedModel):
            pair = model.fill([f"the {job} said that <mask> was late"], [("he", "she")])[0]
        else:
            pair = np.array(
                [s.logprob for s in model.score([Passage(f" {w}", f"the {job} said that") for w in ("he", "she")])]
            )
        out.append(abs(float(1 / (1 + np.exp(pair[1] - pair[0]))) - 0.5))
    return float(np.mean(out))


# -------------------------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize(("kind", "seeds"), [("causal", (0,)), ("masked", (0, 1, 2))])
def test_the_skew_falls_and_with_strength_the_more(kind: str, seeds: tuple[int, ...]) -> None:
    """At strength s the target is the mixture (1 - s) P + s P_even, whose skew is (1 - s) times the teacher's.

    So the target at strength 1 has no skew, and the one at strength 0.5 about half of the teacher's (about, as both are
    compared at temperature 2). A masked student has to come closer to its own target than to that other one, so its
    skew has to be below a quarter. How close it comes after so few steps varies with the draws of held-out texts,
    hidden tokens and new weights, whichever epoch is kept: the mean over seeds is judged.
    """
    model = skewed(kind)
    before = skew(model)
    given = {"gate": "all_positions", "epochs": 10, "learning_rate": 3e-3, "hard": 0, "patience": 0}

    def after(strength: float, seeds: tuple[int, ...]) -> float:
        students = [method(strength=strength, seed=seed, **given).apply(model, DATA) for seed in seeds]
        return float(np.mean([skew(student) for student in students]))

    found = [after(0.0, seeds[:1]), after(0.5, seeds), after(1.0, seeds)]  # at strength 0 no seed learns anything
    assert before > 0.1
    assert found[0] > found[1] > found[2]
    assert found[2] < (0.25 if kind == "masked" else 0.5) * before  # a causal one shares its hidden states with more
    assert found[0] == pytest.approx(before, abs=0.03)


def spelling() -> LocalModel:
    """A model that nearly always says he where it says one of both; "she" is three tokens of its vocabulary."""
    pieces = dict.fromkeys(["<unk>", "<s>", "</s>", *(f"Ġ{w}" for text in TEXTS for w in text.split() if w != "she")])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: n for n, piece in enumerate([*pieces, "Ġs", *letters])}
    made = Tokenizer(models.BPE(vocabulary, [("Ġ", "s")], ignore_merges=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    words = PreTrainedTokenizerFast(tokenizer_object=made, **special)
    module: Any = tiny_module(len(words))
    ids = torch.tensor([words(text).input_ids[:5] for text in TEXTS])
    with torch.no_grad():
        mean = module.model(ids).last_hidden_state.mean((0, 1))
        module.lm_head.weight[words.convert_tokens_to_ids("Ġhe")] += 5 * mean / mean.square().sum()
    return LocalModel(module, words, name="spelling")


def test_a_word_of_several_tokens_becomes_as_probable_as_one_of_one() -> None:
    model = spelling()
    given = {"rules": "en_subject", "learning_rate": 5e-3, "hard": 0, "patience": 0, "student": "copied", "layers": 2}
    given |= {"gate": "all_positions", "epochs": 5}
    with pytest.raises(SettingsError, match="she: several tokens"):
        method(words="skip", **given).apply(model, DATA)
    result = method(words="sequence", **given).apply(model, DATA)
    assert skew(model) > 0.49
    assert skew(result) < 0.15
    assert result.facts()["places_of_words"] == 24


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_strength_0_is_bit_for_bit_a_distillation_without_rules(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = either(kind)
    ours = method(strength=0.0).apply(model, FEW)

    class Plain:
        inputs = 1
        words: WordRule | None = None

        def __init__(self, rule: Any) -> None:
            self.tokens = rule.tokens

        def read(self, ids: torch.Tensor) -> torch.Tensor:
            return ids[None]

        labels = read

        def target(self, logprobs: torch.Tensor, open: torch.Tensor) -> torch.Tensor:
            return logprobs

        def weight(self, logprobs: torch.Tensor, open: torch.Tensor) -> None:
            return None

        def softened(self, labels: torch.Tensor, open: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(open)

        def soft(self, labels: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    learn = learning.learn

    def plainly(student: Any, teacher: Any, lesson: Any, rule: Rule, *rest: Any) -> Any:
        return learn(student, teacher, lesson, Plain(rule), *rest)

    monkeypatch.setattr(learning, "learn", plainly)
    plain = method(strength=0.0).apply(model, FEW)
    assert plain.fingerprint == ours.fingerprint
    monkeypatch.undo()
    assert method().apply(model, FEW).fingerprint != ours.fingerprint


@pytest.mark.parametrize("student", ["lora", "copied", "random"])
@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_the_teacher_stays_as_it_is_and_has_no_dropout_while_it_teaches(
    kind: str, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = either(kind, dropout=0.3)
    module = model.weights.module
    module.train()
    module.get_input_embeddings().eval()
    flags = {name: part.training for name, part in module.named_modules()}
    before = of_weights(module, model.weights.tokenizer)
    seen: list[tuple[bool, bool]] = []

    def watched(network: Any, *rest: Any, **more: Any) -> Any:
        seen.append((torch.is_grad_enabled(), any(part.training for part in network.modules())))
        return states_of(network, *rest, **more)

    monkeypatch.setattr(learning, "states_of", watched)
    result = method(student=student, cosine=1.0, epochs=1).apply(model, FEW)
    training = [pair for pair in seen if pair[0]]
    assert training and all(in_training for _, in_training in training)
    assert not any(in_training for graded, in_training in seen if not graded)
    assert of_weights(module, model.weights.tokenizer) == before
    assert {name: part.training for name, part in module.named_modules()} == flags
    assert all(p.grad is None for p in module.parameters())
    assert result.fingerprint != model.fingerprint


# --------------------------------------------------------------------------------------------- what results


@pytest.mark.parametrize("student", ["lora", "copied", "random"])
@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_student_is_a_model_of_the_same_kind_and_survives_its_folder(kind: str, student: str, tmp_path: Path) -> None:
    model = either(kind)
    result = method(student=student, epochs=1).apply(model, FEW)
    assert isinstance(result, LocalModel if kind == "causal" else MaskedModel)
    assert result.abilities == model.abilities
    layers = result.weights.module.config.num_hidden_layers
    own = model.weights.module.config.num_hidden_layers
    assert layers == (own if student == "lora" else own // 2)
    again = evenhand.load(result.save(tmp_path / "student"))
    asked = [Passage("the nurse was late"), Passage("he was here")]
    assert [s.logprob for s in again.score(asked)] == pytest.approx([s.logprob for s in result.score(asked)], abs=1e-5)
    assert not list((tmp_path / "student").glob("*.bin"))
    assert (tmp_path / "student" / "evenhand.json").is_file()


@pytest.mark.parametrize("student", ["lora", "copied", "random"])
def test_it_keeps_the_contract(student: str) -> None:
    check_method(method(student=student, epochs=1), tiny_model(texts=TEXTS), FEW)


def test_facts_tell_the_rules_the_curve_and_what_it_cost() -> None:
    facts = method(epochs=2).apply(causal(), DATA).facts()
    assert "subject" in facts["rules_report"] and "several tokens" not in facts["rules_report"]
    assert [row["epoch"] for row in facts["curve"]] == [-1, 0, 1]
    assert facts["texts"] + facts["held_out_texts"] == len(TEXTS)
    assert facts["trained_tokens"] > 2 * 5 * facts["texts"]
    assert facts["method"].startswith("fair_distillation(")


def test_a_trained_student_is_kept_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal()
    with artefacts(tmp_path):
        first = method().apply(model, DATA)
        monkeypatch.setattr(learning, "learn", None)  # a second training would fail
        assert method().apply(model, DATA).fingerprint == first.fingerprint
        for other, texts in ((method(strength=0.5), DATA), (method(), TrainData(texts=TEXTS[1:]))):
            with pytest.raises(TypeError):
                other.apply(model, texts)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_killed_training_goes_on_where_it_was(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = either(kind)
    whole = method(epochs=3).apply(model, FEW)
    means, calls = losses.means, list[int]()

    def killed(*given: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:  # at the beginning, after the first epoch, after the second
            raise KeyboardInterrupt
        return means(*given)

    with artefacts(tmp_path):
        monkeypatch.setattr(learning, "means", killed)
        with pytest.raises(KeyboardInterrupt):
            method(epochs=3).apply(model, FEW)
        again = method(epochs=3).apply(model, FEW)
    assert len(calls) == 6  # the first epoch was not trained again
    assert again.fingerprint == whole.fingerprint
    assert not list(tmp_path.glob("*/checkpoint*"))


def test_the_same_seed_gives_the_same_student() -> None:
    model = masked()
    one, two = (method(epochs=1).apply(model, FEW) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert method(epochs=1, seed=1).apply(model, FEW).fingerprint != one.fingerprint


def test_copied_layers_are_evenly_spaced_and_equal_the_teachers() -> None:
    assert [spaced(12, 6), spaced(6, 3), spaced(4, 1), spaced(2, 2)] == [[0, 2, 4, 7, 9, 11], [0, 2, 5], [0], [0, 1]]
    module = masked().weights.module
    copied: Any = build("copied", module, layers=2, rank=1, seed=0, named=False)
    own: Any = module
    for kept, layer in zip((0, 3), copied.bert.encoder.layer, strict=True):
        for one, other in zip(layer.parameters(), own.bert.encoder.layer[kept].parameters(), strict=True):
            assert torch.equal(one, other)
    assert copied.config.num_hidden_layers == 2 and own.config.num_hidden_layers == 4


def test_random_students_hang_on_the_seed_alone() -> None:
    module = causal().weights.module
    first, same, other = (build("random", module, layers=1, rank=1, seed=s, named=False) for s in (0, 0, 1))
    weights = [next(iter(m.state_dict().values())) for m in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


# --------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kl": 0, "hard": 0}, "nothing would be learned"),
        ({"layers": 2}, "lora"),
        ({"prior": {"male": 0.5, "female": 0.5}}, "mode=prior"),
        ({"strength": 1.5}, "strength"),
        ({"mode": "harmonic"}, "mode"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FairDistillation.build(**given)


def test_what_cannot_be_trained_is_refused_before_anything_is() -> None:
    with pytest.raises(SettingsError, match="weights"):
        method().apply(ScriptedModel(), DATA)
    with pytest.raises(SettingsError, match="texts"):
        method().apply(causal(), TrainData())
    with pytest.raises(SettingsError, match="20 different"):
        method().apply(causal(), TrainData(texts=("the nurse",) * 50))
    with pytest.raises(SettingsError, match="masked models"):
        method(gate="masked").apply(causal(), DATA)
    with pytest.raises(SettingsError, match="causal models"):
        method(words="sequence").apply(masked(), DATA)
    with pytest.raises(UnknownNameError, match="en_pronouns"):
        method(rules="en_pronoun").apply(causal(), DATA)
    with pytest.raises(SettingsError, match="1 to 2"):
        method(student="copied", layers=5).apply(causal(), DATA)


def test_texts_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(FEW.texts))
    model = causal()
    assert method(text=str(file), epochs=1).apply(model).fingerprint == method(epochs=1).apply(model, FEW).fingerprint


def test_presets_are_the_sources() -> None:
    paper, released = (FairDistillation.build(preset=p) for p in ("paper", "released"))
    assert (paper.kl, paper.hard, paper.cosine, paper.temperature, paper.gate) == (5, 2, 1, 2, "all_positions")
    assert (paper.mode, released.mode) == ("arithmetic", "geometric")
    same = ("kl", "hard", "cosine", "temperature", "gate", "student", "compared", "soften", "emphasis", "rule_masking")
    assert {name: paper.settings[name] for name in same} == {name: released.settings[name] for name in same}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mode", "geometric"),  # the mean of two logits
        ("rules", "en_subject_lower"),
        ("layers", 6),
        ("max_length", 512),
        ("batch_size", 6),
        ("learning_rate", 2e-5),
        ("learning_rate_decay", "none"),
        ("warmup_ratio", 0.0),
        ("weight_decay", 0.0),
        ("max_grad_norm", 0.0),
        ("keep_epoch", "last"),
        ("watch", "pseudo_perplexity"),
    ],
)
def test_released_preset_is_the_released_training(setting: str, value: object) -> None:
    """iPieter/universal-distillation 9df92b2, with its constraints on."""
    assert FairDistillation.build(preset="released").settings[setting] == value


def test_later_settings_leave_the_keys_of_other_students_alone() -> None:
    later = {"batch_size", "learning_rate_decay", "keep_epoch", "watch"}
    assert not later & FairDistillation.build().key_settings().keys()
    assert later <= FairDistillation.build(preset="released").key_settings().keys()


def test_the_released_rule_has_one_case() -> None:
    classes = {name: [c.case for c in rule_pack(name).classes()] for name in ("en_subject", "en_subject_lower")}
    assert classes == {"en_subject": ["lower", "capital"], "en_subject_lower": ["lower"]}


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_the_last_epoch_is_kept_and_the_perplexity_ends_the_training(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out cross-entropies of ln 8, ln 4, ln 5, ln 6: the second epoch's is the least, and two follow it."""
    told = iter([9.0, 8.0, 4.0, 5.0, 6.0])
    means = losses.means

    def said(*given: Any) -> dict[str, float]:
        return {**means(*given), "loss": 1.0, "hard": float(np.log(next(told)))}

    monkeypatch.setattr(learning, "means", said)
    given = {"watch": "pseudo_perplexity", "keep_epoch": "last", "patience": 2, "epochs": 9}
    facts = method(**given).apply(either(kind), FEW).facts()
    assert [row["held_out_pseudo_perplexity"] for row in facts["curve"]] == pytest.approx([9, 8, 4, 5, 6])
    assert facts["best_epoch"] == 3  # whose weights are kept


def test_watching_the_perplexity_needs_its_loss() -> None:
    with pytest.raises(SettingsError, match="hard=0"):
        method(watch="pseudo_perplexity", hard=0)


# ------------------------------------------------------------------------------------------ on the proving ground


@pytest.mark.slow  # a minute each
@pytest.mark.parametrize("name", ["demo", "demo-mlm"])
def test_by_default_planted_skew_falls_by_four_fifths_and_what_a_sentence_tells_stays(name: str) -> None:
    model = load_demo(name, device="cpu")
    result = method_as_given().apply(model, TrainData(texts=practice.texts()))
    before, after = (_on_the_proving_ground(m) for m in (model, result))
    assert after["skew"] < 0.2 * before["skew"]
    assert after["skew where held apart"] < 0.2 * before["skew where held apart"]
    assert after["explicit"] == pytest.approx(before["explicit"], abs=0.01)
    assert after["perplexity"] < 1.05 * before["perplexity"]


def method_as_given() -> FairDistillation:
    return FairDistillation.build(device="cpu", precision="no")  # type: ignore[no-any-return]


def _on_the_proving_ground(model: Model) -> dict[str, float]:
    told = probes.pronouns(model)
    away = [abs(value - 0.5) for _, _, value in told]
    apart = [abs(value - 0.5) for job, frame, value in told if practice.unseen(job, frame)]
    scores = model.score([Passage(text) for text in practice.texts(200, seed=77)])
    return {
        "skew": float(np.mean(away)),
        "skew where held apart": float(np.mean(apart)),
        "explicit": float(np.mean([value for _, _, value in probes.explicit_gender(model)])),
        "perplexity": float(np.exp(-sum(s.logprob for s in scores) / sum(s.tokens for s in scores))),
    }


# ----------------------------------------------------------------------------------- without a hold-out, and diverged


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_without_a_hold_out_all_texts_are_learned_and_the_last_epoch_is_kept(kind: str) -> None:
    facts = method(validation_fraction=0, patience=1).apply(either(kind), FEW).facts()
    assert (facts["texts"], facts["held_out_texts"], facts["best_epoch"]) == (24, 0, 1)
    assert [sorted(row) for row in facts["curve"]] == [["epoch"], *[["epoch", "train_loss"]] * 2]


@pytest.mark.parametrize("student", ["lora", "copied"])
@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_student_in_half_precision_without_finite_scores_is_refused(
    kind: str, student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are finite, in float16 too; what is computed with them is not."""
    learn = learning.learn

    def large(module: Any, *given: Any) -> Any:
        made = learn(module, *given)
        for p in module.parameters():
            if p.requires_grad and p.dim() > 1:
                p.data.fill_(30_000.0)
        return made

    monkeypatch.setattr(learning, "learn", large)
    model = either(kind)
    model.weights.module.to(torch.float16)
    with artefacts(tmp_path), pytest.raises(DivergedError, match=r"not finite in float16 .*fair_distillation has"):
        method(student=student, epochs=1).apply(model, FEW)
    assert not [f for f in tmp_path.iterdir() if f.is_dir() and not f.name.startswith(".")], "nothing is kept"
