#!/usr/bin/env bash
# PiSSA with fast SVD (pissa_niter_16) does not survive saving and reopening.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# Behaviour: save_pretrained keeps the adapter only. from_pretrained runs the
# initialisation again to find the shifted base weight, then loads the adapter.
# Fast SVD starts from random numbers, so the new shift does not match the saved
# adapter. Logits differ from those of the live model, without an error or a
# warning, and by how much depends on the random state at reopening. With the
# seed of the first initialisation the result is exact. Plain "pissa" uses the
# full SVD and is exact with any seed.
#
# Seen (largest live logit 0.305681):
#   pissa_niter_16, reopened with another seed (2) against live logits: 0.00260131
#   pissa_niter_16, reopened with another seed (3) against live logits: 0.00668886
#   pissa_niter_16, shift of q_proj, reopened (3) against live: 0.0323479
#   pissa_niter_16, reopened with the first seed (1) against live logits: 0
#   pissa, reopened with another seed (3) against live logits: 0

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
import sys
import warnings

import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
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

def q_proj(tuned):
    return tuned.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight.detach()


def save_and_reopen(init, seed):
    base = tiny_llama(tied=False)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=init)
    live = get_peft_model(copy.deepcopy(base), config).eval()
    expect(f"{init}, untrained against base logits", gap(logits(live), logits(base)), 0)
    folder = f"{sys.argv[1]}/{init}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        live.save_pretrained(folder)
        torch.manual_seed(seed)
        reopened = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    if any(w.category is UserWarning for w in caught):
        raise SystemExit("changed: saving or reopening now warns")
    return live, reopened


expect("largest base logit", logits(tiny_llama(tied=False)).abs().max().item(), 0.3057)
for seed, moved in [(2, 0.002601), (3, 0.006689)]:
    live, reopened = save_and_reopen("pissa_niter_16", seed)
    what = f"pissa_niter_16, reopened with another seed ({seed}) against live logits"
    expect(what, gap(logits(reopened), logits(live)), moved, slack=0.25)
what = "pissa_niter_16, shift of q_proj, reopened (3) against live"
expect(what, gap(q_proj(reopened), q_proj(live)), 0.0323, slack=0.25)
live, reopened = save_and_reopen("pissa_niter_16", 1)
what = "pissa_niter_16, reopened with the first seed (1) against live logits"
expect(what, gap(logits(reopened), logits(live)), 0)
live, reopened = save_and_reopen("pissa", 3)
expect("pissa, reopened with another seed (3) against live logits", gap(logits(reopened), logits(live)), 0)
PY
