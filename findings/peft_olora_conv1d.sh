#!/usr/bin/env bash
# OLoRA on GPT-2 (Conv1D) changes the untrained model, or breaks its forward.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# Behaviour: Conv1D stores its weight as (in, out), and fan_in_fan_out=True says
# so. The OLoRA initialisation does not transpose: it takes QR of the stored
# matrix and subtracts the product untransposed, while the forward and
# get_delta_weight do transpose. On a square layer (attn.c_proj) the untrained
# model is silently not the base model; the base weight is restored only by the
# transpose of the change. On other layers (attn.c_attn, mlp.c_proj)
# get_peft_model succeeds and the first forward raises a RuntimeError about
# shapes. PiSSA, which transposes, and default LoRA give the base model.
#
# Seen (largest base logit 0.559152):
#   olora on attn.c_proj, untrained against base logits: 0.0700303
#   olora, weight + change against the first weight: 0.102079
#   olora, weight + transposed change against the first weight: 1.86265e-09
#   pissa on attn.c_proj, untrained against base logits: 5.21541e-08
#   pissa, weight + change against the first weight: 1.86265e-09
#   default on attn.c_proj, untrained against base logits: 0
#   olora on attn.c_attn: mat1 and mat2 shapes cannot be multiplied (6x32 and 96x4)
#   olora on mlp.c_proj: mat1 and mat2 shapes cannot be multiplied (6x128 and 32x4)

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
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel


def tiny_gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_embd=32, n_layer=1, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


ids = torch.arange(6)[None]


def logits(model):
    with torch.no_grad():
        return model(input_ids=ids).logits


def gap(left, right):
    return (left - right).abs().max().item()


def expect(what, seen, figure, slack=0.05):
    """Seen lies within slack (a share) of the figure; a figure of 0 means rounding only."""
    print(f"{what}: {seen:.6g}")
    close = abs(seen) < 1e-4 if figure == 0 else abs(seen - figure) <= slack * figure
    if not close:
        raise SystemExit(f"changed: {what} was {figure}, is now {seen}")


print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
torch.set_num_threads(1)

def with_adapter(init, target):
    model = tiny_gpt2()
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=[target], fan_in_fan_out=True, init_lora_weights=init)
    return get_peft_model(model, config).eval()


base = tiny_gpt2()
weight = base.transformer.h[0].attn.c_proj.weight.detach()
expect("largest base logit", logits(base).abs().max().item(), 0.5592)

tuned = with_adapter("olora", "attn.c_proj")
layer = tuned.get_base_model().transformer.h[0].attn.c_proj
change = layer.get_delta_weight("default").detach()
kept = layer.base_layer.weight.detach()
expect("olora on attn.c_proj, untrained against base logits", gap(logits(tuned), logits(base)), 0.0700)
expect("olora, weight + change against the first weight", gap(kept + change, weight), 0.1021)
expect("olora, weight + transposed change against the first weight", gap(kept + change.T, weight), 0)

tuned = with_adapter("pissa", "attn.c_proj")
layer = tuned.get_base_model().transformer.h[0].attn.c_proj
kept, change = layer.base_layer.weight.detach(), layer.get_delta_weight("default").detach()
expect("pissa on attn.c_proj, untrained against base logits", gap(logits(tuned), logits(base)), 0)
expect("pissa, weight + change against the first weight", gap(kept + change, weight), 0)
tuned = with_adapter(True, "attn.c_proj")
expect("default on attn.c_proj, untrained against base logits", gap(logits(tuned), logits(base)), 0)

for target in ["attn.c_attn", "mlp.c_proj"]:
    tuned = with_adapter("pissa", target)
    expect(f"pissa on {target}, untrained against base logits", gap(logits(tuned), logits(base)), 0)
    tuned = with_adapter("olora", target)
    try:
        logits(tuned)
    except RuntimeError as error:
        print(f"olora on {target}: {error}")
        if "shapes cannot be multiplied" not in str(error):
            raise SystemExit("changed: another error") from error
    else:
        raise SystemExit(f"changed: the forward works for {target}")
PY
