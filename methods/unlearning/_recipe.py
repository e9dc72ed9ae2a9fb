"""Task vectors for other tools: each vector's fine-tune, and a recipe with which mergekit subtracts it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from evenhand.methods.unlearning._negation import adapted, layer_of, merged
from evenhand.methods.unlearning._task_vectors import TaskVector
from evenhand.models.hugging_face import save_module

RECIPE = "mergekit.yaml"
ADAPTERS = """\
# Contains LoRA adapters, so mergekit needs --lora-merge-cache FOLDER. Give --lora-merge-dtype float32, too: otherwise
# it merges an adapter in the precision of the base's file and rounds. export(..., whole=True) writes full weights.
"""
"""Comment above a recipe with adapters (mergekit 0.1.5)."""


def write(
    folder: Path,
    module: Any,
    tokenizer: Any,
    base: str,
    vectors: Sequence[TaskVector],
    strengths: Sequence[Callable[[str], float]],
    *,
    named: bool,
    whole: bool = False,
) -> Path:
    """Write every vector's fine-tune (a LoRA adapter, or a whole model in float32), and the recipe.

    The method is task_arithmetic without normalisation: with `normalize` the weights are divided by their sum, which
    turns a single negative weight into a positive one. ties and della normalise by default.

    Args:
        folder: Target folder.
        module: The base, without adapters.
        tokenizer: Its tokenizer.
        base: The base's folder or hub name, for the recipe.
        vectors: Vectors to subtract.
        strengths: Strength of each vector, by weight.
        named: Whether the module is what its name says.
        whole: Write whole models instead of adapters, which mergekit merges in the precision of the base's file.
    """
    models = []
    for n, (vector, strength) in enumerate(zip(vectors, strengths, strict=True)):
        place = folder / f"tuned-{n}"
        if vector.low_rank and not whole:
            save_module(adapted(module, vector, named=named), place)
            name = f"{base}+{place.resolve()}"
        else:
            tuned, _ = merged(copy.deepcopy(module).float(), vector)
            save_module(tuned, place)
            tokenizer.save_pretrained(place)
            name = str(place.resolve())
        models.append({"model": name, "parameters": {"weight": weights(vector, strength)}})
    content = {
        "merge_method": "task_arithmetic",
        "base_model": base,
        "models": models,
        "parameters": {"normalize": False, "int8_mask": False, "lambda": 1.0},
        "dtype": "float32",
        "out_dtype": str(module.dtype).removeprefix("torch."),
    }
    file = folder / RECIPE
    head = ADAPTERS if not whole and any(vector.low_rank for vector in vectors) else ""
    file.write_text(head + yaml.safe_dump(content, sort_keys=False))
    return file


def weights(vector: TaskVector, strength: Callable[[str], float]) -> Any:
    """Return mergekit's `weight`: a number, or one per layer and one for the rest, by parts of the weights' names."""
    found: dict[str, float] = {}
    for name in vector.changes:
        layer = layer_of(name)
        key = "" if layer is None else f".{layer}."
        found[key] = -strength(name)
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    # the first filter that is part of a weight's name counts
    rows: list[dict[str, Any]] = [{"filter": key, "value": value} for key, value in found.items() if key]
    return [*rows, {"value": found.get("", 0.0)}]
