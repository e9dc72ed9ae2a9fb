"""A checkpoint's generation config changes no reply but by its end tokens, whatever writes it; facts name the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference import Engine, Prompt
from evenhand.inference.generation import neutral, prescribed
from evenhand.interfaces import Passage, Sampling
from evenhand.models.loading import load, wrap
from evenhand.models.tiny import tiny_module, tiny_tokenizer

PROMPTS = [Prompt((1, 9, 12, 14)), Prompt((1, 9)), Prompt((1, 20, 21, 22, 23, 9))]
STEPS = Sampling(max_new_tokens=12)
KNOBS: dict[str, Any] = {
    "suppress_tokens": [9, 12, 30],
    "begin_suppress_tokens": [9, 12, 30],
    "bad_words_ids": [[9], [12], [30]],
    "sequence_bias": [[[40], 99.0]],
    "forced_bos_token_id": 33,
    "forced_eos_token_id": 2,
    "guidance_scale": 3.0,
    "encoder_repetition_penalty": 9.0,
    "repetition_penalty": 9.0,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 11,
    "min_length": 30,
    "stop_strings": ["dog"],
    "exponential_decay_length_penalty": [1, 9.0],
    "renormalize_logits": True,
    "top_h": 0.1,
    "min_p": 0.9,
    "num_beams": 3,
    "token_healing": True,
}
pytestmark = pytest.mark.filterwarnings("ignore:replies are written", "ignore:prompts are read")


def mistral(window: int, **knobs: Any) -> PreTrainedModel:
    sizes = {
        "vocab_size": 60,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
        "sliding_window": window,
    }
    torch.manual_seed(0)
    module: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model("mistral", **sizes)).float().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    assert module.generation_config is not None
    for name, value in knobs.items():
        setattr(module.generation_config, name, value)
    return module


def replies(module: PreTrainedModel, sampling: Sampling = STEPS) -> list[tuple[int, ...]]:
    return [made.ids for made in Engine(module, tiny_tokenizer()).generate(PROMPTS, sampling, "f")]


@pytest.mark.parametrize("knob", KNOBS)
def test_no_knob_of_a_checkpoint_changes_a_reply(knob: str) -> None:
    for window in (3, 512):
        assert replies(mistral(window, **{knob: KNOBS[knob]})) == replies(mistral(window)), window


def test_a_label_is_scored_from_raw_logits_whatever_a_checkpoint_asks_for() -> None:
    """Each token of a label after the prompt and the label's own tokens before it, never after the model's words."""
    tokenizer = tiny_tokenizer()
    prompt, labels = "the dog", (" cat", " cat she dog", " nurse")
    knobs: dict[str, Any] = {"temperature": 0.6, "top_k": 3, "do_sample": True, "repetition_penalty": 9.0}
    plain, asked = tiny_module(len(tokenizer)), tiny_module(len(tokenizer))
    assert asked.generation_config is not None
    for name, value in knobs.items():
        setattr(asked.generation_config, name, value)
    found = wrap(asked, tokenizer).score([Passage(label, prompt) for label in labels])
    for label, score in zip(labels, found, strict=True):
        begin, ids = len(tokenizer(prompt).input_ids), tokenizer(prompt + label).input_ids
        with torch.no_grad():
            logs = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
        want = sum(float(logs[at - 1, ids[at]]) for at in range(begin, len(ids)))
        assert score.logprob == pytest.approx(want, abs=1e-4), label
    assert found == wrap(plain, tokenizer).score([Passage(label, prompt) for label in labels])


@pytest.mark.parametrize("window", [3, 512])
def test_a_stop_string_that_begins_in_the_prompt_ends_no_reply(window: int) -> None:
    """Both loops look at what was written alone: the end of a prompt together with the first token is no match."""
    module, tokenizer = mistral(window), tiny_tokenizer()
    free = Engine(module, tokenizer).generate(PROMPTS, STEPS, "f")
    for prompt, made in zip(PROMPTS, free, strict=True):
        last, first = prompt.ids[-1], made.ids[0]
        across = str(tokenizer.decode([last, first]))
        assert across not in made.text and len(made.ids) > 1
        (same,) = Engine(module, tokenizer).generate([prompt], Sampling(max_new_tokens=12, stop=(across,)), "f")
        assert same == made
        inside = str(tokenizer.decode(made.ids[:2])).strip()
        (cut,) = Engine(module, tokenizer).generate([prompt], Sampling(max_new_tokens=12, stop=(inside,)), "f")
        assert cut.finished and len(cut.ids) <= 2 < len(made.ids) and inside not in cut.text


def test_a_sample_and_an_adapter_follow_the_same_rule() -> None:
    from peft import LoraConfig, get_peft_model

    drawn = Sampling(1.0, 8, seed=3)
    assert replies(mistral(3, suppress_tokens=[*range(30)]), drawn) == replies(mistral(3), drawn)
    module = mistral(3, forced_bos_token_id=33, repetition_penalty=9.0)
    adapted = get_peft_model(module, LoraConfig(target_modules=["q_proj"], init_lora_weights=True))
    held = module.generation_config
    assert replies(adapted) == replies(mistral(3))
    assert module.generation_config is held and held is not None and held.forced_bos_token_id == 33


def test_end_tokens_of_a_checkpoint_act_on_both_paths() -> None:
    for window in (3, 512):
        first = replies(mistral(window))[0]
        assert len(first) > 1
        assert replies(mistral(window, eos_token_id=[2, first[1]]))[0] == first[: first.index(first[1])], window


def test_the_config_is_put_back_also_after_an_error() -> None:
    module = mistral(3, suppress_tokens=[9])
    held = module.generation_config
    with pytest.raises(ZeroDivisionError), neutral(module):
        assert module.generation_config is not held
        _ = 1 / 0
    assert module.generation_config is held


def test_facts_name_what_is_not_followed() -> None:
    tokenizer = tiny_tokenizer()
    module = tiny_module(len(tokenizer))
    assert "generation_config_ignored" not in wrap(module, tokenizer).facts()
    assert module.generation_config is not None
    module.generation_config.repetition_penalty = 1.1
    module.generation_config.sequence_bias = {(9, 12): 4.0}
    module.generation_config.top_k, module.generation_config.do_sample = 20, True
    module.generation_config.bad_words_ids = []
    facts = wrap(module, tokenizer).facts()["generation_config_ignored"]
    assert facts == {"do_sample": True, "repetition_penalty": 1.1, "sequence_bias": "{(9, 12): 4.0}", "top_k": 20}
    json.dumps(facts)
    assert prescribed(torch.nn.Linear(1, 1)) == {}


# ------------------------------------------------------------------------------------- tokens without an embedding


@pytest.mark.parametrize("masked", [False, True])
def test_more_tokens_than_embeddings_are_refused_at_load(tmp_path: Any, masked: bool) -> None:
    from transformers import BertConfig, BertForMaskedLM

    tokenizer = tiny_tokenizer()
    rows = len(tokenizer)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    module: Any = BertForMaskedLM(BertConfig(vocab_size=rows, **sizes)) if masked else tiny_module(rows)
    module.save_pretrained(tmp_path)
    tokenizer.add_tokens(["zebra", "quagga"])
    if masked:
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"'zebra', 'quagga'.*resize_token_embeddings") as refused:
        load(tmp_path)
    assert f"ids up to {len(tokenizer) - 1}" in str(refused.value) and f"0 to {rows - 1}" in str(refused.value)


@pytest.mark.parametrize("kind", ["pad_token", "bos_token", "template"])
def test_a_special_token_that_prompts_need_is_refused(kind: str) -> None:
    tokenizer = tiny_tokenizer()
    module = tiny_module(len(tokenizer))
    if kind == "template":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
        tokenizer.chat_template = "<turn>{{ messages[0]['content'] }}"
    else:
        tokenizer.add_special_tokens({kind: "<new>"})
    with pytest.raises(SettingsError, match=r"<new>|<turn>"):
        wrap(module, tokenizer)


def test_a_special_token_that_no_prompt_needs_is_refused_in_a_text_alone() -> None:
    """Gemma 3's text models have 262,144 embeddings, and a tokenizer with an image token of that id."""
    tokenizer = tiny_tokenizer()
    module = tiny_module(len(tokenizer))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    model = wrap(module, tokenizer)
    assert model.score([Passage("dog cat")])[0].tokens == 2
    with pytest.raises(EvenhandError, match=f"token id {len(tokenizer) - 1} has no embedding"):
        model.score([Passage("dog <image> cat")])


def test_more_embeddings_than_tokens_are_usual() -> None:
    tokenizer = tiny_tokenizer()
    wrap(tiny_module(len(tokenizer) + 32), tokenizer)
