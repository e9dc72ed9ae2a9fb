#!/usr/bin/env bash
# An adapter added after eval() runs with its dropout on, while model.training says False.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: a model in eval mode stays deterministic when an adapter is
# added to it.
#
# Behaviour: add_adapter (of peft and of transformers) builds the dropout of the
# new adapter in training mode and does not take over the mode of the model. The
# model and its layers say training=False, and two calls on the same input give
# different logits until eval() is called once more. ShadowPEFT has dropout by
# default, so there it needs no option. load_adapter calls eval() and is fine.
# There is no warning.
#
# Seen (largest difference between two calls):
#   one adapter, two calls: 0
#   model.training: [False, False, False]
#   second lora adapter, two calls: 0.366104
#   second lora adapter, two calls after another eval(): 0
#   one adapter, two calls: 0
#   second shadow adapter with default settings, two calls: 0.174094
#   second shadow adapter, two calls after another eval(): 0
#   adapter added with the method of transformers, two calls: 0.208228
#   the same after another eval(): 0
#   adapter opened with load_adapter(), two calls: 0

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
from peft import LoraConfig, ShadowConfig, get_peft_model
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


def lora():
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.5)


def twice(model):
    """How far two calls of the same model on the same input are apart."""
    return gap(logits(model), logits(model))


def two_adapters(config):
    torch.manual_seed(1)
    model = get_peft_model(tiny_llama(), config()).eval()
    train(model)
    expect("one adapter, two calls", twice(model), 0)
    model.add_adapter("second", config())
    model.set_adapter("second")
    train(model)
    return model


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    model = two_adapters(lora)
    told = [module.training for module in (model, model.get_base_model(), model.get_base_model().model.layers[0])]
    print("model.training:", told)
    if any(told):
        raise SystemExit("changed: the model says that it is training")
    torch.manual_seed(4)
    expect("second lora adapter, two calls", twice(model), 0.3661, slack=0.3)
    expect("second lora adapter, two calls after another eval()", twice(model.eval()), 0)

    model = two_adapters(ShadowConfig)
    torch.manual_seed(4)
    expect("second shadow adapter with default settings, two calls", twice(model), 0.1741, slack=0.3)
    expect("second shadow adapter, two calls after another eval()", twice(model.eval()), 0)

    plain = tiny_llama()
    plain.add_adapter(lora())
    train(plain)
    torch.manual_seed(4)
    expect("adapter added with the method of transformers, two calls", twice(plain), 0.2082, slack=0.3)
    expect("the same after another eval()", twice(plain.eval()), 0)
    plain.save_pretrained(sys.argv[1])
    reopened = tiny_llama()
    reopened.load_adapter(sys.argv[1])
    expect("adapter opened with load_adapter(), two calls", twice(reopened), 0)
if any(w.category is UserWarning for w in caught):
    raise SystemExit(f"changed: there is a warning now: {[str(w.message) for w in caught]}")
PY
