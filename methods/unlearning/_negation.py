"""Apply task vectors to models: as an adapter or in the weights, scaled by layer, with tied weights separated."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from evenhand.errors import DivergedError, SettingsError
from evenhand.interfaces import Model
from evenhand.methods.unlearning._task_vectors import TaskVector, dense, refuse_quantised, shape
from evenhand.models import adapters

Form = Literal["adapter", "merged"]
_NUMBER = re.compile(r"\.(\d+)\.")
ADAPTER = "default"


def layer_of(name: str) -> int | None:
    """Return the layer of a weight; None outside the layers (embeddings, last norm, head)."""
    found = _NUMBER.search(f".{name}.")
    return int(found[1]) if found else None


def by_layer(strength: float, shares: Sequence[float] | None, outside: float, layers: int) -> Callable[[str], float]:
    """Return a function from a weight's name to its strength.

    Args:
        strength: Overall strength.
        shares: Factors from the first to the last layer, evenly spaced and interpolated linearly; None is 1.
        outside: Factor outside the layers.
        layers: Number of layers.
    """

    def factor(name: str) -> float:
        layer = layer_of(name)
        if layer is None:
            return strength * outside
        return strength * (1.0 if shares is None else spread(shares, layers)[layer])

    return factor


def spread(shares: Sequence[float], layers: int) -> list[float]:
    """Interpolate the factors of all layers linearly from evenly spaced ones.

    Raises:
        SettingsError: There are more factors than layers.
    """
    if not 1 <= len(shares) <= layers:
        raise SettingsError(f"{len(shares)} factors for {layers} layers: set 1 to {layers}")
    out = []
    for layer in range(layers):
        at = layer * (len(shares) - 1) / max(1, layers - 1)
        low = min(int(at), len(shares) - 1)
        high = min(low + 1, len(shares) - 1)
        out.append(shares[low] * (1 - (at - low)) + shares[high] * (at - low))
    return out


def plain(module: Any) -> Any:
    """Return a copy of a module, with its adapter merged if it has one (`evenhand.models.adapters.merged`).

    Raises:
        SettingsError: The module is quantised, or its adapter cannot be merged.
    """
    refuse_quantised(module)
    return adapters.merged(module)


def is_named(model: Model) -> bool:
    """Whether a model's folder or hub name loads exactly its weights: unedited, and without an adapter."""
    return model.unedited_source is not None and not hasattr(model.weights.module, "peft_config")


def merged(module: nn.Module, change: TaskVector) -> tuple[Any, float]:
    """Return a copy of a module with changed weights: summed in float32, rounded once.

    Args:
        module: Without adapters.
        change: What is added.

    Returns:
        The copy, and the share of changed weights that rounding left unchanged; above 0 in half precision.

    Raises:
        SettingsError: The module is quantised, or lacks a weight.
        DivergedError: A weight is not finite any more.
    """
    refuse_quantised(module)
    out: Any = copy.deepcopy(module)
    _check(out, change)
    untie(out, change)
    parameters = dict(out.named_parameters(remove_duplicate=False))
    done: set[int] = set()
    lost = count = 0
    with torch.no_grad():
        for name, part in change.changes.items():
            p = parameters[name]
            if id(p) in done:  # a tied weight's other name, with the same change
                continue
            done.add(id(p))
            added = dense(part).to(p.device)
            made = (p.float() + added).to(p.dtype)
            _refuse_broken(name, made, p)
            lost += int(((made == p) & (added != 0)).sum())
            count += int((added != 0).sum())
            p.copy_(made)
    return out, lost / max(1, count)


def untie(module: Any, change: TaskVector) -> bool:
    """Give the head its own weights if a change affects only the embedding, or only the head.

    A shared weight cannot represent it: it would change both.

    Returns:
        Whether that was needed.
    """
    head, inputs = module.get_output_embeddings(), module.get_input_embeddings()
    if head is None or head.weight is not inputs.weight:
        return False
    names = [n for n, p in module.named_parameters(remove_duplicate=False) if p is head.weight]
    own = [change.changes.get(name) for name in names]
    if all(c is own[0] for c in own):
        return False
    return adapters.untie(module)


def adapted(module: nn.Module, change: TaskVector, *, named: bool) -> Any:
    """Return a copy of a module under a plain LoRA adapter (alpha = rank, no rsLoRA) that represents a change exactly.

    Args:
        module: Without adapters.
        change: Change that consists of products only.
        named: Whether the module is what its name says, so that the adapter's base may be saved by name.

    Raises:
        SettingsError: An adapter cannot represent the change.
        DivergedError: A weight of the adapter is not finite.
    """
    from evenhand.training.lora import Adapter, lora_config
    from evenhand.training.lora import adapted as under_adapter

    refuse_quantised(module)
    _check(module, change)
    if not change.low_rank or not change.changes:
        what = sorted(n for n, c in change.changes.items() if not isinstance(c, tuple))
        raise SettingsError(f"an adapter cannot hold the change of {what[0] if what else 'nothing'}: set form=merged")
    parts = {name.removesuffix(".weight"): c for name, c in change.changes.items() if isinstance(c, tuple)}
    rank = max(sum(part.down.shape[0] for part in c) for c in parts.values())
    base: Any = copy.deepcopy(module)
    turned = any(c[0].turned for path, c in parts.items() if not isinstance(base.get_submodule(path), nn.Embedding))
    config = lora_config(base, Adapter(rank, rank, targets=sorted(parts)), fan_in_fan_out=turned)
    tuned = under_adapter(base, config, seed=0)  # fresh weights are drawn, and then overwritten
    with torch.no_grad():
        for path, c in parts.items():
            layer = tuned.get_base_model().get_submodule(path)
            embedding = bool(layer.lora_embedding_A)
            down = layer.lora_embedding_A[ADAPTER] if embedding else layer.lora_A[ADAPTER].weight
            up = layer.lora_embedding_B[ADAPTER] if embedding else layer.lora_B[ADAPTER].weight
            used = sum(part.down.shape[0] for part in c)
            down.zero_()
            up.zero_()
            down[:used] = torch.cat([part.down.float() for part in c])
            up[:, :used] = torch.cat([part.scale * part.up.float() for part in c], dim=1)
            for made in (down, up):
                _refuse_broken(path, made, None)
    if not named:
        adapters.forget_name(tuned)
    for p in tuned.parameters():
        p.requires_grad_(False)
    return tuned.eval()


def _refuse_broken(name: str, made: torch.Tensor, before: torch.Tensor | None) -> None:
    """Refuse weights that are not finite, unless they were so before."""
    broken = ~made.isfinite() if before is None else ~made.isfinite() & before.isfinite()
    if count := int(broken.sum()):
        kind = str(made.dtype).removeprefix("torch.")
        raise DivergedError(
            f"{count:,} weights of {name} are not finite in {kind} with this change: set a smaller strength"
        )


def _check(module: nn.Module, change: TaskVector) -> None:
    shapes = {name: p.shape for name, p in module.named_parameters(remove_duplicate=False)}
    for name, part in change.changes.items():
        if name not in shapes:
            raise SettingsError(f"the model has no weight {name!r}: this task vector is for another architecture")
        have = shape(part)
        if tuple(shapes[name]) != have:
            raise SettingsError(
                f"{name} is {tuple(shapes[name])}, its change {have}: this task vector is for another model"
            )
