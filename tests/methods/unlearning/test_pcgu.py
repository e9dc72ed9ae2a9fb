"""`pcgu`: what is unlearned and what stays, that an edit comes off again, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

import evenhand
from evenhand.core import registry
from evenhand.core.artifacts import artefacts
from evenhand.errors import SettingsError
from evenhand.interfaces import Pair, Passage, TrainData
from evenhand.methods.unlearning._pcgu import updates
from evenhand.methods.unlearning._pcgu.edited import EditedLocal, EditedMasked
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.testing import ScriptedModel, check_method, tiny_model

JOBS = ("nurse", "doctor", "pilot", "baker", "judge", "cook")
PLACES = ("said", "knew", "saw", "left")
PAIRS = tuple(
    Pair("he", "she", f"the {job} {verb} that ", " was late", axis="gender", id=f"{job} {verb}")
    for job in JOBS
    for verb in PLACES
) + tuple(Pair("late", "here", f"the {job} was ", "", axis="state") for job in JOBS for verb in PLACES[:2])
DATA = TrainData(pairs=PAIRS)
WORDS = tuple(f"{p.prompt}{t}{p.suffix}" for p in PAIRS for t in (p.stereotyped, p.counter_stereotyped))
QUICK: dict[str, Any] = {"axes": ("gender",), "learning_rate": 0.05, "batch_size": 8, "epochs": 30, "device": "cpu"}


def causal() -> LocalModel:
    """One that says he more often than she, and late more often than here."""
    words = tiny_tokenizer(WORDS, chat=False)
    module = tiny_module(len(words), "llama")
    ids = torch.tensor([words(f"the {job} said that").input_ids for job in JOBS])
    also = torch.tensor([words(f"the {job} was").input_ids for job in JOBS])
    with torch.no_grad():
        for rows, (high, low) in ((ids, ("he", "she")), (also, ("late", "here"))):
            hidden = module.model(rows).last_hidden_state[:, -1]
            one, other = words.convert_tokens_to_ids([high, low])
            module.lm_head.weight[one] = module.lm_head.weight[other] + 1.5 * torch.linalg.pinv(hidden) @ torch.ones(6)
    return LocalModel(module, words, name="tiny")


def masked() -> MaskedModel:
    words = tiny_tokenizer(WORDS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    module = BertForMaskedLM(config).eval()
    with torch.no_grad():
        module.cls.predictions.bias[words.convert_tokens_to_ids("he")] = 1.5
    return MaskedModel(module, words, name="tiny-masked")


def odds(model: Any, topic: str = "gender") -> float:
    some = [p for p in PAIRS if p.axis == topic]
    passages = [
        Passage(t, str(p.prompt), suffix=p.suffix if isinstance(model, MaskedModel) else "")
        for p in some
        for t in (p.stereotyped, p.counter_stereotyped)
    ]
    values = [s.logprob for s in model.score(passages)]
    return sum(a - b for a, b in zip(values[::2], values[1::2], strict=True)) / len(some)


RATE: dict[type, float] = {EditedLocal: 2e-3, EditedMasked: 5e-3}


def method(**more: Any) -> PCGU:
    return PCGU.build(**{**QUICK, **more})  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize(("make", "kind"), [(causal, EditedLocal), (masked, EditedMasked)])
def test_the_bias_of_the_pairs_goes_and_the_given_model_stays(make: Any, kind: type) -> None:
    model = make()
    before, weights = odds(model), {n: p.clone() for n, p in model.weights.module.named_parameters()}
    edited = method(learning_rate=RATE[kind]).apply(model, DATA)
    assert isinstance(edited, kind) and edited.fingerprint != model.fingerprint
    assert before > 1.0 and abs(odds(edited)) < 0.4 * before
    assert all(torch.equal(p, weights[n]) for n, p in model.weights.module.named_parameters())
    facts = edited.facts()
    assert facts["direction"] == "both" and 0 < facts["chosen_share"] < 0.31 and facts["by_layer"]
    assert facts["curve"][0]["gap"] == pytest.approx(before, abs=0.3) and facts["zero_share_of_chosen"] == 0.0


def test_pairs_on_other_axes_are_retained() -> None:
    model = causal()
    before = odds(model, "state")
    moved = [
        abs(
            odds(method(retain_kl_weight=w, learning_rate=2e-3, retain_batch_size=12).apply(model, DATA), "state")
            - before
        )
        for w in (0.0, 30.0)
    ]
    assert moved[1] < 0.7 * moved[0]


def test_an_edit_is_saved_as_the_base_and_the_vectors_and_comes_off(tmp_path: Path) -> None:
    folder = causal().save(tmp_path / "base")
    model = evenhand.load(folder)
    edited = method(epochs=2).apply(model, DATA)
    assert isinstance(edited, EditedLocal)
    saved = edited.save(tmp_path / "edited")
    assert not list(saved.glob("**/model*.safetensors"))  # the base lies where it lay
    again = method(epochs=2).restore(model, saved / "learned")
    assert again.fingerprint == edited.fingerprint and again.facts()["method"] == edited.facts()["method"]
    module = again.weights.module
    edited.delta.remove(module)
    assert all(torch.equal(p, model.weights.module.get_parameter(n)) for n, p in module.named_parameters())
    if PCGU.name in registry.methods.names():
        assert evenhand.load(saved, trust_folder=True).fingerprint == edited.fingerprint


@pytest.mark.parametrize(("make", "opener"), [(causal, AutoModelForCausalLM), (masked, AutoModelForMaskedLM)])
def test_an_exported_folder_is_a_plain_model_with_the_same_logits(make: Any, opener: Any, tmp_path: Path) -> None:
    model, how = make(), method(learning_rate=5e-3 if make is masked else 2e-3, epochs=6)
    edited, place = how.apply(model, DATA), how.export(model, tmp_path / "plain", DATA)
    assert not list(place.glob("**/*.yaml")) and not (place / "learned").exists() and list(place.glob("*.safetensors"))
    opened, words = opener.from_pretrained(place).eval(), AutoTokenizer.from_pretrained(place)
    batch = words([str(p.prompt) + p.stereotyped for p in PAIRS[:4]], return_tensors="pt", padding=True)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        got, want, before = (m(**inputs).logits for m in (opened, edited.weights.module, model.weights.module))
    assert torch.equal(got, want) and not torch.allclose(got, before, atol=1e-3)
    for name, p in edited.weights.module.named_parameters():
        assert torch.equal(p, opened.get_parameter(name))
    with pytest.raises(SettingsError, match="plain is not an empty folder: set another one"):
        how.export(model, place, DATA)


def test_what_was_edited_is_not_edited_twice_and_a_killed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, counted, run = causal(), list[int](), updates.Unlearning._epoch

    def epoch(self: Any, number: int) -> float:
        counted.append(number)
        if len(counted) == 2:
            raise KeyboardInterrupt
        return run(self, number)

    monkeypatch.setattr(updates.Unlearning, "_epoch", epoch)
    given = {"epochs": 3, "learning_rate": 1e-3}
    with artefacts(tmp_path):
        with pytest.raises(KeyboardInterrupt):
            method(**given).apply(model, DATA)
        one = method(**given).apply(model, DATA)
        assert counted == [0, 1, 1, 2]
        other = method(**given, micro_batch_size=5).apply(model, DATA)  # how it is computed decides nothing
        assert counted == [0, 1, 1, 2] and other.fingerprint == one.fingerprint
    files = sorted(p.name for d in tmp_path.iterdir() if d.is_dir() for p in d.iterdir())
    assert files == ["delta.safetensors", "evenhand.json"]


def test_it_keeps_the_contract_of_methods() -> None:
    check_method(method(epochs=1, axes=()), tiny_model(texts=WORDS), DATA)


@pytest.mark.parametrize("preset", ["paper", "released", "released_masked"])
def test_presets_are_what_their_sources_do(preset: str) -> None:
    made = PCGU.build(preset=preset)
    assert (
        made.direction == "decrease_advantaged"
        and made.zero_rows == "kept"
        and not made.validation_fraction
        and not made.gate
    )
    assert {"paper": "probability", "released": "logprob", "released_masked": "logit"}[preset] == made.measure
    assert made.spec == f"pcgu(preset={preset})"
    model = causal() if preset == "released" else masked()
    more = {"batch_size": 32} if preset == "released" else {}  # a step of 512 pairs needs more than these
    edited = PCGU.build(preset=preset, epochs=1, learning_rate=0.01, **more).apply(model, DATA)
    assert edited.facts()["steps"] == 1 and edited.facts()["edited_vectors"] > 0


RETRAIN = "pcgu/src/general_similarity_retrain.py"
DATASET = "pcgu/src/dataset.py"


@pytest.mark.parametrize(
    ("preset", "setting", "value", "where"),
    [
        ("released", "reduction", "pooled", f"{RETRAIN}, do_an_lm_backprop: outputs.loss; accumulate_grad"),
        ("released", "pool_size", 16, f"{RETRAIN}, -b"),
        ("released", "drop_last", True, f"{RETRAIN}, retrain: curr_sim_batch_count >= sim_batch_size"),
        ("released", "cosine_eps", 1e-8, f"{RETRAIN}, compute_similarities: F.cosine_similarity"),
        ("released", "shuffle", False, f"{RETRAIN}, main: DataLoader"),
        ("released", "special_tokens", False, f"{DATASET}, BBQDataset: add_special_tokens=False"),
        ("released", "max_length", 115, f"{DATASET}, BBQDataset: max_len=115"),
        ("released", "truncate", True, f"{DATASET}, BBQDataset: [:self.max_len]"),
        ("released", "learning_rate", 2e-4, "arXiv 2406.13551, LLaMA-2-7B"),
        ("released", "batch_size", 512, "arXiv 2406.13551"),
        ("released", "epochs", 3, "arXiv 2406.13551"),
        ("released_masked", "measure", "logit", f"{RETRAIN}, do_an_mlm_backprop: logits.sum()"),
        ("released_masked", "reduction", "sum", f"{RETRAIN}, do_an_mlm_backprop: logits.sum()"),
        ("released_masked", "max_length", 24, f"{DATASET}, WGDataset: max_len=24"),
        ("released_masked", "truncate", True, f"{DATASET}, WGDataset: [:self.max_len]"),
        ("released_masked", "special_tokens", False, f"{DATASET}, WGDataset: add_special_tokens=False"),
        ("released_masked", "cosine_eps", 1e-8, f"{RETRAIN}, compute_similarities: F.cosine_similarity"),
        ("released_masked", "drop_last", False, f"{RETRAIN}, sim_batch_size -1: each batch is a step"),
        ("paper", "learning_rate", 2e-6, "Yu et al. 2023, ACL Findings, input aggregation"),
        ("paper", "epochs", 15, "Yu et al. 2023, ACL Findings, input aggregation"),
        ("paper", "batch_size", 64, "Yu et al. 2023, ACL Findings"),
    ],
)
def test_preset_values_are_those_of_the_source(preset: str, setting: str, value: object, where: str) -> None:
    """Of VectorInstitute/bias-mitigation-unlearning 9b7c792 where `where` is a file."""
    assert PCGU.build(preset=preset).settings[setting] == value, where


@pytest.mark.parametrize(
    ("preset", "make", "remedy"),
    [
        ("paper", causal, "preset=released, or architecture=any"),
        ("released_masked", causal, "preset=released, or architecture=any"),
        ("released", masked, "preset=paper or preset=released_masked, or architecture=any"),
    ],
)
def test_a_preset_is_not_used_on_the_other_kind_of_model(preset: str, make: Any, remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy):
        PCGU.build(preset=preset).apply(make(), DATA)
    assert PCGU.build(preset=preset, architecture="any").unsupported_reason(make(), DATA) == ""


def test_the_settings_of_the_released_code_leave_the_keys_of_other_edits_alone() -> None:
    added = {"architecture", "pool_size", "cosine_eps", "special_tokens", "truncate", "shuffle", "drop_last"}
    assert not added & PCGU.build().key_settings().keys()
    assert added - {"pool_size"} <= PCGU.build(preset="released").key_settings().keys()


def test_too_few_pairs_for_a_step_and_groups_that_make_no_batch_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"36 pairs do not fill a batch of 512.*drop_last=False"):
        PCGU.build(preset="released").apply(causal(), DATA)
    with pytest.raises(SettingsError, match="batch_size=24 is not a multiple of pool_size=16"):
        method(batch_size=24, drop_last=True)


def test_pairs_that_are_the_same_once_cut_are_counted() -> None:
    """The gender pairs differ in the fifth word after the opening token; four words more are beyond six tokens."""
    given = {"truncate": True, "axes": (), "learning_rate": 1e-3, "epochs": 1}
    assert method(**given, max_length=6).apply(causal(), DATA).facts()["left_out"] == 0
    longer = tuple(p._replace(prompt=f"the pilot said that {p.prompt}") for p in PAIRS[:12])
    mixed = TrainData(pairs=(*longer, *PAIRS[12:]))
    assert method(**given, max_length=6).apply(causal(), mixed).facts()["left_out"] == 12


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("more", "data", "wrong"),
    [
        ({}, None, "demo:pairs"),
        ({}, TrainData(texts=WORDS), "demo:pairs"),
        ({}, TrainData(pairs=PAIRS[:3]), "at least 8"),
        ({"axes": ("age",)}, DATA, "no pairs on 'age'; the data has gender, state"),
        ({"axes": (), "retain_kl_weight": 1.0}, DATA, "something to retain"),
    ],
)
def test_data_that_cannot_be_used_is_refused(more: dict[str, Any], data: TrainData | None, wrong: str) -> None:
    with pytest.raises(SettingsError, match=wrong):
        method(**more).apply(causal(), data)


def test_settings_that_cannot_be_are_refused() -> None:
    for more in ({"edit_fraction": 1.5}, {"k": -1}, {"partition": "rows"}, {"learning_rate": 0}):
        with pytest.raises(SettingsError):
            method(**more)


def test_models_that_cannot_be_edited_are_refused() -> None:
    with pytest.raises(SettingsError, match="weights"):
        method().apply(ScriptedModel(), DATA)
    from evenhand.training.lora import with_adapter

    model = causal()
    adapted = with_adapter(model.weights.module, rank=2, alpha=4, dropout=0.0, seed=0, named=False)
    with pytest.raises(SettingsError, match="merge"):
        method().apply(LocalModel(adapted, model.weights.tokenizer, name="adapted"), DATA)
