"""Members of one architecture evaluated in one forward pass (`torch.func.stack_module_state` and `vmap`)."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

# Largest difference of a probability from those of the members one by one
_TOLERANCE = 1e-6
# Passes that are timed, of which the fastest counts
_PASSES = 3
# On a CPU one pass over all took 0.9 to 6 times as long as one after the other (MLP, ResNet-20; 2 to 10 members)
_DEVICES = ("cuda",)
_All = Callable[[Tensor], Tensor]


class _Member(Protocol):
    """The parts of a member that one pass over all needs."""

    model: nn.Module
    preprocess: nn.Module

    def predict_with(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the log-probabilities (B, K) that the method of the member has with a model."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Return the log-probabilities (B, K) for raw images."""
        ...


class Stacked:
    """The log-probabilities (M, B, K) of all members: in one forward pass where that is faster and gives the same.

    Small members leave most of a GPU idle, and one pass over all fills it. The first batch is computed both ways, and
    the faster one is kept. Where torch cannot map a model over its weights, or a probability differs by more than 1e-6,
    the members are evaluated one by one.

    Args:
        members: The members.
        alike: True if all have the same architecture, prediction method, precision and order of classes.
        devices: The kinds of devices on which it can be faster.
    """

    def __init__(self, members: Sequence[_Member], *, alike: bool, devices: Sequence[str] = _DEVICES) -> None:
        self._members, self._devices = members, devices
        self._chosen: _All | None = None if alike and len(members) > 1 else self._one_by_one

    def __call__(self, images: Tensor) -> Tensor:
        """Return the log-probabilities (M, B, K) of each member for raw images (B, C, H, W)."""
        if images.device.type not in self._devices:
            return self._one_by_one(images)
        if self._chosen is None:
            self._chosen = self._choose(images)
        return self._chosen(images)

    def _one_by_one(self, images: Tensor) -> Tensor:
        return torch.stack([member(images) for member in self._members])

    def _choose(self, images: Tensor) -> _All:
        """Return the faster of the ways that give the same for a batch."""
        expected, stacked = self._one_by_one(images), self._in_one_pass()
        try:
            # A warning says that torch goes through the members one by one, and slowly
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = stacked(images)
        except Exception:
            # torch raises several kinds for what it cannot map: control flow on values, random numbers, in-place writes
            return self._one_by_one
        if not largest_difference(found, expected) <= _TOLERANCE:
            return self._one_by_one
        return min((stacked, self._one_by_one), key=lambda each: _seconds(each, images))

    def _in_one_pass(self) -> _All:
        """Return what evaluates all members in one forward pass."""
        first, models = self._members[0], [member.model for member in self._members]
        parameters, buffers = (
            {name: each.detach() for name, each in part.items()} for part in stack_module_state(models)
        )

        def of_one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
            model = _With(first.model, parameters, buffers)
            return first.predict_with(model, inputs)

        def of_all(images: Tensor) -> Tensor:
            inputs = torch.stack([member.preprocess(images) for member in self._members])
            found: Tensor = vmap(of_one)(parameters, buffers, inputs)
            return found

        return of_all


class _With(nn.Module):
    """A model with other parameters and buffers."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        super().__init__()
        # Not a module of this one: it would be found twice
        self._call: _All = lambda images: functional_call(model, (parameters, buffers), (images,))

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self._call(images)
        return found


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a probability; NaN if one is not a number."""
    return float((found.exp() - expected.exp()).detach().abs().max())


def _seconds(compute: _All, images: Tensor) -> float:
    """Return the shortest time of some passes over a batch."""
    taken = []
    for _ in range(_PASSES):
        _wait(images)
        began = time.perf_counter()
        compute(images)
        _wait(images)
        taken.append(time.perf_counter() - began)
    return min(taken)


def _wait(images: Tensor) -> None:
    """Wait for the device of some images."""
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
