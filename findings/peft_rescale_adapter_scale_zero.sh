#!/usr/bin/env bash
# rescale_adapter_scale(model, 0) is not the base model, and on a merged adapter no scale does anything.
#
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: the scale moves a model between the base (0) and the tuned
# model (1), so that scale 0 gives what disable_adapter() gives, and a scale on a
# merged adapter raises or works.
#
# Behaviour: only the factor of the low-rank product is scaled. Trained DoRA
# magnitudes, modules_to_save and trained tokens stay at full strength at every
# scale; with the last of these, scale 0 is farther from the base than scale 1 in
# the case below. With merge_adapter() done before, the scale is set and has no
# effect. There is no error and no warning in any of these cases. A curve of a
# bias score over the scale starts at a model that is not the base, or is flat.
#
# Seen (largest difference to the logits of the base model):
#   lora, scale 1: 0.412773
#   lora, scale 0: 0
#   dora, scale 1: 0.314013
#   dora, scale 0: 0.255085
#   lora and modules_to_save, scale 1: 4.02371
#   lora and modules_to_save, scale 0: 3.43443
#   lora and trainable_token_indices, scale 1: 0.488327
#   lora and trainable_token_indices, scale 0: 0.517377
#   switched off: 0 in all four
# (difference between scale 1 and another scale of a merged lora adapter)
#   merged, scale 0: 9.68575e-08
#   merged, scale -1: 9.68575e-08
#   unmerged again, scale -1: 0.50966

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
from peft.helpers import rescale_adapter_scale
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

base = logits(tiny_llama())


def tuned(**options):
    torch.manual_seed(1)
    model = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **options)).eval()
    train(model)
    return model


def scaled(model, multiplier):
    with rescale_adapter_scale(model, multiplier):
        return logits(model)


kinds = [
    ("lora", {}, 0, 0.4128),
    ("dora", {"use_dora": True}, 0.2551, 0.3140),
    ("lora and modules_to_save", {"modules_to_save": ["lm_head"]}, 3.434, 4.024),
    ("lora and trainable_token_indices", {"trainable_token_indices": [1, 2]}, 0.5174, 0.4883),
]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    print("largest difference to the logits of the base model:")
    for name, options, at_zero, at_one in kinds:
        model = tuned(**options)
        expect(f"{name}, scale 1", gap(logits(model), base), at_one)
        expect(f"{name}, scale 0", gap(scaled(model, 0.0), base), at_zero)
        with model.disable_adapter():
            expect(f"{name}, switched off", gap(logits(model), base), 0)

    print("difference between scale 1 and another scale of a merged lora adapter:")
    model = tuned()
    before = logits(model)
    model.merge_adapter()
    for multiplier in (0.0, -1.0):
        expect(f"merged, scale {multiplier:g}", gap(scaled(model, multiplier), before), 0)
    model.unmerge_adapter()
    expect("unmerged again, scale -1", gap(scaled(model, -1.0), before), 0.5097)
if any(w.category is UserWarning for w in caught):
    raise SystemExit(f"changed: there is a warning now: {[str(w.message) for w in caught]}")
PY
