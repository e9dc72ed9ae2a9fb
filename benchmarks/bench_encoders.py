"""Masked language models: pseudo-log-likelihoods beside one forward a mask and one forward a text.

make bench        or        python benchmarks/bench_encoders.py --only demo
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from measuring import timed
from tables import put
from transformers import BertConfig, BertForMaskedLM
from workloads import bbq_texts, holistic, shuffled, tokenizer_for

import evenhand
from evenhand.interfaces import Passage
from evenhand.models.masked import MaskedModel


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


def measure(name: str, share: float) -> dict[str, object]:
    """One row of the table."""
    make, texts_of, count = WORKLOADS[name]
    texts = texts_of(max(1, int(count * share)))
    model = make(texts)
    engine(model, texts[:1])  # weights are laid out once, not for every list
    before = model.engine.sequences
    first = timed(lambda: engine(model, texts))
    fed = model.engine.sequences - before
    single = timed(lambda: plainly(model, texts, together=False))
    by_text = timed(lambda: plainly(model, texts, together=True))
    ours = min(first, timed(lambda: engine(model, texts)), key=lambda t: t.seconds)
    best = min(single, by_text, key=lambda t: t.seconds)
    return {
        "workload": name,
        "texts": len(texts),
        "masks fed": fed,
        "a mask at a time, s": f"{single.seconds:.1f}",
        "a text at a time, s": f"{by_text.seconds:.1f}",
        "evenhand, s": f"{ours.seconds:.1f}",
        "ratio": f"{best.seconds / ours.seconds:.1f}",
        "a text at a time, MB": f"{by_text.memory:.0f}",
        "evenhand, MB": f"{ours.memory:.0f}",
        "largest difference": f"{np.abs(np.subtract(ours.values, by_text.values)).max():.1e}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name holds this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the texts")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    rows = []
    for name in WORKLOADS:
        if given.only in name:
            rows.append(measure(name, given.rows))
            print(" | ".join(f"{k}: {v}" for k, v in rows[-1].items()), flush=True)
    put("encoders", rows, write=given.write)


if __name__ == "__main__":
    main()
