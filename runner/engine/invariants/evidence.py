"""The evidence of one step: few elements of each tensor, copied on the device without waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

# Elements of a tensor that are looked at
_MOST = 256
# Elements of the images of a batch that are compared with the next one
_MOST_PIXELS = 16384


def _stride_of(tensor: Tensor, most: int = _MOST) -> int:
    """Return the distance of the elements of a tensor that are looked at."""
    return max(1, -(-tensor.numel() // most))


def few(tensor: Tensor, most: int = _MOST) -> Tensor:
    """Return evenly spaced elements of a tensor, at most `most` (n,), real ones; they may share its memory."""
    found = tensor.detach()
    flat = (torch.view_as_real(found) if found.is_complex() else found).reshape(-1)
    return flat if flat.numel() <= most else flat[:: _stride_of(flat, most)]


def _sample(tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy of few elements of each tensor, one after another (n,), in a type that holds them all."""
    return torch.cat([few(tensor) for tensor in tensors]) if tensors else torch.zeros(0)


def sampled_gradients(parameters: Iterable[Tensor]) -> Tensor:
    """Return few elements of each gradient (n,), zeros where there is none or it is sparse."""
    return _sample([_dense_gradient(p) for p in parameters])


def _dense_gradient(parameter: Tensor) -> Tensor:
    """Return the gradient of a parameter, zeros that take no memory where it has none or a sparse one."""
    gradient = parameter.grad
    if gradient is not None and gradient.layout is torch.strided:
        return gradient
    return parameter.new_zeros(()).expand(parameter.numel())


class Views:
    """Few elements of some tensors, as views that are made once: making them costs more than reading them.

    Args:
        tensors: The tensors.
        most: The elements of each that are looked at.
    """

    def __init__(self, tensors: Sequence[Tensor], most: int = _MOST) -> None:
        self._tensors, self._most = tensors, most
        self._pointers = [_pointer(tensor) for tensor in tensors]
        self._views = [few(tensor, most) for tensor in tensors]

    def read(self) -> Tensor:
        """Return a copy of the elements (n,), in a type that holds them all."""
        for number, (tensor, pointer) in enumerate(zip(self._tensors, self._pointers, strict=True)):
            # Of a tensor in another order of memory the view is a copy; and `data` may have been replaced
            if pointer is None or tensor.data_ptr() != pointer:
                self._views[number] = few(tensor, self._most)
        return torch.cat(self._views) if self._views else torch.zeros(0)

    def are_of(self, tensors: Sequence[Tensor]) -> bool:
        """True if these are the same tensors in memory."""
        return None not in self._pointers and self._pointers == [_pointer(tensor) for tensor in tensors]


def _pointer(tensor: Tensor) -> int | None:
    """Return where a tensor is in memory; None if its elements are not in order there."""
    return tensor.data_ptr() if tensor.is_contiguous() and not tensor.is_complex() else None


@dataclass(frozen=True)
class Sampled:
    """Some parameters of a model, with the place of each in a _sample.

    Attributes:
        names: Their names.
        tensors: The parameters.
        ends: The end of the elements of each in a _sample.
        views: Their elements.
    """

    names: list[str]
    tensors: list[Tensor]
    ends: list[int]
    views: Views


def sampled(parameters: Mapping[str, Tensor]) -> Sampled:
    """Return parameters with their places in a _sample; those without elements are left out."""
    kept = {name: p for name, p in parameters.items() if p.numel()}
    ends, total = [], 0
    for p in kept.values():
        numbers = p.numel() * (1 + p.is_complex())
        total += -(-numbers // max(1, -(-numbers // _MOST)))
        ends.append(total)
    return Sampled(list(kept), list(kept.values()), ends, Views(list(kept.values())))


def norms_of(gradients: Sequence[Tensor], order: float = 2.0) -> Tensor:
    """Return the norm of each gradient (n,) in at least float32."""
    dense = [g for g in gradients if g.layout is torch.strided]
    return torch.stack([norm.float() for norm in torch._foreach_norm(dense, order)]) if dense else torch.zeros(0)


def gradients_in(model: nn.Module) -> list[Tensor]:
    """Return the gradients of a model that are not None."""
    return [p.grad for p in model.parameters() if p.grad is not None]


def pixels_of(images: Tensor) -> Tensor:
    """Return a copy of few pixels of each image of a batch (B, n)."""
    flat = images.detach().reshape(len(images), -1)
    return flat[:, :: _stride_of(flat, _MOST_PIXELS)].clone()


@dataclass
class Evidence:
    """The evidence of one step: tensors on the device by name, to be judged on the host.

    Attributes:
        step: The number of the step.
        trained, frozen: The parameters by whether they were trained in the step.
        rates: The learning rate of each trained parameter.
        device: Tensors; `host` has the same after they were copied.
    """

    step: int
    trained: Sampled
    frozen: Sampled
    rates: list[float]
    device: dict[str, Tensor] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)
