"""Checks on a GPU: everything runs and equals the CPU and plain transformers; how fast, and in how much memory.

python benchmarks/gpu.py --out gpu.jsonl      or, anywhere, a rehearsal:      --toy --device cpu

Weights are random and made on the device; rows and tokenizer are the demo's, so nothing is downloaded. Each line is
printed and written as soon as it is ready, the most informative ones first; lines without time left are reported.
docs/gpu_checks.md has the targets and the last results.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import platform
import random
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import gpu_kernels
import gpu_smoke
import gpu_steps
import torch
from gpu_speed import (
    FULL,
    TOY,
    Card,
    Frozen,
    Reads,
    Sizes,
    bbq,
    card,
    choosing,
    flips,
    furthest,
    host_functions,
    mmlu_5_shot,
    model_of,
    overheard,
    plain,
    reads_of,
    rounding,
    seconds,
    six_orders,
    top_token,
    writing,
    written_by_peer,
)

import evenhand
from evenhand.inference import Prompt
from evenhand.inference.engine import TREE_KERNEL
from evenhand.inference.tree_kernels import KERNELS
from evenhand.interfaces import Sampling
from evenhand.models import fingerprint

SHARING = 0.8
"""Fraction of the sharing ratio that must be gained over the peer's best batch size."""
RATE = 0.5
"""Fraction of the card's measured rate that the unavoidable products must reach."""
HOST = 0.15
"""Maximum fraction of the wall time in which the device may be idle."""
NATS = 2e-4
"""Maximum difference of a float32 log-probability from that of one plain forward per sequence."""
ROUNDING = 1.1
"""Maximum root mean square error in bfloat16, as a multiple of the peer's."""
TARGETS = f"ratio_of_sharing >= {SHARING}, rate_share >= {RATE}, host_share <= {HOST}"


class Setting(NamedTuple):
    """Settings of all lines."""

    on: Card
    sizes: Sizes
    big: str
    small: str


class Line(NamedTuple):
    """A measurement to be made."""

    section: str
    name: str
    shape: str
    """Shape and precision of its model; "" for none."""
    needs: float
    """Approximate seconds."""
    run: Callable[[Any], dict[str, Any]]
    """Makes the measurement, given the model."""


# ------------------------------------------------------------------------------------------------- equality


def equal_reads(on: Card, sizes: Sizes, model: Frozen) -> dict[str, Any]:
    """Compare letters in one order and in six, and texts, with one plain forward per sequence, in float32."""
    count = max(4, sizes.rows // 70)
    with overheard(model) as heard:
        for way, asked in (("letters", bbq(count)), ("letters", six_orders(count // 4)), ("text", bbq(count))):
            model.answer_by = way
            model.choose(asked)
    ours = reads_of(heard["requests"], heard["values"])
    theirs = plain(model.weights.module, [(ids, sorted(reads)) for ids, reads in ours.items()], 1)
    off = furthest(theirs, ours)
    return {"sequences": len(ours), "nats": off, "target": f"<= {NATS:g}", "ok": off <= NATS}


def equal_replies(on: Card, sizes: Sizes, model: Frozen) -> dict[str, Any]:
    """Compare greedy replies with `generate`, one prompt at a time, in float32."""
    tokenizer: Any = model.weights.tokenizer
    prompts = [
        Prompt(tuple(tokenizer(f"{q.context} {q.question}").input_ids)) for q in bbq(max(2, sizes.prompts // 32))
    ]
    ours = model.engine.generate(prompts, Sampling(max_new_tokens=25), "equality")
    theirs = written_by_peer(model.weights.module, prompts, 1)
    same = sum(list(a.ids) == b for a, b in zip(ours, theirs, strict=True))
    return {"replies": len(prompts), "same": same, "target": "all", "ok": same == len(prompts)}


def against_truth(setting: Setting, model: Frozen) -> dict[str, Any]:
    """Compare letters in bfloat16, ours and the peer's, with plain forwards of the same weights in float32.

    Programs that round in another order differ, which says nothing about either; what counts is whether one is further
    from the truth. Two variants of the peer show the effect of a part of it: `masked` uses another attention
    kernel, and `exact_head` does not round the logits.
    """
    model.answer_by = "letters"
    with overheard(model) as heard:
        model.choose(bbq(setting.sizes.rows))
    all_ours = reads_of(heard["requests"], heard["values"])
    some = random.Random(0).sample(sorted(all_ours), min(setting.sizes.sample, len(all_ours)))
    asked = [(ids, sorted(all_ours[ids])) for ids in some]
    forward = partial(plain, asked=asked, batch=setting.sizes.batches[0])
    module: Any = model.weights.module
    made = {
        "ours": {ids: all_ours[ids] for ids in some},
        "peer": forward(module),
        "masked": forward(module, masked=True),
        "exact_head": forward(module, exact_head=True),
    }
    truth = forward(copy.deepcopy(module).float())
    off = {name: rounding(reads, truth) for name, reads in made.items()}
    between = {name: flips(made["peer"], made[name]) for name in ("ours", "masked", "exact_head")}
    only = _discordant(made["ours"], made["peer"], truth)
    return {"sequences": len(some), **off, "flips_to_peer": between, **_no_worse(off["ours"], off["peer"], only)}


def _discordant(ours: Reads, peer: Reads, truth: Reads) -> tuple[int, int]:
    """Count sequences that only ours, and only the peer, decides differently from the truth."""
    wrong = [[top_token(made[ids]) != top_token(truth[ids]) for ids in truth] for made in (ours, peer)]
    return sum(a > b for a, b in zip(*wrong, strict=True)), sum(a < b for a, b in zip(*wrong, strict=True))


def _no_worse(ours: dict[str, Any], peer: dict[str, Any], only: tuple[int, int]) -> dict[str, Any]:
    """Return whether ours is as close to the truth as the peer, within two standard errors of paired counts."""
    met = {
        "rms": ours["rms"] <= ROUNDING * peer["rms"],
        "flips": only[0] - only[1] <= 2 * sum(only) ** 0.5,
    }
    said = f"rms at most {ROUNDING} x the peer's; wrong in ours only <= wrong in the peer's only + 2 standard errors"
    return {"wrong_in_one_only": list(only), "target": said, "met": met, "ok": all(met.values())}


# ---------------------------------------------------------------------------------------------------- speed


def chosen(setting: Setting, asked: list[Any], way: str, letters: int, model: Frozen) -> dict[str, Any]:
    """Make a line on choosing, compared with the targets."""
    line = choosing(model, asked, way, setting.on, setting.sizes, letters)
    # letters may flip no more often than the peer's own, apart from the random variation of so small a count
    few = (
        way != "letters" or line["flips_ours_peer"] <= line["flips_peer_peer"] + 2 * line["flips_peer_peer"] ** 0.5 + 2
    )
    met = {
        "sharing": line["ratio_of_sharing"] >= SHARING,
        "rate": line["rate_share"] >= RATE,
        "host": line.get("host_share", 0.0) <= HOST,
        "flips": few,
    }
    return {**line, "target": TARGETS, "met": met, "ok": all(met.values())}


def wrote(setting: Setting, model: Frozen) -> dict[str, Any]:
    """Make a line on replies."""
    line = writing(model, bbq(setting.sizes.prompts), setting.on, setting.sizes)
    met = {"ratio": line["ratio"] >= 1, "host": line.get("host_share", 0.0) <= HOST}
    return {**line, "target": f"ratio >= 1, host_share <= {HOST}", "met": met, "ok": all(met.values())}


def profiled(setting: Setting, model: Frozen) -> dict[str, Any]:
    """Break down the host's time."""
    model.answer_by = "letters"
    asked = bbq(setting.sizes.rows)
    return {
        "choosing": host_functions(lambda: model.choose(asked)),
        "replies": host_functions(lambda: wrote_once(setting, model)),
    }


def wrote_once(setting: Setting, model: Frozen) -> None:
    """Generate replies to some prompts."""
    tokenizer: Any = model.weights.tokenizer
    prompts = [Prompt(tuple(tokenizer(q.context).input_ids)) for q in bbq(setting.sizes.prompts)]
    model.engine.generate(list(dict.fromkeys(prompts)), Sampling(max_new_tokens=8), "profile")


def packed(setting: Setting, nodes: int, model: Frozen) -> dict[str, Any]:
    """Measure letters in one order with packs of another size."""
    model.answer_by, before = "letters", model.engine.pack_nodes
    model.engine.pack_nodes = nodes
    asked = bbq(setting.sizes.rows)
    try:
        wall = min(seconds(lambda: model.choose(asked), setting.on.device)[1] for _ in range(2))
    finally:
        model.engine.pack_nodes = before
    return {"pack_nodes": nodes, "items_per_s": round(len(asked) / wall, 1), "wall_s": round(wall, 3), "usual": before}


def hashed(setting: Setting, model: Frozen) -> dict[str, Any]:
    """Measure the cost of a model from memory before each call: its weights are hashed."""
    _, took = seconds(lambda: fingerprint.of_weights(*model.weights), setting.on.device)
    return {"wall_s": round(took, 2)}


def lines(setting: Setting) -> Iterator[Line]:
    """Return all measurements, most valuable first."""
    on, sizes, big, small = setting
    spare, little, exact = f"{big} bfloat16", f"{small} bfloat16", f"{small} float32"
    yield Line("equality", "float32, log-probabilities", exact, 15, partial(equal_reads, on, sizes))
    yield Line("equality", "float32, replies", exact, 15, partial(equal_replies, on, sizes))
    yield Line("kernels", "float32, one order", exact, 40, partial(gpu_kernels.compared, on, bbq(sizes.rows // 4)))
    yield Line("kernels", "one layer", "", 20, lambda _: gpu_kernels.one_layer(on, 30 * sizes.prompts // 8))
    yield Line("equality", "bfloat16 against float32 truth", little, 15, partial(against_truth, setting))
    yield from speed_lines(setting, spare)
    yield Line("equality", "bfloat16 against float32 truth", spare, 45, partial(against_truth, setting))
    yield Line("steps", "PCGU step", little, 25, lambda model: gpu_steps.unlearning(model, on, min(32, sizes.rows)))
    yield Line("steps", "LoRA step", little, 20, lambda model: gpu_steps.training(model, on, min(512, sizes.rows)))
    yield Line("speed", "BBQ letters, one order", little, 20, partial(chosen, setting, bbq(sizes.rows), "letters", 3))
    yield Line("speed", "replies of 25 tokens", little, 25, partial(wrote, setting))
    for name in gpu_smoke.CHECKS:
        yield Line("smoke", name, "", 2, lambda _, name=name: gpu_smoke.run(name, on.device))
    for nodes in (8192, 16384, 65536, 131072):
        yield Line("packs", f"letters, packs of {nodes}", spare, 6, partial(packed, setting, nodes))
    yield Line("host", "functions", spare, 15, partial(profiled, setting))
    yield Line("host", "hash of the weights", spare, 15, partial(hashed, setting))


def speed_lines(setting: Setting, shape: str) -> Iterator[Line]:
    """Measurements of the targets on the big model, and of the best kernel there."""
    on, sizes, *_ = setting
    rows, third = bbq(sizes.rows), six_orders(sizes.rows // 3)
    yield Line("speed", "BBQ letters, one order", shape, 35, partial(chosen, setting, rows, "letters", 3))
    yield Line("kernels", "bfloat16, one order", shape, 45, partial(gpu_kernels.compared, on, rows))
    yield Line("speed", "BBQ letters, six orders", shape, 40, partial(chosen, setting, third, "letters", 3))
    exam = mmlu_5_shot(sizes.rows)
    yield Line("speed", "MMLU 5-shot letters", shape, 25, partial(chosen, setting, exam, "letters", 4))
    yield Line("speed", "replies of 25 tokens", shape, 30, partial(wrote, setting))
    yield Line("speed", "BBQ texts", shape, 30, partial(chosen, setting, rows, "text", 1))
    yield Line("kernels", "bfloat16, MMLU 5-shot", shape, 20, partial(gpu_kernels.compared, on, exam))


# ------------------------------------------------------------------------------------------------------ the run


class Report:
    """Prints lines, and writes them to a file."""

    def __init__(self, out: Path | None) -> None:
        """Start a file."""
        self.out, self.begun, self.counts = (
            out,
            time.perf_counter(),
            dict.fromkeys(("ok", "missed", "failed", "left"), 0),
        )
        if out is not None:
            out.write_text("")

    def put(self, **line: Any) -> None:
        """Print and write a line."""
        line["at_s"] = round(time.perf_counter() - self.begun, 1)
        print(" | ".join(f"{k}: {v}" for k, v in line.items() if k != "traceback"), flush=True)
        if "traceback" in line:
            print(line["traceback"], flush=True)
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")


class Models:
    """Keeps the model of the last line, and frees it before another is made."""

    def __init__(self, device: str) -> None:
        """Start without a model."""
        self.device, self.name, self.model = device, "", None
        self.tokenizer = evenhand.load("demo", device="cpu").weights.tokenizer

    def get(self, name: str) -> Frozen | None:
        """Return the model of a shape and a precision; None for ""."""
        if name != self.name:
            self.model = None
            gc.collect()
            if self.device != "cpu":
                torch.cuda.empty_cache()
            shape, _, dtype = name.partition(" ")
            self.model = model_of(shape, self.tokenizer, self.device, getattr(torch, dtype)) if name else None
            self.name = name
        return self.model


def run(line: Line, models: Models, report: Report) -> None:
    """Make a line; errors are recorded."""
    begun = time.perf_counter()
    said: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            made = line.run(models.get(line.shape))
        said = sorted({str(w.message)[:300] for w in caught if "evenhand" in w.filename or w.category is UserWarning})
    except Exception as error:  # the other lines may still work
        made = {"ok": False, "error": repr(error)[:500], "traceback": traceback.format_exc()[-3000:]}
    report.counts["failed" if "error" in made else "ok" if made.get("ok", True) else "missed"] += 1
    took = round(time.perf_counter() - begun, 1)
    warned = {"warnings": said} if said else {}
    report.put(section=line.section, name=line.name, model=line.shape, **made, **warned, took_s=took)


def main() -> None:
    """Make all lines for which there is time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="no line starts that would end later")
    parser.add_argument("--out", type=Path, help="a file for the lines, as JSON")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true", help="everything at toy size, for a rehearsal")
    parser.add_argument("--only", default="", help="sections and names that contain this")
    parser.add_argument("--kernel", choices=KERNELS, help="use this tree kernel in every line except kernels")
    given = parser.parse_args()
    if given.kernel is not None:
        os.environ[TREE_KERNEL] = given.kernel
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report = Report(given.out)
    on = card(given.device, torch.bfloat16, 256 if given.toy else 8192)
    setting = Setting(on, TOY, "toy", "toy") if given.toy else Setting(on, FULL, "8B", "1B")
    name = torch.cuda.get_device_name() if given.device != "cpu" else platform.processor()
    versions = {p: version(p) for p in ("torch", "transformers", "peft", "numpy")}
    report.put(
        section="card", name=name, TFLOPs=round(on.flops / 1e12, 3), TBs=round(on.bandwidth / 1e12, 3), **versions
    )
    models = Models(given.device)
    for line in lines(setting):
        if given.only not in f"{line.section} {line.name}":
            continue
        left = given.minutes * 60 - (time.perf_counter() - report.begun)
        if left < line.needs and not given.toy:
            report.counts["left"] += 1
            report.put(section=line.section, name=line.name, model=line.shape, left_out=f"{left:.0f} s are left")
            continue
        run(line, models, report)
    report.put(section="end", name="lines", **report.counts)


if __name__ == "__main__":
    main()
