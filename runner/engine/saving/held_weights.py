"""Weights of a step in the host's memory, such as the best ones until a checkpoint takes them along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.engine.state_dict import StateDict


@dataclass(frozen=True)
class StepWeights:
    """The weights that evaluation needs, after a step: that of the best validation, or of a snapshot."""

    step: int
    weights: StateDict


class HeldWeights:
    """A copy of weights on the host; empty at first.

    Its memory is kept for the next copy. From a CUDA device it is copied to pinned memory on a stream of its own, so
    that training goes on meanwhile.
    """

    def __init__(self) -> None:
        self._step = 0
        self._buffers: StateDict | None = None
        self._copied: torch.cuda.Event | None = None
        self._stream: torch.cuda.Stream | None = None

    def copy(self, weights: StateDict, step: int) -> None:
        """Replace what is held by a copy of the weights after `step`."""
        if self._buffers is None or not _fits(self._buffers, weights):
            self._buffers = StateDict({name: _host_buffer(tensor) for name, tensor in weights.items()})
        self._step, self._buffers.versions = step, weights.versions
        on_device = [name for name, tensor in weights.items() if tensor.is_cuda]
        with torch.no_grad():
            for name, tensor in weights.items():
                if not tensor.is_cuda:
                    self._buffers[name].copy_(tensor)
            if on_device:
                self._copy_beside({name: weights[name] for name in on_device}, self._buffers)

    def of(self, step: int) -> StepWeights | None:
        """Return the weights after a step, None if they are not held; waits for a copy that is not complete yet."""
        if not self._step or self._step != step or self._buffers is None:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        return StepWeights(self._step, self._buffers)

    def clear(self) -> None:
        """Hold nothing any more."""
        self._step = 0

    def _copy_beside(self, weights: dict[str, Tensor], buffers: StateDict) -> None:
        """Copy tensors of one CUDA device to pinned memory on a second stream, from a copy on the device.

        The next step may change the weights before the transfer is complete, so that it reads a copy, which takes a
        hundredth of the time.
        """
        if self._copied is not None:
            # The last transfer may still write to the buffers
            self._copied.synchronize()
        device = next(iter(weights.values())).device
        self._stream = self._stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        staged = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for name, tensor in staged.items():
                buffers[name].copy_(tensor, non_blocking=True)
                # Its memory is reused only after the transfer
                tensor.record_stream(self._stream)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record(self._stream)


def _fits(buffers: StateDict, weights: StateDict) -> bool:
    """Return True if weights have the names, shapes and dtypes of the buffers."""
    return list(buffers) == list(weights) and all(
        kept.shape == tensor.shape and kept.dtype == tensor.dtype
        for kept, tensor in zip(buffers.values(), weights.values(), strict=True)
    )


def _host_buffer(tensor: Tensor) -> Tensor:
    """Return memory on the host for a copy of a tensor, pinned for one on a CUDA device where the system allows it."""
    try:
        return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    except RuntimeError:
        if not tensor.is_cuda:
            raise
        # Too little memory that can be locked: the host then waits for the transfer
        return torch.empty_like(tensor, device="cpu")
