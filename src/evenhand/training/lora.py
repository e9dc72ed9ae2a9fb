"""LoRA adapters for a language model that is its own student: made, saved and opened again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evenhand.models.adapters import merged
from evenhand.models.saved import base_of_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_adapter(module: PreTrainedModel, *, rank: int, alpha: int, dropout: float, seed: int, named: bool) -> Any:
    """A copy of a module with a fresh LoRA adapter on all linear layers; the given module is not touched.

    Args:
        module: A causal language model; an adapter that it has is merged into the copy.
        rank: Of the adapter.
        alpha: Scale of the adapter: it counts alpha / rank.
        dropout: In the adapter.
        seed: Of its weights.
        named: Whether the module is what its name says, so that the adapter's base may be saved by name.
    """
    from peft import LoraConfig, get_peft_model

    named = named and not hasattr(module, "peft_config")
    base = merged(module)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned: Any = get_peft_model(base, config)
    if not named:
        forget_name(tuned)
    return tuned


def forget_name(tuned: Any) -> None:
    """Let an adapter's base be saved with it, where no folder or hub name holds the same weights."""
    base = tuned.get_base_model()
    base.name_or_path, base.config._name_or_path = "", ""
    for adapter in tuned.peft_config.values():
        adapter.base_model_name_or_path = None


def base_of(folder: Path) -> tuple[str, bool]:
    """Where the base of a saved adapter is, by folder or hub name, and whether it lies in the adapter's folder."""
    base = base_of_adapter(folder)
    return base, Path(base).is_absolute() and Path(base).is_relative_to(folder.resolve())
