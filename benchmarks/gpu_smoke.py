"""Run the engine in every way at toy size: results on a device must equal those on the CPU."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import permutations
from typing import Any

import torch

import evenhand
from evenhand.core import registry
from evenhand.core.answer_cache import answer_cache
from evenhand.data.bbq import load_rows
from evenhand.evaluation.bbq import items_from_rows
from evenhand.inference import Prompt, Request
from evenhand.interfaces import Dialogue, Message, Model, Pair, Passage, Question, Sampling, TrainData
from evenhand.models.local import LocalModel
from evenhand.models.tiny import ARCHITECTURES, tiny_model, tiny_module, tiny_tokenizer
from evenhand.prompting.sessions import conversation
from evenhand.training import causal_lm_loss, finish_of, layout_of, pack
from evenhand.training.loop import Schedule, Training

Answers = list[float] | list[str]
"""Numbers, or texts."""
Check = Callable[[str], Answers]

JOBS = ("nurse", "doctor", "pilot", "baker", "judge", "cook")
PAIRS = tuple(
    Pair("he", "she", f"the {job} {verb} that ", " was late", axis="gender", id=f"{job} {verb}")
    for job in JOBS
    for verb in ("said", "knew", "saw", "left")
)
DIALOGUES = [Dialogue((Message("user", text),)) for text in ("Once upon a time", "Who was the dog", "Answer the")]
METHODS = (
    "permutation",
    "permutation(decisions=sampled,draws=3)",
    "self_debias(max_new_tokens=8)",
    "self_debias(variant=explanation,max_new_tokens=8)",
    "self_debias(answer_by=generation,max_new_tokens=8)",
    "self_debias_decoding",
    "instruction",
    "contextual_calibration",
    "domain_calibration",
)


@cache
def _demo() -> tuple[Question, ...]:
    return tuple(item.question for item in items_from_rows(load_rows("demo").rows[:100]))


def questions(count: int) -> list[Question]:
    """Return the first questions of the demo benchmark."""
    return list(_demo()[:count])


def demo(device: str, **options: Any) -> Any:
    """Open the demo model in float32."""
    return evenhand.load("demo", **{"device": device, "dtype": "float32", **options})


def chosen(model: Model, asked: Sequence[Question]) -> list[float]:
    """Return all probabilities, or the decisions if there are none."""
    made = model.choose(asked)
    if all(c.probabilities is None for c in made):
        return [-1.0 if c.decision is None else float(c.decision) for c in made]
    return [p for c in made for p in c.probabilities or ()]


def by(way: Any) -> Check:
    """Choose by letters or by texts."""
    return lambda device: chosen(demo(device, answer_by=way), questions(12))


def orders(device: str) -> Answers:
    """Choose by letters in all orders of the options."""
    return chosen(demo(device), [q.reordered(o) for q in questions(4) for o in permutations(range(3))])


def under(method: str) -> Check:
    """Choose under a method."""
    return lambda device: chosen(registry.build_method(method).apply(demo(device)), questions(8))


def written(sampling: Sampling, method: str = "none") -> Check:
    """Generate replies."""

    def run(device: str) -> Answers:
        model = registry.build_method(method).apply(demo(device))
        draws = [replace(d, draw=n) for d in DIALOGUES for n in range(2)]
        return [reply.text or "" for reply in model.generate(draws, sampling)]

    return run


def talk(device: str) -> Answers:
    """Generate turns with the KV cache of those before."""
    model, talks = demo(device), list(DIALOGUES)
    with conversation():
        for _ in range(3):
            replies = [r.text or "" for r in model.generate(talks, Sampling(max_new_tokens=6))]
            talks = [d.assistant(r).user("Explain") for d, r in zip(talks, replies, strict=True)]
    return [m.content for d in talks for m in d.messages]


def scored(device: str) -> Answers:
    """Score texts by their log-probability."""
    return [s.logprob for s in demo(device).score([Passage(p.stereotyped + p.suffix, p.prompt) for p in PAIRS])]


def masked(device: str) -> Answers:
    """Score texts by the pseudo-log-likelihood of a masked model."""
    model = evenhand.load("demo-mlm", device=device, dtype="float32")
    return [s.logprob for s in model.score([Passage(p.stereotyped, str(p.prompt), suffix=p.suffix) for p in PAIRS[:6]])]


def on_device(model: LocalModel, device: str) -> LocalModel:
    """Make a model from weights in memory on a device."""
    return LocalModel(model.weights.module.to(device), model.weights.tokenizer, name=model.name)


def architecture(name: str) -> Check:
    """Score and generate with a tiny model of an architecture."""

    def run(device: str) -> Answers:
        model = on_device(tiny_model(name), device)
        rows = [(7, 8, 9, *range(10, 10 + n)) for n in range(0, 24, 3)]
        read = model.engine.read([Request(r, ((len(r) - 1, 20), (1, 30))) for r in rows], "smoke")
        new = model.engine.generate([Prompt(r) for r in rows], Sampling(max_new_tokens=5), "smoke")
        return [float(v) for values in read for v in values] + [float(t) for g in new for t in g.ids]

    return run


def pairs_model(device: str) -> LocalModel:
    """Make a tiny model that knows the words of the pairs."""
    words = tiny_tokenizer(
        [f"{p.prompt}{t}{p.suffix}" for p in PAIRS for t in (p.stereotyped, p.counter_stereotyped)], chat=False
    )
    return LocalModel(tiny_module(len(words)).to(device), words, name="tiny")


def unlearned(device: str) -> Answers:
    """Check a model after PCGU, saved and loaded."""
    given = "learning_rate=0.01,batch_size=8,epochs=2,validation_fraction=0.25,gate=false,precision=no"
    spec = f"pcgu({given},device={device})"
    model = pairs_model(device)
    made = registry.build_method(spec).apply(model, TrainData(pairs=PAIRS))
    passages = [Passage(t, str(p.prompt)) for p in PAIRS[:6] for t in (p.stereotyped, p.counter_stereotyped)]
    with tempfile.TemporaryDirectory() as folder:
        again = evenhand.load(made.save(folder), device=device, dtype="float32")
        return [s.logprob for m in (made, again) for s in m.score(passages)]


def adapted(device: str) -> Answers:
    """Return the losses of a LoRA training, and the letters of the adapter, saved and loaded."""
    from peft import LoraConfig, get_peft_model

    model = pairs_model(device)
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    module: Any = get_peft_model(model.weights.module.to("cpu"), config).to(device)
    layout, finish = layout_of(module), finish_of(module)
    ids = [model.weights.tokenizer(f"{p.prompt}{p.stereotyped}{p.suffix}").input_ids for p in PAIRS]
    trained = Training(
        module=module,
        batches=lambda epoch, random: pack(ids, layout, tokens=64),
        watched="loss",
        loss=lambda module, batch: causal_lm_loss(module, batch.to(module.device), finish=finish),
        evaluate=lambda module: {"loss": 0.0},
        schedule=Schedule(epochs=2, learning_rate=1e-2, device=device, precision="no"),
    ).run()
    passages = [Passage(p.stereotyped, str(p.prompt)) for p in PAIRS[:6]]
    made = LocalModel(module, model.weights.tokenizer, name="adapted")
    with tempfile.TemporaryDirectory() as folder:
        again = evenhand.load(made.save(folder), device=device, dtype="float32")
        values = [s.logprob for m in (made, again) for s in m.score(passages)]
    return [row["train_loss"] for row in trained.curve] + values


def saved(device: str) -> Answers:
    """Check a model in memory, saved and loaded."""
    model = demo(device)
    with tempfile.TemporaryDirectory() as folder:
        return chosen(evenhand.load(model.save(folder), device=device, dtype="float32"), questions(6))


def mapped(device: str) -> Answers:
    """Check a model that accelerate has placed."""
    return chosen(evenhand.load("demo", device_map={"": device}, dtype="float32"), questions(6))


def half(dtype: str) -> Check:
    """Choose by letters in a smaller precision."""
    return lambda device: chosen(demo(device, dtype=dtype), questions(12))


LONG = [tuple((n + i * i) % 60 + 7 for i in range(900)) for n in range(60)]
"""Texts that share no beginning; together they take a few hundred megabytes."""


def crowded(device: str) -> Answers:
    """Score long texts in half of the memory that they need at once, whatever the size of the card.

    Raises:
        RuntimeError: Everything was read at once, so that nothing was tested.
    """
    model = on_device(tiny_model(), device)
    asked = [Request(ids, ((len(ids) - 1, 20),)) for ids in LONG]
    with half_of(device, lambda: read_at_once(model, asked)):
        found = read_at_once(model, asked)
    if device != "cpu" and model.engine.pack_nodes >= sum(map(len, LONG)):
        raise RuntimeError("the memory sufficed: nothing was backed off")
    return found


def read_at_once(model: LocalModel, asked: Sequence[Request]) -> list[float]:
    """Return log-probabilities, with all texts in one pack unless memory does not suffice."""
    model.engine.pack_nodes = 10**9
    return [float(value) for values in model.engine.read(asked, "smoke") for value in values]


@contextmanager
def half_of(device: str, work: Callable[[], object]) -> Iterator[None]:
    """Leave free half of the memory of the first GPU that `work` takes, which is run once before to measure it.

    Memory that libraries allocate once, such as the workspace of cuBLAS, is then already allocated.
    """
    if device == "cpu":
        yield
        return
    work()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(0)
    held = torch.cuda.memory_allocated(0)
    work()
    taken = torch.cuda.max_memory_allocated(0) - held
    torch.cuda.empty_cache()
    most = max(torch.cuda.memory_reserved(0), held + taken / 2)
    torch.cuda.set_per_process_memory_fraction(most / torch.cuda.get_device_properties(0).total_memory, 0)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


CHECKS: dict[str, tuple[Check, float]] = {
    # name: what is run, and the maximum difference from the CPU
    "letters": (by("letters"), 1e-4),
    "texts": (by("text"), 1e-4),
    "texts per token": (by("text_per_token"), 1e-4),
    "written answers": (by("generation"), 0),
    "six orders": (orders, 1e-4),
    "scores": (scored, 1e-3),
    "greedy replies": (written(Sampling(max_new_tokens=12)), 0),
    "sampled replies": (written(Sampling(temperature=1.0, top_p=0.9, max_new_tokens=12)), 0),
    "replies guided by prefixes": (written(Sampling(max_new_tokens=12), "self_debias_decoding"), 0),
    "conversation": (talk, 0),
    "masked model": (masked, 1e-3),
    **{f"method {m}": (under(m), 1e-4) for m in METHODS},
    **{f"architecture {a}": (architecture(a), 1e-3) for a in ARCHITECTURES},
    "bfloat16 letters": (half("bfloat16"), 0.05),
    "float16 letters": (half("float16"), 0.02),
    "save and load": (saved, 1e-4),
    "device_map": (mapped, 1e-4),
    "PCGU": (unlearned, 1e-2),
    "LoRA": (adapted, 1e-2),
    "too little memory": (crowded, 1e-3),
}


def difference(ours: Answers, theirs: Answers) -> float:
    """Return the largest difference of numbers, or the number of texts that differ; infinite if the counts differ."""
    if len(ours) != len(theirs):
        return float("inf")
    pairs = list(zip(ours, theirs, strict=True))
    if any(isinstance(a, str) for a, _ in pairs):
        return float(sum(a != b for a, b in pairs))
    return max(abs(float(a) - float(b)) for a, b in pairs)


def run(name: str, device: str) -> dict[str, Any]:
    """Run one check; its errors are raised."""
    check, tolerance = CHECKS[name]
    with answer_cache(None):
        off = difference(check(device), check("cpu"))
    return {"difference": off, "target": f"<= {tolerance:g}", "ok": off <= tolerance}
