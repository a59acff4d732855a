"""The size of training images during a run; evaluation always uses full size."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from runner.engine.clock import Clock
from runner.engine.contracts import Resize
from runner.errors import ConfigError
from runner.registry import register
from runner.relations import InRun
from runner.schema import Duration, PositiveInt, Range

# (C, H, W)
_Shape = tuple[int, int, int]
# Steps whose sizes are looked at before the run: more than there are sizes
_MOST_LOOKED_AT = 4096
_Scale = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


class _Progressive:
    """Images of a size that grows with the step.

    Attributes:
        sizes: The sizes (height, width) below the full one, in their order.
        end: The steps after which images have full size.
    """

    def __init__(self, full: tuple[int, int], scale: float, begin: int, end: int, multiple: int) -> None:
        self._full, self._scale, self._begin, self._multiple = full, scale, begin, multiple
        self.end = end
        stride = max(1, (end - begin) // _MOST_LOOKED_AT)
        found = dict.fromkeys(self._size_after(step) for step in range(begin, end, stride))
        self.sizes = [size for size in found if size != full]

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """Return images (B, C, H, W) in the size of the step that follows `step` ones."""
        size = self._size_after(step)
        if size == tuple(images.shape[2:]):
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)

    def _size_after(self, step: int) -> tuple[int, int]:
        """Return height and width after some steps."""
        if step >= self.end:
            return self._full
        done = max(0, step - self._begin) / (self.end - self._begin) if self.end > self._begin else 0.0
        share = self._scale + (1 - self._scale) * done
        height, width = (self._rounded(side * share, side) for side in self._full)
        return height, width

    def _rounded(self, length: float, side: int) -> int:
        """Return a length as the nearest multiple, halves upwards, from one multiple to the full side."""
        return min(side, self._multiple * max(1, int(length / self._multiple + 0.5)))


@register("resize")
def none() -> Resize:
    """Return images of full size in all steps."""
    return lambda images, step: images


@register("resize")
def progressive(
    shape: _Shape,
    clock: Clock,
    *,
    start_scale: _Scale,
    begin: Annotated[Duration, InRun(zero=True, rounds=True, within="end")],
    end: Annotated[Duration, InRun(end=True)],
    multiple: PositiveInt,
) -> Resize:
    """Return progressive resizing: training images start small and grow linearly to full size (fastai, Composer).

    Images are reduced after augmentation, preprocessing and mixing, bilinear with antialiasing. The model must take
    every size, as convolutions with global pooling do.

    Args:
        shape: Image shape (C, H, W).
        clock: The length of the run.
        start_scale: Share of both sides at the start, in (0, 1).
        begin: Duration after which images grow.
        end: Duration after which they have full size, at least `begin`.
        multiple: Sides are rounded to a multiple of so many pixels, and never above full size.

    Raises:
        ConfigError: The first images have full size already.
    """
    until = max(1, clock.steps(end))
    made = _Progressive(shape[1:], start_scale, min(clock.steps(begin), until - 1), until, multiple)
    if not made.sizes:
        raise ConfigError(
            f"resize.start_scale: got {start_scale:g}, which leaves images of {shape[1]}x{shape[2]} as they are with "
            f"resize.multiple={multiple}; choose smaller ones"
        )
    return made
