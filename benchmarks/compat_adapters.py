"""Check folders of PEFT adapters of every kind: opened and scored as PEFT computes them, or refused with a reason.

Every adapter lies on one tiny Llama; its parameters are random, so that one which was left out would show.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evenhand import load, wrap
from evenhand.errors import EvenhandError
from evenhand.interfaces import Passage
from evenhand.models.tiny import tiny_model

LAYERS: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoraConfig", {"r": 4, **LAYERS}),
    "rsLoRA": ("LoraConfig", {"r": 4, "use_rslora": True, **LAYERS}),
    "DoRA": ("LoraConfig", {"r": 4, "use_dora": True, **LAYERS}),
    "LoRA and whole embeddings": ("LoraConfig", {"r": 4, "modules_to_save": ["embed_tokens", "lm_head"], **LAYERS}),
    "LoRA by PiSSA": ("LoraConfig", {"r": 4, "init_lora_weights": "pissa", **LAYERS}),
    "AdaLoRA": ("AdaLoraConfig", {"init_r": 4, "target_r": 2, "total_step": 10, **LAYERS}),
    "IA3": ("IA3Config", {"feedforward_modules": ["down_proj"], "target_modules": ["k_proj", "v_proj", "down_proj"]}),
    "LoHa": ("LoHaConfig", {"r": 4, **LAYERS}),
    "LoKr": ("LoKrConfig", {"r": 4, **LAYERS}),
    "OFT": ("OFTConfig", {"r": 0, "oft_block_size": 4, **LAYERS}),
    "BOFT": ("BOFTConfig", {"boft_block_size": 4, **LAYERS}),
    "VeRA": ("VeraConfig", {"r": 4, "target_modules": ["q_proj"]}),
    "FourierFT": ("FourierFTConfig", {"n_frequency": 16, **LAYERS}),
    "HRA": ("HRAConfig", {"r": 4, **LAYERS}),
    "LN tuning": ("LNTuningConfig", {"target_modules": ["input_layernorm"]}),
    "trainable tokens": (
        "TrainableTokensConfig",
        {"token_indices": list(range(8, 60)), "target_modules": ["embed_tokens"]},
    ),
    "prompt tuning": ("PromptTuningConfig", {"num_virtual_tokens": 4}),
    "p-tuning": ("PromptEncoderConfig", {"num_virtual_tokens": 4, "encoder_hidden_size": 16}),
    "prefix tuning": ("PrefixTuningConfig", {"num_virtual_tokens": 4}),
    "aLoRA": ("LoraConfig", {"r": 4, "alora_invocation_tokens": [3, 4], **LAYERS}),
}
PASSAGES = (Passage("the dog was there", "Who", id="p1"), Passage("cat", "Once upon a time there was a", id="p2"))


def rows(plain_engine: Any) -> list[tuple[str, str, str]]:
    """Yield kind, largest difference of scores from PEFT's, and the difference from the base or the refusal.

    Args:
        plain_engine: Makes an engine of a module and its tokenizer that reads one sequence per forward.
    """
    with tempfile.TemporaryDirectory() as place:
        base = tiny_model().save(Path(place) / "base")
        return [
            (name, *_measured(base, Path(place) / f"adapter{n}", name, plain_engine)) for n, name in enumerate(KINDS)
        ]


def _measured(base: Path, folder: Path, name: str, plain_engine: Any) -> tuple[str, str]:
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        untouched: Any = load(base)
        module, tokenizer = untouched.weights
        config, settings = KINDS[name]
        torch.manual_seed(0)
        before = _logprobs(untouched)
        tuned: Any = peft.get_peft_model(module, getattr(peft, config)(task_type="CAUSAL_LM", **settings)).eval()
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        tuned.save_pretrained(str(folder))
        try:
            model: Any = load(folder, base=str(base))
        except EvenhandError as error:
            return "refused", str(error).replace(f"the adapter {folder} is", "it is").partition(";")[0]
        plain: Any = wrap(tuned, tokenizer)
        plain.engine = plain_engine(tuned, tokenizer)
        found, wanted = _logprobs(model), _logprobs(plain)
    return f"{_distance(found, wanted):.0e}", f"moves scores by {_distance(found, before):.1g}"


def _logprobs(model: Any) -> list[float]:
    return [score.logprob for score in model.score(PASSAGES)]


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
