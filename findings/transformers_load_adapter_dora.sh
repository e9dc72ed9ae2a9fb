#!/usr/bin/env bash
# A DoRA adapter opened with transformers itself loses its trained magnitudes.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: AutoModelForCausalLM.from_pretrained(adapter folder) and
# model.load_adapter(folder) give the model that PeftModel.from_pretrained gives.
#
# Behaviour: peft stores the magnitudes without the ending ".weight" and adds it
# back when it reads them. transformers looks for the full name, lists the
# magnitudes as UNEXPECTED and MISSING in a logged table, and goes on with the
# untrained ones. A and B are loaded, so the model is neither the base nor the
# tuned one. Saving that model writes the untrained magnitudes, which peft then
# opens without a word. Plain LoRA is exact on the same way.
#
# Seen:
#   dora, live against base logits: 0.284953
#   dora, AutoPeftModelForCausalLM against live logits: 0
#   dora, AutoModelForCausalLM against live logits: 0.294637
#   dora, load_adapter() against live logits: 0.294637
#   dora, trained magnitude of q_proj against the reopened one: 0.45509
#   dora, reopened magnitude of q_proj against the untrained one: 0
#   dora, saved once more and opened with peft, against live logits: 0.294637
#   lora, AutoModelForCausalLM against live logits: 0
#   lora, load_adapter() against live logits: 0

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

import peft
import torch
import transformers
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


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

first = f"{sys.argv[1]}/base"
tiny_llama().save_pretrained(first)
base = LlamaForCausalLM.from_pretrained(first).eval()


def saved(**options):
    torch.manual_seed(1)
    model = LlamaForCausalLM.from_pretrained(first)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **options)).eval()
    train(tuned)
    folder = f"{sys.argv[1]}/{'dora' if options else 'lora'}"
    tuned.save_pretrained(folder)
    return tuned, folder


def loaded(folder):
    model = LlamaForCausalLM.from_pretrained(first)
    model.load_adapter(folder)
    return model.eval()


def magnitude(model):
    return model.model.layers[0].self_attn.q_proj.lora_magnitude_vector["default"].weight.detach()


dora, folder = saved(use_dora=True)
live = logits(dora)
expect("dora, live against base logits", gap(live, logits(base)), 0.2850)
by_peft = AutoPeftModelForCausalLM.from_pretrained(folder)
expect("dora, AutoPeftModelForCausalLM against live logits", gap(logits(by_peft), live), 0)
by_auto, by_load = AutoModelForCausalLM.from_pretrained(folder).eval(), loaded(folder)
expect("dora, AutoModelForCausalLM against live logits", gap(logits(by_auto), live), 0.2946)
expect("dora, load_adapter() against live logits", gap(logits(by_load), live), 0.2946)
trained = magnitude(dora.get_base_model())
expect("dora, trained magnitude of q_proj against the reopened one", gap(magnitude(by_auto), trained), 0.4551)
untrained = base.model.layers[0].self_attn.q_proj.weight.norm(dim=1)
expect("dora, reopened magnitude of q_proj against the untrained one", gap(magnitude(by_auto), untrained), 0)

by_load.save_pretrained(f"{sys.argv[1]}/again")
again = AutoPeftModelForCausalLM.from_pretrained(f"{sys.argv[1]}/again")
expect("dora, saved once more and opened with peft, against live logits", gap(logits(again), live), 0.2946)

lora, folder = saved()
by_auto = AutoModelForCausalLM.from_pretrained(folder).eval()
expect("lora, AutoModelForCausalLM against live logits", gap(logits(by_auto), logits(lora)), 0)
expect("lora, load_adapter() against live logits", gap(logits(loaded(folder)), logits(lora)), 0)
PY
