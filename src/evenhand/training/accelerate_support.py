"""Processes, devices and mixed precision by accelerate, for several trainings in the same process.

accelerate keeps the device and precision that a process asked for first. Resetting them takes an undocumented function
(`AcceleratorState._reset_state`), so `supported` checks once whether it exists. If it does not, `OneProcess` does what
a training in a single process needs, with the same results.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from evenhand.core.artifacts import resolved_precision
from evenhand.errors import SettingsError
from evenhand.training.processes import Processes, sharding_wanted

if TYPE_CHECKING:
    from torch import Tensor, nn


def processes(device: str | None, precision: str) -> Processes:
    """Return the processes of a training, each with the whole module, or with shards of it if FSDP2 was requested.

    FSDP2 is requested as `accelerate launch --use_fsdp --fsdp_version 2` does: by `ACCELERATE_USE_FSDP=true` and
    `FSDP_VERSION=2`. A single process shards nothing.

    Args:
        device: Such as "cpu" or "cuda:1"; None uses the GPU if there is one.
        precision: no, bf16, fp16, or auto.

    Raises:
        SettingsError: Several processes were launched in a way that cannot be used.
    """
    if not sharding_wanted():
        return Processes(accelerator(device, precision))
    import torch
    from accelerate import PartialState

    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    state = PartialState(cpu=kind == "cpu")
    if state.num_processes == 1:
        return Processes(accelerator(device, precision))
    from evenhand.training.sharded_processes import ShardedProcesses  # torch.distributed takes long to import

    _refuse_shared_device(state, kind)
    return ShardedProcesses(state, resolved_precision(precision, kind))


@cache
def supported() -> bool:
    """Whether this version of accelerate can reset the device and precision that a process asked for first."""
    from accelerate.state import AcceleratorState

    try:
        return "reset_partial_state" in inspect.signature(AcceleratorState._reset_state).parameters
    except (AttributeError, TypeError, ValueError):
        return False


def accelerator(device: str | None, precision: str) -> Any:
    """Return an `accelerate.Accelerator`, or `OneProcess`, for a device and a precision.

    Args:
        device: Such as "cpu" or "cuda:1"; None uses the GPU if there is one.
        precision: no, bf16, fp16, or auto.

    Raises:
        SettingsError: Several processes were launched in a way that cannot be used.
    """
    import torch
    from accelerate import Accelerator

    sharding_wanted()  # raises if the launch cannot be used
    device = device or ("cuda" if torch.cuda.is_available() else "")
    precision = resolved_precision(precision, device)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    try:
        made = Accelerator(cpu=device == "cpu", mixed_precision=precision)
        fits = made.device.type == device.partition(":")[0] or not device
    except ValueError:
        fits = False
    if not fits:
        made = _anew(device, precision)
    _refuse_shared_device(made, device)
    return made


def _refuse_shared_device(made: Any, device: str) -> None:
    if made.num_processes > 1 and device.startswith("cuda:") and str(made.device) != device:
        raise SettingsError(
            f"process {made.process_index} of {made.num_processes} has its model on {device}: every "
            f"process needs a GPU of its own, so load it there with device={made.device}"
        )


def _anew(device: str, precision: str) -> Any:
    """Return an accelerator for another device or precision than the process asked for first."""
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    if supported():
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=device == "cpu", mixed_precision=precision)
    if PartialState().num_processes > 1:
        raise SettingsError(
            f"this version of accelerate cannot change to device={device or 'auto'} and precision={precision} within a "
            "process: start a new launch for each training"
        )
    return OneProcess(device, precision)


class OneProcess:
    """The part of `accelerate.Accelerator` that trainings use, for a single process and without shared state."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def __init__(self, device: str, precision: str) -> None:
        """Set the device ("" is the CPU) and the precision.

        Raises:
            SettingsError: The precision is fp16, whose gradients have to be scaled.
        """
        import torch

        if precision == "fp16":
            raise SettingsError(
                "this version of accelerate cannot change to precision=fp16 within a process: start a new process, or "
                "take precision=bf16 or no"
            )
        self.device, self._half = torch.device(device or "cpu"), precision == "bf16"

    def prepare_model(self, module: nn.Module, evaluation_mode: bool = False) -> nn.Module:
        """Make a module's forward pass use the precision, in place; its outputs are float32."""
        import torch
        from accelerate.utils import convert_outputs_to_fp32

        if self._half:
            cast = torch.autocast(self.device.type, torch.bfloat16)
            vars(module)["forward"] = convert_outputs_to_fp32(cast(module.forward))
        return module

    def unwrap_model(self, module: nn.Module, keep_fp32_wrapper: bool = False) -> nn.Module:
        """Undo `prepare_model`."""
        if self._half and not keep_fp32_wrapper:
            vars(module).pop("forward", None)
        return module

    def prepare_optimizer(self, optimizer: Any) -> Any:
        """Return the optimizer unchanged."""
        return optimizer

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], norm: float) -> None:
        """Clip the gradients to a maximum norm, in place."""
        import torch

        torch.nn.utils.clip_grad_norm_(parameters, norm)

    def wait_for_everyone(self) -> None:
        """Do nothing, as there is no other process."""
