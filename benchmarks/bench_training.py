"""One step of training: packed rows and chunked logits beside padded rows and the module's own loss.

make bench        or        python benchmarks/bench_training.py --only LoRA --rows 0.5
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from measuring import timed
from peft import LoraConfig, get_peft_model
from tables import put
from torch import Tensor
from workloads import Pair, bbq_texts, llama_135m, mmlu_5_shot, shuffled, tokenizer_for

from evenhand.inference.tree_forward import Finish
from evenhand.training import Layout, causal_lm_loss, finish_of, layout_of, pack
from evenhand.training.packing import IGNORED

BATCHES = (4, 8)
"""Sequences in a padded batch; the faster one counts."""
TOKENS = 256
"""In a packed batch: about as many as in a padded one of four short texts."""


def short(rows: int) -> list[Pair]:
    """One option text of each row."""
    return bbq_texts(rows)[::3]


def mixed(rows: int) -> list[Pair]:
    """Short texts, and every eighth a long one."""
    return short(rows) + mmlu_5_shot(max(1, rows // 8))[::4]


WORKLOADS = {
    # name: how it is made, rows, whether an adapter is trained
    "BBQ texts": (short, 16, False),
    "BBQ texts and 5-shot prompts": (mixed, 8, False),
    "BBQ texts and 5-shot prompts, LoRA": (mixed, 8, True),
}


def model(adapter: bool) -> Any:
    """All weights, or an adapter on the attention."""
    module = llama_135m().train()
    if not adapter:
        return module
    config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(module, config).train()


def padded(module: Any, sequences: list[list[int]], batch: int) -> float:
    """Padded batches of the sequences as they come, each through the module's own loss."""
    counted, total = sum(len(ids) - 1 for ids in sequences), 0.0
    for start in range(0, len(sequences), batch):
        rows = sequences[start : start + batch]
        (given,) = pack(rows, Layout("padding"), tokens=10**9)
        share = sum(len(ids) - 1 for ids in rows) / counted
        loss = module(**given.inputs, labels=given.labels).loss * share
        loss.backward()
        total += loss.item()
    return total


def packed(module: Any, sequences: list[list[int]], layout: Layout, finish: Finish) -> float:
    """Packed batches through the chunked loss."""
    batches = pack(sequences, layout, tokens=TOKENS)
    counted, total = sum(int((b.labels != IGNORED).sum()) for b in batches), 0.0
    for batch in batches:
        loss = causal_lm_loss(module, batch, finish=finish, reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total


def gradients(module: Any) -> list[Tensor]:
    """A copy; those of the module are zero afterwards, and there, so that no step is charged for their memory."""
    found = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad(set_to_none=False)
    return found


def measure(name: str, share: float) -> dict[str, object]:
    """One row of the table."""
    make, rows, adapter = WORKLOADS[name]
    pairs = shuffled(make(max(7, int(rows * share))))
    tokenizer = tokenizer_for(["".join(p) for p in pairs])
    sequences = [tokenizer("".join(p))["input_ids"] for p in pairs]
    module = model(adapter)
    how = layout_of(module), finish_of(module)
    packed(module, sequences[:2], *how), gradients(module)  # the first step of a process is slower
    peers = {}
    for batch in BATCHES:
        peers[batch] = timed(lambda batch=batch: padded(module, sequences, batch))
        theirs = gradients(module)
    ours = timed(lambda: packed(module, sequences, *how))
    off = max(float((a - b).norm() / b.norm()) for a, b in zip(gradients(module), theirs, strict=True))
    best = min(peers, key=lambda b: peers[b].seconds)
    peer = peers[best]
    return {
        "workload": name,
        "sequences": len(sequences),
        "tokens": sum(map(len, sequences)),
        "padded, s": f"{peer.seconds:.1f} (batch {best})",
        "evenhand, s": f"{ours.seconds:.1f}",
        "ratio": f"{peer.seconds / ours.seconds:.1f}",
        "padded, MB": f"{peer.memory:.0f}",
        "evenhand, MB": f"{ours.memory:.0f}",
        "difference of the loss": f"{abs(ours.values - peer.values) / peer.values:.0e}",
        "of a gradient": f"{off:.0e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for name in WORKLOADS:
        if given.only in name:
            rows.append(measure(name, given.rows))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    put("training", rows, write=given.write)


if __name__ == "__main__":
    main()
