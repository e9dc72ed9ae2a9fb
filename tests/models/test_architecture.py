"""What a checkpoint is opened as: by the architecture and type that its configuration names, in a folder or the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Model, Passage
from evenhand.models.architecture import kind_of
from evenhand.models.loading import load
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
MASKED = ("Bert", "Roberta", "DebertaV2", "ModernBert", "Electra", "XLMRoberta", "Albert")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def tokenizer() -> Any:
    made = tiny_tokenizer(["the dog saw a little cat and there"], chat=False)
    made.add_special_tokens({"mask_token": "<mask>", "pad_token": "<pad>"})
    return made


def config_of(family: str, **more: Any) -> Any:
    words = tokenizer()
    sizes = {**SIZES, "max_position_embeddings": 128, "vocab_size": len(words), "pad_token_id": words.pad_token_id}
    if family == "GPT2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": len(words)}
    special = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return getattr(transformers, f"{family}Config")(**sizes, **special, **more)


def written(folder: Path, family: str, form: str, named: list[str] | None = None, **more: Any) -> Path:
    """A tiny model; `named` replaces the architectures in its configuration, and [] takes them out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = getattr(transformers, f"{family}{form}")(config_of(family, **more))
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if named is not None:
        config = json.loads((folder / "config.json").read_text())
        config.pop("architectures")
        (folder / "config.json").write_text(json.dumps({**config, **({"architectures": named} if named else {})}))
    return folder


def in_hub(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str = "some/model") -> str:
    """Put a folder where transformers keeps what was downloaded."""
    import huggingface_hub.constants

    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / ("0123456789" * 4))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123456789" * 4)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return name


def is_masked(model: Model) -> bool:
    masked = isinstance(model, MaskedModel)
    assert model.abilities == ({"score", "weights"} if masked else {"choose", "generate", "score", "weights"})
    assert masked or isinstance(model, LocalModel)
    return masked


@pytest.mark.parametrize("family", MASKED)
@pytest.mark.parametrize("named", [None, []])
def test_masked_families_are_masked_also_without_architectures(
    tmp_path: Path, family: str, named: list[str] | None
) -> None:
    assert is_masked(load(written(tmp_path, family, "ForMaskedLM", named)))


def test_a_masked_model_by_hub_name_is_the_one_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for named in (None, []):
        folder = written(tmp_path / f"bert{named}", "Bert", "ForMaskedLM", named)
        name = in_hub(folder, tmp_path / f"hub{named}", monkeypatch)
        model, same = load(name), load(folder)
        assert is_masked(model) and model.fingerprint == same.fingerprint
        passages = [Passage("the dog saw a cat")]
        assert model.score(passages) == same.score(passages)
        assert (model.name, model.facts()["source"]) == ("model", name)
    with pytest.raises(SettingsError, match="'answer_by' for a masked language model"):
        load(name, answer_by="text")


def test_a_causal_model_by_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = in_hub(written(tmp_path / "gpt2", "GPT2", "LMHeadModel", []), tmp_path / "hub", monkeypatch)
    assert not is_masked(load(name))


@pytest.mark.parametrize(
    ("family", "form", "more"),
    [
        ("GPT2", "LMHeadModel", {}),
        ("Bert", "LMHeadModel", {"is_decoder": True}),
        ("Roberta", "ForCausalLM", {"is_decoder": True}),
        ("ModernBertDecoder", "ForCausalLM", {}),
    ],
)
@pytest.mark.parametrize("named", [None, []])
def test_decoders_are_causal(
    tmp_path: Path, family: str, form: str, more: dict[str, Any], named: list[str] | None
) -> None:
    assert not is_masked(load(written(tmp_path, family, form, named, **more)))


def test_a_decoder_sees_only_what_stands_before(tmp_path: Path) -> None:
    """What is read from it does not depend on what follows, as it would if it were opened as the encoder."""
    model = load(written(tmp_path, "Bert", "LMHeadModel", [], is_decoder=True))
    module, words = model.weights
    with torch.no_grad():
        rows = [
            module(**words(text, return_tensors="pt", return_token_type_ids=False)).logits[0, 2]
            for text in ("the dog saw a cat", "the dog and the cat")
        ]
    assert torch.allclose(*rows, atol=1e-6)


@pytest.mark.parametrize("named", [["BertForSequenceClassification"], ["BertModel"], ["SomethingOfMine"]])
def test_an_architecture_without_a_language_model_leaves_it_to_the_type(tmp_path: Path, named: list[str]) -> None:
    assert is_masked(load(written(tmp_path, "Bert", "ForMaskedLM", named)))


def test_a_checkpoint_without_the_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvenhandError, match=r"weights of a masked language model: .*cls"):
        load(written(tmp_path, "Bert", "Model"))


@pytest.mark.parametrize(
    ("named", "decoder", "message"),
    [
        (
            ["BertLMHeadModel"],
            False,
            "BertLMHeadModel with is_decoder=False.*the tokens that follow.*is_decoder to True",
        ),
        (["BertForMaskedLM"], True, "BertForMaskedLM with is_decoder=True.*is_decoder to False"),
    ],
)
def test_an_architecture_that_contradicts_is_decoder_is_refused(
    tmp_path: Path, named: list[str], decoder: bool, message: str
) -> None:
    folder = written(tmp_path, "Bert", "LMHeadModel", named, is_decoder=decoder)
    with pytest.raises(SettingsError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("family", "form"),
    [("T5", "ForConditionalGeneration"), ("Bart", "ForConditionalGeneration"), ("MBart", "ForConditionalGeneration")],
)
@pytest.mark.parametrize("named", [True, False])
def test_encoder_decoders_are_known_by_their_type(family: str, form: str, named: bool) -> None:
    config = getattr(transformers, f"{family}Config")()
    config.architectures = [f"{family}{form}"] if named else None
    assert kind_of(config, "some/model") == "seq2seq"


@pytest.mark.parametrize("family", ["Whisper", "SeamlessM4T"])
def test_encoder_decoders_that_read_sound_are_refused(family: str) -> None:
    config = getattr(transformers, f"{family}Config")()
    with pytest.raises(SettingsError, match=r"some/model is an encoder-decoder .*such as T5 or BART"):
        kind_of(config, "some/model")


def test_the_decoder_half_of_one_is_causal() -> None:
    config = transformers.BartConfig(is_decoder=True, is_encoder_decoder=False)
    for named in (["BartForCausalLM"], None):
        config.architectures = named
        assert kind_of(config, "x") == "causal"


def test_xlm_has_one_class_for_both() -> None:
    for causal in (False, True):
        config = transformers.XLMConfig(causal=causal)
        for named in (["XLMWithLMHeadModel"], None):
            config.architectures = named
            assert kind_of(config, "x") == ("causal" if causal else "masked")


def test_code_that_comes_with_a_model_says_what_it_offers() -> None:
    for offered, kind in (("AutoModelForMaskedLM", "masked"), ("AutoModelForCausalLM", "causal")):
        config = transformers.PretrainedConfig(architectures=["Mine"], auto_map={offered: "mine.Mine"})
        assert kind_of(config, "x") == kind


def test_an_adapter_on_a_masked_model_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = load(written(tmp_path / "bert", "Bert", "ForMaskedLM", []))
    tuned: Any = get_peft_model(base.weights.module, LoraConfig(target_modules=["query"]))
    tuned.save_pretrained(tmp_path / "adapter")
    with pytest.raises(SettingsError, match=r"is a masked language model.*merge"):
        load(tmp_path / "adapter")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_that_takes_its_attention_from_the_hub_is_refused(tmp_path: Path, key: str) -> None:
    """transformers would fetch and run it, without being told to trust the model's code."""
    folder = written(tmp_path, "GPT2", "LMHeadModel")
    config = json.loads((folder / "config.json").read_text())
    for named, works in (("some/kernel", False), ("kernels-community/flash-attn2", False), ("eager", True)):
        (folder / "config.json").write_text(json.dumps({**config, key: named}))
        if works:
            assert not is_masked(load(folder))
        else:
            with pytest.raises(SettingsError, match=f"{named}.*trust_remote_code"):
                load(folder)


def test_all_of_transformers_own_types_have_a_kind() -> None:
    """Every type with a masked or causal form is told apart, whatever its defaults."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED_LM

    for model_type in ("bert", "roberta", "camembert", "deberta", "deberta-v2", "modernbert", "xlm-roberta", "esm"):
        config = transformers.AutoConfig.for_model(model_type)
        assert model_type in MASKED_LM and kind_of(config, model_type) == "masked"
    for model_type in ("gpt2", "llama", "qwen2", "gemma2", "opt", "gpt_neox", "modernbert-decoder", "mistral"):
        config = transformers.AutoConfig.for_model(model_type)
        assert model_type in CAUSAL and kind_of(config, model_type) == "causal"
