"""Geometric augmentations against torchvision and scipy with the same parameters, and their fusion.

Bilinear values are compared within one level of 255: ours are rounded once, the oracles' sums run in another order.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import map_coordinates
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components.augment.warp import Geometric, fuse_geometric
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "augment"
SHAPES = [(1, 8, 8), (3, 12, 17), (4, 9, 6)]
BATCH = 12
GEOMETRIC = ["rotate", "translate", "shear", "stretch", "lens_distortion", "perspective"]


def augment(name: str, shape: tuple[int, int, int], **changes: Any) -> Augment:
    knobs = yaml.safe_load((CONF / f"{name}.yaml").read_text())[name]
    return build("augment", {"name": name, **knobs, **changes}, key=f"augment.{name}", shape=shape)


def images(shape: tuple[int, int, int], batch: int = BATCH) -> Tensor:
    return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


def draws(part: Augment, batch: int = BATCH, seed: int = 0) -> Draws:
    return Draws(torch.rand(batch, part.uniforms, generator=torch.Generator().manual_seed(seed)), 0)


def far(a: Tensor, b: Tensor | np.ndarray) -> float:
    return float(np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).max())


def read_at(image: Tensor, rows: np.ndarray, columns: np.ndarray, mode: str = "zeros") -> np.ndarray:
    """Read an image (C, H, W) between its pixels with scipy, in float64."""
    scipy_mode = {"zeros": "grid-constant", "border": "nearest", "reflect": "reflect"}[mode]
    channels = [map_coordinates(c, [rows, columns], order=1, mode=scipy_mode) for c in image.double().numpy()]
    return np.stack(channels)


def places(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return rows and columns of all pixels, and those of the center."""
    rows, columns = np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")
    return rows, columns, (shape[1] - 1) / 2, (shape[2] - 1) / 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rotate_is_torchvisions(shape: tuple[int, int, int]) -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment("rotate", shape, degrees=70), images(shape)
    drawn = draws(part)
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform[:, 0].tolist(), strict=True):
        assert far(out, TF.rotate(image, (2 * u - 1) * 70, InterpolationMode.BILINEAR)) <= 1


def test_a_quarter_turn_is_exact_and_counter_clockwise() -> None:
    batch = images((3, 8, 8))
    part = augment("rotate", (3, 8, 8), degrees=90)
    assert torch.equal(part.apply(batch, Draws(torch.ones(BATCH, 1), 0)), torch.rot90(batch, 1, (2, 3)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_translate_and_shear_are_torchvisions(shape: tuple[int, int, int]) -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as TF

    batch = images(shape)
    move, slant = augment("translate", shape, fraction=0.4), augment("shear", shape, degrees=30)
    drawn, slanted = draws(move), draws(slant)
    found = zip(move.apply(batch, drawn), slant.apply(batch, slanted), strict=True)
    for i, (moved, bent) in enumerate(found):
        u, v = drawn.uniform[i].tolist()
        reach = (int(0.4 * shape[2]), int(0.4 * shape[1]))
        by = [int(u * (2 * reach[0] + 1)) - reach[0], int(v * (2 * reach[1] + 1)) - reach[1]]
        wanted = TF.affine(batch[i], 0, by, 1, [0, 0], InterpolationMode.BILINEAR)
        assert far(moved, wanted) == 0  # whole pixels: exact
        angles = [(2 * u - 1) * 30 for u in slanted.uniform[i].tolist()]
        wanted = TF.affine(batch[i], 0, [0, 0], 1, angles, InterpolationMode.BILINEAR)
        assert far(bent, wanted) <= 1


def test_translate_moves_by_every_number_of_pixels_equally_often() -> None:
    part = augment("translate", (1, 9, 9), fraction=0.25)
    batch = torch.zeros(5000, 1, 9, 9, dtype=torch.uint8)
    batch[:, 0, 4, 4] = 255
    seen = part.apply(batch, draws(part, 5000)).flatten(1).argmax(1).bincount(minlength=81).view(9, 9)
    assert seen.sum() == seen[2:7, 2:7].sum() and (seen[2:7, 2:7] - 200).abs().max() < 4 * 14


@pytest.mark.parametrize("mode", ["zeros", "border", "reflect"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stretch_reads_where_the_factors_say(shape: tuple[int, int, int], mode: str) -> None:
    part, batch = augment("stretch", shape, factor=2.0, mode=mode), images(shape)
    drawn = draws(part)
    rows, columns, middle, center = places(shape)
    for image, out, (u, v) in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        wide, high = 2 ** (2 * u - 1), 2 ** (2 * v - 1)
        wanted = read_at(image, (rows - middle) / high + middle, (columns - center) / wide + center, mode)
        assert far(out, wanted) <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lens_distortion_reads_where_browns_formula_says(shape: tuple[int, int, int]) -> None:
    part, batch = augment("lens_distortion", shape, strength=0.3), images(shape)
    drawn = draws(part)
    rows, columns, middle, center = places(shape)
    squared = ((rows - middle) ** 2 + (columns - center) ** 2) / ((shape[1] / 2) ** 2 + (shape[2] / 2) ** 2)
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform[:, 0].tolist(), strict=True):
        farther = 1 + (2 * u - 1) * 0.3 * squared
        wanted = read_at(image, (rows - middle) * farther + middle, (columns - center) * farther + center)
        assert far(out, wanted) <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_perspective_is_the_homography_of_its_corners(shape: tuple[int, int, int]) -> None:
    part, batch = augment("perspective", shape, distortion=0.8), images(shape)
    drawn = draws(part)
    rows, columns, middle, center = places(shape)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * [center, middle]
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform.double().numpy(), strict=True):
        seen = corners * (1 - 0.8 * u.reshape(4, 2))  # where the corners are drawn
        equations = []
        for (x, y), (a, b) in zip(seen, corners, strict=True):
            equations += [[x, y, 1, 0, 0, 0, -a * x, -a * y], [0, 0, 0, x, y, 1, -b * x, -b * y]]
        h = np.append(np.linalg.solve(np.array(equations), corners.ravel()), 1).reshape(3, 3)
        across, down, depth = h @ np.stack([columns - center, rows - middle, rows * 0 + 1]).reshape(3, -1)
        assert (depth > 0).all()
        found = (down / depth + middle).reshape(shape[1:]), (across / depth + center).reshape(shape[1:])
        assert far(out, read_at(image, *found)) <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_resized_crop_is_torchvisions(shape: tuple[int, int, int]) -> None:
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment("resized_crop", shape, scale=[0.1, 1.0], ratio=[0.5, 2.0]), images(shape, 60)
    drawn = draws(part, 60)
    _, height, width = shape
    whole = 0
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        window = torchvisions_window(image, u, [0.1, 1.0], [0.5, 2.0])
        assert far(out, TF.resized_crop(image, *window, [height, width])) <= 1
        whole += window[2:] == (height, width)
    assert whole < 20


def torchvisions_window(image: Tensor, uniform: list[float], scale: list[float], ratio: list[float]) -> tuple[int, ...]:
    """Return top, left, height and width that torchvision's RandomResizedCrop draws from given random numbers."""
    from torchvision.transforms import RandomResizedCrop

    # In the order in which torchvision asks: area and aspect ratio of each try, then top and left
    asked = iter([number for pair in zip(uniform[:10], uniform[10:20], strict=True) for number in pair])
    place = iter([uniform[21], uniform[20]])

    class Given:
        def __init__(self, size: int) -> None:
            assert size == 1

        def uniform_(self, low: float, high: float) -> Tensor:
            return torch.tensor([float(low) + next(asked) * (float(high) - float(low))])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.empty", Given)
        patch.setattr("torch.randint", lambda low, high, size: torch.tensor([low + int(next(place) * (high - low))]))
        return RandomResizedCrop.get_params(image, scale, ratio)


RESIZED = [([0.08, 1.0], [0.75, 4 / 3]), ([0.9, 1.0], [0.75, 4 / 3]), ([1.0, 1.0], [0.2, 0.3]), ([0.5, 1], [3.0, 4.0])]


@pytest.mark.parametrize(("scale", "ratio"), RESIZED)
@pytest.mark.parametrize("shape", [(1, 24, 64), (1, 64, 24), (1, 17, 17), (1, 1, 9), (1, 8, 3)], ids=str)
def test_windows_are_drawn_again_as_torchvision_draws_them(
    shape: tuple[int, int, int], scale: list[float], ratio: list[float]
) -> None:
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment("resized_crop", shape, scale=scale, ratio=ratio), images(shape, 60)
    drawn = draws(part, 60)
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        window = torchvisions_window(image, u, scale, ratio)
        if min(window[2:]) == 0:
            continue  # torchvision's last resort may be empty, ours has at least one pixel
        assert far(out, TF.resized_crop(image, *window, list(shape[1:]))) <= 1


def test_the_mean_area_of_a_window_is_torchvisions_in_wide_images() -> None:
    """The slope of a ramp in the crop is the window's share of each side: 0.248 of 24x64 in the mean, never clipped."""
    shape = (1, 24, 64)
    part, count = augment("resized_crop", shape), 4000
    assert isinstance(part, Geometric)
    grid = (torch.arange(64.0)[None, None] - 31.5, torch.arange(24.0)[None, :, None] - 11.5)
    x, y = part.trace(grid, draws(part, count))
    wide, high = (x[:, 0, 32] - x[:, 0, 31]) * 64, (y[:, 12, 0] - y[:, 11, 0]) * 24
    areas = (wide.double() * high.double() / (24 * 64)).numpy()
    assert abs(areas.mean() - 0.248) < 0.01
    assert (wide / high).max() < 4 / 3 * 1.4 and (wide / high).min() > 3 / 4 / 1.4


@pytest.mark.parametrize("place", [(0.0, 0.0), (1.0, 1.0), (0.4, 0.8)])
def test_short_side_enlarges_and_cuts_a_window(place: tuple[float, float]) -> None:
    from torchvision.transforms.v2 import functional as TF

    shape = (3, 10, 12)
    part, batch = augment("short_side", shape, low=1.5, high=1.5), images(shape)
    left, top = round(place[0] * 6), round(place[1] * 5)  # of 18 - 12 and 15 - 10 pixels that are too many
    drawn = Draws(torch.tensor([[0.5, left / 6, top / 5]]).expand(BATCH, 3), 0)
    wanted = TF.resize(batch, [15, 18])[:, :, top : top + 10, left : left + 12]
    assert far(part.apply(batch, drawn), wanted) <= 1


@pytest.mark.parametrize("name", [*GEOMETRIC, "resized_crop", "short_side"])
def test_no_reach_leaves_images_as_they_are(name: str) -> None:
    still = {
        "rotate": {"degrees": 0},
        "translate": {"fraction": 0.0},
        "shear": {"degrees": 0},
        "stretch": {"factor": 1},
        "lens_distortion": {"strength": 0.0},
        "perspective": {"distortion": 0.0},
        "resized_crop": {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]},
        "short_side": {"low": 1, "high": 1},
    }
    for shape in ((3, 16, 16), (1, 31, 31)):
        part, batch = augment(name, shape, **still[name]), images(shape)
        assert torch.equal(part.apply(batch, draws(part)), batch)


# Fusing


def test_neighbors_of_one_mode_become_one_and_others_stay() -> None:
    shape = (3, 12, 12)
    parts = [augment(name, shape) for name in GEOMETRIC]
    flip, border = augment("hflip", shape), augment("rotate", shape, mode="border")
    fused = fuse_geometric([*parts, flip, *parts[:2], border])
    assert len(fused) == 4 and fused[1] is flip and fused[3] is border
    assert fused[0].uniforms == sum(part.uniforms for part in parts)
    assert fused[2].uniforms == 3
    assert fuse_geometric([]) == [] and fuse_geometric([flip, border]) == [flip, border]


def test_five_neighbors_cost_one_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, calls = (3, 12, 12), []
    real = torch.nn.functional.grid_sample
    monkeypatch.setattr("torch.nn.functional.grid_sample", lambda *a, **k: calls.append(1) or real(*a, **k))
    (fused,) = fuse_geometric([augment(name, shape) for name in GEOMETRIC[:5]])
    fused.apply(images(shape), draws(fused))
    assert len(calls) == 1


def test_a_fused_pair_does_both_in_order() -> None:
    """Two quarter turns about a translation: moves of whole pixels, so that resampling twice loses nothing."""
    shape, batch = (3, 9, 9), images((3, 9, 9))
    batch[:, :, :3] = batch[:, :, 6:] = batch[:, :, :, :3] = batch[:, :, :, 6:] = 0  # nothing leaves the frame
    turn, move = augment("rotate", shape, degrees=90), augment("translate", shape, fraction=0.34)
    first, second = Draws(torch.ones(BATCH, 1), 0), draws(move)
    for pair, (a, b) in (((turn, move), (first, second)), ((move, turn), (second, first))):
        (fused,) = fuse_geometric(pair)
        both = Draws(torch.cat([a.uniform, b.uniform], 1), 0)
        assert torch.equal(fused.apply(batch, both), pair[1].apply(pair[0].apply(batch, a), b))


def test_three_fused_ops_read_where_their_maps_in_a_row_say() -> None:
    shape, batch = (1, 12, 17), images((1, 12, 17))
    names = ("stretch", "rotate", "translate")
    (fused,) = fuse_geometric([augment(name, shape) for name in names])
    drawn = draws(fused)
    rows, columns, middle, center = places(shape)
    for image, out, (s, t, r, u, v) in zip(batch, fused.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        x = columns - center - (int(u * 5) - 2)  # an eighth of 17 pixels, either way
        y = rows - middle - (int(v * 3) - 1)
        angle = math.radians((2 * r - 1) * 15)
        x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
        x, y = x / 1.2 ** (2 * s - 1), y / 1.2 ** (2 * t - 1)
        assert far(out, read_at(image, y + middle, x + center)) <= 1


def test_what_one_op_moves_out_the_next_brings_back_when_fused() -> None:
    shape = (1, 5, 5)
    move, batch = augment("translate", shape, fraction=0.4), images((1, 5, 5))
    there, back = torch.tensor([[0.99, 0.5]]), torch.tensor([[0.0, 0.5]])  # two pixels to the right, and to the left
    (fused,) = fuse_geometric([move, move])
    assert torch.equal(fused.apply(batch, Draws(torch.cat([there, back], 1).expand(BATCH, 4), 0)), batch)


def test_every_geometric_part_says_where_it_reads() -> None:
    for name in [*GEOMETRIC, "resized_crop", "short_side"]:
        assert isinstance(augment(name, (3, 8, 8)), Geometric)


def test_bounds_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment.resized_crop.scale: got \[0.5, 0.1\], must be \[low, high\]"):
        augment("resized_crop", (3, 8, 8), scale=[0.5, 0.1])
    with pytest.raises(ConfigError, match=r"augment.short_side.low: got 2.0, must be <= augment.short_side.high \(1\)"):
        augment("short_side", (3, 8, 8), low=2, high=1)
    with pytest.raises(ConfigError, match=r"augment.random_erasing.ratio: got \[1\], must be \[low, high\]"):
        augment("random_erasing", (3, 8, 8), ratio=[1])
