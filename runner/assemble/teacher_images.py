"""The images of a step as a teacher sees them: under its own preprocessing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runner.errors import ConfigError

_WHITE = 255.0


class InputOfTeacher:
    """The images of a step under the teacher's preprocessing, from those under the model's own.

    Equal preprocessing leaves them as they are. Another one gets the raw images, if the model's own scales and shifts
    each value, so that it can be undone; augmented and mixed images stay so.

    Args:
        own: The preprocessing of the model; on a resumed run it has its statistics only when training begins.
        theirs: That of the teacher.
        shape: (C, H, W) of an image.
        name: The option of the model's own.
        same: True if both have the same option and knobs.
    """

    def __init__(
        self, own: nn.Module, theirs: nn.Module, shape: tuple[int, int, int], name: str, *, same: bool
    ) -> None:
        self.own, self.theirs, self.shape, self.name, self.same = own, theirs, shape, name, same
        self._undo: tuple[Tensor, Tensor] | None = None
        self._is_known = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W) float32 as the teacher needs them."""
        if not self._is_known:
            self.compare(images.device)
        if self._undo is None:
            return images
        shift, scale = self._undo
        found: Tensor = self.theirs((images - shift) / scale)
        return found

    @torch.no_grad()
    def compare(self, device: torch.device) -> None:
        """Find out how the model's preprocessing is undone; ConfigError if it must be and cannot be."""
        own, theirs = self.own.state_dict(), self.theirs.state_dict()
        self._is_known = True
        if self.same and all(torch.equal(own[name], theirs[name]) for name in own):
            return
        first, last = (self.own(torch.full((1, *self.shape), value, device=device)) for value in (0.0, _WHITE))
        scale = (last - first) / _WHITE
        trial = torch.rand((1, *self.shape), generator=torch.Generator().manual_seed(0)).to(device) * _WHITE
        undone = (self.own(trial) - first) / scale
        if not bool((scale != 0).all()) or not torch.allclose(undone, trial, rtol=1e-3, atol=0.05):
            raise ConfigError(
                f"distillation.teacher: its images had another preprocessing, and preprocess={self.name} cannot be "
                "undone; use the teacher's option and data, or preprocess=standardize"
            )
        self._undo = (first, scale)
