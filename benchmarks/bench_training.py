"""One pass of training over some texts: shared beginnings compared with packed rows and with padded rows.

make bench        or        python benchmarks/bench_training.py --only LoRA --rows 0.5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import torch
from measuring import timed
from peft import LoraConfig, get_peft_model
from tables import put
from torch import Tensor
from workloads import Pair, bbq_questions, bbq_texts, llama_135m, mmlu_5_shot, shuffled, tokenizer_for

from evenhand.inference.tree_forward import Finish
from evenhand.training import Layout, causal_lm_loss, finish_of, layout_of, pack
from evenhand.training.grouping import GroupBy, in_batches
from evenhand.training.packing import IGNORED
from evenhand.training.students import keep_layers

PADDED = (4, 8)
"""Numbers of sequences in a padded batch; the faster one counts."""


class Texts(NamedTuple):
    """Texts for training."""

    examples: list[list[Pair]]
    """Number of texts that are always in one batch, such as the two sides of a pair."""
    answers: bool = False
    """Whether only continuations are predicted."""
    together: int = 10**9
    """Number of examples in a batch."""
    batches: int | None = None
    """Number of batches of an epoch that are measured; None is all."""
    tokens: int = 256
    """Number of tokens fed at once: about as many as in a padded batch of four short texts."""
    grouped: bool = False
    """Whether batches consist of examples that share the most."""
    adapter: bool = False
    """Whether LoRA is trained, or all weights."""


def short(rows: int) -> list[Pair]:
    """Return one option text of each row."""
    return bbq_texts(rows)[::3]


def mixed(rows: int) -> list[Pair]:
    """Return short texts, and every eighth a long one."""
    return short(rows) + mmlu_5_shot(max(1, rows // 8))[::4]


def pairs(rows: int) -> list[list[Pair]]:
    """Return two options of each row after its question, from four stretches of the set."""
    asked = bbq_questions(rows, 4)
    return [[Pair(f"{q.context} {q.question}", f" {o}") for o in q.options[:2]] for q in asked]


def alone(texts: Sequence[Pair]) -> list[list[Pair]]:
    """Return each text as an example, in random order."""
    return [[text] for text in shuffled(texts)]


WORKLOADS: dict[str, tuple[Callable[[int], Texts], int]] = {
    # name: how it is made, rows
    "BBQ texts": (lambda rows: Texts(alone(short(rows))), 16),
    "BBQ texts and 5-shot prompts": (lambda rows: Texts(alone(mixed(rows))), 8),
    "BBQ texts and 5-shot prompts, LoRA": (lambda rows: Texts(alone(mixed(rows)), adapter=True), 8),
    "BBQ pairs": (lambda rows: Texts(pairs(128), answers=True, together=8, batches=rows, tokens=512), 2),
    "BBQ pairs, grouped": (
        lambda rows: Texts(pairs(128), answers=True, together=8, batches=rows, tokens=512, grouped=True),
        2,
    ),
    "MMLU, 5 shots, LoRA": (
        lambda rows: Texts(alone(mmlu_5_shot(rows)[::4]), answers=True, together=16, tokens=2048, adapter=True),
        16,
    ),
}


class Sequences(NamedTuple):
    """A batch in token ids."""

    ids: list[list[int]]
    labels: list[list[int]]

    @property
    def counted(self) -> int:
        """Return the number of predicted tokens."""
        return sum(label != IGNORED for row in self.labels for label in row[1:])


def encoded(texts: Texts) -> list[Sequences]:
    """Return the batches of a pass."""
    tokenizer = tokenizer_for(["".join(p) for example in texts.examples for p in example])

    def read(pair: Pair) -> tuple[list[int], list[int]]:
        ids = tokenizer("".join(pair))["input_ids"]
        before = len(tokenizer(pair.context)["input_ids"]) if texts.answers else 0
        return ids, [IGNORED] * before + ids[before:]

    examples = [[read(pair) for pair in example] for example in texts.examples]
    order: GroupBy = "prefix" if texts.grouped else "none"
    batches = in_batches(examples, texts.together, Random(0), lambda example: example[0][0], order)[: texts.batches]
    return [Sequences(*map(list, zip(*(x for e in batch for x in e), strict=True))) for batch in batches]


def model(adapter: bool, layers: int) -> Any:
    """Return the module with all weights trainable, or with an adapter on the attention."""
    module = llama_135m().train()
    keep_layers(module, list(range(layers)))
    if not adapter:
        return module
    config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(module, config).train()


def padded(module: Any, batches: Sequence[Sequences], size: int) -> float:
    """Train on padded batches of the sequences in order, each with the module's own loss."""
    counted, total = sum(b.counted for b in batches), 0.0
    for batch in batches:
        for start in range(0, len(batch.ids), size):
            rows = Sequences(batch.ids[start : start + size], batch.labels[start : start + size])
            (given,) = pack(rows.ids, Layout("padding"), labels=rows.labels, tokens=10**9)
            loss = module(**given.inputs, labels=given.labels).loss * (rows.counted / counted)
            loss.backward()
            total += loss.item()
    return total


def packed(module: Any, batches: Sequence[Sequences], layout: Layout, finish: Finish, tokens: int) -> float:
    """Train on packed batches with the chunked loss, with shared beginnings if the layout has them."""
    counted, total = sum(b.counted for b in batches), 0.0
    for batch in batches:
        for some in pack(batch.ids, layout, labels=batch.labels, tokens=tokens):
            loss = causal_lm_loss(module, some, finish=finish, reduction="sum") / counted
            loss.backward()
            total += loss.item()
    return total


def gradients(module: Any) -> list[Tensor]:
    """Copy the gradients, and set the module's to zero, allocated so that no step is charged for their memory."""
    found = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad(set_to_none=False)
    return found


class Step(NamedTuple):
    """Results and costs of a pass."""

    loss: float
    gradients: list[Tensor]
    seconds: float
    """Processor seconds."""
    memory: float


def step(module: Any, run: Callable[[], float]) -> Step:
    """Measure a pass."""
    begun = 0.0

    def work() -> tuple[float, float]:
        nonlocal begun
        begun = time.process_time()
        return run(), time.process_time() - begun

    made = timed(work)
    return Step(made.values[0], gradients(module), made.values[1], made.memory)


def faster(one: Step, other: Step) -> Step:
    """Combine two passes into the shorter time and the lower peak."""
    return one._replace(seconds=min(one.seconds, other.seconds), memory=min(one.memory, other.memory))


def measure(name: str, share: float, repeats: int, layers: int) -> dict[str, object]:
    """Measure one row of the table."""
    make, rows = WORKLOADS[name]
    texts = make(max(1, int(rows * share)))
    batches, module = encoded(texts), model(texts.adapter, layers)
    finish, shared, apart = finish_of(module), layout_of(module), layout_of(module, share=False)
    first = [Sequences(batches[0].ids[:2], batches[0].labels[:2])]
    packed(module, first, apart, finish, texts.tokens), gradients(module)  # the first step of a process is slower
    ways: dict[str, Callable[[], float]] = {
        "packed": lambda: packed(module, batches, apart, finish, texts.tokens),
        "shared": lambda: packed(module, batches, shared, finish, texts.tokens),
    }
    ways |= {f"batch {size}": lambda size=size: padded(module, batches, size) for size in PADDED}
    found = {way: step(module, run) for way, run in ways.items()}
    for _ in range(repeats - 1):
        found |= {way: faster(found[way], step(module, ways[way])) for way in ("packed", "shared")}
    fed = sum(b.fed for batch in batches for b in pack(batch.ids, shared, labels=batch.labels, tokens=texts.tokens))
    return {"workload": name, **counts(batches, fed), **compared(found)}


def counts(batches: Sequence[Sequences], fed: int) -> dict[str, object]:
    """Return the numbers of sequences and tokens, and the largest saving that sharing could give."""
    sizes = [len(ids) for batch in batches for ids in batch.ids]
    return {"sequences": len(sizes), "tokens": sum(sizes), "fed": f"{fed} ({sum(sizes) / fed:.1f})"}


def compared(found: dict[str, Step]) -> dict[str, object]:
    """Return the columns of the measurements."""
    peer = min((f"batch {size}" for size in PADDED), key=lambda way: found[way].seconds)
    theirs, before, ours = found[peer], found["packed"], found["shared"]
    off = max(float((a - b).norm() / b.norm()) for a, b in zip(ours.gradients, theirs.gradients, strict=True))
    return {
        "padded, s": f"{theirs.seconds:.1f} ({peer})",
        "packed, s": f"{before.seconds:.1f}",
        "shared, s": f"{ours.seconds:.1f}",
        "padded / shared": f"{theirs.seconds / ours.seconds:.1f}",
        "packed / shared": f"{before.seconds / ours.seconds:.1f}",
        "padded, MB": f"{theirs.memory:.0f}",
        "packed, MB": f"{before.memory:.0f}",
        "shared, MB": f"{ours.memory:.0f}",
        "difference of the loss": f"{abs(ours.loss - theirs.loss) / theirs.loss:.0e}",
        "of a gradient": f"{off:.0e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the rows")
    parser.add_argument(
        "--repeats", type=int, default=1, help="number of runs of packed and shared steps; the best counts"
    )
    parser.add_argument("--layers", type=int, default=30, help="layers of the model; fewer give similar ratios")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for name in WORKLOADS:
        if given.only in name:
            rows.append(measure(name, given.rows, given.repeats, given.layers))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    put("training", rows, write=given.write)


if __name__ == "__main__":
    main()
