"""Checkpoints of a training: a folder per epoch, complete or absent, from which a killed run resumes. No pickle is run.

Each has the checksums of its files. A damaged one is moved aside, and the training continues from the previous one, or
starts again if there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from evenhand.core import file_io
from evenhand.core.artifacts import kept_nowhere
from evenhand.core.checksums import LIST
from evenhand.errors import RunError, SettingsError, reason
from evenhand.training.checkpoint_folders import CheckpointFolders, set_aside
from evenhand.training.dtensor_support import laid_out_as, whole

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Weights = dict[str, "Tensor"]
Curve = list[dict[str, float]]
UNREADABLE = (OSError, ValueError, TypeError, LookupError, RuntimeError)
"""Errors from reading a damaged checkpoint of an earlier version; later versions write checksums."""


def weights_of(module: nn.Module, keep: bool = True) -> Weights:
    """Copy the trained parameters as whole tensors; other parameters and buffers are not changed by a training.

    Args:
        module: Sharded or whole; if it is sharded, all processes must call this together.
        keep: False only takes part in the gathering, and returns nothing.
    """
    named = module.named_parameters()
    gathered = {name: whole(p, keep) for name, p in named if p.requires_grad}
    return gathered if keep else {}


def state_of(optimizer: Optimizer, keep: bool = True) -> dict[str, Any]:
    """Return an optimizer's state with whole tensors on the CPU.

    Args:
        optimizer: Has sharded or whole parameters; if they are sharded, all processes must call this together.
        keep: False only takes part in the gathering, and returns empty tensors.
    """
    import torch

    state = optimizer.state_dict()
    of_parameters = {
        n: {name: whole(v, keep) if isinstance(v, torch.Tensor) else v for name, v in known.items()}
        for n, known in state["state"].items()
    }
    return {**state, "state": of_parameters}


def put(module: nn.Module, weights: Weights) -> None:
    """Copy weights into the parameters of the same names."""
    import torch

    with torch.no_grad():
        for name, p in module.named_parameters():
            if name in weights:
                p.copy_(weights[name])


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        """Use a folder.

        Args:
            folder: Folder of the checkpoints; None keeps none.
            settings: Settings of the training; checkpoints with other settings are refused.
        """
        self.folder, self.settings = folder, dict(settings)
        self._folders = CheckpointFolders(folder)

    def keep(self, curve: Sequence[Mapping[str, float]], now: Weights, best: Weights, state: Mapping[str, Any]) -> None:
        """Write a checkpoint next to the last one, and only then remove the earlier ones.

        Args:
            curve: A row per epoch.
            now: Weights after this epoch, from `weights_of`.
            best: Weights after the best epoch.
            state: From `state_of`.
        """
        progress = {"settings": self.settings, "curve": list(curve)}
        # now and best, and two numbers of AdamW for each weight
        size = sum(4 * tensor.nbytes for tensor in now.values())
        self._folders.keep(len(curve), size, lambda part: _write(part, progress, now, best, state))

    def last_good(self) -> str:
        """Say where the last checkpoint is, for the message of a training that cannot continue; "" if there is none."""
        last = None if kept_nowhere(self.folder) else self._folders.last()
        if last is None:
            return ""
        return f". The last good checkpoint is {last}, after {int(last.name.rpartition('-')[2])} epochs"

    def resume(self, module: nn.Module) -> tuple[Curve, Weights]:
        """Restore the module's weights, and return the curve and the best weights so far; empty without a checkpoint.

        Args:
            module: The whole module, not sharded.

        Raises:
            SettingsError: The checkpoint belongs to a training with other settings.
            RunError: It cannot be read for now, such as for lack of memory or access; it is left in place.
            OSError: Likewise.
            MemoryError: Likewise.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        while (last := self._folders.last()) is not None:
            try:
                content = json.loads((last / "progress.json").read_text())
                settings, curve = content["settings"], content["curve"]
                now, best = load_file(last / "weights.safetensors"), load_file(last / "best.safetensors")
            except (*UNREADABLE, SafetensorError) as error:
                _raise_if_sound(last, error)
                set_aside(last, reason(error))
                continue
            if settings != self.settings:
                raise SettingsError(f"{last} belongs to another training ({settings}); remove it to start again")
            put(module, now)
            return curve, best
        return [], {}

    def resume_optimizer(self, optimizer: Optimizer) -> None:
        """Restore an optimizer's state, laid out as its parameters are: whole, or sharded over processes.

        Args:
            optimizer: Has the parameters of the checkpoint, in the same order.
        """
        last = self._folders.last()
        if last is None:
            return
        import torch

        try:
            state = torch.load(last / "optimizer.pt", weights_only=True)
        except (*UNREADABLE, EOFError, UnpicklingError) as error:
            _raise_if_sound(last, error)
            raise RunError(f"the checkpoint {last} is damaged ({reason(error)}); remove it to start again") from error
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for n, known in state["state"].items():
            like = parameters[n]
            for name, value in known.items():
                if isinstance(value, torch.Tensor) and value.shape == like.shape:
                    known[name] = laid_out_as(value, like)
        optimizer.load_state_dict(state)

    def remove(self) -> None:
        """Remove all checkpoints after the training has ended, including those moved aside."""
        self._folders.remove()


def _write(part: Path, progress: Mapping[str, Any], now: Weights, best: Weights, state: Mapping[str, Any]) -> None:
    """Write all files of a checkpoint."""
    import torch
    from safetensors.torch import save_file

    save_file(now, part / "weights.safetensors")
    save_file(best, part / "best.safetensors")
    torch.save(dict(state), part / "optimizer.pt")
    (part / "progress.json").write_text(json.dumps(progress, indent=1))


def _raise_if_sound(folder: Path, error: Exception) -> None:
    """Raise an error that does not come from a checkpoint's content: of the machine, or despite valid checksums.

    torch raises RuntimeError when memory is short.
    """
    verified = (folder / LIST).is_file()  # `last` has compared them
    if file_io.may_pass(error) or (verified and isinstance(error, OSError)):
        raise error
    if verified and isinstance(error, RuntimeError):
        raise RunError(
            f"the checkpoint {folder} is intact, but cannot be read ({reason(error)}); free some memory and "
            "run again, or remove it to start again"
        ) from error
