"""Models of which accelerate keeps weights in main memory or on a disk, and fills them in for each forward.

Between forwards such a parameter is on the device `meta`, without values. Arithmetic on it is valid and has no effect,
so an edit would be lost without an error (`findings/accelerate_offloaded_weight_edit.sh`): these models can be read,
and are refused wherever weights are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from evenhand.errors import SettingsError

REMEDY = "load it without offloading (device_map=None, or one with enough GPUs), or take a smaller model or dtype"


def offloaded(module: torch.nn.Module) -> str:
    """The name of the first parameter whose values are offloaded; "" where all are in place."""
    return next((name for name, p in module.named_parameters() if p.device.type == "meta"), "")


def edit_refused(module: torch.nn.Module, name: str) -> str:
    """Why the weights of a module cannot be changed because accelerate offloads them, or "" where they can.

    Args:
        module: A transformers or PEFT model.
        name: Of the model, for the message.
    """
    first = offloaded(module)
    if not first:
        return ""
    return f"the weights of {name} are offloaded ({first} is on the device meta), where edits have no effect: {REMEDY}"


def refuse_edit(module: torch.nn.Module, name: str = "this model") -> None:
    """Refuse to change weights that are offloaded.

    Args:
        module: A transformers or PEFT model.
        name: Of the model, for the message.

    Raises:
        SettingsError: Parameters are offloaded; the message names the first one and the remedy.
    """
    if reason := edit_refused(module, name):
        raise SettingsError(reason)


def save_refused(module: Any, name: str) -> str:
    """Why a module cannot be saved because transformers does not find its offloaded weights, or "" where it can.

    It fills them in where a device map says where they lie, which `cpu_offload` and `disk_offload` leave out.

    Args:
        module: A transformers or PEFT model.
        name: Of the model, for the message.
    """
    if not offloaded(module) or getattr(module, "hf_device_map", None):
        return ""
    return f"the weights of {name} are offloaded without a device map and cannot be saved: {REMEDY}"


def offloaded_apart(layer: torch.nn.Module) -> str:
    """The first offloaded tensor of a part that never runs, so that accelerate's hook never fills it in; "" if none.

    Args:
        layer: Its dictionaries and lists of parameters are looked at.
    """
    for path, part in layer.named_modules():
        if type(part).forward is torch.nn.Module.forward:  # as of ParameterDict: there is none
            own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            if found := next((name for name, t in own if t.device.type == "meta"), None):
                return f"{path}.{found}".lstrip(".")
    return ""


@contextmanager
def filled_in(part: torch.nn.Module) -> Iterator[None]:
    """The parameters of one offloaded layer with their values, as accelerate's hook sets them for a forward.

    Args:
        part: A layer of which parameters are on the device meta.

    Raises:
        SettingsError: Nothing gives the layer its values.
    """
    from accelerate.utils import align_module_device

    _hook_of(part)
    with align_module_device(part, torch.device("cpu")):
        yield


def place_of(embedding: Any) -> torch.device:
    """Where the inputs of an embedding go: where its weight is, or where it runs if the weight is offloaded.

    Args:
        embedding: A layer with a `weight`.

    Raises:
        SettingsError: The weight is on the device meta, and nothing gives it its values.
    """
    device = torch.device(embedding.weight.device)
    return torch.device(_hook_of(embedding).execution_device) if device.type == "meta" else device


def _hook_of(part: torch.nn.Module) -> Any:
    from accelerate.hooks import AlignDevicesHook

    hook = vars(part).get("_hf_hook")
    if not isinstance(hook, AlignDevicesHook) or not hook.offload:
        raise SettingsError(
            f"a {type(part).__name__} has parameters on the device meta that no hook of accelerate fills in, so its "
            "results would be arbitrary: open the model with its weights, and put adapters on it before it is offloaded"
        )
    return hook
