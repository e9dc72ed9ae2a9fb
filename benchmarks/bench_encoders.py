"""Masked language models: pseudo-log-likelihoods beside one forward a mask and one forward a text.

make bench        or        python benchmarks/bench_encoders.py --only demo
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import count_processor_seconds, floor, in_turns, timed
from tables import put
from transformers import BertConfig, BertForMaskedLM
from workloads import bbq_texts, holistic, shuffled, tokenizer_for

import evenhand
from evenhand.interfaces import Passage
from evenhand.models.masked import MaskedModel

TIMES = 2
"""The peers are timed as often as evenhand is; the fastest run of each counts."""


def sentences(count: int) -> list[str]:
    """Short texts."""
    return [p.continuation for p in shuffled(holistic(count))]


def contexts(count: int) -> list[str]:
    """Longer ones."""
    return list(dict.fromkeys(p.context for p in shuffled(bbq_texts(4 * count))))[:count]


def demo(texts: list[str]) -> MaskedModel:
    """The demo's masked model."""
    model = evenhand.load("demo-mlm")
    if not isinstance(model, MaskedModel):
        raise TypeError(f"demo-mlm is a {type(model).__name__}")
    return model


def bert_base(texts: list[str]) -> MaskedModel:
    """The shape of BERT-base with random weights."""
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
    """The masks of a text one after the other, or as one batch; all logits, as simple scorers do."""
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
    """What our engine gives."""
    return [s.logprob for s in model.score([Passage(text) for text in texts])]


def tokens_fed(model: MaskedModel, texts: list[str]) -> tuple[int, int]:
    """Tokens of all masked texts without padding, and masks; a text that occurs twice is fed once."""
    tokenizer = model.weights[1]
    fed = masks = 0
    for ids in dict.fromkeys(tuple(tokenizer(text)["input_ids"]) for text in texts):
        count = sum(not s for s in tokenizer.get_special_tokens_mask(list(ids), already_has_special_tokens=True))
        fed, masks = fed + count * len(ids), masks + count
    return fed, masks


def measure(name: str, share: float, *, peers: bool) -> dict[str, object]:
    """One row of the table; without the peers their columns are empty."""
    make, texts_of, count = WORKLOADS[name]
    texts = texts_of(max(1, int(count * share)))
    model = make(texts)
    timed(lambda: engine(model, texts[:1]))  # weights are laid out once, not for every list
    before = model.engine.sequences
    ways = {"evenhand": lambda: engine(model, texts)}
    if peers:
        ways |= {
            "mask": lambda: plainly(model, texts, together=False),
            "text": lambda: plainly(model, texts, together=True),
        }
    times = in_turns(ways, TIMES)
    fed, ours = (model.engine.sequences - before) // TIMES, times["evenhand"]
    least = floor(model.weights[0], *tokens_fed(model, texts))
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
        "floor, s": f"{least:.1f} ({least / ours.seconds:.0%})",
        "a text at a time, MB": f"{by_text.memory:.0f}" if by_text else "",
        "evenhand, MB": f"{ours.memory:.0f}",
        "largest difference": f"{np.abs(np.subtract(ours.values, by_text.values)).max():.1e}" if by_text else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the texts")
    parser.add_argument("--alone", action="store_true", help="without the peers, which take most of the time")
    parser.add_argument("--processor", action="store_true", help="count the processor's seconds of one thread")
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
