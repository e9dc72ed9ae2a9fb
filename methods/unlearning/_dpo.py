"""Direct preference optimisation with TRL: the other side of a pair is preferred to the stereotyped one.

Source: Rafailov et al. 2023 (arXiv 2305.18290). TRL trains; it is given tokens, so that prompts are read as models of
evenhand are asked.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Pair
from evenhand.methods.unlearning._fine_tuning import Adapter, lora_config
from evenhand.methods.unlearning._pairs import Ids, common, name_of
from evenhand.models.tokenization import Encoder
from evenhand.training import trl as through_trl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACE = "trainer"
"""Where in an artefact's folder TRL keeps its checkpoints."""


class Plan(NamedTuple):
    """How it is trained."""

    beta: float
    adapter: Adapter
    epochs: int
    steps: int | None
    """Instead of epochs."""
    learning_rate: float
    warm_up: float
    """Share of the steps."""
    batch_size: int
    accumulate: int
    precision: str
    seed: int
    cpu: bool


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
    chosen = encoder.pairs(prompts, [p.other + p.after for p in pairs])
    rejected = encoder.pairs(prompts, [p.stereotyped + p.after for p in pairs])
    found = Read([], {})
    for pair, (good, end), (bad, _) in zip(pairs, chosen, rejected, strict=True):
        begins = min(end, common(good, bad), len(good) - 1, len(bad) - 1)
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
    module: Any, tokenizer: PreTrainedTokenizerBase, train: list[Any], held: list[Any], plan: Plan, folder: Path
) -> tuple[Any, dict[str, Any]]:
    """Train a fresh adapter on a module, which is its own reference.

    TRL's checkpoints lie in `folder`, and a killed run goes on from there.

    Args:
        module: Without adapters; it is put under the new one.
        tokenizer: The model's own.
        train: From `rows`.
        held: Likewise, for the accuracy after each epoch.
        plan: How.
        folder: Of the artefact.

    Returns:
        The module under its adapter; and facts: the curve, the steps and the seconds.

    Raises:
        SettingsError: TRL is not installed.
        EvenhandError: The loss is no longer finite.
    """
    if reason := through_trl.unsupported_reason("preference"):
        raise SettingsError(reason)
    with through_trl.own_generators():
        return _optimised(module, tokenizer, train, held, plan, folder)


def _optimised(
    module: Any, tokenizer: PreTrainedTokenizerBase, train: list[Any], held: list[Any], plan: Plan, folder: Path
) -> tuple[Any, dict[str, Any]]:
    from datasets import Dataset

    trl = through_trl.library()
    arguments = trl.DPOConfig(
        output_dir=str(folder / PLACE), beta=plan.beta, learning_rate=plan.learning_rate, lr_scheduler_type="cosine",
        warmup_steps=plan.warm_up, num_train_epochs=plan.epochs, max_steps=plan.steps or -1,
        per_device_train_batch_size=plan.batch_size, per_device_eval_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.accumulate, bf16=plan.precision == "bf16", fp16=plan.precision == "fp16",
        seed=plan.seed, data_seed=plan.seed, use_cpu=plan.cpu, eval_strategy="epoch", save_strategy="epoch",
        save_total_limit=1, logging_strategy="epoch", report_to="none", push_to_hub=False, disable_tqdm=True,
        gradient_checkpointing=False, max_length=None, dataloader_pin_memory=not plan.cpu,
    )  # fmt: skip
    trainer_class = through_trl.for_tokens(trl.DPOTrainer)
    began = time.monotonic()
    trainer = trainer_class(
        model=module, args=arguments, train_dataset=Dataset.from_list(train), eval_dataset=Dataset.from_list(held),
        processing_class=copy.deepcopy(tokenizer), peft_config=lora_config(module, plan.adapter),
    )  # fmt: skip
    through_trl.run(trainer)
    history: list[Mapping[str, float]] = trainer.state.log_history
    losses = [row["loss"] for row in history if "loss" in row]
    if not all(map(_finite, losses)):
        raise EvenhandError(f"the loss of the preferences became {losses[-1]}; take a lower learning_rate")
    tuned = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    steps, seconds = int(trainer.state.global_step), round(time.monotonic() - began, 1)
    return tuned.eval(), {"curve": _curve(history), "steps": steps, "seconds": seconds}


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _curve(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Per epoch the training loss, and loss and accuracy on held-out pairs."""
    names = {"loss": "train_loss", "eval_loss": "held_out_loss", "eval_rewards/accuracies": "held_out_accuracy"}
    out: dict[float, dict[str, float]] = {}
    for row in history:
        for theirs, ours in names.items():
            if theirs in row:
                out.setdefault(round(row["epoch"], 3), {})[ours] = float(row[theirs])
    return [{"epoch": epoch, **values} for epoch, values in sorted(out.items())]
