"""Flips, crops and erasing: pixel by pixel against torchvision or a loop over images, and statistics of the draws."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from runner import components  # noqa: F401  (registers all)
from runner.components.augment.pixels import crop_windows
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "augment"
SIZES = [(1, 8, 8), (3, 12, 10), (4, 9, 16)]
LARGER = (3, 19, 18)  # for equalize, which leaves images of fewer than 256 pixels as they are


def augment(name: str, shape: tuple[int, int, int] = (3, 12, 10), **changes: Any) -> Augment:
    knobs = yaml.safe_load((CONF / f"{name}.yaml").read_text())[name]
    return build("augment", {"name": name, **knobs, **changes}, key=f"augment.{name}", shape=shape)


def images(shape: tuple[int, int, int], batch: int = 40) -> Tensor:
    return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


def draws(part: Augment, batch: int = 40, seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(torch.rand(batch, part.uniforms, generator=torch.Generator().manual_seed(seed)), epoch)


@pytest.mark.parametrize("name", names("augment"))
@pytest.mark.parametrize("shape", [*SIZES, LARGER], ids=str)
def test_an_image_does_not_depend_on_the_batch_it_is_in(name: str, shape: tuple[int, int, int]) -> None:
    if name in ("pca_color", "grayscale") and shape[0] != 3:
        with pytest.raises(ConfigError, match=r"must be 3 \(red, green, blue\)"):
            augment(name, shape)
        return
    if name == "equalize" and shape != LARGER:
        with pytest.raises(
            ConfigError, match=r"augment.equalize: got images of \d+x\d+, must have at least 256 pixels"
        ):
            augment(name, shape)
        return
    part, batch = augment(name, shape), images(shape)
    drawn = draws(part)
    whole = part.apply(batch, drawn)
    assert whole.shape == batch.shape and whole.dtype == torch.uint8
    order = torch.randperm(40, generator=torch.Generator().manual_seed(9))[:7]
    some = part.apply(batch[order], Draws(drawn.uniform[order], 0))
    assert torch.equal(some, whole[order])
    one = part.apply(batch[3:4], Draws(drawn.uniform[3:4], 0))
    assert torch.equal(one, whole[3:4])


class WithoutWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device: reading a number, and shapes that depend on values."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        word = op.overloadpacket.__name__
        assert word not in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero"), word
        masks = (
            [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)] if word == "index" else []
        )
        assert not masks, "indexed by a mask"
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", names("augment"))
def test_no_augmentation_waits_for_the_device(name: str) -> None:
    part, batch = augment(name, LARGER), images(LARGER)
    drawn = draws(part)
    for _ in range(2):  # what is kept from the first batch on is made without waiting, too
        with WithoutWaiting():
            part.apply(batch, drawn)
    with pytest.raises(AssertionError, match="indexed by a mask"), WithoutWaiting():
        batch[drawn.uniform[:, 0] < 0.5]
    with pytest.raises(AssertionError, match="_local_scalar_dense"), WithoutWaiting():
        float(drawn.uniform[0, 0])


@pytest.mark.parametrize("name", names("augment"))
def test_an_augmentation_changes_something_and_never_its_input(name: str) -> None:
    more = {"p": 0.5} if name == "grayscale" else {}  # by default it changes one image of five
    part, batch = augment(name, LARGER, **more), images(LARGER)
    before, state = batch.clone(), torch.get_rng_state()
    changed = part.apply(batch, draws(part))
    assert torch.equal(batch, before) and torch.equal(torch.get_rng_state(), state)
    assert np.mean([not torch.equal(a, b) for a, b in zip(changed, batch, strict=True)]) > 0.3
    assert torch.equal(changed, part.apply(batch, draws(part)))


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("name", "oracle"), [("hflip", "hflip"), ("vflip", "vflip")])
def test_flips_are_torchvisions(name: str, oracle: str, shape: tuple[int, int, int]) -> None:
    from torchvision.transforms import functional as TF

    part, batch = augment(name, shape, p=0.3), images(shape)
    drawn = draws(part)
    found = part.apply(batch, drawn)
    for image, out, u in zip(batch, found, drawn.uniform[:, 0], strict=True):
        assert torch.equal(out, getattr(TF, oracle)(image) if u < 0.3 else image)


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_a_flip_happens_as_often_as_it_should(p: float) -> None:
    part = augment("hflip", (1, 1, 2), p=p)
    batch = torch.tensor([0, 1], dtype=torch.uint8).view(1, 1, 1, 2).expand(4000, 1, 1, 2)
    share = part.apply(batch, draws(part, 4000))[:, 0, 0, 0].double().mean().item()
    assert abs(share - p) <= 4 * (p * (1 - p) / 4000) ** 0.5


def test_alternating_flip_shows_both_forms_in_any_two_epochs_in_a_row() -> None:
    part, batch = augment("alternating_flip"), images((3, 12, 10), 400)
    assert not part.per_epoch
    epochs = [part.apply(batch, draws(part, 400, epoch=epoch)) for epoch in range(4)]
    for first, second in itertools.pairwise(epochs):
        assert torch.equal(first, second.flip(3))
    assert torch.equal(epochs[0], epochs[2])
    kept = np.mean([torch.equal(a, b) for a, b in zip(epochs[0], batch, strict=True)])
    assert 0.4 < kept < 0.6


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_crop_is_bit_equal_to_slicing_image_by_image(mode: str, shape: tuple[int, int, int]) -> None:
    part, batch = augment("crop", shape, padding=3, mode=mode), images(shape)
    drawn = draws(part)
    found = part.apply(batch, drawn)
    _, height, width = shape
    for image, out, (u, v) in zip(batch, found, drawn.uniform.tolist(), strict=True):
        how = {"zeros": "constant", "reflect": "reflect"}[mode]
        padded = np.pad(image.numpy(), ((0, 0), (3, 3), (3, 3)), how)
        top, left = int(u * 7), int(v * 7)
        assert np.array_equal(out.numpy(), padded[:, top : top + height, left : left + width])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_windows_are_slices_whatever_the_batch_and_its_layout(channels: int) -> None:
    whole = images((channels, 9, 11), 24)
    laid_out = whole.contiguous(memory_format=torch.channels_last)
    drawn = torch.rand(24, 2, generator=torch.Generator().manual_seed(1))
    top, left = (drawn * torch.tensor([9 - 4 + 1, 11 - 6 + 1])).long().unbind(1)
    slices = [image[:, t : t + 4, x : x + 6] for image, t, x in zip(whole, top.tolist(), left.tolist(), strict=True)]
    for batch in (whole, laid_out):
        for first, last in ((0, 24), (7, 8), (5, 24), (23, 24)):  # parts of one memory, not at its start
            part = slice(first, last)
            found = crop_windows(batch[part], top[part], left[part], (4, 6))
            assert torch.equal(found, torch.stack(slices[part]))


@pytest.mark.parametrize(
    ("share", "shape", "pixels"), [(0.125, (1, 8, 8), 1), (0.3, (3, 12, 10), 3), (0.01, (3, 12, 10), 1)]
)
def test_a_padding_below_1_is_a_share_of_the_shorter_side(
    share: float, shape: tuple[int, int, int], pixels: int
) -> None:
    batch, part = images(shape), augment("crop", shape, padding=share)
    assert torch.equal(part.apply(batch, draws(part)), augment("crop", shape, padding=pixels).apply(batch, draws(part)))


def test_crop_takes_every_place_equally_often() -> None:
    part = augment("crop", (1, 4, 4), padding=1)
    batch = torch.zeros(9000, 1, 4, 4, dtype=torch.uint8)
    batch[:, 0, 1, 1] = 1
    place = part.apply(batch, draws(part, 9000)).flatten(1).argmax(1).bincount(minlength=16).view(4, 4)
    assert (place[:3, :3] - 1000).abs().max() < 4 * 30 and place[:3, :3].sum() == 9000
    last = part.apply(batch[:1], Draws(torch.full((1, 2), 1 - 2**-24), 0))  # the largest number that torch draws
    assert last[0, 0, 0, 0] == 1


def test_a_reflection_wider_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment.crop.padding: got 8, must be < 8 to reflect"):
        augment("crop", (1, 8, 8), padding=8, mode="reflect")
    batch = images((1, 8, 8))
    assert augment("crop", (1, 8, 8), padding=8).apply(batch, Draws(torch.rand(40, 2), 0)).shape == batch.shape


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("size", [1, 4, 5, 13])
def test_cutout_covers_the_square_round_its_pixel_and_nothing_else(shape: tuple[int, int, int], size: int) -> None:
    part, batch = augment("cutout", shape, size=size, fill=7), images(shape)
    drawn = draws(part)
    found = part.apply(batch, drawn)
    _, height, width = shape
    for image, out, (u, v) in zip(batch, found, drawn.uniform.tolist(), strict=True):
        wanted = image.clone()
        for y in range(height):
            for x in range(width):
                dy, dx = y - int(u * height), x - int(v * width)
                if -(size // 2) <= dy < size - size // 2 and -(size // 2) <= dx < size - size // 2:
                    wanted[:, y, x] = 7
        assert torch.equal(out, wanted)


def test_crop_then_flip_equals_padding_by_torch_and_slicing() -> None:
    """The pair that every CIFAR recipe uses, in order."""
    batch = images((3, 12, 10))
    crop, flip = augment("crop", padding=4), augment("hflip", p=1.0)
    drawn = draws(crop)
    found = flip.apply(crop.apply(batch, drawn), draws(flip))
    padded = F.pad(batch, [4] * 4)
    for i, (u, v) in enumerate(drawn.uniform.tolist()):
        top, left = int(u * 9), int(v * 9)
        assert torch.equal(found[i], padded[i, :, top : top + 12, left : left + 10].flip(2))
