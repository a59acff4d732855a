"""Random resized crops of photographs: distribution of the windows, and pixels against torchvision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from running import ROOT
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from runner import components  # noqa: F401  (registers all)
from runner.components.data.pixels.decode import CropBounds, _random_crop_box
from runner.components.data.pixels.image_files import ImageFiles
from runner.engine.contracts import Data
from runner.errors import ConfigError
from runner.registry import build

YAML = yaml.safe_load((ROOT / "conf" / "data" / "imagefolder.yaml").read_text())
CROP = CropBounds((0.08, 1.0), (3 / 4, 4 / 3))
SIZES = [(500, 375), (375, 500), (32, 32), (300, 40), (7, 90), (1, 1)]


def drawn(count: int) -> list[list[float]]:
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("size", SIZES)
def test_a_window_lies_in_the_image(size: tuple[int, int]) -> None:
    for uniforms in [[0.0] * 4, [0.999999] * 4, *drawn(500)]:
        left, top, wide, tall = _random_crop_box(size, CROP, uniforms)
        assert left >= 0 and top >= 0 and wide >= 1 and tall >= 1
        assert left + wide <= size[0] and top + tall <= size[1]


def test_areas_and_ratios_are_spread_as_promised() -> None:
    """Kolmogorov's distance to the even spread, at the 1e-4 quantile (2.23 / sqrt n); no window here has to be cut."""
    size, crop, count = (4000, 4000), CropBounds((0.1, 0.5), (3 / 4, 4 / 3)), 2000
    places = np.array([_random_crop_box(size, crop, uniforms) for uniforms in drawn(count)])
    area = places[:, 2] * places[:, 3] / (size[0] * size[1])
    ratio = np.log(places[:, 2] / places[:, 3])
    left = places[:, 0] / (size[0] - places[:, 2])
    for values, low, high in ((area, 0.1, 0.5), (ratio, math.log(3 / 4), math.log(4 / 3)), (left, 0.0, 1.0)):
        even = np.sort((values - low) / (high - low))
        assert np.abs(even - (np.arange(count) + 0.5) / count).max() < 2.23 / math.sqrt(count)


def test_area_and_ratio_are_kept_even_where_the_image_is_narrow() -> None:
    for uniforms in drawn(500):
        _, _, wide, tall = _random_crop_box((800, 500), CROP, uniforms)
        assert 3 / 4 - 0.01 < wide / tall < 4 / 3 + 0.01
    assert _random_crop_box((300, 40), CROP, [0.9, 0.5, 0.0, 0.0])[2:] == (53, 40)  # as wide as 4:3 allows


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve photographs of 400 x 300: smooth colors, edges and a little noise, as JPEG; one stands on its side."""
    random = np.random.default_rng(0)
    for number in range(12):
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((400, 300), Image.Resampling.BICUBIC)).astype(int)
        image[100:200, 150:250] = random.integers(0, 256, 3)
        path = tmp_path / "root" / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number == 3:
            exif[0x0112] = 6
        noisy = (image + random.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=92, exif=exif)
    return tmp_path / "root"


def imagefolder(root: Path, **changes: Any) -> Data:
    values = {"root": str(root), "cache": None, "crop": "resized", "test_fraction": 0.0, "val_fraction": 0.2, **changes}
    return build("data", {**YAML, **values})


def wanted(path: str, size: tuple[int, int], uniforms: list[float]) -> np.ndarray:
    """Return the window as torchvision cuts it from the whole image."""
    with Image.open(path) as image:
        upright = image.transpose(Image.Transpose.ROTATE_270) if image.getexif().get(0x0112) == 6 else image
        left, top, wide, tall = _random_crop_box(upright.size, CROP, uniforms)
        cut = F.resized_crop(upright.convert("RGB"), top, left, tall, wide, list(size), InterpolationMode.BILINEAR)
        return np.asarray(cut).transpose(2, 0, 1)


def training(root: Path, size: tuple[int, int]) -> ImageFiles:
    split = imagefolder(root, size=list(size), crop_ratio=list(CROP.ratio)).train
    assert isinstance(split, ImageFiles)
    assert split.uniforms == 4
    return split


def test_windows_are_torchvisions_where_the_image_is_decoded_whole(root: Path) -> None:
    split = training(root, (160, 120))
    count = len(split.files)
    for uniforms in torch.rand(4, count, 4, generator=torch.Generator().manual_seed(0)):
        made = split.fetch(torch.arange(count), uniforms)
        for path, image, draw in zip(split.files, made, uniforms.tolist(), strict=True):
            assert np.array_equal(image.numpy(), wanted(path, (160, 120), draw)), path


def test_windows_are_close_to_torchvisions_where_it_is_decoded_at_a_fraction(root: Path) -> None:
    """Tolerance: a mean difference of 1.5 of 255 in each image, 12 at any pixel (of an edge)."""
    split = training(root, (24, 24))
    count = len(split.files)
    fractions = 0
    for uniforms in torch.rand(4, count, 4, generator=torch.Generator().manual_seed(0)):
        made = split.fetch(torch.arange(count), uniforms)
        for path, image, draw in zip(split.files, made, uniforms.tolist(), strict=True):
            difference = np.abs(image.numpy().astype(int) - wanted(path, (24, 24), draw))
            assert difference.mean() < 1.5 and difference.max() <= 12, (path, difference.mean(), difference.max())
            fractions += difference.any()
    assert fractions > count  # many were decoded at a fraction, or this shows nothing


def test_the_same_numbers_give_the_same_windows_and_others_give_others(root: Path) -> None:
    split = training(root, (32, 32))
    index = torch.tensor([3, 1, 3])
    uniforms = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    first = split.fetch(index, uniforms)
    assert torch.equal(split.fetch(index, uniforms), first)
    assert not torch.equal(first[0], first[2])
    assert torch.equal(split.fetch(index.flip(0), uniforms.flip(0)).flip(0), first)  # whatever else is in the batch


@pytest.mark.parametrize("share", [1.0, 0.875])
def test_evaluation_looks_at_the_center(root: Path, share: float) -> None:
    """As Resize(32 / share) and CenterCrop(32), but in one step and without rounding the first to whole pixels."""
    found = imagefolder(root, size=[32, 32], center=share)
    assert isinstance(found.val, ImageFiles)
    made = found.val.fetch(torch.arange(len(found.val.labels)))
    for path, image in zip(found.val.files, made, strict=True):
        with Image.open(path) as file:
            side = 300 * share
            box = (200 - side / 2, 150 - side / 2, 200 + side / 2, 150 + side / 2)
            cut = np.asarray(file.resize((32, 32), Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)
        assert np.abs(cut.astype(int) - image.numpy()).mean() < 1.5


def test_windows_cannot_be_kept(root: Path) -> None:
    assert imagefolder(root).placement == "disk"
    for placement in ("host", "device"):
        with pytest.raises(
            ConfigError, match=rf"data.placement: got '{placement}', must be 'auto' or 'disk' with crop=resized"
        ):
            imagefolder(root, placement=placement)


@pytest.mark.parametrize("knob", ["crop_scale", "crop_ratio"])
def test_bounds_are_in_order(root: Path, knob: str) -> None:
    with pytest.raises(ConfigError, match=rf"data.{knob}: got \[0.9, 0.5\], must be \[low, high\]"):
        imagefolder(root, **{knob: [0.9, 0.5]})
