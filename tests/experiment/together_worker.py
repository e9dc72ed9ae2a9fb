"""One of several processes that ask together; `test_together.py` starts them, and takes the same from one process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

import evenhand
from evenhand import compare
from evenhand.core.registry import build_method
from evenhand.interfaces import Dialogue, Model, Passage, Question, Sampling
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_model, tiny_tokenizer
from evenhand.training.processes import asking_together

CONTEXTS = [f"There was a {'little ' * (n % 5)}{who} and a cat." for n in range(6) for who in ("dog", "letter", "day")]
QUESTIONS = [
    Question(f"q{n}", "Who was there?", ("dog", "cat", "letter"), context=context, answer_by=way)
    for way in ("letters", "text_per_token", "generation")
    for n, context in enumerate(CONTEXTS)
]
WITHOUT_TEXTS = [q for q in QUESTIONS if q.answer_by != "text_per_token"]
PASSAGES = [Passage(" cat she", context, id=f"p{n}") for n, context in enumerate(CONTEXTS)]
SAMPLING = Sampling(max_new_tokens=6, temperature=1.0, seed=3)


def masked() -> MaskedModel:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    config: Any = BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=2, num_attention_heads=4, hidden_size=32, intermediate_size=64
    )
    return MaskedModel(BertForMaskedLM(config).eval(), tokenizer, name="tiny-masked")


def encoder_decoder() -> Model:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_layers": 2, "num_heads": 4, "d_model": 32, "d_kv": 8, "d_ff": 64}
    sizes["decoder_start_token_id"] = 0
    config: Any = T5Config(vocab_size=len(tokenizer), **sizes)
    return evenhand.wrap(T5ForConditionalGeneration(config).eval(), tokenizer)


def asked(model: Model, questions: Sequence[Question] = QUESTIONS) -> dict[str, Any]:
    """What a model answers in each way that it has."""
    found: dict[str, Any] = {}
    if "choose" in model.abilities:
        choices = model.choose(questions)
        found["decisions"] = [(c.decision, c.status, c.reply) for c in choices]
        found["probabilities"] = [None if c.probabilities is None else list(c.probabilities) for c in choices]
    if "score" not in model.abilities:
        return found
    if "generate" in model.abilities:
        dialogues = [Dialogue((), draw).user(context) for context in CONTEXTS for draw in (0, 1)]
        found["replies"] = [r.text for r in model.generate(dialogues, SAMPLING)]
    passages = [
        Passage(str(p.prompt) + p.continuation, "", id=p.id) if model.architecture == "masked" else p for p in PASSAGES
    ]
    found["scores"] = [s.logprob for s in model.score(passages)]
    return found


def everything() -> dict[str, Any]:
    """Answers of one model of each kind, and the tokens that the first one was fed."""
    causal = tiny_model()
    found = {"causal": asked(causal), "masked": asked(masked()), "encoder-decoder": asked(encoder_decoder())}
    fed = causal.engine.tokens
    found["guided"] = asked(build_method("self_debias_decoding").apply(tiny_model()), WITHOUT_TEXTS)
    found["without a tree"] = asked(tiny_model("bloom"))
    return {**found, "fed": fed}


def compared(folder: Path) -> dict[str, Any]:
    """The numbers of a comparison, of the same again, and what was asked anew in each."""
    found: dict[str, Any] = {}
    for time in ("first", "again"):
        report = compare(
            "demo(device=cpu)",
            ["self_debias", "pride"],
            "bbq(source=demo)",
            out=folder / "run",
            limit=12,
            replicates=200,
            show_progress=False,
        )
        found[time] = [(r.method, r.metric, r.group, r.n, r.value) for r in report.records if "second" not in r.metric]
        found[f"{time} anew"] = [u["asked_anew"] for u in report.manifest["usage"]]
    return found


def said(act: Callable[[], object]) -> tuple[str, str]:
    try:
        act()
    except (Exception, KeyboardInterrupt) as error:
        return type(error).__name__, str(error)
    return "", ""


def broken(rank: int, error: BaseException) -> None:
    """Ask a model that fails in one process."""
    model = tiny_model()
    engine: Any = model.engine
    compute = engine._score

    def fail(*arguments: Any) -> None:
        if rank == 1:
            raise error
        compute(*arguments)

    engine._score = fail
    with asking_together("cpu"):
        model.score(PASSAGES)


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    with asking_together("cpu") as team:
        assert team is not None
        found = everything()
    found["compared"] = compared(folder)
    found["unlike"] = said(lambda: unlike(rank))
    found["failed"] = said(lambda: broken(rank, ValueError("no more of this")))
    found["stopped"] = said(lambda: broken(rank, KeyboardInterrupt()))
    (folder / f"{rank}.json").write_text(json.dumps(found))


def unlike(rank: int) -> None:
    """Ask other texts in each process."""
    with asking_together("cpu"):
        tiny_model().score(PASSAGES[rank:])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ["RANK"]))
