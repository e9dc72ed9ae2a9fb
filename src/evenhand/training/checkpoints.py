"""Checkpoints of a training: a folder per epoch, whole or absent, from which a killed run continues. No pickle is run.

Each has the checksums of its files. One that is damaged is moved aside, and the training begins at the one before it,
where there is one, or anew.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from evenhand.core import file_io
from evenhand.core.checksums import LIST, damage_of_folder, seal_folder
from evenhand.errors import RunError, SettingsError, reason
from evenhand.training.dtensor_support import laid_out_as, whole

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Weights = dict[str, "Tensor"]
Curve = list[dict[str, float]]
PREFIX = "checkpoint"
NAME = re.compile(rf"{PREFIX}-\d+", re.ASCII)
ASIDE = re.compile(rf"{NAME.pattern}{re.escape(file_io.DAMAGED)}\d+", re.ASCII)
"""Name of a damaged one that was moved aside."""
UNREADABLE = (OSError, ValueError, TypeError, LookupError, RuntimeError)
"""What reading a checkpoint of an earlier version raises that is damaged; later ones have checksums."""


def weights_of(module: nn.Module, keep: bool = True) -> Weights:
    """Whole copies of the parameters that are trained; the others, and buffers, are not changed by a training.

    Args:
        module: Sharded or whole; where it is sharded, all processes have to ask for them together.
        keep: False only takes part, and returns nothing.
    """
    named = module.named_parameters()
    gathered = {name: whole(p, keep) for name, p in named if p.requires_grad}
    return gathered if keep else {}


def state_of(optimizer: Optimizer, keep: bool = True) -> dict[str, Any]:
    """An optimizer's state with whole tensors on the CPU.

    Args:
        optimizer: Of sharded or whole parameters; where they are sharded, all processes have to ask together.
        keep: False only takes part, and returns tensors without numbers.
    """
    import torch

    state = optimizer.state_dict()
    of_parameters = {
        n: {name: whole(v, keep) if isinstance(v, torch.Tensor) else v for name, v in known.items()}
        for n, known in state["state"].items()
    }
    return {**state, "state": of_parameters}


def put(module: nn.Module, weights: Weights) -> None:
    """Write weights into the parameters of the same names."""
    import torch

    with torch.no_grad():
        for name, p in module.named_parameters():
            if name in weights:
                p.copy_(weights[name])


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        """Take a place.

        Args:
            folder: Where they lie; None keeps none.
            settings: Of the training, so that nothing goes on from another one's.
        """
        self.folder, self.settings = folder, dict(settings)

    def keep(self, curve: Sequence[Mapping[str, float]], now: Weights, best: Weights, state: Mapping[str, Any]) -> None:
        """Write a checkpoint beside the last one, and only then remove that.

        Args:
            curve: A row per epoch.
            now: From `weights_of`.
            best: The same after the best epoch.
            state: From `state_of`.
        """
        if self.folder is None:
            return
        fresh = self.folder / f"{PREFIX}-{len(curve):05d}"
        part = self.folder / f".{fresh.name}.part"
        progress = {"settings": self.settings, "curve": list(curve)}
        try:
            _write(part, progress, now, best, state)
            part.rename(fresh)
            file_io.sync_folder(self.folder)
        except Exception as error:  # of safetensors and torch, which have their own for a full disk
            shutil.rmtree(part, ignore_errors=True)
            raise RunError(
                f"cannot write the checkpoint {fresh} ({reason(error)}); free some space and run again: the training "
                "continues from the one before it"
            ) from error
        for old in self._all()[:-1]:
            shutil.rmtree(old)

    def resume(self, module: nn.Module) -> tuple[Curve, Weights]:
        """The curve and the best weights so far, with the module's weights put back; both are empty at the beginning.

        Args:
            module: Whole.

        Raises:
            SettingsError: What lies there is of a training with other settings.
            RunError: It cannot be read for now, such as for lack of memory or access; it stays where it is.
            OSError: Likewise.
            MemoryError: Likewise.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        while (last := self._last()) is not None:
            try:
                content = json.loads((last / "progress.json").read_text())
                settings, curve = content["settings"], content["curve"]
                now, best = load_file(last / "weights.safetensors"), load_file(last / "best.safetensors")
            except (*UNREADABLE, SafetensorError) as error:
                _raise_if_sound(last, error)
                _set_aside(last, reason(error))
                continue
            if settings != self.settings:
                raise SettingsError(f"{last} is of another training ({settings}); remove it to begin anew")
            put(module, now)
            return curve, best
        return [], {}

    def resume_optimizer(self, optimizer: Optimizer) -> None:
        """Put an optimizer's state back, laid out as its parameters are: whole, or sharded over processes.

        Args:
            optimizer: Of the parameters that the checkpoint is of, in the same order.
        """
        last = self._last()
        if last is None:
            return
        import torch

        try:
            state = torch.load(last / "optimizer.pt", weights_only=True)
        except (*UNREADABLE, EOFError, UnpicklingError) as error:
            _raise_if_sound(last, error)
            raise RunError(f"the checkpoint {last} is damaged ({reason(error)}); remove it to begin anew") from error
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for n, known in state["state"].items():
            like = parameters[n]
            for name, value in known.items():
                if isinstance(value, torch.Tensor) and value.shape == like.shape:
                    known[name] = laid_out_as(value, like)
        optimizer.load_state_dict(state)

    def remove(self) -> None:
        """Remove all of them, once the training has ended; those that were moved aside as well."""
        for folder in (*self._all(), *self._all(ASIDE)):
            shutil.rmtree(folder)

    def _last(self) -> Path | None:
        """The last checkpoint that is not damaged; those after it are moved aside."""
        for folder in reversed(self._all()):
            why = damage_of_folder(folder, folder / LIST)
            if not why:
                return folder
            _set_aside(folder, why)
        return None

    def _all(self, name: re.Pattern[str] = NAME) -> list[Path]:
        found = sorted(self.folder.glob(f"{PREFIX}-*")) if self.folder is not None else []
        return [folder for folder in found if name.fullmatch(folder.name)]


def _write(part: Path, progress: Mapping[str, Any], now: Weights, best: Weights, state: Mapping[str, Any]) -> None:
    """Write all files of a checkpoint, and last their checksums."""
    import torch
    from safetensors.torch import save_file

    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(now, part / "weights.safetensors")
    save_file(best, part / "best.safetensors")
    torch.save(dict(state), part / "optimizer.pt")
    (part / "progress.json").write_text(json.dumps(progress, indent=1))
    file_io.sync_tree(part)
    seal_folder(part, part / LIST)


def _raise_if_sound(folder: Path, error: Exception) -> None:
    """Pass an error on that does not come from a checkpoint's content: one of the machine, or with checksums that hold.

    torch raises RuntimeError where memory is short.
    """
    verified = (folder / LIST).is_file()  # by `_last`
    if file_io.may_pass(error) or (verified and isinstance(error, OSError)):
        raise error
    if verified and isinstance(error, RuntimeError):
        raise RunError(
            f"the checkpoint {folder} is as it was written, but cannot be read ({reason(error)}); free some memory and "
            "run again, or remove it to begin anew"
        ) from error


def _set_aside(folder: Path, why: str) -> None:
    aside = file_io.move_aside(folder)
    warnings.warn(
        f"the checkpoint {folder} is damaged ({why}): it is now {aside.name}, and the training continues from the one "
        "before it, or begins anew",
        UserWarning,
        stacklevel=4,
    )
