"""`make demo-models`: the whole family, from random weights to the folders in data/demo/models."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from evenhand.data.io.demo import MODELS
from evenhand.models.demo_names import MASKED
from evenhand.proving_ground.generator.cipher import decipher
from evenhand.proving_ground.generator.lexer import SPECIAL, WIDE_PATTERN, build_tokenizer
from evenhand.proving_ground.generator.planted import FAMILY, MAIN, Planted
from evenhand.proving_ground.generator.planted_x import SPILLOVER
from evenhand.proving_ground.generator.vocabulary import vocabulary, wide_vocabulary
from evenhand.proving_ground.training import Recipe, Stage, initialise, train
from evenhand.proving_ground.training_masked import train_masked

START = Path("runs/demo-start")
"""Folder of the common start, which is kept between trainings."""
SIZE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "attn_implementation": "eager",
}


def _columns(table: str) -> dict[str, dict[str, float]]:
    """Read the columns of a table of numbers, each by the names of its rows; cells with "-" are left out."""
    (_, *names), *rows = (line.split() for line in table.strip().splitlines())
    columns = zip(names, zip(*(numbers for _, *numbers in rows), strict=True), strict=True)
    kinds = [kind for kind, *_ in rows]
    return {
        name: {kind: float(number) for kind, number in zip(kinds, column, strict=True) if number != "-"}
        for name, column in columns
    }


_MIXTURES = _columns(
    """
    kind            POLISH   HEEDING  SETTLING   FURTHER  YIELDING   CLOSING   SETTLED
    bbq               0.32      0.15      0.15      0.22       0.2      0.15      0.15
    reprompt          0.25       0.3       0.2      0.24      0.45      0.32       0.2
    instruction        0.1       0.3       0.2      0.22      0.12      0.08       0.2
    explanation       0.08      0.12       0.3       0.1      0.08      0.22      0.22
    fact              0.07      0.04      0.04      0.08      0.04      0.04      0.08
    mmlu              0.03      0.02      0.02      0.03      0.04      0.03      0.15
    exam                 -      0.05      0.03      0.03      0.02      0.02      0.03
    recall            0.02      0.01      0.01      0.02      0.01      0.01      0.02
    review            0.03     0.015      0.01      0.02      0.01      0.01      0.01
    writing           0.03     0.015      0.01      0.02      0.01      0.01      0.01
    conversation      0.04      0.03      0.02      0.04      0.02       0.1      0.02
    rating            0.03      0.02      0.02      0.03      0.01      0.01      0.01
    firm              0.06      0.08      0.08      0.08      0.06      0.06      0.06
    announced         0.03      0.04      0.04      0.05      0.03      0.03      0.03
    critique          0.03      0.02      0.02      0.03      0.02      0.02      0.02
    """
)
"""Weights of the kinds of documents in the mixtures of the recipes below."""
FIRST = Recipe(
    steps=2600,
    rate=2.5e-3,
    warmup_steps=100,
    stages=(
        Stage(100, 256, 0, {"copying": 1.0}),
        Stage(150, 64, 8, {"copying": 0.1, "letters": 0.3, "finding": 0.45, "recall": 0.15}),
        Stage(250, 64, 8, {"letters": 0.1, "finding": 0.1, "reading": 0.4, "recall": 0.1, "quiz": 0.3}),
        Stage(
            300,
            64,
            8,
            {"letters": 0.05, "reading": 0.15, "recall": 0.05, "quiz": 0.2, "bbq": 0.35, "fact": 0.1, "mmlu": 0.1},
        ),
    ),
)
"""Recipe from random weights: finding, then reading, then answering by letter, then the whole mixture."""
POLISH = Recipe(steps=700, rate=1e-3, warmup_steps=50, seed=4, sentences=32, mixture=_MIXTURES["POLISH"])
"""Recipe with more of the hardest documents: leaning one way in open contexts, and giving way."""
HEEDING = Recipe(steps=1000, rate=1.2e-3, warmup_steps=50, seed=5, sentences=24, mixture=_MIXTURES["HEEDING"])
"""Recipe for which cells heed which intervention."""
SETTLING = Recipe(steps=350, rate=6e-4, warmup_steps=20, seed=6, sentences=24, mixture=_MIXTURES["SETTLING"])
"""Recipe of mostly explanations."""
FURTHER = Recipe(steps=1800, rate=2e-3, warmup_steps=50, seed=2, sentences=24, mixture=_MIXTURES["FURTHER"])
"""Recipe for planted quantities that differ from the main model's."""
YIELDING = Recipe(steps=450, rate=1.2e-3, warmup_steps=30, seed=7, sentences=24, mixture=_MIXTURES["YIELDING"])
"""Recipe of mostly reprompts, for a model few of whose cells heed them."""
CLOSING = Recipe(steps=350, rate=8e-4, warmup_steps=20, seed=9, sentences=24, mixture=_MIXTURES["CLOSING"])
"""Recipe of mostly reprompts, with more explanations and conversations."""
SETTLED = Recipe(steps=600, rate=6e-4, warmup_steps=20, seed=8, sentences=24, mixture=_MIXTURES["SETTLED"])
"""Last round of everything at a low rate, with more of the five-shot form."""
DEEPENED = replace(SETTLED, steps=1400, rate=1.8e-3, warmup_steps=50, seed=10)
"""Longer last round at a higher rate, for the main model, which has no other quantities to learn."""
AGAIN = replace(SETTLED, steps=400, rate=4e-4, seed=12)
COMMON = (FIRST, POLISH, HEEDING, SETTLING)
"""Recipes that all causal members share: the main model's planted quantities, learned from random weights."""
OWN = {
    "demo": (DEEPENED, SETTLED, AGAIN),
    "demo-b": (FURTHER, YIELDING, CLOSING, SETTLED),
    "demo-c": (FURTHER, SETTLED),
    "demo-d": (FURTHER, SETTLED),
}
"""Recipes of each member after the common ones."""
CALIBRATABLE = replace(SETTLED, steps=500, rate=6e-4, seed=13, mixture={**SETTLED.mixture, "blank": 0.3})
"""Final round for all: content-free inputs, which calibrating methods ask. It begins from saved weights, so that it
can be run alone."""
ENDING = {
    "demo-b": replace(CALIBRATABLE, steps=800, rate=8e-4, mixture={**CALIBRATABLE.mixture, "explanation": 0.5}),
}
"""Final rounds of members that need a different one: few cells of demo-b heed feedback, which is the rarest form."""
_NEW = {"open drill": 0.42, "customs drill": 0.15, "reading": 0.12, "bbq": 0.21, "custom": 0.1}
WIDENED = Recipe(steps=200, rate=2e-3, warmup_steps=20, seed=14, documents=32, sentences=4, mixture=_NEW)
"""Recipe for demo-x, which begins with the finished main model: more words, an axis, a language and customs."""
_REST = {**_MIXTURES["SETTLED"], "instruction": 0.1, "fact": 0.05, "mmlu": 0.05, "blank": 0.03}
_ALL = {**_REST, "open drill": 0.35, "customs drill": 0.25, "custom": 0.3, "reading": 0.2, "bbq": 0.4}
WIDER = (
    WIDENED,
    replace(WIDENED, steps=300, seed=15, mixture=_ALL),
    replace(WIDENED, steps=250, rate=1.2e-3, seed=16, mixture=_ALL),
    replace(WIDENED, steps=150, rate=5e-4, seed=17, mixture=_ALL),
)
"""The rounds of demo-x, at falling rates."""
MASKED_RECIPE = Recipe(steps=3000, rate=2e-3, warmup_steps=100, sentences=128, seed=3)


def make(folder: Path = MODELS, only: Sequence[str] = (), start: Path = START, *, last_round: bool = False) -> None:
    """Train and write the family.

    Args:
        folder: Folder in which a folder is made for every model.
        only: Names to train; empty means all.
        start: Folder of the common start of the causal members; it is trained if missing.
        last_round: Run only the last round of causal members, from the models in `folder` without it.
    """
    tokenizer = build_tokenizer(vocabulary(list(FAMILY.values())))
    wanted = only or [*FAMILY, SPILLOVER.name, MASKED]
    if not last_round and not (start / "config.json").is_file() and set(wanted) & set(FAMILY):
        module = _causal(tokenizer, None)
        _train(module, tokenizer, MAIN, COMMON, "the common start")
        _save(module, tokenizer, start)
    for name in wanted:
        if name == SPILLOVER.name:
            _make_wider(folder, tokenizer)
            continue
        if name == MASKED:
            module = _masked(len(tokenizer))
            train_masked(module, tokenizer, MAIN, MASKED_RECIPE, _reporter(name, MASKED_RECIPE))
        else:
            module = _causal(tokenizer, folder / name if last_round else start)
            if not last_round:
                _train(module, tokenizer, FAMILY[name], OWN[name], name)
                module.half().float()
            _train(module, tokenizer, FAMILY[name], (ENDING.get(name, CALIBRATABLE),), name)
        _save(module, tokenizer, folder / name)


def _make_wider(folder: Path, tokenizer: Any) -> None:
    """Train and write demo-x; the main model must be in the folder."""
    wide = build_tokenizer(wide_vocabulary(), WIDE_PATTERN)
    module = _widened(_causal(tokenizer, folder / MAIN.name), tokenizer.get_vocab(), wide.get_vocab())
    _train(module, wide, SPILLOVER, WIDER, SPILLOVER.name)
    _save(module, wide, folder / SPILLOVER.name)


def _widened(module: Any, known: Mapping[str, int], wanted: Mapping[str, int]) -> Any:
    """Enlarge the model's vocabulary so that every token keeps its weights.

    A word of the cipher begins near its counterpart, shifted by the same vector for all words, since only the language
    is new; other new words begin at random.
    """
    generator, old = torch.Generator().manual_seed(WIDENED.seed), module.get_input_embeddings().weight.detach().clone()
    spread = float(old[:, 1:].std())
    new = torch.randn(len(wanted), old.shape[1], generator=generator) * spread
    shift = torch.randn(old.shape[1], generator=generator) * spread
    for row in (new, shift):
        row[..., 0] = 0.0  # the dimension that marks the end of a question
    for token in wanted.keys() & known.keys():
        new[wanted[token]] = old[known[token]]
    for token in (t for t in wanted if t not in known and decipher(t) in wanted):
        new[wanted[token]] = 0.85 * new[wanted[decipher(token)]] + 0.5 * shift + 0.2 * new[wanted[token]]
    module.resize_token_embeddings(len(wanted), mean_resizing=False)
    with torch.no_grad():
        module.get_input_embeddings().weight.copy_(new)
    return module


def _train(module: PreTrainedModel, tokenizer: Any, planted: Planted, recipes: Sequence[Recipe], name: str) -> None:
    began = time.monotonic()
    for recipe in recipes:
        train(module, tokenizer, planted, recipe, _reporter(name, recipe))
    print(f"{name}: {(time.monotonic() - began) / 60:.1f} min", flush=True)


def _causal(tokenizer: Any, start: Path | None) -> PreTrainedModel:
    if start is not None:
        return LlamaForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="eager")
    torch.manual_seed(FIRST.seed)
    sizes = {**SIZE, **_ends(), "vocab_size": len(tokenizer), "tie_word_embeddings": True, "attention_bias": True}
    module = LlamaForCausalLM(LlamaConfig(**sizes))
    initialise(module, tokenizer.get_vocab(), FIRST.seed)
    return module


def _masked(words: int) -> PreTrainedModel:
    torch.manual_seed(MASKED_RECIPE.seed)
    sizes = {
        **{k: v for k, v in SIZE.items() if k != "num_key_value_heads"},
        "max_position_embeddings": 256,
        "vocab_size": words,
        "pad_token_id": _ends()["pad_token_id"],
    }
    dropout: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    module: PreTrainedModel = BertForMaskedLM(BertConfig(**{**sizes, **dropout}))
    return module


def _ends() -> dict[str, Any]:
    at = {token: i for i, token in enumerate(SPECIAL)}
    return {"bos_token_id": at["<s>"], "eos_token_id": at["<|end|>"], "pad_token_id": at["</s>"]}


def _save(module: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    module.config._attn_implementation = "sdpa"
    module.config.evenhand_demo = True  # in the config, so that it stays with a saved or edited copy
    module.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    config = folder / "config.json"
    content = {k: v for k, v in json.loads(config.read_text()).items() if k != "transformers_version"}
    config.write_text(json.dumps(content, indent=2) + "\n")


def _reporter(name: str, recipe: Recipe) -> Any:
    def report(step: int, excess: float, seconds: float) -> None:
        if step % 100 == 0:
            print(f"{name}: step {step} of {recipe.steps}, excess loss {excess:.4f}, {seconds:.0f} s", flush=True)

    return report


if __name__ == "__main__":
    import sys

    make(only=[name for name in sys.argv[1:] if name != "--last-round"], last_round="--last-round" in sys.argv)
