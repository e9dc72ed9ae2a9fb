#!/usr/bin/env bash
# Prompt tuning with left padding: the pads stand between the prompt and the text and change every logit.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: a model with rotary positions gives a row the same logits
# with and without pads on the left, since only distances count and the pads are
# masked. That holds for the base model. At the latest, position_ids that skip
# the pads should make it right.
#
# Behaviour: the virtual tokens are put before the pads, so the pads add to the
# distance between the learned prompt and the text. For prompt tuning and
# p-tuning, position_ids are dropped (with a general warning), and generate is
# affected as well: the result of a row depends on the longest row in its batch.
# Prefix tuning is affected in forward without position_ids; with them, and in
# generate, it is exact.
#
# Seen (largest difference between a row with 5 pads and the same row alone):
#   base model, forward: 5.96046e-07
#   base model, forward with position_ids: 0
#   base model, first step of generate: 0
#   prompt tuning, forward: 0.206922
#   prompt tuning, forward with position_ids: 0.206922
#   prompt tuning, first step of generate: 0.0698444
#   p-tuning, forward: 0.143426
#   p-tuning, forward with position_ids: 0.143426
#   p-tuning, first step of generate: 0.0680148
#   prefix tuning, forward: 0.628385
#   prefix tuning, forward with position_ids: 3.8743e-07
#   prefix tuning, first step of generate: 3.57628e-07

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
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
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

VIRTUAL = 4
PADS = 5
padded = torch.cat([torch.zeros(1, PADS, dtype=torch.long), ids], 1)
mask = torch.cat([torch.zeros(1, PADS, dtype=torch.long), torch.ones_like(ids)], 1)
positions = (mask.cumsum(1) - 1).clamp(min=0)


def with_prompt(config):
    torch.manual_seed(1)
    config = config(num_virtual_tokens=VIRTUAL, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(initializer_range=0.1), config).eval()
    train(model)
    return model


def real(model, **inputs):
    """Logits of the six real tokens."""
    return logits(model, **inputs)[:, -ids.shape[1] :]


def first_step(model, tokens, seen):
    out = model.generate(
        input_ids=tokens,
        attention_mask=seen,
        max_new_tokens=1,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.logits[0]


def compare(name, model, forward, with_positions, generated):
    alone = real(model)
    expect(f"{name}, forward", gap(real(model, input_ids=padded, attention_mask=mask), alone), forward)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        seen = real(model, input_ids=padded, attention_mask=mask, position_ids=positions)
    if any("position" in str(w.message).lower() for w in caught) != (with_positions != 0):
        raise SystemExit(f"changed: {name} has other warnings about position_ids")
    expect(f"{name}, forward with position_ids", gap(seen, alone), with_positions)
    steps = first_step(model, ids, torch.ones_like(ids)), first_step(model, padded, mask)
    expect(f"{name}, first step of generate", gap(*steps), generated)


print("largest difference between the logits of a row with 5 pads on the left and of the same row alone:")
compare("base model", tiny_llama(initializer_range=0.1), 0, 0, 0)
compare("prompt tuning", with_prompt(PromptTuningConfig), 0.2069, 0.2069, 0.06984)
compare("p-tuning", with_prompt(PromptEncoderConfig), 0.1434, 0.1434, 0.06801)
compare("prefix tuning", with_prompt(PrefixTuningConfig), 0.6284, 0, 0)
PY
