"""PEFT adapters on a model: opened with every tensor in use, copied, and merged so that the answers stay the same.

Where input and output embeddings share one weight (`tie_word_embeddings`), an adapter on one of them changes only one
use of that weight. Merging as PEFT does would change both: https://github.com/huggingface/peft/issues/2777.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError, SettingsError, first_lines
from evenhand.inference.offload_support import REMEDY, offloaded, offloaded_apart, refuse_edit
from evenhand.models.files import unreadable

Place = tuple[str, str]
"""Path of a module and the name of one of its parameters."""
HALF = (torch.float16, torch.bfloat16)
ONE_A_LAYER = ("OFT", "C3A")
"""Kinds for which PEFT merges several active adapters of one layer into a different model than it runs (0.21.2)."""
FIRST_ALONE = "OSF"
"""Kind of which PEFT runs only the first active adapter, but merges all of them (0.21.2)."""

_MIXED = (
    "PEFT does not save a PeftMixedModel: open one of its adapters alone, with PeftModel.from_pretrained, and save "
    "the resulting model"
)


def copied(module: Any) -> Any:
    """Return a deep copy of a module; a freshly made adapter with `ensure_weight_tying` may be on it.

    PEFT keeps views of the embedding's trainable matrices in the `kwargs` of the head's layer, which torch refuses to
    copy; the copy holds their values.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        kept = getattr(part, "kwargs", None)
        tied = kept.get("tied_adapter") if isinstance(kept, dict) else None
        for tensor in (tied or {}).values():
            if isinstance(tensor, Tensor) and not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(module, memo)


# ---------------------------------------------------------------------------------------------- the base's name


def forget_name(tuned: Any) -> None:
    """Have an adapter's base saved with it, because no folder or hub name has the same weights."""
    base = tuned.get_base_model()
    base.name_or_path, base.config._name_or_path = "", ""
    for adapter in tuned.peft_config.values():
        adapter.base_model_name_or_path = None


def name_base(tuned: Any, source: str, folder: Path) -> None:
    """Record the base that an opened adapter belongs to, so that it can be saved elsewhere.

    Args:
        tuned: The adapter on its base.
        source: Folder or hub name that the base was opened from. A base inside the adapter's folder is saved with it.
        folder: Folder of the adapter.
    """
    place = Path(source).expanduser()
    if place.is_dir() and place.resolve().is_relative_to(folder.resolve()):
        forget_name(tuned)
        return
    for adapter in tuned.peft_config.values():
        adapter.base_model_name_or_path = str(place.resolve()) if place.is_dir() else source


# -------------------------------------------------------------------------------------------------- tied weights


def untie(module: Any) -> bool:
    """Give every use of a shared weight a weight of its own, and record that in the configuration to be saved.

    Args:
        module: A transformers model, with or without adapter layers; it is changed in place.

    Returns:
        Whether any weight was shared.
    """
    ties = _ties(module)
    _part(module, ties)
    for config in _configs(module):
        config.tie_word_embeddings = False
    if hasattr(module, "all_tied_weights_keys"):
        module.all_tied_weights_keys = {}  # transformers leaves out of a file the weights listed here
    return bool(ties)


def _ties(module: nn.Module) -> list[list[Place]]:
    """Parameters used in several places, as the list of places of each."""
    found: dict[int, list[Place]] = {}
    for path, part in module.named_modules():
        for name, parameter in part.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(id(parameter), []).append((path, name))
    return [places for places in found.values() if len(places) > 1]


def _part(module: nn.Module, ties: Iterable[Sequence[Place]]) -> None:
    for places in ties:
        for path, name in places[1:]:
            owner = module.get_submodule(path)
            setattr(owner, name, copy.deepcopy(getattr(owner, name)))


def _configs(module: Any) -> list[Any]:
    return list({id(c): c for c in (module.config, module.config.get_text_config())}.values())


def _adapted(base: nn.Module) -> list[tuple[str, Any]]:
    """Layers that an adapter has wrapped, with their paths."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return [(n, m) for n, m in base.named_modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]


def _touched(base: nn.Module) -> list[list[Place]]:
    """Shared parameters, at least one place of which is under an adapter."""
    paths = [path for path, _ in _adapted(base)]
    return [
        places
        for places in _ties(base)
        if any(own == path or own.startswith(f"{path}.") for own, _ in places for path in paths)
    ]


# ------------------------------------------------------------------------------------------------------- merging


def merged(module: Any) -> Any:
    """Return a copy with the active adapters merged, which computes what PEFT computes with the adapters on.

    Weights that an adapter changes in one of several uses are separated first; embeddings that come out equal (as with
    `trainable_token_indices`, or `modules_to_save` with `ensure_weight_tying`) stay one weight. Half precision is
    added up in float32 and rounded once.

    Args:
        module: A transformers model, with or without a PEFT adapter; it is not changed.

    Returns:
        A model without adapters. Adapters that are switched off (`disable_adapter_layers`) are not merged.

    Raises:
        SettingsError: This kind of adapter cannot be merged into weights; several active adapters are of a kind that
            PEFT merges into a different model from the one it runs; or the weights are offloaded.
    """
    refuse_edit(module)
    if not hasattr(module, "peft_config"):
        return copied(module)
    _check_mergeable(module)
    out = copied(module)
    base = out.get_base_model()
    touched = _touched(base)
    stated = [(config, getattr(config, "tie_word_embeddings", None)) for config in _configs(base)]
    if touched:
        _part(base, touched)
        for config, _ in stated:
            config.tie_word_embeddings = False
    result = out.unload() if _switched_off(base) else _merge(out, base)
    if touched:
        _settle(result, stated)
    return result


def _check_mergeable(module: Any) -> None:
    kinds = ", ".join(_kind(config) for config in module.peft_config.values())
    if any(config.is_prompt_learning for config in module.peft_config.values()):
        raise SettingsError(f"an adapter of the kind {kinds} adds virtual tokens, which cannot be merged into weights")
    merges = hasattr(module, "merge_and_unload") or hasattr(getattr(module, "base_model", None), "merge_and_unload")
    if not merges or not hasattr(module, "get_base_model"):  # PeftMixedModel does not have the latter
        raise SettingsError(
            f"this model's adapter ({kinds}) is not a peft.PeftModel that can be merged: open it with "
            "PeftModel.from_pretrained, or take a kind that changes weights, such as LoRA"
        )
    if reason := _merged_otherwise(module):
        raise SettingsError(reason)


def _merged_otherwise(module: Any) -> str:
    """Return why PEFT would merge the active adapters into a different model than it runs, with the remedy, or "".

    Args:
        module: A PEFT model.
    """
    active = list(dict.fromkeys(module.active_adapters))
    kinds = {name: _kind(module.peft_config[name]) for name in active}
    if len(active) < 2 or not {*ONE_A_LAYER, FIRST_ALONE}.intersection(kinds.values()):
        return ""
    if _switched_off(module.get_base_model()):
        return ""
    for layer in module.get_layer_status():
        here = [name for name in active if name in layer.available_adapters]
        together = [name for name in here if kinds[name] in ONE_A_LAYER]
        if len(together) > 1:
            kind, names = kinds[together[0]], ", ".join(together)
            what = f"the {kind} adapters {names} are active together on {layer.name}, and PEFT would merge them"
        elif any(kinds[name] == FIRST_ALONE and name != active[0] for name in here):
            names = ", ".join(active)
            what = f"PEFT runs only the first of the {FIRST_ALONE} adapters {names}, and would merge them all"
        else:
            continue
        return f"{what} into a different model from the one it runs: activate only one, with model.set_adapter(name)"
    return ""


def _switched_off(base: nn.Module) -> bool:
    """Return whether all of a model's adapter layers are switched off.

    Raises:
        SettingsError: Some of the adapter layers are switched off, and some are on.
    """
    switches = {path: bool(layer.disable_adapters) for path, layer in _adapted(base)}
    off = [path for path, is_off in switches.items() if is_off]
    if off and len(off) < len(switches):
        raise SettingsError(
            f"some of this model's adapter layers are switched off ({_some(off)}) and some on; transformers' "
            "enable_adapters leaves modules_to_save switched off. Switch all or none: layer.enable_adapters(True) of "
            "those that are off, or the context PeftModel.disable_adapter()"
        )
    return bool(off)


def _merge(out: Any, base: nn.Module) -> Any:
    dtypes: dict[str, torch.dtype] = {}
    for path, layer in _adapted(base):
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.dtype in HALF:
            dtypes[path] = weight.dtype
            layer.float()
    try:
        result = out.merge_and_unload()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        kinds = ", ".join(_kind(config) for config in out.peft_config.values())
        raise SettingsError(f"an adapter of the kind {kinds} cannot be merged into the weights: {error}") from error
    for path, dtype in dtypes.items():
        result.get_submodule(path).to(dtype)
    return result


def _settle(module: Any, stated: Sequence[tuple[Any, Any]]) -> None:
    """Share input and output embeddings if they came out equal; otherwise untie them."""
    head, inputs = module.get_output_embeddings(), module.get_input_embeddings()
    if head is not None and _equal(head.weight, inputs.weight):
        head.weight = inputs.weight
        for config, value in stated:
            config.tie_word_embeddings = value
    else:
        untie(module)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.shape == other.shape and torch.equal(one, other)


# ------------------------------------------------------------------------------------------------------- opening


def open_adapter(module: Any, folder: Path) -> Any:
    """Put a saved adapter on a model; every tensor must be in use, and none may be missing.

    Args:
        module: The base; PEFT inserts the adapter's layers into it.
        folder: Folder with `adapter_config.json` and the adapter's tensors.

    Returns:
        The PEFT model.

    Raises:
        EvenhandError: The files cannot be read, or the tensors do not fit this base.
        SettingsError: evenhand cannot read a model with an adapter of this kind.
    """
    from peft import PeftConfig, PeftModel

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # peft raises errors of many kinds
        raise EvenhandError(f"cannot read the adapter {folder}: {first_lines(error)}") from error
    check_kind(config, f"the adapter {folder}")
    _check_reproducible(config, folder)
    mapping = getattr(module, "_checkpoint_conversion_mapping", {})
    try:
        tuned = PeftModel.from_pretrained(module, str(folder))
    except KeyError as error:  # raised for modules that are saved whole
        raise EvenhandError(
            f"the adapter {folder} lacks the tensor {error}, which its adapter_config.json requires; save it again"
        ) from error
    except Exception as error:  # peft and safetensors raise errors of many kinds
        raise EvenhandError(f"cannot put the adapter {folder} on its base: {unreadable(error, folder)}") from error
    check_all_used(tuned, folder, key_mapping=mapping)
    return tuned


def check_all_used(tuned: Any, folder: Path, *, adapter: str = "default", key_mapping: Any = None) -> None:
    """Refuse an adapter that is only partly in use: PEFT ignores unknown tensors without a warning.

    A fresh LoRA layer adds nothing (its B is zero). A model with an adapter whose names do not match therefore answers
    as its base does.

    Args:
        tuned: The PEFT model into which the folder's adapter was loaded.
        folder: Folder of the adapter.
        adapter: Its name in the model.
        key_mapping: Mapping from the file's names to the model's, as passed to `PeftModel.from_pretrained`.

    Raises:
        EvenhandError: Tensors of the file are not used, or tensors of the model are not in the file.
    """
    from peft import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    weights = load_peft_weights(str(folder), device="cpu", key_mapping=key_mapping)
    result: Any = set_peft_model_state_dict(tuned, weights, adapter_name=adapter)
    virtual = {"prompt_embeddings"} if tuned.peft_config[adapter].is_prompt_learning else set()
    unused = sorted(set(result.unexpected_keys) - virtual)
    saved = get_peft_model_state_dict(tuned, adapter_name=adapter, save_embedding_layers=False)
    missing = sorted(k for k in result.missing_keys if _saved_name(k, adapter) in saved)
    if unused or missing:
        parts = [
            f"{len(some)} {what}: {_some(some)}"
            for some, what in (
                (unused, "of its tensors are not of this model"),
                (missing, "of the model's adapter tensors are not in it"),
            )
            if some
        ]
        raise EvenhandError(
            f"the adapter {folder} does not fit its base, and would be ignored in whole or in part: "
            f"{'; '.join(parts)}. Use the base that it was trained on, or correct the names in its file"
        )
    _check_base_layers(tuned, weights, folder)


def _check_base_layers(tuned: Any, weights: dict[str, Tensor], folder: Path) -> None:
    """Refuse saved embeddings that differ if the base has one weight for both: one would overwrite the other."""
    have = dict(tuned.named_parameters(remove_duplicate=False))
    lost = sorted(
        name
        for name, tensor in weights.items()
        if ".base_layer." in name
        and name in have
        and have[name].device.type != "meta"
        and not torch.equal(have[name].detach().cpu(), tensor.to(have[name].dtype))
    )
    if lost:
        raise EvenhandError(
            f"the adapter {folder} was trained on a base with different input and output embeddings, and this base has "
            f"one weight for both ({_some(lost)} cannot be used): use the base that it was trained on"
        )


def check_kind(config: Any, what: str) -> None:
    """Refuse adapters that act outside a model's layers: reading many texts in one pass bypasses them.

    Args:
        config: The adapter's PEFT configuration.
        what: The adapter or model, as messages name it.

    Raises:
        SettingsError: The kind is a refused one: virtual tokens, aLoRA, or a mixture that is chosen text by text.
    """
    kind = _kind(config)
    if config.is_prompt_learning:
        why = "adds virtual tokens before each text"
    elif getattr(config, "alora_invocation_tokens", None):
        kind, why = "aLoRA", "becomes active at its invocation tokens"
    elif kind in ("POLY", "XLORA"):
        why = "mixes its parts differently for each text"
    else:
        return
    raise SettingsError(
        f"{what} is of the kind {kind}, which {why}; evenhand reads several texts in one pass through the layers, "
        "which would bypass it. Use an adapter that changes layers, such as LoRA, DoRA or IA3"
    )


def check_adapters(module: Any, name: str) -> None:
    """Refuse a model in memory if it has an adapter that evenhand cannot read.

    That is an adapter that `check_kind` refuses, that is partly off, or whose weights accelerate does not load.

    Args:
        module: A transformers or PEFT model.
        name: Name of the model, for the message.

    Raises:
        SettingsError: The adapter cannot be read.
    """
    if not hasattr(module, "peft_config"):
        return
    for config in module.peft_config.values():
        check_kind(config, f"the adapter of {name}")
    check_switches(module)
    _check_offloaded(module, name)


def check_switches(module: Any) -> None:
    """Refuse a model with an adapter that is partly switched off.

    Args:
        module: A transformers or PEFT model.

    Raises:
        SettingsError: Some of the adapter's layers are switched off, and some are on.
    """
    if hasattr(module, "peft_config"):
        _switched_off(module)


def _check_offloaded(module: Any, name: str) -> None:
    """Refuse adapters for which PEFT reads offloaded weights while they have no values.

    accelerate loads a module's weights when it runs; what PEFT reads from a module that does not run is arbitrary.
    """
    if not offloaded(module):
        return
    for path, layer in _adapted(module):
        if kind := _read_apart(layer):
            kinds = ", ".join(dict.fromkeys(map(_kind, module.peft_config.values())))
            raise SettingsError(
                f"the adapter of {name} ({kinds}) has {kind} at {path}, and its weights are offloaded: PEFT reads them "
                f"while accelerate has not loaded them, so that results would be arbitrary: {REMEDY}"
            )


def _read_apart(layer: Any) -> str:
    """Return which of a wrapped layer's offloaded weights are read without running their module; "" if none.

    LoRA on linear layers, OFT, and modules that are saved whole run their modules.
    """
    from peft.tuners.lora.layer import ParamWrapper

    parts = dict(layer.named_children())
    if len(parts.get("lora_magnitude_vector", ())) and offloaded(layer):
        return "DoRA"
    if isinstance(layer, ParamWrapper) and offloaded(layer):
        return "target_parameters"
    apart = offloaded_apart(layer)
    return "trainable tokens" if apart.startswith(("trainable_tokens", "token_adapter.")) else apart


def save_refused(module: Any) -> str:
    """Return why an adapter's folder would not be opened as this model, with the remedy; "" if it would be.

    A folder does not record which adapters are on; it is opened with the one named `default`.

    Args:
        module: A transformers or PEFT model.

    Raises:
        SettingsError: Some of the adapter's layers are switched off, and some are on.
    """
    if not hasattr(module, "peft_config"):
        return ""
    import peft

    if not hasattr(module, "get_base_model"):
        return _MIXED if isinstance(module, peft.PeftMixedModel) else ""
    active = list(module.active_adapters)
    if active == ["default"] and not _switched_off(module.get_base_model()):
        return ""
    state = f"has the active adapters {', '.join(active)}" if active != ["default"] else "has its adapter switched off"
    said = f"this model {state}, and a folder is opened with the one adapter `default` switched on"
    if reason := _merged_otherwise(module):
        return f"{said}; {reason}, and save evenhand.models.adapters.merged(module)"
    return f"{said}: save evenhand.models.adapters.merged(module) instead"


def check_saved_alone(module: Any) -> None:
    """Refuse to save a state of the adapters that a folder cannot record (`save_refused`).

    Args:
        module: A transformers or PEFT model.

    Raises:
        SettingsError: The folder would be opened as a different model.
    """
    if reason := save_refused(module):
        raise SettingsError(reason)


def _check_reproducible(config: Any, folder: Path) -> None:
    start = getattr(config, "init_lora_weights", None)
    if redone_at_opening(start) == "otherwise":
        raise EvenhandError(
            f"the adapter {folder} has init_lora_weights={start!r}: PEFT would not change the base again as it did "
            "for training, so that the adapter would be on a different base. Convert it to plain LoRA where it was "
            "trained: save_pretrained(folder, path_initial_model_for_weight_conversion=...)"
        )


def redone_at_opening(start: Any) -> Literal["", "alike", "otherwise"]:
    """Return how PEFT repeats an initialisation that changes the base when opening (`reset_lora_parameters`).

    Args:
        start: The setting `init_lora_weights`.

    Returns:
        "" if the base stays as it is, "alike" if its weights alone decide (PiSSA, OLoRA), "otherwise" if
        chance or data do (randomised PiSSA, CorDA, LoftQ), or if PEFT leaves the change out (LoRA-GA).
    """
    name = str(start).lower()
    if name in ("pissa", "olora"):
        return "alike"
    return "otherwise" if name == "loftq" or name.startswith(("pissa_niter_", "corda", "lora_ga")) else ""


def _saved_name(name: str, adapter: str) -> str:
    """Return a parameter's name as adapter files have it."""
    return name.replace(f".modules_to_save.{adapter}.", ".").replace(f".{adapter}", "")


def _kind(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
