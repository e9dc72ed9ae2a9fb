"""Recurrent models write in a batch what they write alone, since a probe finds out which rows may share one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from evenhand.inference.loop_probe import together
from evenhand.interfaces import Dialogue, Message, Sampling
from evenhand.models.loading import wrap
from evenhand.models.tiny import tiny_module, tiny_tokenizer

TEXTS = (
    "Who was not there?",
    "Once upon a time there were a dog and a cat in the answer",
    "Who?",
    "the dog was there ?",
)
DIALOGUES = [Dialogue((Message("user", text),)) for text in TEXTS]


def rwkv() -> Any:
    torch.manual_seed(0)
    words = len(tiny_tokenizer(chat=False))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32, "intermediate_size": 64}
    config = AutoConfig.for_model("rwkv", vocab_size=words, context_length=128, bos_token_id=1, eos_token_id=2, **sizes)
    made: Any = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3.0)
    return made


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=8), Sampling(max_new_tokens=8, temperature=1.0, seed=2)])
def test_replies_of_rwkv_do_not_depend_on_the_batch(sampling: Sampling) -> None:
    model, alone = (wrap(rwkv(), tiny_tokenizer(chat=False)) for _ in range(2))
    with pytest.warns(UserWarning, match="replies are written singly: in a batch RwkvForCausalLM"):
        found = model.generate(DIALOGUES, sampling)
    assert found == [alone.generate([dialogue], sampling)[0] for dialogue in DIALOGUES]


def test_the_probe_tells_padding_from_a_shared_state() -> None:
    with torch.inference_mode():
        assert together(tiny_module(60), 2) == "all"
        with pytest.warns(UserWarning, match="written singly"):
            assert together(rwkv(), 2) == "none"


def test_a_model_that_takes_padding_for_text_gets_rows_of_one_length() -> None:
    made: Any = tiny_module(60, "gpt2")
    plain = made.forward

    def seeing(*args: Any, attention_mask: Any = None, position_ids: Any = None, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    made.forward = seeing
    with torch.inference_mode(), pytest.warns(UserWarning, match="equal length"):
        assert together(made, 2) == "equal length"
