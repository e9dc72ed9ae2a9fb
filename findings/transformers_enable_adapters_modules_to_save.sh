#!/usr/bin/env bash
# enable_adapters() does not bring back modules_to_save after disable_adapters().
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: switching the adapters of a transformers model off and on again
# gives the tuned model.
#
# Behaviour: disable_adapters() switches off the LoRA layers and the copies made
# for modules_to_save; enable_adapters() switches on the LoRA layers only. From
# then on the model has the trained LoRA layers and the untrained head, and
# set_adapter() does not change that. There is no warning. A program that measures
# the base once in between measures a mixed model afterwards. disable_adapter() of
# PeftModel is right.
#
# Seen:
#   modules_to_save, adapter on, against base logits: 4.02371
#   modules_to_save, disable_adapters(), against base logits: 0
#   modules_to_save, enable_adapters(), against the adapter on: 3.92873
#   the same, trained lm_head against the one in use: 0.769205
#   modules_to_save, set_adapter(), against the adapter on: 3.92873
#   modules_to_save, lm_head.enable_adapters(True), against the adapter on: 0
#   lora alone, off and on again: 0
#   PeftModel, inside disable_adapter(), against base logits: 0
#   PeftModel, after disable_adapter(): 0

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
import warnings

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
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

config = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


def tuned(**options):
    torch.manual_seed(1)
    model = tiny_llama()
    model.add_adapter(LoraConfig(**config, **options))
    train(model)
    return model.eval()


base = logits(tiny_llama())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    model = tuned(modules_to_save=["lm_head"])
    on = logits(model)
    expect("modules_to_save, adapter on, against base logits", gap(on, base), 4.024)
    model.disable_adapters()
    expect("modules_to_save, disable_adapters(), against base logits", gap(logits(model), base), 0)
    model.enable_adapters()
    expect("modules_to_save, enable_adapters(), against the adapter on", gap(logits(model), on), 3.929)
    head = model.lm_head
    trained = head.modules_to_save["default"].weight
    expect("the same, trained lm_head against the one in use", gap(trained, head.weight), 0.7692)
    model.set_adapter("default")
    expect("modules_to_save, set_adapter(), against the adapter on", gap(logits(model), on), 3.929)
    head.enable_adapters(True)
    expect("modules_to_save, lm_head.enable_adapters(True), against the adapter on", gap(logits(model), on), 0)

    model = tuned()
    on = logits(model)
    model.disable_adapters()
    model.enable_adapters()
    expect("lora alone, off and on again", gap(logits(model), on), 0)

    torch.manual_seed(1)
    model = get_peft_model(tiny_llama(), LoraConfig(modules_to_save=["lm_head"], **config)).eval()
    train(model)
    on = logits(model)
    with model.disable_adapter():
        expect("PeftModel, inside disable_adapter(), against base logits", gap(logits(model), base), 0)
    expect("PeftModel, after disable_adapter()", gap(logits(model), on), 0)
if any(w.category is UserWarning for w in caught):
    raise SystemExit(f"changed: there is a warning now: {[str(w.message) for w in caught]}")
PY
