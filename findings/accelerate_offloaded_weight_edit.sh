#!/usr/bin/env bash
# Writing into an offloaded weight does nothing, and says nothing.
#
# Versions: accelerate 1.15.0, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: editing a weight of a model loaded with a device_map that puts
# layers on disk works, or raises because the weight is a meta tensor.
#
# Behaviour: an offloaded weight is a meta tensor between calls; before each call
# accelerate fills in the value that it stored. Arithmetic on a meta tensor is
# valid and has no effect, and a new Parameter put into the layer is overwritten
# in the next call. So projections, scalings, copies and replacements on the
# offloaded layers are lost without an error or a warning, while those on the
# other layers of the same model hold: an edit of all layers becomes an edit of
# some. save_pretrained writes the old values. Only load_state_dict warns.
#
# Seen:
#   offloaded against in-memory logits, no edit: 0
#   scale: logits move by 0.0182927 in memory, by 0 offloaded
#   project: logits move by 0.00410265 in memory, by 0 offloaded
#   copy: logits move by 0.0182927 in memory, by 0 offloaded
#   copy_data: logits move by 0.0182927 in memory, by 0 offloaded
#   replace: logits move by 0.0182927 in memory, by 0 offloaded
#   load: logits move by 0.0182927 in memory, by 0 offloaded
#   after the last edit, saved and reopened, against base logits: 0

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 safetensors==0.8.0
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - "$work" <<'PY'
import sys
import warnings

import accelerate
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


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


print("accelerate", accelerate.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
torch.set_num_threads(1)

folder = f"{sys.argv[1]}/base"
tiny_llama().save_pretrained(folder)
names = ["model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.layers.1", "model.norm", "lm_head"]
places = {name: "disk" if name == "model.layers.1" else "cpu" for name in names}


def offloaded():
    offload = f"{sys.argv[1]}/offload"
    return AutoModelForCausalLM.from_pretrained(folder, device_map=places, offload_folder=offload).eval()


def in_memory():
    return AutoModelForCausalLM.from_pretrained(folder).eval()


zeros = torch.zeros(32, 64)


def scale(layer):
    layer.weight.mul_(0)


def project(layer):
    direction = torch.nn.functional.normalize(torch.ones(32), dim=0)
    layer.weight -= torch.outer(direction, direction @ layer.weight)


def copy(layer):
    layer.weight.copy_(zeros)


def copy_data(layer):
    layer.weight.data.copy_(zeros)


def replace(layer):
    layer.weight = torch.nn.Parameter(zeros)


def load(layer):
    layer.load_state_dict({"weight": zeros})


edits = [scale, project, copy, copy_data, replace, load]
base = logits(in_memory())
expect("offloaded against in-memory logits, no edit", gap(logits(offloaded()), base), 0)
with torch.no_grad():
    for edit in edits:
        moved, told = [], []
        for build in (in_memory, offloaded):
            model = build()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                edit(model.model.layers[1].mlp.down_proj)
                moved.append(gap(logits(model), base))
            told += [w for w in caught if w.category is UserWarning]
        print(f"{edit.__name__}: logits move by {moved[0]:.6g} in memory, by {moved[1]:.6g} offloaded")
        if moved[0] < 1e-3 or moved[1] > 1e-5:
            raise SystemExit(f"changed: {edit.__name__} moves the logits by {moved}")
        if bool(told) != (edit is load):
            raise SystemExit(f"changed: {edit.__name__} gives {len(told)} warnings")
    model.save_pretrained(f"{sys.argv[1]}/edited")
reopened = LlamaForCausalLM.from_pretrained(f"{sys.argv[1]}/edited").eval()
expect("after the last edit, saved and reopened, against base logits", gap(logits(reopened), base), 0)
PY
