"""Train a member on the selected answers, supervised or by preference: a LoRA adapter, through TRL.

Rows are turned into token ids here, with the member's own chat template, so that an answer is learned
exactly where the member would write it; only the answer counts in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from evenhand.core.sequences import common_prefix_length
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Dialogue, TrainedOn
from evenhand.prompting import chat_template, rendering
from evenhand.training import trl as through_trl

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKPOINTING_FROM = 500_000_000
"""Number of parameters from which activations are recomputed rather than stored."""


class Lesson(NamedTuple):
    """A prompt, the answer to learn, and the answer it is preferred to."""

    dialogue: Dialogue
    answer: str
    rejected: str = ""


class Encoded(NamedTuple):
    """A lesson in token ids."""

    prompt: list[int]
    answer: list[int]
    rejected: list[int]

    @property
    def size(self) -> int:
        """Number of tokens of the prompt and the longer answer."""
        return len(self.prompt) + max(len(self.answer), len(self.rejected))


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How an adapter is trained."""

    objective: Literal["sft", "dpo"] = "sft"
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 1e-4
    epochs: int = 2
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    beta: float = 0.1
    """DPO's beta: the cost of moving away from the untrained member."""
    seed: int = 0


def require() -> None:
    """Refuse at once what would otherwise fail after hours.

    Raises:
        SettingsError: TRL is not installed.
    """
    if reason := through_trl.unsupported_reason("cross_model_adjudication"):
        raise SettingsError(reason)


def encode(tokenizer: PreTrainedTokenizerBase, lesson: Lesson) -> Encoded:
    """Encode the lesson as the member would read and write it, end of turn included."""
    from evenhand.models.tokenization import Encoder

    encoder = Encoder(tokenizer)
    head = rendering.dialogue_text(lesson.dialogue, tokenizer)
    start = encoder.prompted([head])[0]
    replies = [r for r in (lesson.answer, lesson.rejected) if r]
    wholes = encoder.prompted([head + _closed(tokenizer, lesson.dialogue, head, reply) for reply in replies])
    # A tokenizer may join the first word to what precedes it.
    n = min(common_prefix_length(start, whole) for whole in wholes)
    tails = [whole[n:] for whole in wholes] + [[]]
    return Encoded(start[:n], tails[0], tails[1])


def tune(
    module: Any,
    tokenizer: PreTrainedTokenizerBase,
    lessons: Sequence[Lesson],
    how: Tuning,
    most: int,
    folder: Path,
    *,
    named: bool,
) -> tuple[Any, dict[str, Any]]:
    """Return a copy of the module with a trained adapter, and fields of a training record about the training.

    A killed training resumes after its last completed epoch.

    Args:
        module: The member's module; it is not changed.
        tokenizer: The member's tokenizer.
        lessons: The lessons; with objective "dpo" those without a rejected answer are left out.
        how: Settings of the training.
        most: Maximum number of tokens of a lesson; longer ones are left out and counted, never cut.
        folder: Folder for checkpoints during training.
        named: Whether the module is what its name says (`evenhand.training.lora.with_adapter`).

    Raises:
        EvenhandError: Nothing is left to learn from, or the trained member gives no finite scores.
    """
    require()
    from evenhand.training.finite import probes, refuse_broken
    from evenhand.training.lora import with_adapter

    read = [encode(tokenizer, x) for x in lessons if how.objective == "sft" or x.rejected]
    kept = [e for e in read if e.size <= most]
    if not kept:
        raise EvenhandError(f"nothing to learn from: {len(lessons)} answers selected, none usable for {how.objective}")
    tuned = with_adapter(module, rank=how.rank, alpha=how.alpha, dropout=0.0, seed=how.seed, named=named)
    recipe = _recipe(tuned, kept, how)
    made = through_trl.train(tuned, tokenizer, [_row(e, how) for e in kept], recipe, folder)
    refuse_broken(made.module, module, probes(tokenizer, most), f"set a learning_rate below {how.learning_rate:g}")
    known = {
        "data": TrainedOn(unit="lessons", training=len(kept)),
        "precision": recipe.precision,
        "seed": how.seed,
        "epochs": how.epochs,
        "steps": made.steps,
        "curve": tuple({k: float(row[k]) for k in ("epoch", "loss")} for row in made.history if "loss" in row),
        "seconds": made.seconds,
        "results": {
            "objective": how.objective,
            "lessons_too_long": len(read) - len(kept),
            "trained_tokens": sum(len(e.answer) + len(e.rejected) for e in kept) * how.epochs,
        },
    }
    return made.module, known


def _recipe(tuned: Any, rows: Sequence[Encoded], how: Tuning) -> through_trl.Recipe:
    device = next(tuned.parameters()).device
    steps = how.epochs * math.ceil(len(rows) / (how.batch_size * how.gradient_accumulation_steps))
    return through_trl.Recipe(
        objective=how.objective,
        epochs=how.epochs,
        learning_rate=how.learning_rate,
        warmup=steps // 10,
        batch_size=how.batch_size,
        gradient_accumulation_steps=how.gradient_accumulation_steps,
        beta=how.beta,
        precision="bf16" if device.type == "cuda" else "no",
        gradient_checkpointing=sum(p.numel() for p in tuned.parameters()) >= CHECKPOINTING_FROM,
        max_length=max(e.size for e in rows),
        seed=how.seed,
        cpu=device.type == "cpu",
    )


def _row(lesson: Encoded, how: Tuning) -> dict[str, list[int]]:
    """Return a lesson in the format that TRL reads."""
    prompt, answer = lesson.prompt, lesson.answer
    if how.objective == "dpo":
        return {"prompt_ids": prompt, "chosen_ids": answer, "rejected_ids": lesson.rejected}
    return {"input_ids": prompt + answer, "completion_mask": [0] * len(prompt) + [1] * len(answer)}


def _closed(tokenizer: Any, dialogue: Dialogue, head: str, reply: str) -> str:
    """Return the reply followed by what ends the assistant's turn."""
    end = str(tokenizer.eos_token or "")
    if rendering.prompt_format(tokenizer) == "plain transcript":
        return f" {reply}{end}"
    try:
        whole = chat_template.told(tokenizer, dialogue.assistant(reply).messages)
    except SettingsError:  # A template that refuses the roles; its turns end as its texts do.
        return reply + end
    return whole[len(head) :].rstrip() if whole.startswith(head) else reply + end
