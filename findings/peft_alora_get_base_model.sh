#!/usr/bin/env bash
# Activated LoRA (aLoRA) adds nothing when get_base_model() is called directly.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# Behaviour: with plain LoRA the model from get_base_model() carries the
# adapter, and calling it gives the tuned logits. aLoRA layers need to know where
# the invocation tokens are, and only forward and generate of
# PeftModelForCausalLM tell them. Called through get_base_model() or base_model,
# the layers use the base weights: logits are exactly those of the base model,
# and the adapter's gradients are exactly 0 when training this way. There is no
# error and no warning, even though the invocation tokens are in the input.
#
# Seen (tokens 0 to 5, invocation tokens 2 and 3):
#   alora, PeftModel against base logits: 0.0509037
#   alora, PeftModel against base logits before the invocation: 0
#   alora, get_base_model() against base logits: 0
#   alora, base_model against base logits: 0
#   alora, largest gradient through PeftModel: 0.0149847
#   alora, largest gradient through get_base_model(): 0
#   lora, PeftModel against base logits: 0.0509037
#   lora, get_base_model() against base logits: 0.0509037

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


def tiny_llama(tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


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

def with_adapter(**options):
    model = tiny_llama(tied=False)
    torch.manual_seed(1)
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], init_lora_weights=False, **options
    )
    return get_peft_model(model, config).eval()


def largest_gradient(tuned, called):
    tuned.zero_grad()
    called(input_ids=ids, labels=ids).loss.backward()
    adapter = [weight.grad for name, weight in tuned.named_parameters() if "lora_" in name]
    return max(grad.abs().max().item() for grad in adapter)


base = logits(tiny_llama(tied=False))
alora = with_adapter(alora_invocation_tokens=[2, 3])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    expect("alora, PeftModel against base logits", gap(logits(alora), base), 0.0509)
    expect("alora, PeftModel against base logits before the invocation", gap(logits(alora)[:, :2], base[:, :2]), 0)
    for name, called in [("get_base_model()", alora.get_base_model()), ("base_model", alora.base_model)]:
        expect(f"alora, {name} against base logits", gap(logits(called), base), 0)
        if not torch.equal(logits(called), base):
            raise SystemExit(f"changed: {name} is no longer exactly the base model")
    expect("alora, largest gradient through PeftModel", largest_gradient(alora, alora), 0.01498)
    silent = largest_gradient(alora, alora.get_base_model())
    expect("alora, largest gradient through get_base_model()", silent, 0)
    if silent != 0.0:
        raise SystemExit("changed: the gradient is no longer exactly 0")
if any(w.category is UserWarning for w in caught):
    raise SystemExit("changed: there is a warning now")

lora = with_adapter()
expect("lora, PeftModel against base logits", gap(logits(lora), base), 0.0509)
expect("lora, get_base_model() against base logits", gap(logits(lora.get_base_model()), base), 0.0509)
PY
