"""The non-finite check: a step with a NaN or an infinity in its loss or gradients is never applied.

On a GPU the check runs on the device: the host does not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.engine.transfer import to_host
from runner.errors import Diverged


class BadStep(Diverged):
    """The loss or a gradient of a step is not finite; the learner is in its state before that step."""


class BadScore(Diverged):
    """A validation score of `split` is not finite after the current step."""

    def __init__(self, text: str, split: str) -> None:
        super().__init__(text)
        self.split = split


class Gate:
    """Skips the first step with a non-finite loss or gradient and all later ones.

    The weights and the optimizer state stay as they were before that step, until the host reads `skipped_steps`. On the
    CPU the host reads the flag at each step. On other devices, a fused optimizer reads the flag on the device and does
    nothing if it is set; for any other optimizer the host has to read it before each step (`needs_host_sync`).

    With several processes, loss and gradients are sums over all of them: a value that is not finite in one of them
    closes the gate in all.

    Args:
        optimizer: The optimizer whose steps are checked.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        device = groups[0]["params"][0].device
        self._closed, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        self._skipped = torch.zeros((), device=device)
        self._flag_nonfinite = flag_nonfinite_amp if has_amp_check(device) else flag_nonfinite
        dtype, *others = {p.dtype for group in groups for p in group["params"]}
        # The dtype of all gradients; None if they differ.
        self._dtype = None if others else dtype
        # The attribute that GradScaler checks: the optimizer reads `found_inf`.
        reads_flag = getattr(optimizer, "_step_supports_amp_scaling", False)
        self.needs_host_sync = not (reads_flag and all(group.get("fused") for group in groups))
        self._on_host = self._closed.numpy() if is_host_memory(device) else None
        if not self.needs_host_sync and self._on_host is None:
            # The attribute that fused optimizers read, and that GradScaler sets, to skip a step.
            optimizer.found_inf = self._closed  # type: ignore[attr-defined]

    def check(self, loss: Tensor, gradients: list[Tensor]) -> bool:
        """Check a loss () and the gradients; return True if the optimizer's `step` may be called.

        After a True, a fused optimizer may still skip the step on the device.
        """
        tensors = [*gradients, loss]
        for group in [tensors] if loss.dtype == self._dtype else _by_dtype(tensors):
            self._flag_nonfinite(group, self._closed, self._one)
        if self._on_host is None:
            self._skipped.add_(self._closed)
            return not self.needs_host_sync or not self._closed.item()
        if closed := bool(self._on_host):
            self._skipped.add_(1)
        return not closed

    def skipped_steps(self) -> int:
        """Return the number of skipped steps, which are the latest ones; waits for the device."""
        return int(self._skipped.item())


def is_host_memory(device: torch.device) -> bool:
    """Return True if the host can read the memory of a device without a synchronization."""
    return device.type == "cpu"


def has_amp_check(device: torch.device) -> bool:
    """Return True if GradScaler's check of many tensors in one kernel works on a device.

    The kernel is private to torch, so it is tried first. It takes a tenth of the time of the global gradient norm.
    """
    try:
        flag = torch.zeros((), device=device)
        flag_nonfinite_amp([torch.full((2,), torch.nan, device=device)], flag, torch.ones((), device=device))
        return bool(flag)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def _by_dtype(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Return the tensors in one list per dtype."""
    return [[tensor for tensor in tensors if tensor.dtype == dtype] for dtype in {tensor.dtype for tensor in tensors}]


def flag_nonfinite_amp(tensors: list[Tensor], flag: Tensor, one: Tensor) -> None:
    """Set `flag` () to 1 if a tensor is not finite, with GradScaler's kernel; all tensors have the same dtype.

    The kernel also multiplies the tensors in place, here by one.
    """
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, flag, one)


def flag_nonfinite(tensors: list[Tensor], flag: Tensor, one: Tensor) -> None:
    """Set `flag` () to 1 if a tensor is not finite, with public functions of torch only."""
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
    flag.copy_(torch.where(finite, flag, one))


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors with a NaN or an infinity; waits for the device, once if all are finite.

    If the sum of a tensor is finite, all its elements are. The sum takes a tenth of the time of `isfinite`, so
    `isfinite` runs only on tensors whose sum is not finite (which may also be an overflow).
    """
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    sums = to_host([tensor.sum() for tensor in floating.values()])
    suspects = [name for name, total in zip(floating, sums, strict=True) if not math.isfinite(total)]
    checked = to_host([torch.isfinite(floating[name]).all() for name in suspects])
    return [name for name, all_finite in zip(suspects, checked, strict=True) if not all_finite]


def named_tensors(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return the parameters and buffers of a module by the names that error messages use."""
    weights = {f"{prefix}weight {name}": tensor for name, tensor in module.named_parameters()}
    return weights | {f"{prefix}buffer {name}": tensor for name, tensor in module.named_buffers()}


def optimizer_tensors(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state by the names that error messages use (`exp_avg of 0.weight`)."""
    states = {
        name: optimizer.state[parameter] for name, parameter in parameters.items() if parameter in optimizer.state
    }
    return {
        f"{key} of {name}": value
        for name, state in states.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
