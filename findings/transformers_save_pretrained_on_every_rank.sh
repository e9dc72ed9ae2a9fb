#!/usr/bin/env bash
# save_pretrained() writes nothing on every process but the first, even when each process has a folder of its own.
#
# Versions: transformers 5.23.0, torch 2.13.0 (CPU, gloo).
#
# Behaviour: once torch.distributed is initialised, PreTrainedModel.save_pretrained
# writes files on rank 0 alone. There is no error and no warning on the other
# ranks; the folder that they named is made, and stays without weights. A program
# in which every process saves its own replica to its own local disk, and opens
# it again, fails on all ranks but one. Passing is_main_process=True changes
# nothing.
#
# Seen (files in the folder of each of two processes):
#   rank 0: config.json generation_config.json model.safetensors
#   rank 1: none

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==5.23.0 numpy==2.4.6 safetensors==0.8.0
fi

cat >"$work/each.py" <<'PY'
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from transformers import LlamaConfig, LlamaForCausalLM


def files(folder):
    return " ".join(sorted(f.name for f in folder.iterdir())) if folder.is_dir() else "no folder"


dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4
)
model = LlamaForCausalLM(config)
seen = []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    for name, options in [("plain", {}), ("is_main_process", {"is_main_process": True})]:
        folder = Path(sys.argv[1]) / f"{name}-{rank}"
        model.save_pretrained(folder, **options)
        seen.append("model.safetensors" in files(folder))
        print(f"rank {rank}, {name}: {files(folder) or 'none'}", flush=True)
told = [w for w in caught if w.category is UserWarning]
dist.barrier()
dist.destroy_process_group()
if rank == 0:
    print("transformers", transformers.__version__, "torch", torch.__version__)
if seen != [rank == 0] * 2 or told:
    raise SystemExit(f"changed: rank {rank} wrote weights: {seen}; warnings: {len(told)}")
PY

HF_HUB_OFFLINE=1 "$python" -m torch.distributed.run --standalone --nproc-per-node 2 "$work/each.py" "$work" 2>"$work/errors" ||
    { cat "$work/errors"; exit 1; }
