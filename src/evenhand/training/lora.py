"""LoRA adapters of language models: their configuration, and modules with fresh ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from evenhand.errors import SettingsError, suggest
from evenhand.models.adapters import forget_name, merged

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn
    from transformers import PreTrainedModel

Targets = Literal["all", "attention"] | Sequence[str]
"""All linear layers except the output embedding, the query and value projections alone, or paths of modules."""
QUERY_VALUE = ("q_proj", "v_proj")
"""Default target modules of peft for Llama and OPT."""


class Adapter(NamedTuple):
    """Settings of a LoRA adapter."""

    rank: int
    alpha: int
    """The adapter is scaled by alpha / rank."""
    dropout: float = 0.0
    rslora: bool = False
    """Whether it is scaled by alpha / sqrt(rank) instead (Kalajdzievski 2023, arXiv 2312.03732)."""
    targets: Targets = "all"
    embeddings: bool = False
    """Whether the input embedding has an adapter as well."""


def lora_config(module: nn.Module, adapter: Adapter, **more: Any) -> LoraConfig:
    """Return the configuration of an adapter for a model.

    Args:
        module: A language model of transformers without adapters.
        adapter: Settings of the adapter.
        more: Further settings of `peft.LoraConfig`.

    Raises:
        SettingsError: The model does not have the target layers.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_rslora=adapter.rslora,
        target_modules=_target_modules(module, adapter),
        **more,
    )


def _target_modules(module: Any, adapter: Adapter) -> str | list[str]:
    """Return the `target_modules` for peft."""
    paths = {name: m for name, m in module.named_modules()}
    if not isinstance(adapter.targets, str):
        missing = [path for path in adapter.targets if path not in paths]
        if missing:
            raise SettingsError(
                f"{type(module).__name__} has no module {missing[0]!r} for an adapter. {suggest(missing[0], paths)}"
            )
        return list(adapter.targets)
    attention = adapter.targets == "attention"
    if attention and not any(name.endswith(QUERY_VALUE) for name in paths):
        raise SettingsError(f"{type(module).__name__} has no q_proj and v_proj: take targets=all")
    if not adapter.embeddings:
        return list(QUERY_VALUE) if attention else "all-linear"
    head = module.get_output_embeddings()
    linear = [
        name
        for name, m in paths.items()
        if m is not head and type(m).__name__ in ("Linear", "Conv1D") and (not attention or name.endswith(QUERY_VALUE))
    ]
    own = next(name for name, m in paths.items() if m is module.get_input_embeddings())
    return [own, *linear]


def adapted(base: nn.Module, config: LoraConfig, seed: int) -> Any:
    """Put a module under a fresh adapter; only the adapter is trained.

    Args:
        base: The module, which is changed in place.
        config: From `lora_config`.
        seed: Seed of the adapter's weights; the process's own generator is not changed.
    """
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned: Any = get_peft_model(base, config)
    return tuned


def with_adapter(module: PreTrainedModel, *, rank: int, alpha: int, dropout: float, seed: int, named: bool) -> Any:
    """Copy a module, with a fresh LoRA adapter on all linear layers of the copy.

    Args:
        module: A causal language model; an adapter that it has is merged into the copy.
        rank: Rank of the adapter.
        alpha: The adapter is scaled by alpha / rank.
        dropout: Dropout rate in the adapter.
        seed: Seed of its weights.
        named: Whether the module is the one that its name stands for, so that the adapter's base may be saved by name.
    """
    named = named and not hasattr(module, "peft_config")
    base = merged(module)
    tuned = adapted(base, lora_config(base, Adapter(rank, alpha, dropout)), seed)
    if not named:
        forget_name(tuned)
    return tuned
