"""Make the task vector of a folder with a PEFT adapter, or a whole model, that was fine-tuned elsewhere."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.errors import SettingsError
from evenhand.methods.unlearning._negation import plain
from evenhand.methods.unlearning._task_vectors import TaskVector, difference, from_adapter
from evenhand.models.adapters import copied, open_adapter, redone_at_opening
from evenhand.models.hugging_face import open_weights
from evenhand.models.json_files import read_json
from evenhand.models.saved import base_of_adapter

CONFIG = "adapter_config.json"


def vector_of_folder(folder: Path, module: Any) -> TaskVector:
    """Return what a folder's fine-tune has changed in a model: its weights minus the model's, for every weight.

    An adapter is opened as PEFT does, on the base that it names if that can be found here: a PiSSA or OLoRA
    adapter either changes the base again when it is opened, or comes with the base that its initialisation has changed
    (peft's examples/pissa_finetuning). Either way the change of the base is part of the vector.

    Args:
        folder: Folder of the adapter or of the model.
        module: The causal language model that the fine-tuning began with.

    Returns:
        The vector; at strength -1 it turns the model into the fine-tune.

    Raises:
        EvenhandError: The files cannot be read, or some of their tensors do not fit the model.
        SettingsError: The fine-tune is not of this model; the message names a weight.
    """
    base = plain(module)
    if not (folder / CONFIG).is_file():
        return difference(open_weights(str(folder)), base)
    own = _own_base(folder, base)
    if own is None:
        return from_adapter(_opened(folder, copied(base)), base)
    differing = _differing(own, base, folder)
    tuned = _opened(folder, own)
    if differing:
        _check_residual(tuned, differing, folder)
    return from_adapter(tuned, base)


def _opened(folder: Path, base: Any) -> Any:
    with torch.random.fork_rng(devices=[]):  # PEFT draws weights, which it then overwrites
        return open_adapter(base, folder).eval()


def _own_base(folder: Path, base: Any) -> Any | None:
    """Return the base that an adapter names, in the given one's precision; None if the given one is used for it."""
    config = _config(folder)
    if not config.get("base_model_name_or_path"):
        return None
    name = base_of_adapter(folder)
    beside = Path(name).is_absolute() and Path(name).is_relative_to(folder.resolve())
    given = str(getattr(base.config, "_name_or_path", "") or "")
    start = config.get("init_lora_weights")
    same = name == given or (Path(name).is_dir() and Path(given).is_dir() and Path(name).samefile(given))
    if same and not beside and not redone_at_opening(start):
        return None
    if Path(name).is_dir():
        return open_weights(name).to(base.dtype)
    if not same:
        warnings.warn(
            f"the adapter {folder} was trained on {name}, which is not a folder here to compare this model with: the "
            "vector is what the adapter changes in this model. If the two differ (as the residual model of PiSSA does "
            "from its original), correct base_model_name_or_path in its adapter_config.json",
            stacklevel=2,
        )
    return None


def _config(folder: Path) -> dict[str, Any]:
    return read_json(folder / CONFIG)


def _differing(own: nn.Module, base: nn.Module, folder: Path) -> dict[str, list[str]]:
    """Return the weights in which an adapter's own base differs from the given one, with their names in it."""
    mine, theirs = (dict(m.named_parameters(remove_duplicate=False)) for m in (own, base))
    for name in dict.fromkeys([*theirs, *mine]):
        shapes = [tuple(m[name].shape) if name in m else "missing" for m in (mine, theirs)]
        if shapes[0] != shapes[1]:
            raise SettingsError(
                f"the adapter {folder} was trained on another model: {name} is {shapes[0]} in its base and {shapes[1]} "
                "in this model"
            )
    aliases: dict[int, list[str]] = {}
    for name, p in mine.items():
        aliases.setdefault(id(p), []).append(name)
    return {name: aliases[id(p)] for name, p in mine.items() if not _equal(p, theirs[name])}


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(torch.equal(one.detach().cpu().float(), other.detach().cpu().float()))


def _check_residual(tuned: Any, differing: dict[str, list[str]], folder: Path) -> None:
    """Check that the base that an adapter brings differs from the true one only in the adapter's own layers.

    Raises:
        SettingsError: It is another model; or PEFT has changed it a second time.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {path for path, part in tuned.get_base_model().named_modules() if isinstance(part, BaseTunerLayer)}
    elsewhere = [n for n, names in differing.items() if not layers & {a.rpartition(".")[0] for a in names}]
    named = _config(folder)
    where = named["base_model_name_or_path"]
    if elsewhere:
        raise SettingsError(
            f"the adapter {folder} was trained on {where}, which differs from this model in {elsewhere[0]} "
            f"({len(elsewhere)} weights outside the adapter's layers): load the model that it was trained on"
        )
    if redone_at_opening(named.get("init_lora_weights")):
        raise SettingsError(
            f"{folder / CONFIG} has init_lora_weights={named['init_lora_weights']!r} and names {where}, which differs "
            f"from this model in {next(iter(differing))}: if that is the residual model, set init_lora_weights to true "
            "(PEFT would change it a second time); otherwise load the model that the adapter was trained on"
        )
