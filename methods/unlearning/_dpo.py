"""Direct preference optimisation with TRL: the other side of a pair is preferred to the stereotyped one.

Source: Rafailov et al. 2023 (arXiv 2305.18290). TRL trains; it is given tokens, so that prompts are read as models of
evenhand are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core.sequences import common_prefix_length
from evenhand.interfaces import Pair
from evenhand.methods.unlearning._pairs import Ids, name_of
from evenhand.models.tokenization import Encoder
from evenhand.training import trl as through_trl
from evenhand.training.lora import Adapter, lora_config
from evenhand.training.trl import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACE = "trainer"
"""Where in an artefact's folder TRL keeps its checkpoints."""


class Read(NamedTuple):
    """Pairs in tokens, and the pairs that could not be read."""

    rows: list[dict[str, list[int]]]
    left_out: dict[str, list[str]]
    """By reason the names of the pairs."""


def rows(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, length: int) -> list[dict[str, list[int]]]:
    """The rows of `read_pairs`."""
    return read_pairs(pairs, tokenizer, length).rows


def read_pairs(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, length: int) -> Read:
    """Pairs in tokens: `prompt_ids`, `chosen_ids` (the other side) and `rejected_ids` (the stereotyped one).

    The text behind a pair belongs to both sides. Where a tokenizer merges a side with the end of its prompt, both sides
    begin at the first token that differs between them. Tokens before it add the same to both sides' log-probabilities,
    so that the loss is that of the whole texts.

    Args:
        pairs: Pairs of texts.
        tokenizer: The model's.
        length: Most tokens of a prompt and one side; longer pairs are left out.
    """
    encoder = Encoder(tokenizer)
    prompts = [p.prompt for p in pairs]
    chosen = encoder.pairs(prompts, [p.counter_stereotyped + p.suffix for p in pairs])
    rejected = encoder.pairs(prompts, [p.stereotyped + p.suffix for p in pairs])
    found = Read([], {})
    for pair, (good, end), (bad, _) in zip(pairs, chosen, rejected, strict=True):
        begins = min(end, common_prefix_length(good, bad), len(good) - 1, len(bad) - 1)
        reason = _unusable(good, bad, begins, length)
        if reason:
            found.left_out.setdefault(reason, []).append(name_of(pair))
        else:
            found.rows.append({"prompt_ids": good[:begins], "chosen_ids": good[begins:], "rejected_ids": bad[begins:]})
    return found


def _unusable(good: Ids, bad: Ids, begins: int, length: int) -> str:
    if good == bad:
        return "the same tokens on both sides"
    if max(len(good), len(bad)) > length:
        return f"more than {length} tokens"
    return "" if begins > 0 else "no token before the first that differs"


def optimise(
    module: Any,
    tokenizer: PreTrainedTokenizerBase,
    train: list[Any],
    held: list[Any],
    recipe: Recipe,
    adapter: Adapter,
    folder: Path,
) -> tuple[Any, dict[str, Any]]:
    """Train a fresh adapter on a module, which is its own reference.

    TRL's checkpoints lie in `folder`, and a killed run continues from there.

    Args:
        module: Without adapters; it is put under the new one.
        tokenizer: The model's own.
        train: From `rows`.
        held: Likewise, for the accuracy after each epoch.
        recipe: How.
        adapter: What the adapter is like.
        folder: Of the artefact.

    Returns:
        The module under its adapter; and of its training record the curve, the steps and the seconds.

    Raises:
        SettingsError: TRL is not installed, or the adapter's layers are not there.
        EvenhandError: The loss is no longer finite.
    """
    config = lora_config(module, adapter)
    made = through_trl.train(module, tokenizer, train, recipe, folder / PLACE, held=held, adapter=config)
    return made.module, {"curve": tuple(_curve(made.history)), "steps": made.steps, "seconds": made.seconds}


def _curve(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Per epoch the training loss, and loss and accuracy on held-out pairs."""
    names = {"loss": "train_loss", "eval_loss": "held_out_loss", "eval_rewards/accuracies": "held_out_accuracy"}
    out: dict[float, dict[str, float]] = {}
    for row in history:
        for theirs, ours in names.items():
            if theirs in row:
                out.setdefault(round(row["epoch"], 3), {})[ours] = float(row[theirs])
    return [{"epoch": epoch, **values} for epoch, values in sorted(out.items())]
