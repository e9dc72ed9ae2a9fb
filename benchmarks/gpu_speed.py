"""Speed on one card: the engine compared with plain transformers batches, on models with random weights."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import permutations
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from evenhand.data import mmlu
from evenhand.data.bbq import load_rows
from evenhand.evaluation.bbq import items_from_rows
from evenhand.evaluation.mmlu import header
from evenhand.inference import Prompt, Request
from evenhand.interfaces import Question, Sampling
from evenhand.models.local import LocalModel
from evenhand.prompting.rendering import letters_template

COMMON = {"vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 500000.0}
_COLUMNS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "tie_word_embeddings")
SHAPES: dict[str, dict[str, Any]] = {
    "8B": {**COMMON, **dict(zip(_COLUMNS, (4096, 14336, 32, 32, False), strict=True))},
    "1B": {**COMMON, **dict(zip(_COLUMNS, (2048, 8192, 16, 32, True), strict=True)), "head_dim": 64},
    "toy": {**COMMON, **dict(zip(_COLUMNS, (64, 128, 2, 8, True), strict=True)), "vocab_size": 2048},
}
"""Shapes of Llama 3.1 8B and Llama 3.2 1B."""
NEW = 25
"""Number of tokens of a reply."""
Reads = dict[tuple[int, ...], dict[tuple[int, int], float]]
"""Maps token ids to (position, token) to log-probability."""


class Sizes(NamedTuple):
    """Sizes of the measurements."""

    rows: int
    """Number of questions in one order; in six orders a third of them."""
    sample: int
    """Number of sequences on which the peer is measured."""
    batches: tuple[int, ...]
    """Numbers of sequences in the peer's batches; the fastest counts."""
    prompts: int
    """Number of prompts for replies."""


FULL = Sizes(rows=3456, sample=2048, batches=(64, 256, 1024), prompts=512)
TOY = Sizes(rows=16, sample=16, batches=(4, 8), prompts=4)


class Card(NamedTuple):
    """Measured rates of a device."""

    device: str
    dtype: torch.dtype
    flops: float
    """Floating-point operations per second of a large matrix product."""
    bandwidth: float
    """Bytes per second, read and written, of a large copy."""


class Frozen(LocalModel):
    """A model with weights known not to change, as from files: they are not hashed at every call."""

    @property
    def fingerprint(self) -> str:
        """Return a constant fingerprint."""
        return "benchmark"


# ------------------------------------------------------------------------------------------- measuring itself


def wait(device: str) -> None:
    """Wait until the device has finished."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(run: Callable[[], Any], device: str) -> tuple[Any, float]:
    """Return the result of a call, and its duration."""
    wait(device)
    begun = time.perf_counter()
    values = run()
    wait(device)
    return values, time.perf_counter() - begun


def card(device: str, dtype: torch.dtype, size: int) -> Card:
    """Measure a device."""
    x, y = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source, target = (torch.zeros(size * size * 8, dtype=torch.float32, device=device) for _ in range(2))
    for _ in range(3):
        x @ y, target.copy_(source)
    product = min(seconds(lambda: [x @ y for _ in range(10)], device)[1] for _ in range(3)) / 10
    copied = min(seconds(lambda: [target.copy_(source) for _ in range(10)], device)[1] for _ in range(3)) / 10
    return Card(device, dtype, 2 * size**3 / product, 2 * source.numel() * 4 / copied)


def busy(run: Callable[[], Any], device: str) -> dict[str, Any]:
    """Return the seconds in which the device worked, its kernels, and the longest ones; nothing on a CPU."""
    if device == "cpu":
        run()
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as prof:
        run()
        wait(device)
    try:
        events = prof.profiler.kineto_results.events()
    except AttributeError as error:  # these are private in torch; a line without busy time is still useful
        return {"busy_unknown": repr(error)}
    found = [e for e in events if str(e.device_type()).endswith("CUDA")]
    spans = sorted((e.start_ns(), e.start_ns() + e.duration_ns()) for e in found)
    total, end = 0, 0
    for start, stop in spans:
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    by_name: dict[str, int] = {}
    for e in found:
        by_name[e.name()[:70]] = by_name.get(e.name()[:70], 0) + e.duration_ns()
    longest = sorted(by_name.items(), key=lambda pair: -pair[1])[:6]
    return {"busy_s": total / 1e9, "kernels": len(found), "longest_ms": {k: round(v / 1e6, 1) for k, v in longest}}


def host_functions(run: Callable[[], Any], count: int = 12) -> list[str]:
    """Break down Python's own time under its profiler, which adds overhead."""
    import cProfile
    import pstats

    profile = cProfile.Profile()
    profile.runcall(run)
    stats: Any = pstats.Stats(profile).stats
    rows = sorted(stats.items(), key=lambda row: -row[1][2])[:count]
    return [f"{path.rpartition('/')[2]}:{name} {own:.2f}s x{calls}" for (path, _, name), (_, calls, own, *_) in rows]


@contextmanager
def peak(device: str) -> Iterator[dict[str, float]]:
    """Return the peak memory, in total and above the initial level, in GB."""
    found: dict[str, float] = {}
    if device == "cpu":
        yield found
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield found
    top = torch.cuda.max_memory_allocated()
    found.update(peak_GB=round(top / 1e9, 2), above_start_GB=round((top - before) / 1e9, 2))


# ------------------------------------------------------------------------------------------- what is measured


def model_of(shape: str, tokenizer: PreTrainedTokenizerBase, device: str, dtype: torch.dtype) -> Frozen:
    """Make a Llama of a shape on the device."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], bos_token_id=1, eos_token_id=None)).eval()
    finally:
        torch.set_default_dtype(before)
    module.requires_grad_(False)
    module.generation_config.eos_token_id = None
    return Frozen(module, tokenizer, name=shape)


@cache
def _demo() -> tuple[Question, ...]:
    return tuple(item.question for item in items_from_rows(load_rows("demo").rows))


def bbq(rows: int) -> list[Question]:
    """Return the first questions of the demo benchmark, which are ordered by template."""
    return list(_demo()[:rows])


def six_orders(rows: int) -> list[Question]:
    """Return each question in all orders of its options."""
    return [q.reordered(order) for q in bbq(rows) for order in permutations(range(3))]


def mmlu_5_shot(rows: int) -> list[Question]:
    """Return exam questions after five solved ones."""
    loaded = mmlu.load("demo")
    heads = {subject: header(subject, shots[:5]) for subject, shots in loaded.dev.items()}
    return [
        Question(str(n), r.question, r.choices, header=heads[r.subject], template="exam")
        for n, r in enumerate(loaded.rows[:rows])
    ]


def reads_of(requests: Sequence[Request], values: Sequence[Sequence[float]]) -> Reads:
    """Merge requests with the same ids."""
    found: Reads = {}
    for request, row in zip(requests, values, strict=True):
        found.setdefault(request.ids, {}).update(zip(request.reads, row, strict=True))
    return found


@contextmanager
def overheard(model: LocalModel) -> Iterator[dict[str, Any]]:
    """Record what the engine is asked, what it answers, and how long that took."""
    real, heard = model.engine.read, {"requests": [], "values": [], "seconds": 0.0}

    def read(requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        begun = time.perf_counter()
        values = real(requests, fingerprint)
        heard["seconds"] += time.perf_counter() - begun
        heard["requests"] += requests
        heard["values"] += values
        return values

    model.engine.read = read  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        del model.engine.read


# ---------------------------------------------------------------------------------------------------- the peer


@torch.inference_mode()
def plain(
    module: Any,
    asked: Sequence[tuple[tuple[int, ...], Sequence[tuple[int, int]]]],
    batch: int,
    *,
    masked: bool = False,
    exact_head: bool = False,
) -> Reads:
    """Run plain transformers batches by length, right-padded, with logits only of what is read.

    Args:
        module: A Llama.
        asked: Token ids, and the (position, token) pairs to read.
        batch: Sequences per batch.
        masked: Whether causal attention is spelled out as a mask, which selects another kernel; without a mask the
            fastest ones can be used.
        exact_head: Whether the output embedding is multiplied in float32, so that logits are not rounded.
    """
    device, found = module.device, {}
    order = sorted(asked, key=lambda row: -len(row[0]))
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        length = max(len(ids) for ids, _ in some)
        ids = torch.tensor([[*ids, *[0] * (length - len(ids))] for ids, _ in some], device=device)
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(len(some), 1, -1, -1)
        options = {"attention_mask": mask} if masked else {}
        hidden = module.model(input_ids=ids, use_cache=False, **options).last_hidden_state
        reads = [(row, place, token) for row, (_, some_reads) in enumerate(some) for place, token in some_reads]
        values = iter(_logprobs(module, hidden, reads, exact_head))
        found.update({ids: {read: next(values) for read in some_reads} for ids, some_reads in some})
    return found


def _logprobs(module: Any, hidden: Tensor, reads: Sequence[tuple[int, int, int]], exact_head: bool) -> list[float]:
    """Return log-probabilities at (row, place, token); each place's logits are computed once."""
    places = list(dict.fromkeys((row, place) for row, place, _ in reads))
    number = {where: n for n, where in enumerate(places)}
    rows, at = (torch.tensor(column, device=hidden.device) for column in zip(*places, strict=True))
    read = hidden[rows, at]
    logits = read.float() @ module.lm_head.weight.float().T if exact_head else module.lm_head(read).float()
    tokens = torch.tensor([token for _, _, token in reads], device=hidden.device)
    which = torch.tensor([number[row, place] for row, place, _ in reads], device=hidden.device)
    values: list[float] = (logits[which, tokens] - logits.logsumexp(-1)[which]).tolist()
    return values


def peers(model: LocalModel, asked: Reads, sizes: Sizes, device: str) -> tuple[dict[int, Reads], dict[int, float]]:
    """Return the peer's values in batches of each size, and its seconds for everything, extrapolated from a sample."""
    some = random.Random(0).sample(sorted(asked), min(sizes.sample, len(asked)))
    rows = [(ids, sorted(asked[ids])) for ids in some]
    share = sum(map(len, asked)) / sum(map(len, some))
    values, taken = {}, {}
    for batch in sizes.batches:
        plain(model.weights.module, rows[:batch], batch)
        values[batch], once = seconds(lambda batch=batch: plain(model.weights.module, rows, batch), device)
        taken[batch] = once * share
    return values, taken


def top_token(reads: dict[tuple[int, int], float]) -> tuple[int, int]:
    """Return the most probable of the tokens read; of several, the first by position and token."""
    return max(sorted(reads), key=lambda read: reads[read])


def flips(one: Reads, other: Reads) -> int:
    """Count sequences whose most probable token differs."""
    return sum(top_token(one[ids]) != top_token(other[ids]) for ids in one)


def furthest(one: Reads, other: Reads) -> float:
    """Return the largest difference of a log-probability, in nats."""
    return max(abs(one[ids][read] - other[ids][read]) for ids in one for read in one[ids])


def rounding(made: Reads, truth: Reads) -> dict[str, Any]:
    """Compare log-probabilities with the true ones: root mean square and largest difference, in nats, decisions
    that differ, and the number of ties among the decisions, which occur only in coarse precision.
    """
    off = [made[ids][read] - true for ids, reads in truth.items() for read, true in reads.items()]
    best = [sorted(made[ids].values())[-2:] for ids in truth]
    return {
        "rms": round((sum(x * x for x in off) / len(off)) ** 0.5, 6),
        "largest": round(max(map(abs, off)), 4),
        "flips": flips(truth, made),
        "ties": sum(len(two) == 2 and two[0] == two[1] for two in best),
    }


def written_by_peer(module: Any, prompts: Sequence[Prompt], batch: int) -> list[list[int]]:
    """Generate replies by `generate` in left-padded batches by length; return them in the order of the prompts."""
    order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n].ids))
    config = GenerationConfig(max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0)
    made: dict[int, list[int]] = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        length = max(len(prompts[n].ids) for n in rows)
        pads = [length - len(prompts[n].ids) for n in rows]
        ids = [[0] * pad + list(prompts[n].ids) for pad, n in zip(pads, rows, strict=True)]
        mask = [[0] * pad + [1] * (length - pad) for pad in pads]
        out = module.generate(
            input_ids=torch.tensor(ids, device=module.device),
            attention_mask=torch.tensor(mask, device=module.device),
            generation_config=config,
        )
        made.update(zip(rows, out[:, length:].tolist(), strict=True))
    return [made[n] for n in range(len(prompts))]


# ------------------------------------------------------------------------------------------------- the lines


def work(module: Any, fed: int, read: int) -> float:
    """Count the unavoidable floating-point operations: products with weights, without attention."""
    head = module.get_output_embeddings().weight.numel()
    embedding = 0 if module.config.tie_word_embeddings else module.get_input_embeddings().weight.numel()
    layers = sum(p.numel() for p in module.parameters()) - head - embedding
    return 2.0 * (layers * fed + head * read)


def choosing(model: Frozen, asked: list[Question], way: Any, on: Card, sizes: Sizes, letters: int) -> dict[str, Any]:
    """Make a line on choosing."""
    model.answer_by = way
    model.choose(asked[: max(2, len(asked) // 8)])
    before = model.engine.tokens, model.engine.forwards
    with peak(on.device) as memory, overheard(model) as heard:
        _, wall = seconds(lambda: model.choose(asked), on.device)
    fed, forwards = model.engine.tokens - before[0], model.engine.forwards - before[1]
    mine = reads_of(heard["requests"], heard["values"])
    positions = sum(len({p for p, _ in reads}) for reads in mine.values())
    values, theirs = peers(model, mine, sizes, on.device)
    best = min(theirs, key=lambda b: theirs[b])
    naive = sum(map(len, mine))
    sharing, ratio = naive / fed, theirs[best] / wall
    line = {
        "items": len(asked),
        "items_per_s": round(len(asked) / wall, 1),
        "wall_s": round(wall, 3),
        "engine_s": round(heard["seconds"], 3),
        "engine_ratio": round(theirs[best] / heard["seconds"], 2),
        "engine_rate_share": round(work(model.weights.module, fed, positions) / heard["seconds"] / on.flops, 3),
        "forwards": forwards,
        "nodes": fed,
        "naive_tokens": naive,
        "sharing": round(sharing, 2),
        "ratio": round(ratio, 2),
        "ratio_of_sharing": round(ratio / sharing, 3),
        "sharing_a_letter": round(sharing * letters, 2),
        "ratio_a_letter": round(ratio * letters, 2),
        "peer_s": {b: round(t, 3) for b, t in theirs.items()},
        "peer_batch": best,
        "sample": len(values[best]),
        "rate_share": round(work(model.weights.module, fed, positions) / wall / on.flops, 3),
        **memory,
    }
    line |= differences(values, {ids: mine[ids] for ids in values[best]})
    return line | host(lambda: model.choose(asked), wall, on.device)


def differences(theirs: dict[int, Reads], ours: Reads) -> dict[str, Any]:
    """Compare our reads, and the peer's with its largest batch, with the peer's with its smallest."""
    one, other = theirs[min(theirs)], theirs[max(theirs)]
    return {
        "nats_ours_peer": round(furthest(one, ours), 4),
        "nats_peer_peer": round(furthest(one, other), 4),
        "flips_ours_peer": flips(one, ours),
        "flips_peer_peer": flips(one, other),
    }


def host(run: Callable[[], Any], wall: float, device: str) -> dict[str, Any]:
    """Return the fraction of the wall time in which the device was idle."""
    found = busy(run, device)
    return found | ({"host_share": round(1 - found["busy_s"] / wall, 3)} if found else {})


def writing(model: Frozen, asked: list[Question], on: Card, sizes: Sizes) -> dict[str, Any]:
    """Make a line on replies of `NEW` tokens."""
    tokenizer: Any = model.weights.tokenizer
    prompts = [Prompt(tuple(tokenizer(f"{letters_template(q)}\nAnswer:").input_ids)) for q in asked]
    prompts = list(dict.fromkeys(prompts))
    how, module = Sampling(max_new_tokens=NEW), model.weights.module
    run = lambda: model.engine.generate(prompts, how, "benchmark")  # noqa: E731
    model.engine.generate(prompts[: max(2, len(prompts) // 8)], how, "benchmark")
    before = model.engine.tokens, model.engine.forwards
    with peak(on.device) as memory:
        made, wall = seconds(run, on.device)
    fed, forwards = model.engine.tokens - before[0], model.engine.forwards - before[1]
    theirs = {}
    for batch in sorted({min(batch, len(prompts)) for batch in sizes.batches}):
        said, theirs[batch] = seconds(lambda batch=batch: written_by_peer(module, prompts, batch), on.device)
    best = min(theirs, key=lambda b: theirs[b])
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    floor = max(work(module, fed, NEW * len(prompts)) / on.flops, forwards * weights / (on.bandwidth / 2))
    return {
        "items": len(prompts),
        "items_per_s": round(len(prompts) / wall, 1),
        "wall_s": round(wall, 3),
        "nodes": fed,
        "forwards": forwards,
        "ratio": round(theirs[best] / wall, 2),
        "peer_batch": best,
        "peer_s": {b: round(t, 3) for b, t in theirs.items()},
        "rate_share": round(floor / wall, 3),
        "same_replies": sum(list(g.ids) == s for g, s in zip(made, said, strict=True)),
        **memory,
        **host(run, wall, on.device),
    }
