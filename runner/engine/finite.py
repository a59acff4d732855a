"""A step whose loss or gradients are not finite is never applied, and that costs no wait for the device."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.engine.transfer import to_host
from runner.engine.world import ALONE, World
from runner.errors import Diverged


class BadStep(Diverged):
    """A step had a loss or a gradient that is not finite; the learner is back at the step before."""


class BadScore(Diverged):
    """A score of the `split` is not finite after the learner's step."""

    def __init__(self, text: str, split: str) -> None:
        super().__init__(text)
        self.split = split


class Gate:
    """Closes before the first step whose loss or gradients hold a NaN or an infinity, and stays closed.

    From then on the weights stay as they were before that step, until the host checks `missed`. On the CPU the host
    sees immediately that the gate is closed. On other devices fused optimizers read the flag on the device and change
    nothing; for the others the host has to read it before each step. With several processes a value that is not finite
    in one of them closes the gate of all.
    """

    def __init__(self, optimizer: Optimizer, world: World = ALONE) -> None:
        groups = optimizer.param_groups
        device = groups[0]["params"][0].device
        self._world = world
        self._closed, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        self._missed = torch.zeros((), device=device)
        self._mark = mark_by_torch if torch_can_mark(device) else mark
        kind, *others = {p.dtype for group in groups for p in group["params"]}
        # The type of all gradients, None if they differ.
        self._dtype = None if others else kind
        # GradScaler looks for the same attribute.
        reads_flag = getattr(optimizer, "_step_supports_amp_scaling", False)
        self.needs_host_sync = not (reads_flag and all(group.get("fused") for group in groups))
        self._on_host = self._closed.numpy() if is_host_memory(device) else None
        if not self.needs_host_sync and self._on_host is None:
            # The attribute by which GradScaler, too, makes fused optimizers skip a step.
            optimizer.found_inf = self._closed  # type: ignore[attr-defined]

    def check(self, loss: Tensor, gradients: list[Tensor]) -> bool:
        """Check a loss () and the gradients; return True if the optimizer may be called."""
        tensors = [*gradients, loss]
        for group in [tensors] if loss.dtype == self._dtype else _by_dtype(tensors):
            self._mark(group, self._closed, self._one)
        self._world.any(self._closed)
        if self._on_host is None:
            self._missed.add_(self._closed)
            return not self.needs_host_sync or not self._closed.item()
        if closed := bool(self._on_host):
            self._missed.add_(1)
        return not closed

    def missed(self) -> int:
        """Return the number of steps that were not applied; waits for the device."""
        return int(self._missed.item())


def is_host_memory(device: torch.device) -> bool:
    """Return True if the host can read the memory of a device without waiting."""
    return device.type == "cpu"


def torch_can_mark(device: torch.device) -> bool:
    """Return True if torch's check of many tensors in one call, which GradScaler uses, exists for a device and works.

    It is private to torch. It costs a tenth of the norm of all gradients.
    """
    try:
        flag = torch.zeros((), device=device)
        mark_by_torch([torch.full((2,), torch.nan, device=device)], flag, torch.ones((), device=device))
        return bool(flag)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _by_dtype(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Return the tensors in one list per type."""
    return [[tensor for tensor in tensors if tensor.dtype == kind] for kind in {tensor.dtype for tensor in tensors}]


def mark_by_torch(tensors: list[Tensor], flag: Tensor, one: Tensor) -> None:
    """Set `flag` to 1 if a tensor is not finite; all are of one type, and are multiplied by one in place."""
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, flag, one)


def mark(tensors: list[Tensor], flag: Tensor, one: Tensor) -> None:
    """Set `flag` to 1 if a tensor is not finite, by torch's public functions."""
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
    flag.copy_(torch.where(finite, flag, one))


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold a NaN or an infinity; waits for the device once if there is none.

    A finite sum proves that all its terms are finite, and takes a tenth of the time of `isfinite`.
    """
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    sums = to_host([tensor.sum() for tensor in floating.values()])
    suspects = [name for name, total in zip(floating, sums, strict=True) if not math.isfinite(total)]
    checked = to_host([torch.isfinite(floating[name]).all() for name in suspects])
    return [name for name, all_finite in zip(suspects, checked, strict=True) if not all_finite]


def named(module: nn.Module, word: str = "") -> dict[str, Tensor]:
    """Return the weights and buffers of a module by readable names."""
    weights = {f"{word}weight {name}": tensor for name, tensor in module.named_parameters()}
    return weights | {f"{word}buffer {name}": tensor for name, tensor in module.named_buffers()}


def states(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state by readable names."""
    kept = {name: optimizer.state[parameter] for name, parameter in parameters.items() if parameter in optimizer.state}
    return {
        f"{key} of {name}": value
        for name, state in kept.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
