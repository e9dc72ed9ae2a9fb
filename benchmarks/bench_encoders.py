"""Masked language models: pseudo-log-likelihoods, compared with one forward per mask and one forward per text.

make bench        or        python benchmarks/bench_encoders.py --only demo
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from measuring import count_processor_seconds, in_turns, largest_difference, multiplications, products, timed
from tables import put
from transformers import BertConfig, BertForMaskedLM
from workloads import bbq_texts, holistic, shuffled, tokenizer_for

import evenhand
from evenhand.interfaces import Passage
from evenhand.models.masked import MaskedModel

TIMES = 2
"""Number of runs of evenhand and of each peer; the fastest counts."""


def sentences(count: int) -> list[str]:
    """Return short texts."""
    return [p.continuation for p in shuffled(holistic(count))]


def contexts(count: int) -> list[str]:
    """Return longer texts."""
    return list(dict.fromkeys(p.context for p in shuffled(bbq_texts(4 * count))))[:count]


def demo(texts: list[str]) -> MaskedModel:
    """Open the demo's masked model."""
    model = evenhand.load("demo-mlm")
    if not isinstance(model, MaskedModel):
        raise TypeError(f"demo-mlm is a {type(model).__name__}")
    return model


def bert_base(texts: list[str]) -> MaskedModel:
    """Make a model of the shape of BERT-base with random weights."""
    torch.manual_seed(0)
    tokenizer = tokenizer_for(texts)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return MaskedModel(BertForMaskedLM(BertConfig()).eval(), tokenizer, name="BERT-base")


Make = Callable[[list[str]], MaskedModel]
WORKLOADS: dict[str, tuple[Make, Callable[[int], list[str]], int]] = {
    # name: the model, how the texts are made, how many
    "demo-mlm, HolisticBias sentences": (demo, sentences, 400),
    "BERT-base, HolisticBias sentences": (bert_base, sentences, 40),
    "BERT-base, BBQ texts": (bert_base, contexts, 4),
}


def plainly(model: MaskedModel, texts: list[str], *, together: bool) -> list[float]:
    """Score the masks of a text one by one, or as one batch, with all logits, as simple scorers do."""
    module, tokenizer = model.weights
    out = []
    for text in texts:
        ids = torch.tensor(tokenizer(text)["input_ids"])
        bare = tokenizer.get_special_tokens_mask(ids.tolist(), already_has_special_tokens=True)
        at = torch.tensor([i for i, special in enumerate(bare) if not special])
        rows = ids.repeat(len(at), 1)
        rows[torch.arange(len(at)), at] = tokenizer.mask_token_id
        with torch.inference_mode():
            parts = (
                [_read(module, rows, at, ids)]
                if together
                else [_read(module, rows[n : n + 1], at[n : n + 1], ids) for n in range(len(at))]
            )
        out.append(sum(parts))
    return out


def _read(module: Any, rows: torch.Tensor, at: torch.Tensor, ids: torch.Tensor) -> float:
    logprobs = torch.log_softmax(module(input_ids=rows).logits, dim=-1)
    return float(logprobs[torch.arange(len(at)), at, ids[at]].sum())


def engine(model: MaskedModel, texts: list[str]) -> list[float]:
    """Score texts with evenhand's engine."""
    return [s.logprob for s in model.score([Passage(text) for text in texts])]


def tokens_fed(model: MaskedModel, texts: list[str]) -> tuple[int, int]:
    """Count the tokens of all masked texts without padding, and the masks; a repeated text is fed once."""
    tokenizer = model.weights[1]
    fed = masks = 0
    for ids in dict.fromkeys(tuple(tokenizer(text)["input_ids"]) for text in texts):
        count = sum(not s for s in tokenizer.get_special_tokens_mask(list(ids), already_has_special_tokens=True))
        fed, masks = fed + count * len(ids), masks + count
    return fed, masks


def measure(name: str, share: float, *, peers: bool) -> dict[str, object]:
    """Measure one row of the table; without peers their columns are empty."""
    make, texts_of, count = WORKLOADS[name]
    texts = texts_of(max(1, int(count * share)))
    model = make(texts)
    timed(lambda: engine(model, texts[:1]))  # weights are laid out only once
    before = model.engine.sequences
    module, (tokens, masks) = model.weights[0], tokens_fed(model, texts)
    least = products(multiplications(module, tokens, masks), module.dtype)
    ways: dict[str, Callable[[], list[float] | None]] = {"evenhand": lambda: engine(model, texts), "floor": least}
    if peers:
        ways |= {
            "mask": lambda: plainly(model, texts, together=False),
            "text": lambda: plainly(model, texts, together=True),
        }
    times = in_turns(ways, TIMES)
    fed, ours = (model.engine.sequences - before) // TIMES, times["evenhand"]
    floor = times.pop("floor").seconds
    single, by_text = times.get("mask"), times.get("text")
    best = min((t.seconds for way, t in times.items() if way != "evenhand"), default=0.0)
    return {
        "workload": name,
        "texts": len(texts),
        "masks fed": fed,
        "a mask at a time, s": f"{single.seconds:.1f}" if single else "",
        "a text at a time, s": f"{by_text.seconds:.1f}" if by_text else "",
        "evenhand, s": f"{ours.seconds:.1f}",
        "ratio": f"{best / ours.seconds:.1f}" if best else "",
        "floor, s": f"{floor:.1f} ({floor / ours.seconds:.0%})",
        "a text at a time, MB": f"{by_text.memory:.0f}" if by_text else "",
        "evenhand, MB": f"{ours.memory:.0f}",
        "largest difference": f"{largest_difference(ours.values, by_text.values):.1e}" if by_text else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the texts")
    parser.add_argument("--alone", action="store_true", help="leave out the peers, which take most of the time")
    parser.add_argument("--processor", action="store_true", help="count processor seconds of one thread")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    if given.processor:
        count_processor_seconds()
    rows = []
    for name in WORKLOADS:
        if given.only in name:
            rows.append(measure(name, given.rows, peers=not given.alone))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    put("encoders", rows, write=given.write)


if __name__ == "__main__":
    main()
