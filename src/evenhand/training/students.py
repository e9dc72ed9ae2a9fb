"""Students of a language model: a copy with an adapter, some of its layers, or fewer layers of random weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from evenhand.errors import SettingsError
from evenhand.inference.support_probe import inner
from evenhand.interfaces import Model, TrainingRecord
from evenhand.models import saved
from evenhand.models.adapters import copied, merged
from evenhand.models.asking import asked_alike
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.training.lora import with_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

StudentKind = Literal["lora", "copied", "random"]


def build(
    kind: StudentKind, module: PreTrainedModel, *, layers: int | None, rank: int, seed: int, named: bool
) -> PreTrainedModel:
    """Make a student of a model, which is not changed.

    Args:
        kind: lora is a copy of the model with an adapter; copied has some of its layers, evenly spaced; random has its
            configuration with fewer layers, and new weights.
        module: A causal or masked language model.
        layers: Number of layers of a copied or random student; None is half of the model's.
        rank: Rank of an adapter.
        seed: Seed of new weights.
        named: Whether the module is the one that its name stands for (`evenhand.training.lora.with_adapter`).

    Raises:
        SettingsError: The layers cannot be identified, or there are not as many.
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
    """Return indices of evenly spaced layers, including the first and, if there are two or more, the last."""
    return [round(n * (every - 1) / max(1, kept - 1)) for n in range(kept)]


def _shorter(config: Any, kept: list[int]) -> Any:
    """Copy a configuration with only some layers; lists with an entry per layer are shortened as well."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    every = int(text.num_hidden_layers)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == every and "layer" in name:
            setattr(text, name, [value[n] for n in kept])
    text.num_hidden_layers = len(kept)
    return config


def keep_layers(module: Any, kept: list[int]) -> None:
    """Remove all other layers from a module."""
    every = int(module.config.get_text_config().num_hidden_layers)
    found = [
        (m, name)
        for m in module.modules()
        for name, child in m.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == every
    ]
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
                part.layer_idx = n  # index into the KV cache
    setattr(parent, name, nn.ModuleList(stays))
    module.config = _shorter(module.config, kept)
    for part in module.modules():  # parts contain the configuration as well
        if getattr(getattr(part, "config", None), "num_hidden_layers", None) == every:
            part.config = module.config


# --------------------------------------------------------------------------------------------- what results


def keep(module: Any, tokenizer: PreTrainedTokenizerBase, record: TrainingRecord, folder: Path) -> None:
    """Write a trained student, and its record last.

    The adapter of a masked model is merged into its weights, as its folder has no other form.
    """
    keep_weights(module, tokenizer, folder)
    saved.write_weights(folder, record)


def keep_weights(module: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a trained student without its record; it is unfinished until `evenhand.models.saved.write_weights`."""
    from evenhand.models.hugging_face import save_module, save_tokenizer

    saved.begin(folder)
    save_module(module if _causal(module) else merged(module), folder)
    save_tokenizer(tokenizer, folder)


def open_trained(
    folder: Path, teacher: Model, name: str, record: TrainingRecord | None = None
) -> LocalModel | MaskedModel:
    """Open a student from the folder that `keep` wrote, on its teacher's device and asked in the same way.

    The folder may be removed afterwards.

    Args:
        folder: Contains weights or an adapter.
        teacher: The model that it was trained from.
        name: Label for tables.
        record: Record of its training; None reads it from the folder.

    Raises:
        EvenhandError: The files are missing or broken, or the folder is unfinished.
    """
    from evenhand.models import hugging_face

    record = record or saved.training_of(folder)
    module = teacher.weights.module
    adapted = (folder / "adapter_config.json").is_file()
    masked = isinstance(teacher, MaskedModel)
    opened, tokenizer = hugging_face.open_model(
        saved.base_of_adapter(folder) if adapted else str(folder),
        folder if adapted else None,
        kind="masked" if masked else "causal",
        device=str(module.device),
        dtype=str(module.dtype).removeprefix("torch."),
    )
    student: LocalModel | MaskedModel
    if masked:
        student = MaskedModel(opened, tokenizer, name=name)
    else:
        student = LocalModel(opened, tokenizer, name=name, **asked_alike(teacher))
    student.training = record
    return student


def _causal(module: Any) -> bool:
    return not type(inner(module)).__name__.endswith("ForMaskedLM")
