"""Gates that decide once per prompt whether the model that reads it is edited.

CAST (arXiv 2409.05907) compares a prompt's state with a condition direction. Here a linear probe decides; a plain
projection on a unit direction u with a threshold m is a probe with weight u, bias -m and threshold 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from evenhand.core import answer_cache
from evenhand.errors import SettingsError, suggest
from evenhand.inference.activation_edits import TokenGate
from evenhand.inference.cached import Emit, through_cache
from evenhand.inference.decoder_layers import check_layers
from evenhand.inference.engine import Engine
from evenhand.inference.requests import Generated, Prompt, Request
from evenhand.inference.states import states
from evenhand.interfaces import Combine, Sampling

Asked = TypeVar("Asked", Request, Prompt)
Out = TypeVar("Out")
Pooling = Literal["last", "mean"]
Side = Literal["below", "above"]


@dataclass(frozen=True, eq=False)
class PromptGate:
    """A probe of the prompt's state in the unedited model: p = sigmoid(weight.h + bias)."""

    layer: int
    """Decoder layer whose output is read, counted from 0."""
    weight: Tensor
    """Weight of the probe, [hidden], float32 on the CPU."""
    bias: float = 0.0
    threshold: float = 0.5
    """Probability that separates edited from other prompts, from 0 to 1."""
    pooling: Pooling = "last"
    """Whether h is the last token's state, or the mean over the prompt's tokens without the first, an attention
    sink."""
    edit_where: Side = "below"
    """Whether prompts with p < threshold are edited, as a `TokenGate` does, or those with p >= threshold."""

    def __post_init__(self) -> None:
        """Check the gate.

        Raises:
            SettingsError: A choice is unknown, the weight is not a finite vector, or the threshold is outside 0 to 1.
        """
        for name, value, known in (
            ("pooling", self.pooling, get_args(Pooling)),
            ("edit_where", self.edit_where, get_args(Side)),
        ):
            if value not in known:
                raise SettingsError(f"{name} {value!r} of a prompt gate is not known. {suggest(value, known)}")
        object.__setattr__(self, "weight", TokenGate(self.weight, self.bias, self.threshold).weight)

    def key(self) -> list[object]:
        """Return what the gate's decisions depend on, as JSON values."""
        probe = TokenGate(self.weight, self.bias, self.threshold)
        return [self.layer, *probe.key(), self.pooling, self.edit_where]

    def positions(self, length: int) -> list[int]:
        """Return the positions of a prompt that are read."""
        return [length - 1] if self.pooling == "last" or length == 1 else list(range(1, length))

    def is_open(self, probability: float) -> bool:
        """Return whether a prompt with this probability is edited."""
        return (probability < self.threshold) == (self.edit_where == "below")


class GatedEngine:
    """Two engines of one module: one with the edit for prompts with an open gate, one without it for the others."""

    def __init__(self, plain: Engine, edited: Engine, gate: PromptGate, plain_fingerprint: Callable[[], str]) -> None:
        """Combine two engines with a gate.

        Args:
            plain: Engine that reads the condition, and answers prompts with a closed gate.
            edited: Engine that answers the other prompts.
            gate: Gate that decides between them.
            plain_fingerprint: Returns the fingerprint of the model without the edit.

        Raises:
            SettingsError: The gate's layer or size does not fit the model.
        """
        check_layers(plain.module, [gate.layer], len(gate.weight))
        self.plain, self.edited, self.gate, self._plain_fingerprint = plain, edited, gate, plain_fingerprint

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """See `Engine.read`; the prompt of a request ends at the first position that is read."""
        prompts = [r.ids[: min(position for position, _ in r.reads) + 1] for r in requests]
        return self._split(requests, prompts, fingerprint, lambda engine, some, name: engine.read(some, name))

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str, combine: Combine | None = None
    ) -> list[Generated]:
        """See `Engine.generate`; the sequences that accompany a prompt follow its decision."""
        return self._split(
            prompts,
            [p.ids for p in prompts],
            fingerprint,
            lambda engine, some, name: engine.generate(some, sampling, name, combine),
        )

    def probabilities(self, prompts: Sequence[tuple[int, ...]], fingerprint: str) -> list[float]:
        """Return the probe's probability for each prompt; known ones are taken from the active cache.

        Args:
            prompts: Token ids.
            fingerprint: Fingerprint of the model with the edit and the gate.
        """
        unique = list(dict.fromkeys(prompts))
        keys = [answer_cache.key(fingerprint, "gate", ids) for ids in unique]

        def compute(todo: list[tuple[int, ...]], emit: Emit[float]) -> None:
            lengths = [len(ids) for ids in todo]
            positions = [self.gate.positions(length) for length in lengths]
            read = states(self.plain, todo, positions, [self.gate.layer], prompt_lengths=lengths)
            logits = read[:, 0].double() @ self.gate.weight.double() + self.gate.bias
            emit(list(range(len(todo))), torch.sigmoid(logits).tolist())

        found = dict(zip(unique, through_cache(unique, keys, compute, "gating"), strict=True))
        return [found[ids] for ids in prompts]

    def _split(
        self,
        asked: Sequence[Asked],
        prompts: Sequence[tuple[int, ...]],
        fingerprint: str,
        run: Callable[[Engine, list[Asked], str], list[Out]],
    ) -> list[Out]:
        opened = [self.gate.is_open(p) for p in self.probabilities(prompts, fingerprint)]
        done: dict[int, Out] = {}
        for engine, edited in ((self.edited, True), (self.plain, False)):
            rows = [n for n, is_open in enumerate(opened) if is_open == edited]
            name = fingerprint if edited else self._plain_fingerprint()
            if rows:
                done |= dict(zip(rows, run(engine, [asked[n] for n in rows], name), strict=True))
        return [done[n] for n in range(len(asked))]
