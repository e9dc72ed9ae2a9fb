"""accelerate's processes, devices and casts, for one training after another in the same process.

accelerate keeps the device and precision that a process asked for first. Forgetting them needs a function that it does
not document (`AcceleratorState._reset_state`), so `supported` looks for it once. Where it is missing, `OneProcess` does
the little that a training in a single process needs, with the same results.
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
    """The processes of a training: each with the whole module, or sharded where FSDP2 was asked for.

    FSDP2 is asked for as `accelerate launch --use_fsdp --fsdp_version 2` does: by `ACCELERATE_USE_FSDP=true` and
    `FSDP_VERSION=2`. One process alone shards nothing.

    Args:
        device: Such as "cpu" or "cuda:1"; None takes the GPU where there is one.
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
    """Whether this version of accelerate can forget the device and precision that were asked for first."""
    from accelerate.state import AcceleratorState

    try:
        return "reset_partial_state" in inspect.signature(AcceleratorState._reset_state).parameters
    except (AttributeError, TypeError, ValueError):
        return False


def accelerator(device: str | None, precision: str) -> Any:
    """An `accelerate.Accelerator`, or `OneProcess`, for a device and a precision.

    Args:
        device: Such as "cpu" or "cuda:1"; None takes the GPU where there is one.
        precision: no, bf16, fp16, or auto.

    Raises:
        SettingsError: Several processes were launched in a way that cannot be used.
    """
    import torch
    from accelerate import Accelerator

    sharding_wanted()  # refuses what cannot be used
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
    """For another device or precision than accelerate was asked for first."""
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    if supported():
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=device == "cpu", mixed_precision=precision)
    if PartialState().num_processes > 1:
        raise SettingsError(
            f"this version of accelerate cannot change to device={device or 'auto'} and precision={precision} within a "
            "process: launch anew for each training"
        )
    return OneProcess(device, precision)


class OneProcess:
    """What trainings use of `accelerate.Accelerator`, for a single process without its shared state."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def __init__(self, device: str, precision: str) -> None:
        """Take a device ("" is the CPU) and a precision.

        Raises:
            SettingsError: fp16, whose gradients have to be scaled.
        """
        import torch

        if precision == "fp16":
            raise SettingsError(
                "this version of accelerate cannot change to precision=fp16 within a process: start a new process, or "
                "take precision=bf16 or no"
            )
        self.device, self._half = torch.device(device or "cpu"), precision == "bf16"

    def prepare_model(self, module: nn.Module, evaluation_mode: bool = False) -> nn.Module:
        """Cast the products of a module's forward pass, in place; what it returns is float32."""
        import torch
        from accelerate.utils import convert_outputs_to_fp32

        if self._half:
            cast = torch.autocast(self.device.type, torch.bfloat16)
            vars(module)["forward"] = convert_outputs_to_fp32(cast(module.forward))
        return module

    def unwrap_model(self, module: nn.Module, keep_fp32_wrapper: bool = False) -> nn.Module:
        """Take the casts off again."""
        if self._half and not keep_fp32_wrapper:
            vars(module).pop("forward", None)
        return module

    def prepare_optimizer(self, optimizer: Any) -> Any:
        """The optimizer as it is."""
        return optimizer

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], norm: float) -> None:
        """Bound the norm of the gradients."""
        import torch

        torch.nn.utils.clip_grad_norm_(parameters, norm)

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""
