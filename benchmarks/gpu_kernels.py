"""Measure which kernel attends to a tree fastest on one card, and check that all give the same results.

Only the time inside inference counts: prompts are built and tokenised once, before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import torch
from gpu_speed import Card, Frozen, Reads, busy, flips, furthest, overheard, peak, reads_of, seconds
from torch import Tensor

from evenhand.inference import Request
from evenhand.inference.cascade_tree import HALF
from evenhand.inference.prefix_trie import Pack, packs
from evenhand.inference.tree_kernels import CASCADE, GATHERED, KERNELS, tree_of, using
from evenhand.interfaces import Question

NATS = 2e-4
"""Maximum difference of a kernel's log-probabilities from those of gathered keys in float32; else only reported."""
ERROR = 0.02
"""Maximum error of attention in bfloat16 relative to the norm; rounding is a tenth of it, a wrong mask far more."""


def compared(on: Card, asked: Sequence[Question], model: Frozen) -> dict[str, Any]:
    """Make a line on all kernels: the letters of some questions by each.

    A kernel that raises is reported with its error, and the others are still measured.
    """
    model.answer_by = "letters"
    with overheard(model) as heard:
        model.choose(list(asked))
    requests, before = heard["requests"], model.engine.tree_kernel
    reads, found = dict[str, Reads](), dict[str, dict[str, Any]]()
    try:
        for kernel in usable(on.device, model.weights.module.dtype):
            try:
                reads[kernel], found[kernel] = _timed(on, requests, kernel, model)
            except Exception as error:  # if a card or torch cannot run one, the others may still work
                found[kernel] = {"error": repr(error)[:300]}
    finally:
        _use(before, model)
    for kernel in [k for k in reads if k != GATHERED and GATHERED in reads]:
        found[kernel] |= {
            "nats": round(furthest(reads[GATHERED], reads[kernel]), 7),
            "flips": flips(reads[GATHERED], reads[kernel]),
        }
    return {"items": len(asked), **found, **_verdict(found, model.weights.module.dtype)}


def _timed(on: Card, requests: Sequence[Request], kernel: str, model: Frozen) -> tuple[Reads, dict[str, Any]]:
    """Return a kernel's values, and its seconds: of the first run, with compilation, and the better of two later."""
    _use(kernel, model)
    begun = time.perf_counter()
    if model.engine.tried.finish is None:
        raise RuntimeError(f"the tree is not used: {model.engine.tried.reason}")
    run = lambda: model.engine.read(requests, "kernels")  # noqa: E731
    values = run()
    first = time.perf_counter() - begun
    with peak(on.device) as memory:
        wall = min(seconds(run, on.device)[1] for _ in range(2))
    work = busy(run, on.device)
    part = {key: work[key] for key in ("busy_s", "kernels") if key in work}
    return reads_of(requests, values), {"first_s": round(first, 3), "wall_s": round(wall, 3), **part, **memory}


def _use(kernel: str, model: Frozen) -> None:
    """Use a kernel from now on; the support probe runs again with it."""
    model.engine.tree_kernel = kernel
    vars(model.engine).pop("tried", None)


def _verdict(found: dict[str, dict[str, Any]], dtype: torch.dtype) -> dict[str, Any]:
    """Report the fastest kernel, whether each ran, and whether its results are right in float32."""
    ran = {kernel: line["wall_s"] for kernel, line in found.items() if "wall_s" in line}
    exact = dtype == torch.float32
    met = {kernel: kernel in ran and (not exact or line.get("nats", 0.0) <= NATS) for kernel, line in found.items()}
    best = min(ran, key=lambda kernel: ran[kernel], default=None)
    target = "all run" + (f", within {NATS:g} nats of {GATHERED}" if exact else "")
    return {"best": best, "target": target, "met": met, "ok": all(met.values())}


def usable(device: str, dtype: torch.dtype) -> list[str]:
    """Return the kernels that do not fall back to gathered keys on a device and in a precision."""
    half = device != "cpu" and dtype in HALF
    return [kernel for kernel in KERNELS if kernel != CASCADE or half]


@torch.inference_mode()
def one_layer(on: Card, count: int) -> dict[str, Any]:
    """Make a line on attention alone in bfloat16: each kernel against dense products in float32, on random queries.

    Args:
        on: The card.
        count: Number of sequences in the tree.
    """
    pack = next(packs(branches(count), 10**9))
    make = torch.Generator(on.device).manual_seed(0)
    nodes = len(pack.tokens)
    query, key, value = (
        torch.randn(1, heads, nodes, 128, device=on.device, generator=make).to(on.dtype) for heads in (32, 8, 8)
    )
    truth, off, errors = dense(pack, query, key, value), dict[str, float](), dict[str, str]()
    for kernel in usable(on.device, on.dtype):
        try:
            with using(kernel):
                made = tree_of(pack)(0, query, key, value, None, None)
            off[kernel] = round(float((made.float() - truth).norm() / truth.norm()), 6)
        except Exception as error:  # as in `compared`
            errors[kernel] = repr(error)[:300]
    ok = not errors and max(off.values()) <= ERROR
    return {"nodes": nodes, "relative_error": off, "errors": errors, "target": f"<= {ERROR:g}", "ok": ok}


def branches(count: int) -> list[tuple[int, ...]]:
    """Make random sequences that branch off each other at several depths, or share nothing."""
    draw = random.Random(0)
    heads = [tuple(draw.randrange(100) for _ in range(length)) for length in (1, 30, 150, 400)]
    tails = [tuple(draw.randrange(4) for _ in range(draw.randrange(1, 12))) for _ in range(count)]
    return [*dict.fromkeys(draw.choice(heads) + tail for tail in tails), tuple(range(200, 300))]


def dense(pack: Pack, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute attention over a tree by its definition, in float32, [1, nodes, heads, width]."""
    seen = torch.zeros(len(pack.tokens), len(pack.tokens), dtype=torch.bool)
    for path in pack.paths:
        for n, node in enumerate(path.tolist()):
            seen[node, torch.from_numpy(path[: n + 1])] = True
    repeats = query.shape[1] // key.shape[1]
    k, v = (t.float().repeat_interleave(repeats, 1) for t in (key, value))
    scores = query.float() @ k.transpose(-1, -2) * query.shape[-1] ** -0.5
    weights = scores.masked_fill_(~seen.to(query.device), -torch.inf).softmax(-1)
    return (weights @ v).transpose(1, 2)
