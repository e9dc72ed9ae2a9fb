#!/usr/bin/env bash
# LoRA on tied embeddings with ensure_weight_tying=True is merged twice.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# Behaviour: with ensure_weight_tying=True both embed_tokens and lm_head get the
# same adapter, and both use the same base weight. The model before the merge is
# consistent: each side adds the change once. merge_and_unload visits both
# modules and adds the change to the shared weight each time, so the merged
# weight holds it twice. Writing it once by hand gives the unmerged logits.
# get_peft_model gives no warning. merge_and_unload gives a general one ("This
# can lead to complications"); it does not say that the weight is wrong.
#
# Seen:
#   weight change after merge / change of the adapter, median: 2
#   largest unmerged logit: 12.3289
#   merged against unmerged logits: 12.3771
#   change written once against unmerged logits: 1.90735e-06
#   warnings from get_peft_model: 0
#   warnings from merge_and_unload: 1

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

model = tiny_llama(tied=True)
before = model.lm_head.weight.detach().clone()

with warnings.catch_warnings(record=True) as on_build:
    warnings.simplefilter("always", UserWarning)
    tuned = get_peft_model(model, LoraConfig(target_modules=["embed_tokens"], ensure_weight_tying=True)).eval()

torch.manual_seed(1)
torch.nn.init.normal_(model.model.embed_tokens.lora_embedding_A["default"])
change = model.model.embed_tokens.get_delta_weight("default").detach().clone()
if not torch.equal(change, model.lm_head.get_delta_weight("default")):
    raise SystemExit("changed: the two sides no longer share one adapter")
unmerged = logits(tuned)

with warnings.catch_warnings(record=True) as on_merge:
    warnings.simplefilter("always", UserWarning)
    merged = tuned.merge_and_unload()
if merged.lm_head.weight.data_ptr() != merged.model.embed_tokens.weight.data_ptr():
    raise SystemExit("changed: the merged weights are no longer shared")

ratio = ((merged.lm_head.weight.detach() - before) / change).median().item()
expect("weight change after merge / change of the adapter, median", ratio, 2.0, slack=1e-3)
expect("largest unmerged logit", unmerged.abs().max().item(), 12.33)
expect("merged against unmerged logits", gap(logits(merged), unmerged), 12.38)

with torch.no_grad():
    merged.model.embed_tokens.weight.copy_(before + change)
expect("change written once against unmerged logits", gap(logits(merged), unmerged), 0)

by_user = [[w for w in caught if w.category is UserWarning] for caught in (on_build, on_merge)]
print("warnings from get_peft_model:", len(by_user[0]))
print("warnings from merge_and_unload:", len(by_user[1]))
if by_user[0] or len(by_user[1]) != 1 or "can lead to complications" not in str(by_user[1][0].message):
    raise SystemExit("changed: the warnings are different")
PY
