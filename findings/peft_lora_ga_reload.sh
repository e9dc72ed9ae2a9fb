#!/usr/bin/env bash
# A saved LoRA-GA adapter gives another model when it is reopened.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# Behaviour: LoRA-GA subtracts the first adapter from the base weights, so that a
# fresh adapter gives the base model. save_pretrained keeps the adapter only.
# from_pretrained has no gradients, falls back to the default initialisation, and
# loads the adapter onto the unshifted base. Logits differ from those of the live
# model without an error or a warning. PiSSA and OLoRA, which save the same way,
# recompute the shift and are exact. The LoRA-GA section of the
# documentation says to use save_embedding_layers or
# path_initial_model_for_weight_conversion; the first makes no difference, the
# second is exact.
#
# Seen (largest live logit 0.305681):
#   lora_ga, untrained against base logits: 2.98023e-08
#   lora_ga, shift of down_proj in the live model: 0.0132913
#   lora_ga, shift of down_proj in the reopened model: 0
#   lora_ga, reopened against live logits: 0.0128926
#   lora_ga, reopened against live logits, save_embedding_layers=True: 0.0128926
#   lora_ga, reopened against live logits, path_initial_model_for_weight_conversion: 2.98023e-08
#   pissa, reopened against live logits: 0
#   olora, reopened against live logits: 0

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
from peft import LoraConfig, LoraGAConfig, PeftModel, get_peft_model
from peft.tuners.lora import preprocess_loraga
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

def down_proj(tuned):
    return tuned.get_base_model().model.layers[0].mlp.down_proj.base_layer.weight.detach()


def fresh_adapter(init):
    model = copy.deepcopy(base)
    targets = ["q_proj", "down_proj"]
    torch.manual_seed(1)
    if init != "lora_ga":
        config = LoraConfig(r=4, lora_alpha=12, target_modules=targets, init_lora_weights=init)
        return get_peft_model(model, config).eval()
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules=targets, init_lora_weights=init, lora_ga_config=LoraGAConfig()
    )
    preprocess_loraga(model, config, lambda: model(input_ids=ids, labels=ids).loss.backward())
    model.zero_grad()
    return get_peft_model(model, config).eval()


def save_and_reopen(tuned, name, **options):
    folder = f"{sys.argv[1]}/{name}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        tuned.save_pretrained(folder, **options)
        torch.manual_seed(2)
        reopened = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    if any(w.category is UserWarning for w in caught):
        raise SystemExit("changed: saving or reopening now warns")
    return reopened


base = tiny_llama(tied=False)
first = base.model.layers[0].mlp.down_proj.weight.detach()
live = fresh_adapter("lora_ga")
expect("largest live logit", logits(live).abs().max().item(), 0.3057)
expect("lora_ga, untrained against base logits", gap(logits(live), logits(base)), 0)
expect("lora_ga, shift of down_proj in the live model", gap(down_proj(live), first), 0.01329)

reopened = save_and_reopen(live, "plain")
expect("lora_ga, shift of down_proj in the reopened model", gap(down_proj(reopened), first), 0)
what = "lora_ga, reopened against live logits"
expect(what, gap(logits(reopened), logits(live)), 0.01289)
reopened = save_and_reopen(live, "embedding", save_embedding_layers=True)
expect(f"{what}, save_embedding_layers=True", gap(logits(reopened), logits(live)), 0.01289)
live.save_pretrained(f"{sys.argv[1]}/first")
reopened = save_and_reopen(live, "converted", path_initial_model_for_weight_conversion=f"{sys.argv[1]}/first")
expect(f"{what}, path_initial_model_for_weight_conversion", gap(logits(reopened), logits(live)), 0)

for init in ["pissa", "olora"]:
    live = fresh_adapter(init)
    expect(f"{init}, reopened against live logits", gap(logits(save_and_reopen(live, init)), logits(live)), 0)
PY
