"""The loss scaler of fp16, which counts the steps that it skips."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

SKIPPED = "train/skipped_steps"


class LossScaler(GradScaler):
    """A loss scaler that counts on the device how many steps it skipped; the host never waits for the count.

    The count is no part of the state that a checkpoint has.
    """

    _count: Tensor | None = None

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Update the scale, and count the step if one of its gradients was not finite."""
        states = self._per_optimizer_states.values() if self.is_enabled() else ()
        by_device = [state["found_inf_per_device"] for state in states]
        found = [flag for flags in by_device for flag in flags.values()]
        if found:
            skipped = torch.stack([flag.reshape(()) for flag in found]).amax() > 0
            self._count = skipped.float() if self._count is None else self._count + skipped
        super().update(new_scale)

    def skipped(self) -> dict[str, Tensor]:
        """Return the number () of steps skipped since the last call by its tag; nothing if no step was counted."""
        count, self._count = self._count, None
        return {} if count is None else {SKIPPED: count}
