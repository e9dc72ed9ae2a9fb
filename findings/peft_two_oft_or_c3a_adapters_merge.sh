#!/usr/bin/env bash
# Two active OFT adapters, or two active C3A adapters: merging gives another model than running them.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: merge_adapter writes into the weights what the active adapters
# compute, as it does for two LoRA or HRA adapters.
#
# Behaviour: with several active OFT adapters the forward rotates the input by the
# first and then by the second, and the merge rotates the weight in such an order
# that the second is used first: merging [1, 2] gives what [2, 1] computes.
# With several C3A adapters the forward passes the output of the first adapter as
# input to the second, while the merge adds the two changes; the order changes the
# forward but not the merge. One adapter is exact. There is no warning.
#
# Seen:
#   oft, one adapter, merged against running: 5.96046e-08
#   oft, [1, 2] running against [2, 1] running: 0.115861
#   oft, [1, 2] merged against [1, 2] running: 0.115861
#   oft, [1, 2] merged against [2, 1] running: 5.96046e-08
#   c3a, one adapter, merged against running: 8.9407e-08
#   c3a, [1, 2] running against [2, 1] running: 0.125629
#   c3a, [1, 2] merged against [1, 2] running: 0.0642943
#   c3a, [1, 2] merged against [2, 1] running: 0.108673
#   hra, one adapter, merged against running: 0
#   hra, [1, 2] running against [2, 1] running: 0.0560801
#   hra, [1, 2] merged against [1, 2] running: 1.04308e-07
#   hra, [1, 2] merged against [2, 1] running: 0.05608
#   lora, one adapter, merged against running: 9.68575e-08
#   lora, [1, 2] running against [2, 1] running: 8.9407e-08
#   lora, [1, 2] merged against [1, 2] running: 8.9407e-08
#   lora, [1, 2] merged against [2, 1] running: 1.19209e-07

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
import copy
import warnings

import peft
import torch
import transformers
from peft import C3AConfig, HRAConfig, LoraConfig, OFTConfig, get_peft_model
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

targets = ["q_proj", "v_proj"]


def two(config):
    torch.manual_seed(1)
    model = get_peft_model(tiny_llama(), config(), adapter_name="first")
    train(model, 3)
    model.add_adapter("second", config())
    model.set_adapter("second")
    train(model, 9)
    return model.eval()


def running(model, names):
    model.base_model.set_adapter(names)
    return logits(model)


def merged(model, names):
    model = copy.deepcopy(model)
    model.base_model.set_adapter(names)
    model.merge_adapter()
    return logits(model)


kinds = {
    "oft": (lambda: OFTConfig(oft_block_size=8, target_modules=targets), 0.1159, 0.1159, 0),
    "c3a": (lambda: C3AConfig(block_size=8, target_modules=targets), 0.06429, 0.1256, 0.1087),
    "hra": (lambda: HRAConfig(r=4, target_modules=targets), 0, 0.0559, 0.0559),
    "lora": (lambda: LoraConfig(r=4, target_modules=targets), 0, 0, 0),
}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    for name, (config, same, order, other) in kinds.items():
        model = two(config)
        run, swapped = running(model, ["first", "second"]), running(model, ["second", "first"])
        weights = merged(model, ["first", "second"])
        one = gap(merged(model, ["first"]), running(model, ["first"]))
        expect(f"{name}, one adapter, merged against running", one, 0)
        expect(f"{name}, [1, 2] running against [2, 1] running", gap(run, swapped), order)
        expect(f"{name}, [1, 2] merged against [1, 2] running", gap(weights, run), same)
        expect(f"{name}, [1, 2] merged against [2, 1] running", gap(weights, swapped), other)
if any(w.category is UserWarning for w in caught):
    raise SystemExit(f"changed: there is a warning now: {[str(w.message) for w in caught]}")
PY
