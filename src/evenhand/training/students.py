"""Students of a language model: itself with an adapter, some of its layers, or fewer layers of random weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from evenhand.errors import SettingsError
from evenhand.inference.support_probe import inner
from evenhand.interfaces import Model
from evenhand.models.adapters import copied, merged
from evenhand.models.asking import asked_alike
from evenhand.models.files import SAVED
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.training.lora import base_of, forget_name, with_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

StudentKind = Literal["lora", "copied", "random"]
FACTS = "distillation.json"
"""Beside a student's weights: how its training went."""


def build(
    kind: StudentKind, module: PreTrainedModel, *, layers: int | None, rank: int, seed: int, named: bool
) -> PreTrainedModel:
    """A student of a model, which is left as it is.

    Args:
        kind: lora is a copy of the model with an adapter; copied has some of its layers, evenly spaced; random has its
            configuration with fewer layers, and new weights.
        module: A causal or masked language model.
        layers: Number of layers of a copied or random student; None is half of the model's.
        rank: Of an adapter.
        seed: Of new weights.
        named: Whether the module is what its name says (`evenhand.training.lora.with_adapter`).

    Raises:
        SettingsError: The layers cannot be counted, or there are not so many.
    """
    if kind == "lora":
        student: Any = with_adapter(module, rank=rank, alpha=2 * rank, dropout=0.0, seed=seed, named=named)
        return student  # type: ignore[no-any-return]
    base = copied(inner(module)) if kind == "random" else merged(module)
    every = int(base.config.get_text_config().num_hidden_layers)
    wanted = max(1, every // 2) if layers is None else layers
    if not 0 < wanted <= every:
        raise SettingsError(f"layers={wanted}: this model has {every} layers to take from; give 1 to {every}")
    kept = spaced(every, wanted)
    if kind == "copied":
        keep_layers(base, kept)
        return base.float()  # type: ignore[no-any-return]
    config = _shorter(base.config, kept)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        fresh = type(base)(config)
    fresh.to(next(base.parameters()).device)
    if hasattr(base, "generation_config"):
        fresh.generation_config = copy.deepcopy(base.generation_config)
    return fresh.float()  # type: ignore[no-any-return]


def spaced(every: int, kept: int) -> list[int]:
    """Indices of layers, evenly spaced, the first and (of two or more) the last among them."""
    return [round(n * (every - 1) / max(1, kept - 1)) for n in range(kept)]


def _shorter(config: Any, kept: list[int]) -> Any:
    """A copy of a configuration with only some layers; what it says layer by layer is cut alike."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    every = int(text.num_hidden_layers)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == every and "layer" in name:
            setattr(text, name, [value[n] for n in kept])
    text.num_hidden_layers = len(kept)
    return config


def keep_layers(module: Any, kept: list[int]) -> None:
    """Take all other layers out of a module."""
    every = int(module.config.get_text_config().num_hidden_layers)
    found = [(m, name) for m in module.modules() for name, child in m.named_children()
             if isinstance(child, nn.ModuleList) and len(child) == every]  # fmt: skip
    if len(found) != 1:
        raise SettingsError(
            f"{type(module).__name__} has {len(found)} lists of {every} layers, so that its layers cannot be copied; "
            "take student=lora or student=random"
        )
    parent, name = found[0]
    stays = [getattr(parent, name)[n] for n in kept]
    for n, layer in enumerate(stays):
        for part in layer.modules():
            if isinstance(getattr(part, "layer_idx", None), int):
                part.layer_idx = n  # a cache is looked up by it
    setattr(parent, name, nn.ModuleList(stays))
    module.config = _shorter(module.config, kept)
    for part in module.modules():  # parts hold the configuration, too
        if getattr(getattr(part, "config", None), "num_hidden_layers", None) == every:
            part.config = module.config


# --------------------------------------------------------------------------------------------- what results


class DistilledLocal(LocalModel):
    """A causal student: a local model that knows how it was trained."""

    learned: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """Those of the model, and how the training went."""
        return {**super().facts(), **self.learned}

    def save(self, folder: str | Path) -> Path:
        """Write what `evenhand.load` opens, and how the training went."""
        return _noted(super().save(folder), self.learned)


class DistilledMasked(MaskedModel):
    """A masked student: a masked model that knows how it was trained."""

    learned: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """Those of the model, and how the training went."""
        return {**super().facts(), **self.learned}

    def save(self, folder: str | Path) -> Path:
        """Write what `evenhand.load` opens, and how the training went."""
        return _noted(super().save(folder), self.learned)


Distilled = DistilledLocal | DistilledMasked


def keep(module: Any, tokenizer: PreTrainedTokenizerBase, facts: dict[str, Any], folder: Path) -> None:
    """Write a trained student; the adapter of a masked model goes into its weights, as its folder has no other form."""
    from evenhand.models.hugging_face import save_module

    if not _causal(module):
        module = merged(module)
    save_module(module, folder)
    tokenizer.save_pretrained(folder)
    _noted(folder, facts)


def open_distilled(folder: Path, teacher: Model, name: str) -> Distilled:
    """A student from the folder that `keep` wrote, which may be gone later; on its teacher's device, asked alike."""
    from evenhand.models import hugging_face

    module = teacher.weights.module
    adapted = (folder / "adapter_config.json").is_file()
    base, beside = base_of(folder) if adapted else (str(folder), False)
    masked = isinstance(teacher, MaskedModel)
    opened, tokenizer = hugging_face.open_model(
        base, folder if adapted else None, masked=masked, device=str(module.device),
        dtype=str(module.dtype).removeprefix("torch."),
    )  # fmt: skip
    facts = json.loads((folder / FACTS).read_text())
    if beside:
        forget_name(opened)
    student: Distilled
    if masked:
        student = DistilledMasked(opened, tokenizer, name=name)
    else:
        student = DistilledLocal(opened, tokenizer, name=name, **asked_alike(teacher))
    student.learned = facts
    return student


def _causal(module: Any) -> bool:
    return not type(inner(module)).__name__.endswith("ForMaskedLM")


def _noted(folder: Path, facts: dict[str, Any]) -> Path:
    (folder / FACTS).write_text(json.dumps(facts, indent=1))
    (folder / SAVED).unlink(missing_ok=True)  # of another model that lay here
    return folder
