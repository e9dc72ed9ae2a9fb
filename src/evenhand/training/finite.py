"""Checks that a trained or edited model still gives finite logits for a few texts, in the model's own precision.

Logits can overflow although all weights are finite: float16 ends at 65,504, and training is in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.errors import DivergedError
from evenhand.inference.scoring import input_device

Ids = Sequence[int]
"""Token ids of a text."""
PROBES = (
    "The nurse told the doctor that she would be late because of the rain.",
    "He was born in 1947, moved to the city, and never came back.",
    "Which of these is true? They both work there.",
)
"""Plain sentences, for any model."""


def probes(tokenizer: Any, context: int) -> list[Ids]:
    """Return the token ids of the sentences that every edited model is checked with, cut to its context length."""
    found = [list(tokenizer(text)["input_ids"])[:context] for text in PROBES]
    return [ids for ids in found if ids]


def count_broken(
    module: nn.Module, before: nn.Module, texts: Iterable[Ids], weights: Mapping[str, Tensor] | None = None
) -> int:
    """Count the texts for which a module's logits are not finite where those before the edit were.

    Args:
        module: What is checked, in its own precision, one text at a time, without gradients.
        before: The module before the edit; it is run only for texts with logits that are not finite.
        texts: Token ids.
        weights: By parameter name, used in place of the module's own, which are not changed.
    """
    return sum(_breaks(module, before, ids, weights or {}) for ids in texts)


def refuse_broken(
    module: nn.Module, before: nn.Module, texts: Iterable[Ids], remedy: str, *, what: str = "this edit"
) -> None:
    """Refuse a trained or edited module whose logits are not finite.

    Args:
        module: What is checked, in its own precision.
        before: The module before the training or the edit.
        texts: Token ids, such as `probes`.
        remedy: What to do about it.
        what: What broke the logits, for the message.

    Raises:
        DivergedError: The logits of a text are not finite, but were before; the message ends with the remedy.
    """
    texts = list(texts)
    if broken := count_broken(module, before, texts):
        raise DivergedError(f"{told(broken, len(texts), module, what)}: {remedy}")


def told(broken: int, texts: int, module: nn.Module, what: str = "this edit") -> str:
    """Describe the problem for a message."""
    return f"the logits of {broken} of {texts} texts are not finite in {precision(module)} with {what}"


def precision(module: nn.Module) -> str:
    """Return the precision of a module's weights, such as "float16"."""
    return str(next(module.parameters()).dtype).removeprefix("torch.")


def _breaks(module: nn.Module, before: nn.Module, ids: Ids, weights: Mapping[str, Tensor]) -> bool:
    found = _logits(module, ids, weights).isfinite()
    return not bool(found.all()) and bool((_logits(before, ids, {}).isfinite() & ~found).any())


def _logits(module: Any, ids: Ids, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the logits of a text on the CPU, [1, tokens, vocabulary]."""
    row = torch.tensor([list(ids)], device=input_device(module))
    given = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    with torch.no_grad():
        made = torch.func.functional_call(module, dict(weights), kwargs=given) if weights else module(**given)
    logits: Tensor = made.logits.cpu()
    return logits
