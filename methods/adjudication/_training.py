"""A member learns from the answers that were taken: supervised or by preference, a LoRA adapter, through TRL.

Rows are made into token ids here, in the words of the member's own chat template, so that what is learned stands
exactly where the member would write it; only the answer counts in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Dialogue
from evenhand.prompting import chat_template, rendering
from evenhand.training import trl as through_trl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKPOINTING_FROM = 500_000_000
"""Parameters from which activations are computed twice rather than kept."""


class Lesson(NamedTuple):
    """A prompt, the answer to learn, and the one to prefer it to."""

    dialogue: Dialogue
    answer: str
    rejected: str = ""


class Encoded(NamedTuple):
    """A lesson in token ids."""

    prompt: list[int]
    answer: list[int]
    rejected: list[int]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How an adapter is trained."""

    objective: Literal["sft", "dpo"] = "sft"
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 1e-4
    epochs: int = 2
    batch_size: int = 8
    accumulate: int = 1
    beta: float = 0.1
    """Of DPO: how much it costs to move away from the untrained member."""
    seed: int = 0


def require() -> None:
    """Refuse before anything is asked what would fail after hours.

    Raises:
        SettingsError: TRL is not installed.
    """
    if reason := through_trl.unsupported_reason("cross_model_adjudication"):
        raise SettingsError(reason)


def encode(tokenizer: PreTrainedTokenizerBase, lesson: Lesson) -> Encoded:
    """The lesson as the member would read and write it, its end of turn included."""
    from evenhand.models.tokenization import Encoder

    encoder = Encoder(tokenizer)
    head = rendering.dialogue_text(lesson.dialogue, tokenizer)
    start = encoder.prompted([head])[0]
    replies = [r for r in (lesson.answer, lesson.rejected) if r]
    wholes = encoder.prompted([head + _closed(tokenizer, lesson.dialogue, head, reply) for reply in replies])
    n = min(_common(start, whole) for whole in wholes)  # a tokenizer may glue the first word to what is before it
    tails = [whole[n:] for whole in wholes] + [[]]
    return Encoded(start[:n], tails[0], tails[1])


def tune(
    module: Any, tokenizer: PreTrainedTokenizerBase, lessons: Sequence[Lesson], how: Tuning, most: int, folder: Path,
    *, named: bool,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """A copy of the module with a trained adapter, and how it went. A killed training goes on from its last epoch.

    Args:
        module: The member's; it stays as it is.
        tokenizer: Its own.
        lessons: What is learned; with objective "dpo" those without a rejected answer are left out.
        how: Settings.
        most: Most tokens of a lesson; longer ones are left out and counted, never cut.
        folder: Where checkpoints lie meanwhile.
        named: Whether the module is what its name says (`evenhand.training.lora.with_adapter`).

    Raises:
        EvenhandError: Nothing is left to learn from.
    """
    require()
    import torch

    from evenhand.training.lora import with_adapter

    read = [encode(tokenizer, x) for x in lessons if how.objective == "sft" or x.rejected]
    kept = [e for e in read if len(e.prompt) + max(len(e.answer), len(e.rejected)) <= most]
    if not kept:
        raise EvenhandError(f"nothing to learn from: {len(lessons)} answers taken, none usable for {how.objective}")
    tuned = with_adapter(module, rank=how.rank, alpha=how.alpha, dropout=0.0, seed=how.seed, named=named)
    with through_trl.own_generators(), _quiet():
        torch.manual_seed(how.seed)
        trainer = _trainer(tuned, tokenizer, kept, how, folder)
        through_trl.run(trainer)
    curve = [{k: float(v) for k, v in row.items() if k in ("epoch", "loss")} for row in trainer.state.log_history
             if "loss" in row]  # fmt: skip
    facts = {
        "objective": how.objective,
        "lessons": len(kept),
        "lessons_too_long": len(read) - len(kept),
        "trained_tokens": sum(len(e.answer) + len(e.rejected) for e in kept) * how.epochs,
        "curve": curve,
    }
    tuned = trainer.model
    return tuned.eval(), facts


def _trainer(tuned: Any, tokenizer: Any, rows: Sequence[Encoded], how: Tuning, folder: Path) -> Any:
    from datasets import Dataset

    trl = through_trl.library()
    parameters = sum(p.numel() for p in tuned.parameters())
    device = next(tuned.parameters()).device
    steps = how.epochs * math.ceil(len(rows) / (how.batch_size * how.accumulate))
    shared: dict[str, Any] = {
        "output_dir": str(folder), "learning_rate": how.learning_rate, "num_train_epochs": how.epochs,
        "per_device_train_batch_size": how.batch_size, "gradient_accumulation_steps": how.accumulate,
        "seed": how.seed, "data_seed": how.seed, "use_cpu": device.type == "cpu", "report_to": [],
        "save_strategy": "epoch", "save_total_limit": 1, "logging_strategy": "epoch", "disable_tqdm": True,
        "bf16": device.type == "cuda", "fp16": False, "warmup_steps": steps // 10,
        "gradient_checkpointing": parameters >= CHECKPOINTING_FROM,
        "max_length": max(len(e.prompt) + max(len(e.answer), len(e.rejected)) for e in rows),
    }  # fmt: skip
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if how.objective == "dpo":
        data = [{"prompt_ids": e.prompt, "chosen_ids": e.answer, "rejected_ids": e.rejected} for e in rows]
        dpo = trl.DPOConfig(beta=how.beta, **shared)
        ready = through_trl.for_tokens(trl.DPOTrainer)
        return ready(model=tuned, args=dpo, train_dataset=Dataset.from_list(data), processing_class=tokenizer)
    masked = [
        {"input_ids": e.prompt + e.answer, "completion_mask": [0] * len(e.prompt) + [1] * len(e.answer)} for e in rows
    ]
    sft = trl.SFTConfig(completion_only_loss=True, packing=False, **shared)
    return trl.SFTTrainer(model=tuned, args=sft, train_dataset=Dataset.from_list(masked), processing_class=tokenizer)


def _closed(tokenizer: Any, dialogue: Dialogue, head: str, reply: str) -> str:
    """The reply with what ends the assistant's turn."""
    end = str(tokenizer.eos_token or "")
    if rendering.prompt_format(tokenizer) == "plain transcript":
        return f" {reply}{end}"
    try:
        whole = chat_template.told(tokenizer, dialogue.assistant(reply).messages)
    except SettingsError:  # a template that refuses the roles; it ends turns as it ends texts
        return reply + end
    return whole[len(head) :].rstrip() if whole.startswith(head) else reply + end


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of datasets, which would stand between ours."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
