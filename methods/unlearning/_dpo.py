"""Tokenise pairs, a prompt and two continuations, in the way in which evenhand asks models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from evenhand.core.sequences import common_prefix_length
from evenhand.interfaces import Pair
from evenhand.methods.unlearning._pairs import Ids, name_of
from evenhand.models.tokenization import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Read(NamedTuple):
    """Tokenised pairs, and the pairs that could not be read."""

    rows: list[dict[str, list[int]]]
    left_out: dict[str, list[str]]
    """Names of the pairs by reason."""
    axes: list[str]
    """The axis of each row."""


def read_pairs(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, length: int) -> Read:
    """Tokenise pairs: `prompt_ids`, `chosen_ids` (the other side) and `rejected_ids` (the stereotyped one).

    The text after a pair belongs to both sides. If a tokenizer merges a side with the end of its prompt, both sides
    begin at the first token that differs between them. Tokens before it add the same to both sides' log-probabilities,
    so that the loss is that of the whole texts.

    Args:
        pairs: Pairs of texts.
        tokenizer: The model's tokenizer.
        length: Maximum number of tokens of a prompt and one side; longer pairs are left out.
    """
    encoder = Encoder(tokenizer)
    prompts = [p.prompt for p in pairs]
    chosen = encoder.pairs(prompts, [p.counter_stereotyped + p.suffix for p in pairs])
    rejected = encoder.pairs(prompts, [p.stereotyped + p.suffix for p in pairs])
    found = Read([], {}, [])
    for pair, (good, end), (bad, _) in zip(pairs, chosen, rejected, strict=True):
        begins = min(end, common_prefix_length(good, bad), len(good) - 1, len(bad) - 1)
        reason = _unusable(good, bad, begins, length)
        if reason:
            found.left_out.setdefault(reason, []).append(name_of(pair))
        else:
            found.rows.append({"prompt_ids": good[:begins], "chosen_ids": good[begins:], "rejected_ids": bad[begins:]})
            found.axes.append(pair.axis)
    return found


def _unusable(good: Ids, bad: Ids, begins: int, length: int) -> str:
    if good == bad:
        return "the same tokens on both sides"
    if max(len(good), len(bad)) > length:
        return f"more than {length} tokens"
    return "" if begins > 0 else "no token before the first that differs"
