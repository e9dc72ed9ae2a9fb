"""Checkpoints of a training: a folder an epoch, whole or absent, from which a killed run goes on. No pickle is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor, nn

Weights = dict[str, "Tensor"]
Curve = list[dict[str, float]]
PREFIX = "checkpoint"


def weights_of(module: nn.Module) -> Weights:
    """Copies of the parameters that are trained; the others, and buffers, are not changed by a training."""
    named = module.named_parameters()
    return {name: p.detach().cpu().clone().contiguous() for name, p in named if p.requires_grad}


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

    def keep(self, curve: Sequence[Mapping[str, float]], module: nn.Module, best: Weights, optimizer: Any) -> None:
        """Write a checkpoint beside the last one, and only then remove that."""
        if self.folder is None:
            return
        import torch
        from safetensors.torch import save_file

        fresh = self.folder / f"{PREFIX}-{len(curve):05d}"
        part = self.folder / f".{fresh.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(weights_of(module), part / "weights.safetensors")
        save_file(best, part / "best.safetensors")
        torch.save(optimizer.state_dict(), part / "optimizer.pt")
        (part / "progress.json").write_text(json.dumps({"settings": self.settings, "curve": list(curve)}, indent=1))
        part.rename(fresh)
        for old in self._all()[:-1]:
            shutil.rmtree(old)

    def resume(self, module: nn.Module, optimizer: Any) -> tuple[Curve, Weights]:
        """The curve and the best weights so far, with weights and optimizer put back; both are empty at the beginning.

        Raises:
            SettingsError: What lies there is of a training with other settings.
        """
        found = self._all()
        if not found:
            return [], {}
        import torch
        from safetensors.torch import load_file

        content = json.loads((found[-1] / "progress.json").read_text())
        if content["settings"] != self.settings:
            raise SettingsError(f"{found[-1]} is of another training ({content['settings']}); remove it to begin anew")
        put(module, load_file(found[-1] / "weights.safetensors"))
        optimizer.load_state_dict(torch.load(found[-1] / "optimizer.pt", weights_only=True))
        return content["curve"], load_file(found[-1] / "best.safetensors")

    def remove(self) -> None:
        """Remove all of them, once the training has ended."""
        for folder in self._all():
            shutil.rmtree(folder)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}-*")) if self.folder is not None else []
