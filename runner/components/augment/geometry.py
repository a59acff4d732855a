"""Rotations and other bendings of the plane, about the image's centre and with bilinear sampling."""

from __future__ import annotations

import math
from typing import Annotated

from torch import Tensor

from runner.components.augment.warp import Geometric, Grid, Mode, geometric, spread
from runner.engine.contracts import Draws
from runner.registry import register
from runner.schema import HalfOpenUnit, Range, Unit

Shape = tuple[int, int, int]


@register("augment")
def rotate(*, degrees: Annotated[float, Range(0, 180)], mode: Mode) -> Geometric:
    """Turn an image by an angle up to `degrees` either way; a positive angle is counter-clockwise."""

    def trace(grid: Grid, draws: Draws) -> Grid:
        angle = spread(draws.uniform[:, 0], -math.radians(degrees), math.radians(degrees))
        return turned(grid, angle)

    return geometric(trace, uniforms=1, mode=mode)


@register("augment")
def translate(shape: Shape, *, fraction: Unit, mode: Mode) -> Geometric:
    """Move an image by whole pixels, up to `fraction` of its width and of its height either way."""
    far = [int(fraction * length) for length in (shape[2], shape[1])]

    def trace(grid: Grid, draws: Draws) -> Grid:
        right, down = ((spread(draws.uniform[:, i], 0, 2 * far[i] + 1)).floor() - far[i] for i in (0, 1))
        return grid[0] - right, grid[1] - down

    return geometric(trace, uniforms=2, mode=mode)


@register("augment")
def shear(*, degrees: Annotated[float, Range(0, 90, open_high=True)], mode: Mode) -> Geometric:
    """Slant an image along x and then along y, each by an angle up to `degrees` either way."""

    def trace(grid: Grid, draws: Draws) -> Grid:
        across, down = (
            spread(draws.uniform[:, i], -math.radians(degrees), math.radians(degrees)).tan() for i in (0, 1)
        )
        return slanted(grid, across, down)

    return geometric(trace, uniforms=2, mode=mode)


@register("augment")
def stretch(*, factor: Annotated[float, Range(1)], mode: Mode) -> Geometric:
    """Scale width and height, each for itself, by 1 / `factor` to `factor` (even in its logarithm)."""

    def trace(grid: Grid, draws: Draws) -> Grid:
        wide, high = (spread(draws.uniform[:, i], -math.log(factor), math.log(factor)).exp() for i in (0, 1))
        return grid[0] / wide, grid[1] / high

    return geometric(trace, uniforms=2, mode=mode)


@register("augment")
def lens_distortion(shape: Shape, *, strength: Annotated[float, Range(0, 1 / 3)], mode: Mode) -> Geometric:
    """Bend an image like a wide-angle lens (barrel) or a long one (pincushion), with k up to `strength` either way.

    The pixel at distance r shows what was at r (1 + k r²), where r is 1 in the corners (Brown 1966, the first term).
    """
    corner = (shape[1] ** 2 + shape[2] ** 2) / 4

    def trace(grid: Grid, draws: Draws) -> Grid:
        k = spread(draws.uniform[:, 0], -strength, strength)
        farther = 1 + k * (grid[0].square() + grid[1].square()) / corner
        return grid[0] * farther, grid[1] * farther

    return geometric(trace, uniforms=1, mode=mode)


@register("augment")
def perspective(shape: Shape, *, distortion: HalfOpenUnit, mode: Mode) -> Geometric:
    """Draw each corner of an image inwards, by up to `distortion` of half its width and height, as if seen askew."""
    x, y = (shape[2] - 1) / 2, (shape[1] - 1) / 2

    def trace(grid: Grid, draws: Draws) -> Grid:
        share = (1 - distortion * draws.uniform)[:, :, None, None]  # of the way from the centre
        signs = ((-x, -y), (x, -y), (x, y), (-x, y))
        corners = [(share[:, 2 * i] * right, share[:, 2 * i + 1] * down) for i, (right, down) in enumerate(signs)]
        across, down = in_square(grid, corners)
        return (2 * across - 1) * x, (2 * down - 1) * y

    return geometric(trace, uniforms=8, mode=mode)


def turned(grid: Grid, angle: Tensor) -> Grid:
    """Return where the pixels of an image turned counter-clockwise by `angle` (radians; y points down) come from."""
    cos, sin = angle.cos(), angle.sin()
    return grid[0] * cos - grid[1] * sin, grid[0] * sin + grid[1] * cos


def slanted(grid: Grid, across: Tensor, down: Tensor) -> Grid:
    """Return where the pixels of an image slanted by `across` along x, then by `down` along y, come from."""
    y = grid[1] + down * grid[0]
    return grid[0] + across * y, y


def in_square(grid: Grid, corners: list[Grid]) -> Grid:
    """Return the places of a quadrilateral as those of the unit square that its perspective image shows.

    `corners` are those of (0, 0), (1, 0), (1, 1), (0, 1). The map from the square is known in closed form (Heckbert
    1989, section 2.2.3); the map back is its adjugate, as a homography's scale does not matter. So no system is solved.
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
    depth = depth.clamp(min=1e-6)  # behind the viewer: far outside
    return across / depth, down / depth
