"""Task vectors: what fine-tuning has changed in a model, weight by weight, in float32.

Source: Ilharco et al. 2023, "Editing Models with Task Arithmetic" (arXiv 2212.04089); for adapters Zhang et al. 2023
(arXiv 2306.14870). A change is a tensor in the weight's shape, or a product of two thin ones if an adapter made it.
Every name of a tied weight has its own change: an adapter on the embedding leaves the head unchanged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError, SettingsError
from evenhand.models import adapters

FILE = "task_vector.safetensors"
HALVES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class LowRank:
    """A change scale * up @ down, transposed if the weight stores its inputs first."""

    down: Tensor
    """[r, inputs]"""
    up: Tensor
    """[outputs, r]"""
    scale: float
    turned: bool = False
    """Whether the weight is [inputs, outputs], as embeddings and GPT-2's layers are."""

    def dense(self) -> Tensor:
        """Return the change in the weight's shape, float32."""
        product = self.scale * (self.up.float() @ self.down.float())
        return product.T if self.turned else product

    def times(self, factor: float) -> LowRank:
        """Return the change multiplied by a factor."""
        return replace(self, scale=self.scale * factor)

    def norm(self) -> float:
        """Return the Frobenius norm, without computing the product: |up down|^2 = tr(down down' up' up)."""
        down, up = self.down.double(), self.up.double()
        return abs(self.scale) * math.sqrt(max(0.0, float(((down @ down.T) * (up.T @ up)).sum())))


Change = Tensor | tuple[LowRank, ...]


@dataclass(frozen=True)
class TaskVector:
    """Changes by the names of the weights in `named_parameters`."""

    changes: Mapping[str, Change] = field(repr=False)

    def dense(self, name: str) -> Tensor:
        """A change in its weight's shape, float32."""
        return dense(self.changes[name])

    def norm(self) -> float:
        """Return the Euclidean norm over all weights; a tied weight counts once."""
        return math.sqrt(sum(norm(change) ** 2 for change in {id(c): c for c in self.changes.values()}.values()))

    @property
    def low_rank(self) -> bool:
        """Whether all changes are products, so that an adapter can represent them."""
        return not any(isinstance(change, Tensor) for change in self.changes.values())

    def save(self, folder: Path) -> None:
        """Write one safetensors file."""
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        about: dict[str, Any] = {}
        first: dict[int, str] = {}
        for name, change in self.changes.items():
            if id(change) in first:
                about[name] = {"as": first[id(change)]}
                continue
            first[id(change)] = name
            if isinstance(change, Tensor):
                tensors[name], about[name] = change.contiguous(), {}
                continue
            for n, part in enumerate(change):
                tensors[f"{name}/{n}/down"], tensors[f"{name}/{n}/up"] = part.down.contiguous(), part.up.contiguous()
            about[name] = {"parts": [[part.scale, part.turned] for part in change]}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: t.detach().cpu() for key, t in tensors.items()}, folder / FILE, {"changes": json.dumps(about)})

    @classmethod
    def load(cls, folder: Path) -> TaskVector:
        """Read what `save` wrote.

        Raises:
            EvenhandError: The file cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        changes: dict[str, Change] = {}
        try:
            with safe_open(folder / FILE, "pt") as opened:
                about = json.loads(opened.metadata()["changes"])
                for name, entry in about.items():
                    if "as" in entry:
                        changes[name] = changes[entry["as"]]
                    elif "parts" in entry:
                        changes[name] = tuple(
                            LowRank(opened.get_tensor(f"{name}/{n}/down"), opened.get_tensor(f"{name}/{n}/up"), *part)
                            for n, part in enumerate(entry["parts"])
                        )
                    else:
                        changes[name] = opened.get_tensor(name)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise EvenhandError(f"cannot read the task vector in {folder}: {error}") from error
        return cls(changes)


def dense(change: Change) -> Tensor:
    """A change in its weight's shape, float32."""
    if isinstance(change, Tensor):
        return change.float()
    parts = [part.dense() for part in change]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def shape(change: Change) -> tuple[int, ...]:
    """A change's shape, which is its weight's."""
    if isinstance(change, Tensor):
        return tuple(change.shape)
    size = (change[0].up.shape[0], change[0].down.shape[1])
    return size[::-1] if change[0].turned else size


def norm(change: Change) -> float:
    """Frobenius norm."""
    if isinstance(change, tuple) and len(change) == 1:
        return change[0].norm()
    return float(dense(change).double().norm())


# ------------------------------------------------------------------------------------------- where they come from


def refuse_quantised(module: nn.Module, what: str = "model") -> None:
    """Refuse quantised weights, to which nothing can be added.

    Raises:
        SettingsError: Some weights are stored as integers.
    """
    for name, p in module.named_parameters():
        if p.dtype not in HALVES or hasattr(p, "quant_state"):
            raise SettingsError(
                f"{name} of this {what} is quantised ({p.dtype}): a sum with it would be rounded to a few levels; load "
                "it in float32, bfloat16 or float16"
            )


def difference(tuned: nn.Module, base: nn.Module) -> TaskVector:
    """Return what full fine-tuning has changed.

    Either may have tied embeddings without the other: every name of a weight has its own change.

    Raises:
        SettingsError: They differ in architecture or vocabulary, or one is quantised.
    """
    refuse_quantised(tuned)
    refuse_quantised(base)
    mine, theirs = (dict(m.named_parameters(remove_duplicate=False)) for m in (tuned, base))
    _check_same_shapes(mine, theirs)
    return TaskVector(_changes(mine, theirs))


def _check_same_shapes(tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    for name in dict.fromkeys([*base, *tuned]):
        mine, theirs = (tuple(m[name].shape) if name in m else None for m in (tuned, base))
        if mine != theirs:
            remedy = "; resize the base's embeddings to the fine-tune's vocabulary first" if mine and theirs else ""
            raise SettingsError(
                f"the fine-tuned model is not a fine-tune of the base: {name} is {mine or 'missing'} in the "
                f"fine-tune and {theirs or 'missing'} in the base{remedy}"
            )


def _changes(tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return how much weights differ; names of one tied weight share a change if theirs is equal."""
    out: dict[str, Tensor] = {}
    made: dict[int, list[Tensor]] = {}
    for name, theirs in base.items():
        change = tuned[name].detach().cpu().float() - theirs.detach().cpu().float()
        if bool(torch.any(change != 0)):
            known = made.setdefault(id(theirs), [])
            shared = next((c for c in known if torch.equal(c, change)), None)
            out[name] = change if shared is None else shared
            known.append(change)
    return out


def from_adapter(tuned: Any, base: nn.Module) -> TaskVector:
    """Return everything an adapter changes: its layers, embeddings, saved modules and biases, and its base.

    Some adapters do not act on the original base: PiSSA (arXiv 2404.02948), OLoRA (2406.01775), CorDA (2406.05223)
    and LoftQ (2310.08659) subtract their initial product from the weights, and PEFT does it again when it loads them
    (`peft.tuners.lora.layer`). Every weight under the adapter is therefore compared with the true base.

    Args:
        tuned: A PEFT model with one active adapter. LoRA stays two factors (alpha / r or alpha / sqrt(r) in the scale)
            if the weight under it is the base's; other kinds are merged into a float32 copy, from which the base is
            subtracted.
        base: The model that the fine-tuning began with, without adapters.

    Raises:
        SettingsError: There are several active adapters, a quantised base, a kind that weights cannot represent, or a
            weight of another shape.
    """
    refuse_quantised(base)
    active = list(tuned.active_adapters)
    if len(active) != 1:
        raise SettingsError(f"{len(active)} active adapters ({', '.join(active)}): a task vector is made from one")
    name = active[0]
    config = tuned.peft_config[name]
    found = _plain_lora(tuned, name) if str(getattr(config.peft_type, "value", config.peft_type)) == "LORA" else None
    if found is None:
        return _by_merging(tuned, base)
    under, theirs = _under_adapter(tuned, name), dict(base.named_parameters(remove_duplicate=False))
    _check_same_shapes({n: p for n, p in under.items() if n in theirs}, theirs)
    for key, change in found.items():
        if reason := _misfit(key, change, theirs):
            raise SettingsError(f"the adapter's change of {key} is {shape(change)}, {reason}")
    for key, moved in _changes(under, theirs).items():
        found[key] = _plus(found.get(key), moved)
    return TaskVector(found)


def _misfit(name: str, change: Change, base: Mapping[str, Tensor]) -> str:
    """Return why a change does not fit the base's weights, and the remedy; "" if it does."""
    if name in base and shape(change) == tuple(base[name].shape):
        return ""
    if name in base:
        return (
            f"and the weight of this model {tuple(base[name].shape)}: such an adapter cannot run (PEFT does not "
            "transpose OLoRA's factors for GPT-2's layers)"
        )
    if name.endswith(".bias") and f"{name.removesuffix('.bias')}.weight" in base:
        return (
            "and this layer of the model has no bias that could hold it: the adapter runs in PEFT, but a task vector "
            "is of weights that the model has; train it with lora_bias=False"
        )
    return (
        "and this model has no such weight: an adapter that repeats layers (layer_replication) runs in PEFT on a "
        "model with more layers, which a task vector of this model's weights cannot hold"
    )


def _under_adapter(tuned: Any, adapter: str) -> dict[str, Tensor]:
    """Return the weights to which an adapter is added, by the base's names, with its saved modules in place."""
    out: dict[str, Tensor] = {}
    for key, p in tuned.get_base_model().named_parameters(remove_duplicate=False):
        name = key.replace(".base_layer.", ".").replace(".original_module.", ".")
        saved = f".modules_to_save.{adapter}."
        if saved in name:
            out[name.replace(saved, ".")] = p
        else:
            out.setdefault(name, p)
    return out


def _plain_lora(tuned: Any, adapter: str) -> dict[str, Change] | None:
    """Return what a LoRA adapter adds to the weights under it; None if it is not always scale * up @ down."""
    from peft.tuners.lora.layer import Embedding, Linear, LoraLayer
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    out: dict[str, Change] = {}
    for path, part in tuned.get_base_model().named_modules():
        if isinstance(part, AuxiliaryTrainingWrapper) and not isinstance(part, ModulesToSaveWrapper):
            return None
        if not isinstance(part, LoraLayer) or adapter not in part.scaling:
            continue
        if adapter in getattr(part, "lora_variant", {}) or part.merged or type(part) not in (Linear, Embedding):
            return None
        layer: Any = part
        scale = float(layer.scaling[adapter])
        if isinstance(part, Embedding):
            down, up, turned = layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter], True
        else:
            down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            turned, bias = bool(layer.fan_in_fan_out), layer.lora_B[adapter].bias
            if bias is not None:
                out[f"{path}.bias"] = scale * bias.detach().cpu().float()
        thin = [t.detach().cpu().float().clone() for t in (down, up)]
        out[f"{path}.weight"] = (LowRank(thin[0], thin[1], scale, turned),)
    return out


def _by_merging(tuned: Any, base: nn.Module) -> TaskVector:
    return difference(adapters.merged(adapters.copied(tuned).float()), base)


# ---------------------------------------------------------------------------------------------------- arithmetic


def total(terms: Sequence[tuple[TaskVector, Callable[[str], float]]]) -> TaskVector:
    """Sum vectors, each times a factor that may differ by weight; a factor of 0 removes the change.

    Products stay products: their factors are concatenated, so that no part of one vector is multiplied with a part of
    another, as happens if adapters' factors are averaged.
    """
    out: dict[str, Change] = {}
    made: dict[tuple[Any, ...], Change] = {}
    names = dict.fromkeys(name for vector, _ in terms for name in vector.changes)
    for name in names:
        own = [(v.changes[name], f(name)) for v, f in terms if name in v.changes and f(name) != 0]
        key = tuple((id(change), factor) for change, factor in own)  # tied names keep sharing one change
        if own and key not in made:
            made[key] = _sum(own)
        if own:
            out[name] = made[key]
    return TaskVector(out)


def _sum(terms: Sequence[tuple[Change, float]]) -> Change:
    if all(isinstance(change, tuple) for change, _ in terms):
        return tuple(part.times(factor) for change, factor in terms for part in change)
    return torch.stack([factor * dense(change) for change, factor in terms]).sum(0)


def _plus(one: Change | None, other: Tensor) -> Tensor:
    return other if one is None else dense(one) + other


def random_like(vector: TaskVector, seed: int) -> TaskVector:
    """Return a control: random changes of the same weights, each with the norm and rank of the vector's."""
    made: dict[int, Change] = {}
    for n, change in enumerate(vector.changes.values()):
        if id(change) not in made:
            made[id(change)] = _random(change, torch.Generator().manual_seed(seed * 1_000_003 + n))
    return TaskVector({name: made[id(change)] for name, change in vector.changes.items()})


def _random(change: Change, generator: torch.Generator) -> Change:
    if isinstance(change, Tensor):
        drawn = torch.randn(change.shape, generator=generator)
        return drawn * (norm(change) / float(drawn.double().norm()))
    rank = sum(part.down.shape[0] for part in change)
    first = change[0]
    fresh = LowRank(
        torch.randn((rank, first.down.shape[1]), generator=generator),
        torch.randn((first.up.shape[0], rank), generator=generator),
        1.0,
        first.turned,
    )
    return (fresh.times(norm(change) / fresh.norm()),)
