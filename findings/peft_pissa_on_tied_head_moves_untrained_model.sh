#!/usr/bin/env bash
# PiSSA or OLoRA on a tied lm_head: the untrained adapter is not a no-op.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# Behaviour: PiSSA and OLoRA move a part of the base weight into the adapter and
# keep the rest in the base weight, so that a fresh adapter gives the base model.
# With tied embeddings the rest is also what the input embedding reads, and the
# input side has no adapter to make up for it. The model changes before any
# training. The same adapter on untied copies of the same weights is a no-op, and
# so is default LoRA on the tied head. peft gives the general warning about tied
# layers ("for example when merging the adapter"); nothing is merged here.
#
# Seen (largest base logit 0.683896, largest embedding weight 0.0762006):
#   pissa, tied, untrained against base logits: 0.424393
#   pissa, tied, shift of the input embedding: 0.0589687
#   pissa, untied, untrained against base logits: 5.96046e-08
#   olora, tied, untrained against base logits: 0.249432
#   olora, tied, shift of the input embedding: 0.057435
#   olora, untied, untrained against base logits: 5.96046e-08
#   default, tied, untrained against base logits: 0

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

def fresh_adapter(init, tied):
    model = tiny_llama(tied)
    if not tied:
        model.lm_head.weight.data = model.model.embed_tokens.weight.detach().clone()
    base = logits(model)
    embedding = model.model.embed_tokens.weight.detach().clone()
    torch.manual_seed(1)
    tuned = get_peft_model(model, LoraConfig(target_modules=["lm_head"], init_lora_weights=init)).eval()
    return gap(logits(tuned), base), gap(model.model.embed_tokens.weight.detach(), embedding)


untouched = tiny_llama(tied=True)
expect("largest base logit", logits(untouched).abs().max().item(), 0.6839)
expect("largest embedding weight", untouched.lm_head.weight.abs().max().item(), 0.0762)
for init, moved, shift in [("pissa", 0.4244, 0.05897), ("olora", 0.2494, 0.05744)]:
    seen_moved, seen_shift = fresh_adapter(init, tied=True)
    expect(f"{init}, tied, untrained against base logits", seen_moved, moved)
    expect(f"{init}, tied, shift of the input embedding", seen_shift, shift)
    expect(f"{init}, untied, untrained against base logits", fresh_adapter(init, tied=False)[0], 0)
expect("default, tied, untrained against base logits", fresh_adapter(True, tied=True)[0], 0)
PY
