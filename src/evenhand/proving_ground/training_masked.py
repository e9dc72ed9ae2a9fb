"""Training of the demo's masked language model, on the sentences of the text world."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import PreTrainedModel

from evenhand.proving_ground.generator.lexer import lex
from evenhand.proving_ground.generator.planted import Planted
from evenhand.proving_ground.generator.texts import world
from evenhand.proving_ground.training import Recipe, precision, rate_at
from evenhand.training.optimizer import adamw, set_learning_rate

MASKED_SHARE = 0.15
PRONOUNS = (" she", " he")


def train_masked(
    module: PreTrainedModel,
    tokenizer: Any,
    planted: Planted,
    recipe: Recipe,
    report: Callable[[int, float, float], None] | None = None,
) -> None:
    """Train a masked language model in place: `recipe.sentences` sentences per step, 15 % of the tokens masked.

    Every masked token is replaced by the mask; in half of the sentences with a pronoun only the pronoun is hidden.
    """
    torch.manual_seed(recipe.seed)
    random, ids = Random(recipe.seed), tokenizer.get_vocab()
    texts = world(planted)
    sentences = [[ids[t] for t in ("<s>", *lex(text), "</s>")] for text in texts]
    shares = list(texts.values())
    pronouns = {ids[p] for p in PRONOUNS}
    optimizer = adamw(module.parameters(), learning_rate=recipe.rate, weight_decay=0.02, betas=(0.9, 0.98))
    module.train()
    total = 0.0
    for step in range(recipe.steps):
        set_learning_rate(optimizer, rate_at(step, recipe))
        rows = random.choices(sentences, shares, k=recipe.sentences)
        table, seen, hidden = _hide(rows, pronouns, ids["<mask>"], tokenizer.pad_token_id, random)
        with precision(module.device):
            states = module.base_model(input_ids=table, attention_mask=seen).last_hidden_state
            logits = _head(module, states[hidden])
        wanted = torch.tensor([t for row in rows for t in row + [0] * (table.shape[1] - len(row))])[hidden.flatten()]
        loss = -log_softmax(logits.float(), dim=-1).gather(1, wanted[:, None]).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += float(loss.detach())
        if report and (step + 1) % 50 == 0:
            report(step + 1, total / 50, 0.0)
            total = 0.0
    module.eval()


def _head(module: Any, states: Tensor) -> Tensor:
    logits: Tensor = module.cls(states)
    return logits


def _hide(
    rows: list[list[int]], pronouns: set[int], mask: int, pad: int, random: Random
) -> tuple[Tensor, Tensor, Tensor]:
    """Return padded ids with masks, the attention mask, and a [rows, length] flag for the tokens to predict."""
    length = max(map(len, rows))
    table = torch.full((len(rows), length), pad)
    hidden = torch.zeros((len(rows), length), dtype=torch.bool)
    for n, row in enumerate(rows):
        table[n, : len(row)] = torch.tensor(row)
        inside = range(1, len(row) - 1)
        spoken = [i for i in inside if row[i] in pronouns]
        if spoken and random.random() < 0.5:
            chosen = spoken
        else:
            chosen = [i for i in inside if random.random() < MASKED_SHARE] or [random.choice(inside)]
        hidden[n, chosen] = True
    seen = (table != pad) | hidden
    table = table.masked_fill(hidden, mask)
    # the end token is also the padding token: tokens within a row are always seen
    for n, row in enumerate(rows):
        seen[n, : len(row)] = True
    return table, seen.long(), hidden
