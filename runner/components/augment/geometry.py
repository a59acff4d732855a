"""Geometric augmentations around the image center, with bilinear resampling.

`mode` fills what comes in from outside: `zeros` (black), `border` (nearest pixel) or `reflect` (mirrored image).
"""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from runner.components.augment.warp import Geometric, Grid, Mode, make_geometric, uniform_between
from runner.engine.contracts import Draws
from runner.registry import register
from runner.schema import HalfOpenUnit, Range, Unit

_Shape = tuple[int, int, int]


@register("augment")
def rotate(*, degrees: Annotated[float, Range(0, 180)], mode: Mode) -> Geometric:
    """Rotate each image around its center by a uniform angle; a positive angle is counter-clockwise.

    Args:
        degrees: Largest angle in degrees, either way, in [0, 180].
        mode: Fill mode.
    """

    def trace(grid: Grid, draws: Draws) -> Grid:
        angle = uniform_between(draws.uniform[:, 0], -math.radians(degrees), math.radians(degrees))
        return rotate_grid(grid, angle)

    return make_geometric(trace, uniforms=1, mode=mode)


@register("augment")
def translate(shape: _Shape, *, fraction: Unit, mode: Mode) -> Geometric:
    """Translate each image by a uniform whole number of pixels along both axes.

    Args:
        shape: Image shape (C, H, W).
        fraction: Largest translation as a share of width and height, either way, in [0, 1].
        mode: Fill mode.
    """
    far = [int(fraction * length) for length in (shape[2], shape[1])]

    def trace(grid: Grid, draws: Draws) -> Grid:
        right, down = ((uniform_between(draws.uniform[:, i], 0, 2 * far[i] + 1)).floor() - far[i] for i in (0, 1))
        return grid[0] - right, grid[1] - down

    return make_geometric(trace, uniforms=2, mode=mode)


@register("augment")
def shear(*, degrees: Annotated[float, Range(0, 90, open_high=True)], mode: Mode) -> Geometric:
    """Shear each image along x, then along y, by independent uniform angles.

    Args:
        degrees: Largest angle in degrees, either way, in [0, 90).
        mode: Fill mode.
    """

    def trace(grid: Grid, draws: Draws) -> Grid:
        across, down = (
            uniform_between(draws.uniform[:, i], -math.radians(degrees), math.radians(degrees)).tan() for i in (0, 1)
        )
        return _shear_grid(grid, across, down)

    return make_geometric(trace, uniforms=2, mode=mode)


@register("augment")
def stretch(*, factor: Annotated[float, Range(1)], mode: Mode) -> Geometric:
    """Scale width and height by independent log-uniform factors.

    Args:
        factor: Factors lie in [1 / factor, factor]; >= 1.
        mode: Fill mode.
    """

    def trace(grid: Grid, draws: Draws) -> Grid:
        wide, high = (uniform_between(draws.uniform[:, i], -math.log(factor), math.log(factor)).exp() for i in (0, 1))
        return grid[0] / wide, grid[1] / high

    return make_geometric(trace, uniforms=2, mode=mode)


@register("augment")
def lens_distortion(shape: _Shape, *, strength: Annotated[float, Range(0, 1 / 3)], mode: Mode) -> Geometric:
    """Distort each image like a wide-angle (barrel) or long (pincushion) lens (Brown 1966, first radial term).

    The pixel at radius r shows the image at r (1 + k r^2); r is 1 in the corners and k uniform.

    Args:
        shape: Image shape (C, H, W).
        strength: Largest |k|, in [0, 1/3].
        mode: Fill mode.
    """
    corner = (shape[1] ** 2 + shape[2] ** 2) / 4

    def trace(grid: Grid, draws: Draws) -> Grid:
        k = uniform_between(draws.uniform[:, 0], -strength, strength)
        farther = 1 + k * (grid[0].square() + grid[1].square()) / corner
        return grid[0] * farther, grid[1] * farther

    return make_geometric(trace, uniforms=1, mode=mode)


@register("augment")
def perspective(shape: _Shape, *, distortion: HalfOpenUnit, mode: Mode) -> Geometric:
    """Move each corner inwards by a random amount, as if the image were seen at an angle.

    Args:
        shape: Image shape (C, H, W).
        distortion: Largest shift of a corner as a share of half the width and height, in [0, 1).
        mode: Fill mode.
    """
    x, y = (shape[2] - 1) / 2, (shape[1] - 1) / 2

    def trace(grid: Grid, draws: Draws) -> Grid:
        # Distance of each corner from the center, relative to an undistorted one
        share = (1 - distortion * draws.uniform)[:, :, None, None]
        signs = ((-x, -y), (x, -y), (x, y), (-x, y))
        corners = [(share[:, 2 * i] * right, share[:, 2 * i + 1] * down) for i, (right, down) in enumerate(signs)]
        across, down = _to_unit_square(grid, corners)
        return (2 * across - 1) * x, (2 * down - 1) * y

    return make_geometric(trace, uniforms=8, mode=mode)


def rotate_grid(grid: Grid, angle: Tensor) -> Grid:
    """Return the source coordinates for a counter-clockwise rotation by `angle` (radians; y points down)."""
    cos, sin = angle.cos(), angle.sin()
    return grid[0] * cos - grid[1] * sin, grid[0] * sin + grid[1] * cos


def _shear_grid(grid: Grid, across: Tensor, down: Tensor) -> Grid:
    """Return the source coordinates for a shear by `across` along x, then by `down` along y."""
    y = grid[1] + down * grid[0]
    return grid[0] + across * y, y


def _to_unit_square(grid: Grid, corners: list[Grid]) -> Grid:
    """Return coordinates in a quadrilateral as those of the unit square of which it is the perspective image.

    `corners` are the images of (0, 0), (1, 0), (1, 1) and (0, 1). The map from the square has a closed form (Heckbert
    1989, section 2.2.3). Its inverse is the adjugate, because the scale of a homography does not matter; no system is
    solved.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    ax, bx, cx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    ay, by, cy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    size = ax * by - bx * ay
    g, h = (cx * by - bx * cy) / size, (ax * cy - cx * ay) / size
    a, b, c = x1 - x0 + g * x1, x3 - x0 + h * x3, x0
    d, e, f = y1 - y0 + g * y1, y3 - y0 + h * y3, y0
    x, y = grid
    across = (e - f * h) * x + (c * h - b) * y + (b * f - c * e)
    down = (f * g - d) * x + (a - c * g) * y + (c * d - a * f)
    depth = (d * h - e * g) * x + (b * g - a * h) * y + (a * e - b * d)
    # Points behind the viewer land far outside the image
    depth = depth.clamp(min=1e-6)
    return across / depth, down / depth
