#!/usr/bin/env bash
# hotswap_adapter keeps the trained head or tokens of the adapter that it replaces.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: after the swap the model is what the new adapter gives when it
# is opened on its own. Layers that only the old adapter has are indeed set to 0,
# and lora_alpha is taken over.
#
# Behaviour: an old adapter with modules_to_save or trainable_token_indices is
# swapped for a plain LoRA adapter without an error or a warning, and its trained
# lm_head or tokens stay in use under the name of the new adapter. (If the new
# adapter has them, the swap raises a KeyError.)
#
# Seen (swapped against reopened logits):
#   old adapter with modules_to_save, new one without, swapped against reopened: 3.27227
#   the same with the first lm_head put back by hand: 0
#   old adapter with trainable_token_indices, new one without, swapped against reopened: 0.324998
#   old adapter on q_proj and v_proj, new one on q_proj, swapped against reopened: 0
#   new adapter with another lora_alpha, swapped against reopened: 0

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==5.23.0 peft==0.21.2 accelerate==1.15.0 numpy==2.4.6 safetensors==0.8.0
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - "$work" <<'PY'
import sys
import warnings

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(**options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=False,
        **options,
    )
    return LlamaForCausalLM(config).eval()


def train(model, seed=3):
    """Stands in for training: random steps on everything trainable."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn_like(weight))


ids = torch.arange(6)[None]


def logits(model, **inputs):
    with torch.no_grad():
        return model(**{"input_ids": ids, **inputs}).logits


def gap(left, right):
    return (left - right).abs().max().item()


def expect(what, seen, figure, slack=0.05):
    """Seen lies within slack (a share) of the figure; a figure of 0 means rounding only."""
    print(f"{what}: {seen:.6g}")
    close = abs(seen) < 1e-4 if figure == 0 else abs(seen - figure) <= slack * abs(figure)
    if not close:
        raise SystemExit(f"changed: {what} was {figure}, is now {seen}")


print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
torch.set_num_threads(1)


def tuned(seed, **options):
    torch.manual_seed(1)
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **options})
    model = get_peft_model(tiny_llama(), config).eval()
    train(model, seed)
    return model


def swapped(folder, live, new):
    """The live model after the swap, and the logits that the new adapter gives when it is opened on its own."""
    new.save_pretrained(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        hotswap_adapter(live, folder, adapter_name="default", torch_device="cpu")
    if any(w.category is UserWarning for w in caught):
        raise SystemExit(f"changed: there is a warning now: {[str(w.message) for w in caught]}")
    return live, logits(PeftModel.from_pretrained(tiny_llama(), folder).eval())


kept = [
    ("modules_to_save", {"modules_to_save": ["lm_head"]}, 3.272),
    ("trainable_token_indices", {"trainable_token_indices": [1, 2]}, 0.3250),
]
for number, (name, options, wrong) in enumerate(kept):
    live, wanted = swapped(f"{sys.argv[1]}/{number}", tuned(3, **options), tuned(9))
    expect(f"old adapter with {name}, new one without, swapped against reopened", gap(logits(live), wanted), wrong)
    if name == "modules_to_save":
        live.get_base_model().lm_head.modules_to_save["default"].weight.data.copy_(tiny_llama().lm_head.weight)
        expect("the same with the first lm_head put back by hand", gap(logits(live), wanted), 0)

live, wanted = swapped(f"{sys.argv[1]}/fewer", tuned(3), tuned(9, target_modules=["q_proj"]))
expect("old adapter on q_proj and v_proj, new one on q_proj, swapped against reopened", gap(logits(live), wanted), 0)
live, wanted = swapped(f"{sys.argv[1]}/alpha", tuned(3), tuned(9, lora_alpha=64))
expect("new adapter with another lora_alpha, swapped against reopened", gap(logits(live), wanted), 0)
PY
