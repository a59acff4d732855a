"""Keeps a step whose loss or gradients are not finite from the weights, without waiting for the device."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor
from torch.optim import Optimizer


class Gate:
    """Shuts before the first step whose loss or gradients hold a NaN or an infinity, and stays shut.

    From then on the weights rest, as they were before that step, until the host looks. Fused optimizers are told on the
    device, so the step itself does nothing; for the others the host has to ask before each step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._groups = optimizer.param_groups
        device = self._groups[0]["params"][0].device
        self._shut, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        self._missed = torch.zeros((), device=device)
        self._mark = mark_torchs if torchs_own(device) else mark
        self.asks = not all(group.get("fused") for group in self._groups)
        if not self.asks:
            optimizer.found_inf = self._shut  # type: ignore[attr-defined]  # GradScaler's way to tell an optimizer

    def lets(self, loss: Tensor) -> bool:
        """Look at a loss () and the gradients, and tell whether the optimizer may be called."""
        found = [p.grad for group in self._groups for p in group["params"] if p.grad is not None]
        self._mark([*found, loss], self._shut, self._one)
        self._missed.add_(self._shut)
        return not self.asks or not self._shut.item()

    def missed(self) -> int:
        """Wait for the device and return the number of steps that were kept from the weights."""
        return int(self._missed.item())


def torchs_own(device: torch.device) -> bool:
    """Tell whether torch's check of many tensors at once, which GradScaler uses, is there for a device and works.

    It is private to torch. It costs a tenth of what the norm of all gradients does.
    """
    try:
        shut = torch.zeros((), device=device)
        mark_torchs([torch.full((2,), torch.nan, device=device)], shut, torch.ones((), device=device))
        return bool(shut)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def mark_torchs(tensors: list[Tensor], shut: Tensor, one: Tensor) -> None:
    """Set `shut` to 1 where a tensor is not finite; the tensors are multiplied by one."""
    alike: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        alike[tensor.dtype].append(tensor)
    for some in alike.values():
        torch._amp_foreach_non_finite_check_and_unscale_(some, shut, one)


def mark(tensors: list[Tensor], shut: Tensor, one: Tensor) -> None:
    """Set `shut` to 1 where a tensor is not finite, in torch's public words."""
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
    shut.copy_(torch.where(finite, shut, one))
