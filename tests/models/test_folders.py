"""Model folders as people have them: each is opened with the right answers, or refused in one line that says why."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Passage
from evenhand.models import sentencepiece
from evenhand.models.hugging_face import open_weights
from evenhand.models.loading import load
from evenhand.models.tiny import tiny_model

SCORED = [Passage("the dog was there", "Who")]


def saved(folder: Path) -> Path:
    return tiny_model().save(folder)


def with_bin(folder: Path, content: Any) -> Path:
    (saved(folder) / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    return folder


# ------------------------------------------------------------------------------------------------ .bin


def test_a_folder_with_a_bin_file_of_tensors_is_opened(tmp_path: Path) -> None:
    folder = with_bin(tmp_path / "bin", tiny_model().weights.module.state_dict())
    assert load(folder).score(SCORED) == tiny_model().score(SCORED)


class Runs:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("plain", [False, True])
def test_a_bin_file_that_would_run_code_is_refused_and_not_run(tmp_path: Path, plain: bool) -> None:
    folder = with_bin(tmp_path / "bin", {"weight": Runs(tmp_path / "ran")})
    if plain:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(EvenhandError, match=r"pytorch_model\.bin has more than tensors in it.*safetensors") as error:
        load(folder)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------ quantised, adapters


FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
    "ignore": ["lm_head"],
}
FOUR_BITS = {"bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    ("key", "written", "name"),
    [
        ("quantization_config", {"quant_method": "gptq", **FOUR_BITS}, "GPTQ"),
        ("quantization_config", {"quant_method": "awq", **FOUR_BITS}, "AWQ"),
        ("quantization_config", {"quant_method": "exl2", "version": "0.2", "bits": 4.25, "head_bits": 6}, "ExLlamaV2"),
        ("quantization_config", {"quant_method": "exl3", "bits": 3.0}, "ExLlamaV3"),
        ("quantization_config", FP8, "FP8"),
        ("quantization_config", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, "FP8"),
        ("quantization_config", COMPRESSED, "compressed-tensors"),
        ("compression_config", COMPRESSED, "compressed-tensors"),
        ("quantization_config", {"quant_method": "modelopt", "quant_algo": "NVFP4"}, "ModelOpt"),
        ("quantization", {"group_size": 64, "bits": 4}, "MLX"),
    ],
)
def test_weights_quantised_by_other_libraries_are_refused_in_one_line(
    tmp_path: Path, key: str, written: dict[str, Any], name: str
) -> None:
    file = saved(tmp_path / "model") / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: written}))
    with pytest.raises(SettingsError, match=f"quantised by {name}.*load_in_4bit") as error:
        load(tmp_path / "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [{"quantization_config": {"quant_method": "w8a8_fp8"}}, {}])
@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "scales", "qzeros"])
def test_quantised_weights_whose_scales_nothing_reads_are_refused(
    tmp_path: Path, method: dict[str, Any], scale: str
) -> None:
    """transformers only warns of a kind that it does not know, and opened the weights without their scales."""
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "model")
    plain = load(folder).score(SCORED)[0].logprob
    file, place = folder / "config.json", "model.layers.0.mlp.down_proj."
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, f"{place}input_scale": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    assert load(folder).score(SCORED)[0].logprob == plain, "a scale of activations changes no weight"
    file.write_text(json.dumps({**json.loads(file.read_text()), **method}))
    weights |= {f"{place}weight": weights[f"{place}weight"].to(torch.float8_e4m3fn), f"{place}{scale}": torch.ones(1)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingsError, match=f"down_proj.{scale} was left out") as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [{"quantization_config": {"quant_method": "rounded"}}, {}])
def test_integers_without_scales_are_refused(tmp_path: Path, method: dict[str, Any]) -> None:
    """transformers takes 64 for 64.0, whatever it stands for."""
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path / "model")
    file, place = folder / "config.json", "model.layers.0.mlp.down_proj.weight"
    weights = load_file(folder / "model.safetensors")
    file.write_text(json.dumps({**json.loads(file.read_text()), **method}))
    assert load(folder).score(SCORED)[0].tokens, "floats are opened, whatever config.json says of them"
    save_file({**weights, place: (weights[place] * 100).to(torch.int8)}, folder / "model.safetensors", {"format": "pt"})
    for opened in (load, open_weights):
        with pytest.raises(SettingsError, match=rf"{place} is stored as integers.*load_in_4bit") as error:
            opened(str(folder))
        assert "\n" not in str(error.value)


def test_bitsandbytes_quantises_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = saved(tmp_path / "model")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)  # 4 bits are packed in blocks of 64, so that the tiniest models have no room for one
    LlamaForCausalLM(LlamaConfig(vocab_size=len(load(folder).weights.tokenizer), **sizes)).save_pretrained(folder)
    plain = load(folder).score(SCORED)[0].logprob
    for bits in ("load_in_8bit", "load_in_4bit"):
        found = load(folder, **{bits: True}).score(SCORED)[0].logprob
        assert found != plain
        assert found == pytest.approx(plain, rel=0.3)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig", "PrefixTuningConfig"])
def test_adapters_of_virtual_tokens_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    import peft

    base = saved(tmp_path / "base")
    module = load(base).weights.module
    peft.get_peft_model(module, getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=3)).save_pretrained(
        str(tmp_path / "adapter")
    )
    with pytest.raises(SettingsError, match="virtual tokens") as error:
        load(tmp_path / "adapter", base=str(base))
    assert "\n" not in str(error.value)


def test_a_folder_of_named_adapters_says_which_there_are_and_each_is_opened(tmp_path: Path) -> None:
    import peft

    base = saved(tmp_path / "base")
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(load(base).weights.module, config, adapter_name="fair")
    tuned.add_adapter("other", config)
    tuned.save_pretrained(str(tmp_path / "named"))
    with pytest.raises(SettingsError, match=r"named ones in subfolders \(fair, other\)"):
        load(tmp_path / "named")
    one, two = (load(tmp_path / "named" / name, base=str(base)).score(SCORED) for name in ("fair", "other"))
    assert one != two


# ------------------------------------------------------------------------------------------------ SentencePiece

TRAINING = ["the dog was there and the cat was not in the garden", "once upon a time", "who was not there?"] * 40


def with_pieces(folder: Path, **options: Any) -> Path:
    """A tiny Llama whose tokenizer is a SentencePiece model and nothing else."""
    package: Any = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    from transformers import LlamaConfig, LlamaForCausalLM

    text = folder.parent / "text.txt"
    text.write_text("\n".join(TRAINING))
    options = {"model_type": "bpe", "vocab_size": 320, "byte_fallback": True, "hard_vocab_limit": False, **options}
    folder.mkdir()
    package.SentencePieceTrainer.train(input=str(text), model_prefix=str(folder / "tokenizer"), **options)
    (folder / "tokenizer.vocab").unlink()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=400, bos_token_id=1, eos_token_id=2, **sizes)).save_pretrained(folder)
    return folder


def test_a_sentencepiece_model_alone_gives_its_own_pieces_and_bos(tmp_path: Path) -> None:
    package: Any = pytest.importorskip("sentencepiece")
    folder = with_pieces(tmp_path / "llama")
    own = package.SentencePieceProcessor(str(folder / "tokenizer.model"))
    model = load(folder)
    module, tokenizer = model.weights
    wanted = own.encode("the dog was there")
    assert tokenizer("the dog was there").input_ids == [1, *wanted]
    with torch.inference_mode():
        rows = module(input_ids=torch.tensor([[1, *wanted]])).logits[0].log_softmax(-1)
    (score,) = model.score([Passage("the dog was there")])
    assert score.tokens == len(wanted)
    assert score.logprob == pytest.approx(sum(float(rows[i, t]) for i, t in enumerate(wanted)), abs=1e-4)


def test_bos_is_left_out_where_the_folder_says_so(tmp_path: Path) -> None:
    folder = with_pieces(tmp_path / "llama")
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert 1 not in load(folder).weights.tokenizer("the dog").input_ids


def test_pieces_that_transformers_makes_otherwise_are_refused(tmp_path: Path) -> None:
    folder = with_pieces(tmp_path / "llama", model_type="unigram", vocab_size=300)
    with pytest.raises(EvenhandError, match=r"SentencePiece itself .* tokenizer_class"):
        load(folder)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(EvenhandError, match=r"pip install 'evenhand\[sentencepiece\]'") as error:
        load(folder)
    assert "tiktoken" not in str(error.value)


def test_ranks_of_tiktoken_are_no_sentencepiece_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    assert sentencepiece.file_of(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    assert sentencepiece.file_of(tmp_path) == tmp_path / "tokenizer.model"
