"""Train a student on texts: the batches of an epoch, the loss, and the evaluation on held-out texts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from evenhand.errors import EvenhandError
from evenhand.inference.scoring import frozen
from evenhand.methods.distillation._batches import Rows, Text, batches
from evenhand.methods.distillation._losses import Loss, Rule, Shares, means, readings
from evenhand.methods.distillation._states import states_of
from evenhand.training.loop import Schedule, Training
from evenhand.training.losses import unchanged

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evenhand.training.packing import Layout

MOST_NATS = 700.0
"""Maximum number of nats with a finite exp."""
HELD_OUT = -1
"""In place of an epoch's number: masked tokens of the held-out texts are drawn once."""


class Lesson(NamedTuple):
    """Training data."""

    train: Callable[[int], list[Text]]
    """Returns the texts of an epoch."""
    held: list[Text]
    """Held-out texts."""
    layout: Layout | None
    """Layout of a causal model; None is a masked one."""
    pad: int
    """Token with which rows are padded."""
    tokens: int
    """Maximum number of tokens in a batch."""
    hidden: bool
    """Whether a masked student is compared with its teacher only at masked tokens."""
    size: int | None = None
    """Number of texts in a batch, instead of `tokens`."""

    def batches(self, texts: list[Text], random: Random) -> list[Rows]:
        """Arrange texts in batches."""
        return batches(texts, self.layout, self.tokens, self.pad, random, hidden=self.hidden, size=self.size)


class Keeping(NamedTuple):
    """Which epoch's weights are kept."""

    watch: Literal["loss", "pseudo_perplexity"] = "loss"
    """Quantity that is lowest in the best epoch."""
    last: bool = False
    """Whether the last epoch's weights are kept, and the best one only determines when training ends."""


BEST = Keeping()
"""Keep the epoch with the lowest loss on held-out texts."""


class Outcome(NamedTuple):
    """Course of a training."""

    curve: list[dict[str, float]]
    best: int
    tokens: int
    """Number of tokens read by the student, in all epochs."""
    seconds: float


def learn(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    lesson: Lesson,
    rule: Rule,
    shares: Shares,
    schedule: Schedule,
    folder: Path | None,
    keeping: Keeping = BEST,
) -> Outcome:
    """Train a student in place.

    Args:
        student: Module whose parameters that need gradients are trained.
        teacher: Not changed. None is the student itself without its adapter.
        lesson: The texts.
        rule: Transforms the teacher's distributions.
        shares: Weights of the loss.
        schedule: Length and learning rates.
        folder: Folder for checkpoints.
        keeping: Which epoch's weights are kept.

    Raises:
        EvenhandError: The loss is no longer finite.
    """
    run = _Run(student, teacher, rule, shares, lesson)
    began = time.monotonic()

    def drawn(epoch: int, random: Random) -> list[Rows]:
        return lesson.batches(lesson.train(epoch), random)

    held = lesson.batches(lesson.held, Random("held out")) if lesson.held else []

    def evaluate(_: Any) -> Mapping[str, float]:
        found = run.judged(held)
        if keeping.watch == "pseudo_perplexity":
            found["pseudo_perplexity"] = math.exp(min(found["hard"], MOST_NATS))
        return {f"held_out_{name}": value for name, value in found.items()}

    first = evaluate(student) if held else {}
    trained = Training(
        module=student,
        batches=drawn,
        loss=run.loss,
        evaluate=evaluate if held else None,
        watched=f"held_out_{keeping.watch}",
        keep_last=keeping.last,
        schedule=schedule,
        folder=folder,
        label="training the student",
    ).run()
    curve = [{"epoch": -1.0, **first}, *trained.curve]
    tokens = sum(len(text.ids) for text in lesson.train(0)) * rule.inputs * len(trained.curve)
    return Outcome(curve, trained.best, tokens, time.monotonic() - began)


class _Run:
    """A student and its teacher on batches."""

    def __init__(self, student: Any, teacher: Any, rule: Rule, shares: Shares, lesson: Lesson) -> None:
        self.student, self.teacher, self.rule, self.shares = student, teacher, rule, shares
        causal = lesson.layout is not None
        own = _finish(student, causal)
        theirs = own if teacher is None else _finish(teacher, causal)
        self._loss = Loss(shares=shares, rule=rule, finish=own, teacher_finish=theirs)

    def loss(self, network: Any, rows: Rows) -> Tensor:
        """Compute the loss of a batch, with gradients to the student.

        Args:
            network: The student, or its wrapper in training.
            rows: The batch.
        """
        inputs, places, labels, acts = readings(rows, self.rule)
        last = bool(self.shares.cosine)
        head: Any = self.student.get_output_embeddings()
        theirs: Any = self.student if self.teacher is None else self.teacher
        their_head = theirs.get_output_embeddings()
        off = self.student.disable_adapter() if self.teacher is None else nullcontext()
        with off, frozen(theirs):
            taught = states_of(
                network if self.teacher is None else theirs, their_head, _on(inputs, theirs), places, last=last
            )
        learned = states_of(network, head, _on(inputs, self.student), places, last=last)
        spots = None if rows.spots is None or self.rule.words is None else rows.spots.flatten()[places]
        return self._loss.of(learned, head, taught, their_head, labels, acts, spots)

    def judged(self, held: list[Rows]) -> dict[str, float]:
        """Average over held-out batches."""
        self._loss.parts = {}
        try:
            with frozen(self.student):
                for rows in held:
                    self.loss(self.student, rows)
            return means(self._loss.parts, self.shares)
        finally:
            self._loss.parts = None


def _on(inputs: dict[str, Any], module: Any) -> dict[str, Any]:
    device = module.get_input_embeddings().weight.device
    return {name: v.to(device) if isinstance(v, Tensor) else v for name, v in inputs.items()}


def _finish(module: Any, causal: bool) -> Any:
    """Return what a model does to its logits after the output embedding.

    Raises:
        EvenhandError: A masked model changes them.
    """
    from evenhand.training.causal import finish_of

    if causal:
        return finish_of(module)
    head = module.get_output_embeddings()
    ids = torch.tensor([[1, 2, 3]], device=module.get_input_embeddings().weight.device)
    with frozen(module):
        state = states_of(module, head, {"input_ids": ids}, torch.arange(3), last=False)
        made, whole = head(state.before_head), module(input_ids=ids).logits[0]
    if not torch.allclose(made.float(), whole.float(), rtol=1e-2, atol=1e-2 * float(whole.abs().max())):
        raise EvenhandError(f"{type(module).__name__} changes its logits after its output embedding in an unknown way")
    return unchanged
