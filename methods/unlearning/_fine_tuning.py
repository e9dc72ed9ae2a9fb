"""Fine-tune on biased texts: the result minus the starting point is a task vector."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference.scoring import evaluating
from evenhand.interfaces import Pair, TrainedOn
from evenhand.methods.unlearning._negation import plain
from evenhand.methods.unlearning._task_vectors import TaskVector, difference, from_adapter
from evenhand.models.tokenization import Encoder
from evenhand.training.causal import causal_lm_loss, finish_of
from evenhand.training.grouping import in_batches
from evenhand.training.hidden import final_hidden
from evenhand.training.holding_out import hold_out
from evenhand.training.loop import Schedule, Training
from evenhand.training.lora import Adapter, adapted, lora_config
from evenhand.training.losses import chunked_kl
from evenhand.training.packing import IGNORED, Batch, layout_of, pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]
Fit = Literal["lora", "full"]
ROW = 256


class Example(NamedTuple):
    """A tokenised text."""

    ids: Ids
    labels: Ids
    """The token itself if it is learned, else `IGNORED`, for each token."""
    kept: bool = False
    """Whether the model's own predictions are retained, rather than the text learned."""
    whole: tuple[int, ...] = ()
    """The tokenised text of which this is a stretch; empty for a whole text."""


class Plan(NamedTuple):
    """How the model is trained."""

    fit: Fit
    adapter: Adapter
    batch_size: int
    """Number of texts per step."""
    batch_tokens: int
    keep: float
    """Weight of the divergence from the model's own predictions on texts to retain."""
    schedule: Schedule


class Fitted(NamedTuple):
    """A vector and how its training went."""

    vector: TaskVector
    training: dict[str, Any]
    """Fields of a `TrainingRecord`."""


# ------------------------------------------------------------------------------------------------- in tokens


def text_examples(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int, *, kept: bool = False
) -> list[Example]:
    """Make examples of texts of which every token is learned; long ones are cut into stretches.

    Args:
        texts: Plain texts.
        tokenizer: The model's own.
        length: Most tokens of a stretch.
        kept: Whether the model's own predictions are what is learned.
    """
    out = []
    for ids in Encoder(tokenizer).plain(texts):
        parts = [ids[at : at + length] for at in range(0, len(ids), length)]
        whole = tuple(ids) if len(parts) > 1 else ()
        out += [Example(part, list(part), kept, whole) for part in parts if len(part) > 1]
    return out


def pair_examples(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, length: int, *, whole: bool, kept: bool = False
) -> list[Example]:
    """Make examples of pairs' stereotyped sides after their prompts; those longer than `length` are left out.

    Args:
        pairs: Pairs to unlearn, or to retain.
        tokenizer: The model's own.
        length: Maximum number of tokens.
        whole: Whether the prompt is learned too, rather than what follows it.
        kept: Whether the model's own predictions are what is learned.
    """
    found = Encoder(tokenizer).pairs([p.prompt for p in pairs], [p.stereotyped + p.suffix for p in pairs])
    out = []
    for ids, begins in found:
        if 1 < len(ids) <= length:
            out.append(Example(ids, list(ids) if whole else [IGNORED] * begins + ids[begins:], kept))
    return out


def divide(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Divide examples into training and held-out ones; equal ones, and stretches of one text, stay together.

    Raises:
        SettingsError: One side would have no text to learn.
    """
    train, held = hold_out(examples, lambda e: [e.whole or tuple(e.ids)], fraction, seed)
    if all(e.kept for e in train) or (fraction and all(e.kept for e in held)):
        different = len({tuple(e.ids) for e in examples})
        raise SettingsError(
            f"{different} different texts cannot be divided into training and held-out ones with "
            f"validation_fraction={fraction}: add texts, or set another seed or validation_fraction=0"
        )
    return train, held


# -------------------------------------------------------------------------------------------------- training


def tuned_module(module: Any, fit: Fit, adapter: Adapter, seed: int) -> Any:
    """Return a copy of a module that is ready for training: whole in float32, or under a fresh adapter.

    Raises:
        SettingsError: The adapter's layers do not exist.
    """
    base = plain(module)
    if fit == "full":
        return base.float().requires_grad_(True)
    return adapted(base, lora_config(base, adapter), seed)


def fit(
    module: Any, train: Sequence[Example], held: Sequence[Example], plan: Plan, folder: Path | None, label: str
) -> Fitted:
    """Fine-tune a copy of a module, and return the difference.

    Args:
        module: A causal language model; it is not changed.
        train: Examples to train on.
        held: Examples to evaluate each epoch; the weights of the best one are used. Without any, those of the last.
        plan: How the model is trained.
        folder: Folder for checkpoints.
        label: Label of the progress bar.

    Raises:
        EvenhandError: The loss is no longer finite.
    """
    base = plain(module) if hasattr(module, "peft_config") else module
    tuned = tuned_module(module, plan.fit, plan.adapter, plan.schedule.seed)
    run = _Run(tuned, base, plan)
    judged = run.batches(held, Random("held out"))
    began = time.monotonic()
    first = run.evaluate(judged) if held else {}
    trained = Training(
        module=tuned,
        batches=lambda _, random: run.batches(train, random),
        loss=run.loss,
        evaluate=(lambda _: run.evaluate(judged)) if held else None,
        watched="held_out_loss",
        schedule=plan.schedule,
        folder=folder,
        label=label,
    ).run()
    tuned.eval()
    vector = difference(tuned, base) if plan.fit == "full" else from_adapter(tuned, base)
    tokens = sum(len(e.ids) for e in train) * len(trained.curve)
    known = {
        "data": TrainedOn(unit="texts", training=sum(not e.kept for e in train), validation=len(held)),
        "seconds": round(time.monotonic() - began, 1),
        "epochs": len(trained.curve),
        "best_epoch": trained.best,
        "curve": ({"epoch": -1.0, **first}, *trained.curve),
        "results": {"kept_texts": sum(e.kept for e in train), "trained_tokens": tokens, "norm": vector.norm()},
    }
    return Fitted(vector, known)


Step = list[tuple[Batch, bool]]
"""The batches of one step, and whether each is of texts to retain."""


class _Run:
    """A copy of a model in training, and the original model."""

    def __init__(self, tuned: Any, base: Any, plan: Plan) -> None:
        self.tuned, self.base, self.plan = tuned, base, plan
        self.layout, self.finish = layout_of(tuned), finish_of(tuned)

    def batches(self, examples: Sequence[Example], random: Random) -> list[Step]:
        """Return steps with equally many texts, in the order of the schedule."""
        group_by = self.plan.schedule.group_by
        batches = in_batches(examples, self.plan.batch_size, random, lambda example: example.ids, group_by)
        return [self._step(batch) for batch in batches]

    def _step(self, examples: Sequence[Example]) -> Step:
        out: Step = []
        for kept in (False, True):
            some = [e for e in examples if e.kept is kept]
            if not some:
                continue
            ids, labels = [e.ids for e in some], [e.labels for e in some]
            out += [(b, kept) for b in pack(ids, self.layout, labels=labels, length=ROW, tokens=self.plan.batch_tokens)]
        return out

    def loss(self, network: Any, step: Step) -> Tensor:
        """Average over a step's learned tokens, and over its retained ones, with their weight."""
        parts = self._parts(network, step)
        return torch.stack([value * (self.plan.keep if kept else 1.0) / max(1, n) for value, n, kept in parts]).sum()

    def evaluate(self, steps: Sequence[Step]) -> Mapping[str, float]:
        """Return the mean cross-entropy of held-out texts in nats per token, and the divergence on texts to retain."""
        sums = {False: [0.0, 0], True: [0.0, 0]}
        with evaluating(self.tuned), torch.no_grad():
            for step in steps:
                for value, _, kept in self._parts(self.tuned, step, own=True):
                    sums[kept][0] += float(value)
                for batch, kept in step:
                    sums[kept][1] += int((batch.labels != IGNORED).sum())
        learned, stays = (sums[k][0] / max(1, sums[k][1]) for k in (False, True))
        out = {"held_out_loss": learned + self.plan.keep * stays}
        return {**out, "held_out_nats": learned, "held_out_divergence": stays} if sums[True][1] else out

    def _parts(self, network: Any, step: Step, *, own: bool = False) -> list[tuple[Tensor, int, bool]]:
        """Return for each batch its summed loss, the step's number of such tokens, and whether its texts are kept."""
        counts = {k: sum(int((b.labels != IGNORED).sum()) for b, kept in step if kept is k) for k in (False, True)}
        device = self.tuned.get_input_embeddings().weight.device
        out = []
        for batch, kept in step:
            batch = batch.to(device)
            value = (
                self._diverged(network, batch)
                if kept
                else causal_lm_loss(network, batch, finish=self.finish, reduction="sum")
            )
            out.append((value, counts[kept], kept))
        return out

    def _diverged(self, network: Any, batch: Batch) -> Tensor:
        """Sum the divergence from the original model's predictions over the tokens that count."""
        places, counts = batch.distinct()
        mine = final_hidden(network, **batch.inputs).flatten(0, 1)
        with torch.no_grad():
            theirs = final_hidden(self.base, **batch.inputs).flatten(0, 1)
        return chunked_kl(
            mine[places.to(mine.device)],
            self.tuned.get_output_embeddings(),
            theirs[places.to(theirs.device)],
            self.base.get_output_embeddings(),
            weights=counts,
            finish=self.finish,
            teacher_finish=self.finish,
            reduction="sum",
        )
