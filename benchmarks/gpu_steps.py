"""A step of PCGU and a step of LoRA training on one card."""

from __future__ import annotations

import copy
from typing import Any

import torch
from gpu_smoke import PAIRS
from gpu_speed import Card, Frozen, bbq, busy, peak, seconds, work

from evenhand.methods.unlearning._pairs import encoded
from evenhand.methods.unlearning._pcgu.fsdp import World
from evenhand.methods.unlearning._pcgu.gradients import Scoring
from evenhand.methods.unlearning._pcgu.partition import partition
from evenhand.methods.unlearning._pcgu.updates import Plan, Unlearning
from evenhand.prompting.rendering import plain_template
from evenhand.training import causal_lm_loss, finish_of, layout_of, pack
from evenhand.training.packing import IGNORED, Layout


def unlearning(model: Frozen, on: Card, count: int) -> dict[str, Any]:
    """Make a line on a step of PCGU: masters in float32, products in bfloat16 on a GPU."""
    base, tokenizer = model.weights
    made = encoded(PAIRS, tokenizer, causal=True, context=512)
    pairs = [made[n % len(made)] for n in range(count)]
    with peak(on.device) as memory:
        module: Any = copy.deepcopy(base).float().requires_grad_(True)
        run = Unlearning(
            module=module,
            base=base,
            parts=partition(module),
            pairs=pairs,
            world=World(module),
            how=Scoring(causal=True, half=on.device != "cpu"),
            plan=Plan(epochs=1, learning_rate=1e-4, batch=count, micro=16),
        )
        first = seconds(lambda: run.step(pairs), on.device)[1]
        second = seconds(lambda: run.step(pairs), on.device)[1]
    masters = sum(p.numel() for p in module.parameters()) * 4 / 1e9
    found = busy(lambda: run.step(pairs), on.device)
    return {
        "items": count,
        "first_s": round(first, 3),
        "wall_s": round(second, 3),
        "vectors": run.parts.size,
        "masters_GB": round(masters, 2),
        **memory,
        **found,
    }


def training(model: Frozen, on: Card, count: int) -> dict[str, Any]:
    """Make a line on a LoRA step, with packed rows compared with padded ones."""
    from peft import LoraConfig, get_peft_model

    tokenizer: Any = model.weights.tokenizer
    ids = [tokenizer(f"{plain_template(q)} {q.options[0]}").input_ids for q in bbq(count)]
    config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])
    module: Any = get_peft_model(copy.deepcopy(model.weights.module), config).train()
    adam = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-4)
    finish, layout = finish_of(module), layout_of(module)

    def packed() -> float:
        return _step(
            module,
            adam,
            pack(ids, layout, tokens=8192),
            lambda b: causal_lm_loss(module, b, finish=finish, reduction="sum"),
        )

    def padded() -> float:
        def loss(batch: Any) -> Any:
            labelled = int((batch.labels[:, 1:] != IGNORED).sum())
            return module(**batch.inputs, labels=batch.labels).loss * labelled

        return _step(module, adam, pack(ids, Layout("padding"), tokens=8192), loss)

    packed(), padded()
    with peak(on.device) as memory:
        ours, wall = seconds(packed, on.device)
    with peak(on.device) as other:
        peer, theirs = seconds(padded, on.device)
    fed = sum(map(len, ids))
    return {
        "items": count,
        "tokens": fed,
        "wall_s": round(wall, 3),
        "peer_s": round(theirs, 3),
        "ratio": round(theirs / wall, 2),
        "layout": layout.kind,
        "loss": [round(ours, 4), round(peer, 4)],
        "rate_share": round(2 * work(model.weights.module, fed, fed) / wall / on.flops, 3),
        **memory,
        "peer_peak_GB": other.get("peak_GB"),
        **busy(packed, on.device),
    }


def _step(module: Any, adam: Any, batches: list[Any], loss: Any) -> float:
    """Compute gradients of all batches as one step, and return the mean loss per token."""
    counted = sum(int((b.labels != IGNORED).sum()) for b in batches)
    total = 0.0
    for batch in batches:
        value = loss(batch.to(module.device)) / counted
        value.backward()
        total += float(value.detach())
    adam.step()
    adam.zero_grad(set_to_none=True)
    return total
