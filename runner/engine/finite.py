"""Keeps a step whose loss or gradients are not finite from the weights, without waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.engine.transfer import to_host
from runner.errors import Diverged


class BadStep(Diverged):
    """A step had a loss or a gradient that is not finite; the learner stands before it."""


class BadScore(Diverged):
    """A score of the `split` is not finite after the learner's step."""

    def __init__(self, text: str, split: str) -> None:
        super().__init__(text)
        self.split = split


class Gate:
    """Shuts before the first step whose loss or gradients hold a NaN or an infinity, and stays shut.

    From then on the weights rest, as they were before that step, until the host looks. On the CPU the host sees at once
    that the gate is shut. Elsewhere fused optimizers are told on the device, so the step itself does nothing; for the
    others the host has to ask before each step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        device = groups[0]["params"][0].device
        self._shut, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        self._missed = torch.zeros((), device=device)
        self._mark = mark_torchs if torchs_own(device) else mark
        kind, *others = {p.dtype for group in groups for p in group["params"]}
        self._kind = None if others else kind  # of all gradients
        told = getattr(optimizer, "_step_supports_amp_scaling", False)  # where GradScaler looks too
        self.asks = not (told and all(group.get("fused") for group in groups))
        self._seen = self._shut.numpy() if at_hand(device) else None
        if not self.asks and self._seen is None:
            optimizer.found_inf = self._shut  # type: ignore[attr-defined]  # GradScaler's way to tell an optimizer

    def lets(self, loss: Tensor, gradients: list[Tensor]) -> bool:
        """Look at a loss () and the gradients, and tell whether the optimizer may be called."""
        found = [*gradients, loss]
        for some in [found] if loss.dtype == self._kind else by_type(found):
            self._mark(some, self._shut, self._one)
        if self._seen is None:
            self._missed.add_(self._shut)
            return not self.asks or not self._shut.item()
        if shut := bool(self._seen):
            self._missed.add_(1)
        return not shut

    def missed(self) -> int:
        """Wait for the device and return the number of steps that were kept from the weights."""
        return int(self._missed.item())


def at_hand(device: torch.device) -> bool:
    """Tell whether the host can look at the memory of a device without waiting."""
    return device.type == "cpu"


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


def by_type(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Return tensors of each type apart."""
    return [[tensor for tensor in tensors if tensor.dtype == kind] for kind in {tensor.dtype for tensor in tensors}]


def mark_torchs(tensors: list[Tensor], shut: Tensor, one: Tensor) -> None:
    """Set `shut` to 1 where a tensor, all of one type, is not finite; the tensors are multiplied by one."""
    torch._amp_foreach_non_finite_check_and_unscale_(tensors, shut, one)


def mark(tensors: list[Tensor], shut: Tensor, one: Tensor) -> None:
    """Set `shut` to 1 where a tensor is not finite, in torch's public words."""
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
    shut.copy_(torch.where(finite, shut, one))


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold a NaN or an infinity; waits for the device once, where all is well.

    A sum is finite only if all that it is made of is, and takes a tenth of the time of `isfinite`.
    """
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    sums = to_host([tensor.sum() for tensor in floating.values()])
    doubtful = [name for name, total in zip(floating, sums, strict=True) if not math.isfinite(total)]
    sound = to_host([torch.isfinite(floating[name]).all() for name in doubtful])
    return [name for name, all_finite in zip(doubtful, sound, strict=True) if not all_finite]


def named(module: nn.Module, word: str = "") -> dict[str, Tensor]:
    """Return the weights and buffers of a module, named in words."""
    weights = {f"{word}weight {name}": tensor for name, tensor in module.named_parameters()}
    return weights | {f"{word}buffer {name}": tensor for name, tensor in module.named_buffers()}


def states(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return what an optimizer keeps for each parameter, named in words."""
    kept = {name: optimizer.state[parameter] for name, parameter in parameters.items() if parameter in optimizer.state}
    return {
        f"{key} of {name}": value
        for name, state in kept.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
