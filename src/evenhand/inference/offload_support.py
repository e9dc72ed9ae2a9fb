"""Models with weights that accelerate keeps in main memory or on disk, and loads for each forward.

Between forwards such a parameter is on the device `meta`, without values. Arithmetic on it is valid and has no effect,
so an edit would be lost without an error (`findings/accelerate_offloaded_weight_edit.sh`): these models can be read,
but are refused wherever weights are changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from evenhand.errors import SettingsError

REMEDY = "load it without offloading (device_map=None, or one with enough GPUs), or use a smaller model or dtype"


def offloaded(module: torch.nn.Module) -> str:
    """Return the name of the first offloaded parameter; "" if there is none."""
    return next((name for name, p in module.named_parameters() if p.device.type == "meta"), "")


def edit_refused(module: torch.nn.Module, name: str) -> str:
    """Return why a module's weights cannot be changed, if accelerate offloads them, else "".

    Args:
        module: A transformers or PEFT model.
        name: Name of the model, for the message.
    """
    first = offloaded(module)
    if not first:
        return ""
    return f"the weights of {name} are offloaded ({first} is on the device meta), so edits have no effect: {REMEDY}"


def refuse_edit(module: torch.nn.Module, name: str = "this model") -> None:
    """Refuse to change weights that are offloaded.

    Args:
        module: A transformers or PEFT model.
        name: Name of the model, for the message.

    Raises:
        SettingsError: Parameters are offloaded; the message names the first one and the remedy.
    """
    if reason := edit_refused(module, name):
        raise SettingsError(reason)


def save_refused(module: Any, name: str) -> str:
    """Return why a module cannot be saved, if transformers does not find its offloaded weights, else "".

    It finds them by a device map, which `cpu_offload` and `disk_offload` do not set.

    Args:
        module: A transformers or PEFT model.
        name: Name of the model, for the message.
    """
    if not offloaded(module) or getattr(module, "hf_device_map", None):
        return ""
    return f"the weights of {name} are offloaded without a device map and cannot be saved: {REMEDY}"


def offloaded_apart(layer: torch.nn.Module) -> str:
    """Return the first offloaded tensor of a part that never runs, so that accelerate never loads it; "" if none.

    Args:
        layer: Layer whose dictionaries and lists of parameters are checked.
    """
    for path, part in layer.named_modules():
        if type(part).forward is torch.nn.Module.forward:  # such as a ParameterDict, which has no forward
            own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            if found := next((name for name, t in own if t.device.type == "meta"), None):
                return f"{path}.{found}".lstrip(".")
    return ""


@contextmanager
def filled_in(part: torch.nn.Module) -> Iterator[None]:
    """Load the values of one offloaded layer within the block, as accelerate's hook does for a forward.

    Args:
        part: A layer with parameters on the device meta.

    Raises:
        SettingsError: No hook loads the layer's values.
    """
    from accelerate.utils import align_module_device

    _hook_of(part)
    with align_module_device(part, torch.device("cpu")):
        yield


def place_of(embedding: Any) -> torch.device:
    """Return the device for the inputs of an embedding: that of its weight, or where it runs if offloaded.

    Args:
        embedding: A layer with a `weight`.

    Raises:
        SettingsError: The weight is on the device meta, and no hook loads its values.
    """
    device = torch.device(embedding.weight.device)
    return torch.device(_hook_of(embedding).execution_device) if device.type == "meta" else device


def _hook_of(part: torch.nn.Module) -> Any:
    from accelerate.hooks import AlignDevicesHook

    hook = vars(part).get("_hf_hook")
    if not isinstance(hook, AlignDevicesHook) or not hook.offload:
        raise SettingsError(
            f"a {type(part).__name__} has parameters on the device meta that no hook of accelerate loads, so its "
            "results would be arbitrary: open the model with its weights, and put adapters on it before it is offloaded"
        )
    return hook
