#!/usr/bin/env bash
# AdaLoRA: the reported loss holds the training penalty in eval mode too, and with the adapter switched off.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: the orthogonality penalty belongs to training. After eval(),
# and surely under disable_adapter(), loss is the cross-entropy of the logits.
#
# Behaviour: calling an AdaLoRA model with labels adds the penalty to the loss
# whenever there is one, whatever the mode and whether or not the adapter is in
# use. The logits are right. The penalty does not depend on the text, so
# differences between two texts under one model are right, while perplexities,
# losses of two models against each other, and the "base model" measured with
# disable_adapter() are too high. Called through get_base_model(), and after
# merge_and_unload(), the loss is plain. There is no warning.
#
# Seen:
#   cross-entropy of the adalora model: 3.81842
#   adalora, eval(), loss: 4.80538
#   adalora, eval(), perplexity / true perplexity: 2.68309
#   adalora, loss - cross-entropy, text of 6 tokens: 0.986968
#   adalora, loss - cross-entropy, text of 16 tokens: 0.986968
#   base model, loss - cross-entropy: 0
#   adalora switched off, cross-entropy - that of the base model: 0
#   adalora switched off, loss - cross-entropy: 0.986968
#   lora, loss - cross-entropy: 0
#   adalora called through get_base_model(), loss - cross-entropy: 0
#   adalora after merge_and_unload(), loss - cross-entropy: 0

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
from peft import AdaLoraConfig, LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
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


def losses(model, text):
    """What the model reports for the text, and the cross-entropy of the logits it gives for it."""
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        out = model(input_ids=text, labels=text)
    if any(w.category is UserWarning for w in caught):
        raise SystemExit(f"changed: there is a warning now: {[str(w.message) for w in caught]}")
    return out.loss.item(), cross_entropy(out.logits[0, :-1], text[0, 1:]).item()


def with_adapter(config):
    torch.manual_seed(1)
    return get_peft_model(tiny_llama(), config).eval()


target = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
adalora = with_adapter(AdaLoraConfig(init_r=4, target_r=2, total_step=10, **target))
reported, plain = losses(adalora, ids)
expect("cross-entropy of the adalora model", plain, 3.818)
expect("adalora, eval(), loss", reported, 4.805)
expect("adalora, eval(), perplexity / true perplexity", torch.tensor(reported - plain).exp().item(), 2.683)

other = torch.arange(20, 36)[None]
longer = losses(adalora, other)
expect("adalora, loss - cross-entropy, text of 6 tokens", reported - plain, 0.987)
expect("adalora, loss - cross-entropy, text of 16 tokens", longer[0] - longer[1], 0.987)

base = losses(tiny_llama(), ids)
expect("base model, loss - cross-entropy", base[0] - base[1], 0)
with adalora.disable_adapter():
    off = losses(adalora, ids)
expect("adalora switched off, cross-entropy - that of the base model", off[1] - base[1], 0)
expect("adalora switched off, loss - cross-entropy", off[0] - off[1], 0.987)

lora = losses(with_adapter(LoraConfig(r=4, **target)), ids)
expect("lora, loss - cross-entropy", lora[0] - lora[1], 0)
called = losses(adalora.get_base_model(), ids)
expect("adalora called through get_base_model(), loss - cross-entropy", called[0] - called[1], 0)
merged = losses(adalora.merge_and_unload(), ids)
expect("adalora after merge_and_unload(), loss - cross-entropy", merged[0] - merged[1], 0)
PY
