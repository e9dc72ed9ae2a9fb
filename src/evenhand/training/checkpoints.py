"""Checkpoints of a training: a folder an epoch, whole or absent, from which a killed run goes on. No pickle is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import SettingsError
from evenhand.training.dtensor_support import laid_out_as, whole

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Weights = dict[str, "Tensor"]
Curve = list[dict[str, float]]
PREFIX = "checkpoint"


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
        import torch
        from safetensors.torch import save_file

        fresh = self.folder / f"{PREFIX}-{len(curve):05d}"
        part = self.folder / f".{fresh.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(now, part / "weights.safetensors")
        save_file(best, part / "best.safetensors")
        torch.save(dict(state), part / "optimizer.pt")
        (part / "progress.json").write_text(json.dumps({"settings": self.settings, "curve": list(curve)}, indent=1))
        part.rename(fresh)
        for old in self._all()[:-1]:
            shutil.rmtree(old)

    def resume(self, module: nn.Module) -> tuple[Curve, Weights]:
        """The curve and the best weights so far, with the module's weights put back; both are empty at the beginning.

        Args:
            module: Whole.

        Raises:
            SettingsError: What lies there is of a training with other settings.
        """
        found = self._all()
        if not found:
            return [], {}
        from safetensors.torch import load_file

        content = json.loads((found[-1] / "progress.json").read_text())
        if content["settings"] != self.settings:
            raise SettingsError(f"{found[-1]} is of another training ({content['settings']}); remove it to begin anew")
        put(module, load_file(found[-1] / "weights.safetensors"))
        return content["curve"], load_file(found[-1] / "best.safetensors")

    def resume_optimizer(self, optimizer: Optimizer) -> None:
        """Put an optimizer's state back, laid out as its parameters are: whole, or sharded over processes.

        Args:
            optimizer: Of the parameters that the checkpoint is of, in the same order.
        """
        found = self._all()
        if not found:
            return
        import torch

        state = torch.load(found[-1] / "optimizer.pt", weights_only=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for n, known in state["state"].items():
            like = parameters[n]
            for name, value in known.items():
                if isinstance(value, torch.Tensor) and value.shape == like.shape:
                    known[name] = laid_out_as(value, like)
        optimizer.load_state_dict(state)

    def remove(self) -> None:
        """Remove all of them, once the training has ended."""
        for folder in self._all():
            shutil.rmtree(folder)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}-*")) if self.folder is not None else []
