"""Colors, erasing and the ops of random policies against torchvision on each image with the same parameters."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components.augment.policy import OpRanges
from runner.components.augment.policy_ops import OPS, apply_ops
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "augment"
SHAPES = [(1, 8, 8), (3, 12, 17), (4, 9, 6)]
BATCH = 20


def augment(name: str, shape: tuple[int, int, int], **changes: Any) -> Augment:
    knobs = yaml.safe_load((CONF / f"{name}.yaml").read_text())[name] or {}
    return build("augment", {"name": name, **knobs, **changes}, key=f"augment.{name}", shape=shape)


def images(shape: tuple[int, int, int], batch: int = BATCH) -> Tensor:
    """Smooth images over a part of the range of values, so that stretching them changes them."""
    small = torch.rand(batch, shape[0], 4, 4, generator=torch.Generator().manual_seed(4))
    return (20 + 200 * torch.nn.functional.interpolate(small, shape[1:], mode="bilinear")).to(torch.uint8)


def draws(part: Augment, batch: int = BATCH, seed: int = 0) -> Draws:
    return Draws(torch.rand(batch, part.uniforms, generator=torch.Generator().manual_seed(seed)), 0)


def largest_difference(a: Tensor, b: Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 17)], ids=str)
def test_color_jitter_is_torchvisions_on_floats_rounded(shape: tuple[int, int, int]) -> None:
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment("color_jitter", shape, brightness=0.9, contrast=0.7, saturation=1.5), images(shape)
    drawn = draws(part)
    for image, out, (a, b, c) in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        wanted = TF.adjust_brightness(image / 255, 0.1 + 1.8 * a)
        wanted = TF.adjust_contrast(wanted, 0.3 + 1.4 * b)
        wanted = TF.adjust_saturation(wanted, 2.5 * c)  # from 0 on, not from -0.5
        assert largest_difference(out, wanted * 255) <= 0.5 + 0.1  # its weights of gray have four digits


@pytest.mark.parametrize("hue", [0.0, 0.5])
def test_color_jitter_in_random_order_is_torchvisions_in_that_order(hue: float) -> None:
    from torchvision.transforms.v2 import functional as TF

    changes = {"brightness": 0.9, "contrast": 0.7, "saturation": 1.5, "hue": hue}
    part, batch = augment("color_jitter", (3, 12, 17), order="random", **changes), images((3, 12, 17), 60)
    drawn = draws(part, 60)
    orders, seen = list(itertools.permutations(range(3 + (hue > 0)))), set()
    for image, out, uniform in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        a, b, c = uniform[:3]
        ops = [
            lambda x, a=a: TF.adjust_brightness(x, 0.1 + 1.8 * a),
            lambda x, b=b: TF.adjust_contrast(x, 0.3 + 1.4 * b),
            lambda x, c=c: TF.adjust_saturation(x, 2.5 * c),
            lambda x, d=uniform[3]: TF.adjust_hue(x, 2 * hue * d - hue),
        ]
        order = orders[int(uniform[-1] * len(orders))]
        seen.add(order)
        wanted = image / 255
        for place in order:
            wanted = ops[place](wanted)
        assert largest_difference(out, wanted * 255) <= 0.5 + 0.2, order
    assert len(seen) > min(len(orders), 15) - 1


def test_hue_is_torchvisions_also_of_pure_colors_and_gray() -> None:
    from torchvision.transforms.v2 import functional as TF

    levels = torch.tensor([0, 1, 100, 254, 255], dtype=torch.uint8)
    cube = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 5, 25).repeat(40, 1, 1, 1)
    part = augment("color_jitter", (3, 5, 25), brightness=0, contrast=0, saturation=0, hue=0.5)
    drawn = draws(part, 40)
    drawn.uniform[:3, 3] = torch.tensor([0.0, 0.5, 1 - 2**-24])
    found = part.apply(cube, drawn)
    for image, out, u in zip(cube, found, drawn.uniform[:, 3].tolist(), strict=True):
        assert largest_difference(out, TF.adjust_hue(image / 255, u - 0.5) * 255) <= 0.51
    assert torch.equal(found[1], cube[1]), "half of the range turns nothing"


def test_hue_is_refused_for_images_without_one() -> None:
    with pytest.raises(ConfigError, match=r"^augment.color_jitter.hue: got 0.1, must be 0 for images of 1 channels"):
        augment("color_jitter", (1, 8, 8), hue=0.1)


def test_grayscale_is_torchvisions_where_it_happens() -> None:
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment("grayscale", (3, 12, 17), p=0.4), images((3, 12, 17))
    drawn = draws(part)
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform[:, 0].tolist(), strict=True):
        assert largest_difference(out, TF.rgb_to_grayscale(image / 255, 3) * 255 if u < 0.4 else image) <= 0.6


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 12, 27), (4, 19, 16)], ids=str)
@pytest.mark.parametrize(
    ("name", "knobs"),
    [("solarize", {"threshold": 100}), ("solarize", {"threshold": 0}), ("posterize", {"bits": 3}), ("equalize", {})],
)
def test_tones_are_torchvisions_where_they_happen(
    name: str, knobs: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment(name, shape, p=0.4, **knobs), images(shape)
    drawn = draws(part)
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform[:, 0].tolist(), strict=True):
        # Torchvision's equalize takes one or three channels
        channels = image.split(1) if name == "equalize" else [image]
        wanted = torch.cat([getattr(TF, name)(one, *knobs.values()) for one in channels])
        assert torch.equal(out, wanted if u < 0.4 else image)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel", [3, 9])
def test_blur_is_torchvisions_where_it_happens(kernel: int, shape: tuple[int, int, int]) -> None:
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment("blur", shape, p=0.6, sigma=[0.3, 3.0], kernel=kernel), images(shape)
    drawn = draws(part)
    for image, out, (u, v) in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        blurred = TF.gaussian_blur(image / 255, [kernel, kernel], [0.3 + 2.7 * v] * 2) * 255
        assert largest_difference(out, blurred if u < 0.6 else image) <= 0.501


def test_a_kernel_that_mirrors_more_than_the_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^augment.blur.kernel: got 17, must be <= 15 to mirror images of 8x8$"):
        augment("blur", (1, 8, 8), kernel=17)
    assert augment("blur", (1, 8, 8), kernel=15).apply(images((1, 8, 8)), Draws(torch.zeros(BATCH, 2), 0)).any()


def test_color_jitter_of_four_channels_takes_their_mean_as_grey() -> None:
    batch = images((4, 9, 6))
    part = augment("color_jitter", (4, 9, 6), brightness=0, contrast=0, saturation=1)
    out = part.apply(batch, Draws(torch.zeros(BATCH, 3), 0))
    assert largest_difference(out, batch.double().mean(1, keepdim=True).expand(batch.shape)) <= 0.5


def test_pca_color_shifts_along_imagenets_directions_by_normal_amounts() -> None:
    part = augment("pca_color", (3, 2, 2), std=0.5)
    batch = torch.full((20000, 3, 2, 2), 128, dtype=torch.uint8)
    shift = part.apply(batch, draws(part, 20000)).double()[:, :, 0, 0] - 128
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    along = shift.numpy() @ vectors  # the columns are directions
    assert np.allclose(along.std(0), 255 * 0.5 * np.array([0.2175, 0.0188, 0.0045]), rtol=0.03, atol=0.1)
    correlation = np.corrcoef(along.T)
    assert abs(correlation[0, 1]) < 0.05 and np.abs(along.mean(0)).max() < 1
    quantiles = np.quantile(along[:, 0] / along[:, 0].std(), [0.1587, 0.5, 0.8413])
    assert np.allclose(quantiles, [-1, 0, 1], atol=0.05)
    extreme = part.apply(batch[:2], Draws(torch.tensor([[0.0] * 3, [1 - 2**-24] * 3]), 0))
    assert (extreme[0] != extreme[1]).any()  # the least draw is not infinitely far


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_erasing_is_torchvisions_erase(shape: tuple[int, int, int]) -> None:
    from torchvision.transforms.v2 import functional as TF

    part, batch = augment("random_erasing", shape, p=0.7, scale=[0.05, 0.9], ratio=[0.3, 3], fill=9), images(shape)
    drawn = draws(part)
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        top, left, high, wide = torchvisions_box(image, u, [0.05, 0.9], [0.3, 3])
        erased = TF.erase(image, top, left, high, wide, torch.tensor(9, dtype=torch.uint8))
        assert torch.equal(out, erased if u[20] < 0.7 else image)


def torchvisions_box(image: Tensor, uniform: list[float], scale: list[float], ratio: list[float]) -> tuple[int, ...]:
    """Return top, left, height and width that torchvision's RandomErasing draws from given random numbers."""
    from torchvision.transforms import RandomErasing

    asked = iter([number for pair in zip(uniform[:10], uniform[10:20], strict=True) for number in pair])
    place = iter(uniform[21:23])

    class Given:
        def __init__(self, size: int) -> None:
            assert size == 1

        def uniform_(self, low: float, high: float) -> Tensor:
            return torch.tensor([float(low) + next(asked) * (float(high) - float(low))])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.empty", Given)
        patch.setattr("torch.randint", lambda low, high, size: torch.tensor([low + int(next(place) * (high - low))]))
        top, left, high, wide, erased = RandomErasing.get_params(image, scale, ratio, [9.0])
    return (0, 0, 0, 0) if erased is image else (top, left, high, wide)


def test_a_box_that_never_fits_leaves_the_image() -> None:
    part, batch = augment("random_erasing", (1, 8, 8), p=1.0, scale=[0.9, 1.0], ratio=[3.0, 4.0]), images((1, 8, 8))
    assert torch.equal(part.apply(batch, draws(part)), batch)


def test_the_mean_erased_area_is_torchvisions() -> None:
    from torchvision.transforms import RandomErasing

    part, count = augment("random_erasing", (1, 32, 32), p=1.0, fill=1), 4000
    found = part.apply(torch.zeros(count, 1, 32, 32, dtype=torch.uint8), draws(part, count)).double().mean().item()
    theirs = RandomErasing(1.0, (0.02, 0.4), (0.3, 3.3333), value=1)
    torch.manual_seed(0)
    expected = sum(theirs(torch.zeros(1, 32, 32)).mean().item() for _ in range(count)) / count
    assert abs(found - expected) < 0.008  # a standard error of the difference: 0.0024


def test_random_erasing_fills_with_even_and_independent_noise() -> None:
    # A box has to be smaller than the image, so it is taken from images of one pixel more per side
    size = (3, 17, 17)
    part = augment("random_erasing", size, p=1.0, scale=[256 / 289] * 2, ratio=[1.0, 1.0], fill=None)
    drawn = draws(part, 200)
    drawn.uniform[:, 21:23] = 0
    noise = part.apply(images(size, 200), drawn)[:, :, :16, :16]
    count = noise.flatten().bincount(minlength=256).double()
    expected = noise.numel() / 256
    assert ((count - expected).square() / expected).sum() < 255 + 5 * math.sqrt(2 * 255)  # chi squared
    flat = noise.flatten(1).double()
    assert flat.T.corrcoef().fill_diagonal_(0).abs().max() < 0.4  # 200 images: 0.07 is a standard deviation
    assert flat.corrcoef().fill_diagonal_(0).abs().max() < 0.2  # 768 pixels: 0.036
    assert len({row.numpy().tobytes() for row in noise}) == 200


# The ops of random policies


def expected(name: str, image: Tensor, amount: float) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as TF

    bilinear = InterpolationMode.BILINEAR
    slope = math.degrees(math.atan(amount))
    found: Tensor = {
        "identity": lambda: image,
        "shear_x": lambda: TF.affine(image, 0, [0, 0], 1, [slope, 0.0], bilinear, center=[0, 0]),
        "shear_y": lambda: TF.affine(image, 0, [0, 0], 1, [0.0, slope], bilinear, center=[0, 0]),
        "translate_x": lambda: TF.affine(image, 0, [int(amount), 0], 1, [0, 0], bilinear),
        "translate_y": lambda: TF.affine(image, 0, [0, int(amount)], 1, [0, 0], bilinear),
        "rotate": lambda: TF.rotate(image, amount, bilinear),
        "posterize": lambda: TF.posterize(image, int(amount)),
        "solarize": lambda: TF.solarize(image, amount),
        "autocontrast": lambda: TF.autocontrast(image),
        "equalize": lambda: TF.equalize(image),
        "brightness": lambda: 255 * TF.adjust_brightness(image / 255, 1 + amount),
        "contrast": lambda: 255 * TF.adjust_contrast(image / 255, 1 + amount),
        "color": lambda: 255 * TF.adjust_saturation(image / 255, 1 + amount),
        "sharpness": lambda: 255 * TF.adjust_sharpness(image / 255, 1 + amount),
    }[name]()
    return found


AMOUNTS = {
    "posterize": [0.0, 1.0, 4.0, 8.0],
    "solarize": [0.0, 100.0, 127.5, 255.0],
    "rotate": [-135.0, 20.0],
    "translate_x": [-3.9, 2.0, 40.0],
    "translate_y": [-3.9, 2.0, 40.0],
}
# Floats that we round (torchvision's gray has weights of four digits), or bytes that it rounds elsewhere or cuts off
TOLERANCE = dict.fromkeys(("brightness", "contrast", "color", "sharpness"), 0.6)
TOLERANCE |= dict.fromkeys(("shear_x", "shear_y", "rotate", "autocontrast"), 1.0)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 30, 41)], ids=str)
def test_every_op_is_torchvisions(name: str, shape: tuple[int, int, int]) -> None:
    batch = images(shape, 6)
    for amount in AMOUNTS.get(name, [-0.9, -0.3, 0.0, 0.5, 0.99]):
        found = apply_ops(batch, torch.full((6,), OPS.index(name)), torch.full((6,), amount))
        for image, out in zip(batch, found, strict=True):
            assert largest_difference(out, expected(name, image, amount)) <= TOLERANCE.get(name, 0)


def test_equalize_and_autocontrast_leave_one_color_alone() -> None:
    batch = torch.full((2, 3, 40, 40), 7, dtype=torch.uint8)
    batch[1, :, 0, 0] = 9
    for name in ("equalize", "autocontrast"):
        found = apply_ops(batch, torch.full((2,), OPS.index(name)), torch.zeros(2))
        for image, out in zip(batch, found, strict=True):
            assert largest_difference(out, expected(name, image, 0.0)) <= TOLERANCE.get(name, 0)


def test_each_image_of_a_batch_gets_its_own_op() -> None:
    batch = images((3, 30, 41), len(OPS))
    amount = torch.tensor([AMOUNTS.get(name, [0.4])[0] for name in OPS])
    found = apply_ops(batch, torch.arange(len(OPS)), amount)
    for image, out, name, given in zip(batch, found, OPS, amount.tolist(), strict=True):
        assert largest_difference(out, expected(name, image, given)) <= TOLERANCE.get(name, 0)


NAMES = {"color": "Color", "autocontrast": "AutoContrast", "shear_x": "ShearX", "shear_y": "ShearY"}


@pytest.mark.parametrize("policy", ["RandAugment", "TrivialAugmentWide", "AugMix"])
def test_the_strengths_are_those_of_torchvisions_policies(policy: str) -> None:
    from torchvision.transforms import v2

    oracle = getattr(v2, policy)
    bins, table = (10, oracle._PARTIAL_AUGMENTATION_SPACE) if policy == "AugMix" else (31, oracle._AUGMENTATION_SPACE)
    space = {
        "RandAugment": OpRanges(0.3, 150 / 331 * 40, 150 / 331 * 30, 30.0, 0.9, (8, 4)),
        "TrivialAugmentWide": OpRanges(0.99, 32.0, 32.0, 135.0, 0.99, (8, 2)),
        "AugMix": OpRanges(0.3, 40 / 3, 30 / 3, 30.0, 0.0, (4, 0)),
    }[policy]
    strength, sign = torch.arange(bins) / (bins - 1), -torch.ones(bins)
    checked = set()
    for name, (magnitudes, signed) in table.items():
        ours = (
            {"Identity": "identity", "AutoContrast": "autocontrast"}.get(name)
            or "_".join(part.lower() for part in (name[:-1], name[-1]) if name[-1] in "XY")
            or name.lower()
        )
        theirs = magnitudes(bins, 30, 40)
        if theirs is not None:
            theirs = theirs.double() * (255 if ours == "solarize" else -1 if signed else 1)
            found = space.amounts(torch.full((bins,), OPS.index(ours)), strength, sign)
            assert torch.allclose(found.double(), theirs, rtol=1e-5, atol=1e-4), ours
        checked.add(ours)
    assert checked == (set(OPS[1:10]) if policy == "AugMix" else set(OPS))


def recognized_ops(part: Augment, batch: int) -> list[str]:
    """Return for each draw which op (of a few that are easy to recognize) changed a picture."""
    image = images((3, 30, 41), 1).expand(batch, 3, 30, 41)
    found = part.apply(image, draws(part, batch))
    same = torch.equal
    equal = {name: expected(name, image[0], 0.0) for name in ("identity", "autocontrast", "equalize")}
    return [next((name for name, one in equal.items() if same(out, one)), "other") for out in found]


def test_trivialaugment_draws_its_ops_evenly() -> None:
    seen = recognized_ops(augment("trivialaugment", (3, 30, 41)), 2800)
    assert abs(seen.count("equalize") - 200) < 4 * 14
    # strength 0 of ten others is identity too (translations below one pixel, posterize of eight bits, ...)
    assert 200 - 4 * 14 < seen.count("identity") < 200 + 2000 / 31 * 1.8 + 4 * 16


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 8, 40), (3, 30, 12), (1, 32, 32), (3, 64, 48)], ids=str)
def test_trivialaugment_translates_no_farther_than_the_image_or_32_pixels(shape: tuple[int, int, int]) -> None:
    """A translation by s of the reach leaves this share of the ones: the strengths are those of 0..30 thirtieths."""
    part = augment("trivialaugment", shape)
    white = torch.full((31, *shape), 255, dtype=torch.uint8)
    for op, length in (("translate_x", shape[2]), ("translate_y", shape[1])):
        which = torch.full((31,), (OPS.index(op) + 0.5) / len(OPS))
        drawn = torch.stack([which, torch.full((31,), 0.9), (torch.arange(31) + 0.5) / 31], 1)
        seen = (part.apply(white, Draws(drawn, 0)) > 127).double().mean((1, 2, 3))
        expected = [1 - int(min(32, length) * k / 30 + 1e-6) / length for k in range(31)]
        assert seen.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("policy", ["trivialaugment", "randaugment"])
@pytest.mark.parametrize("side", [8, 16, 28])
def test_policies_blacken_small_images_no_more_often_than_those_of_32_pixels(policy: str, side: int) -> None:
    shares = []
    for length in (side, 32):
        part = augment(policy, (1, length, length))
        white = torch.full((3000, 1, length, length), 255, dtype=torch.uint8)
        shares.append((part.apply(white, draws(part, 3000)).amax((1, 2, 3)) < 64).double().mean().item())
    assert abs(shares[0] - shares[1]) < 0.006  # full translations of TrivialAugment and its darkest images: 2 %


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
@pytest.mark.parametrize("shape", [(1, 40, 40), (3, 30, 41)], ids=str)
def test_autoaugment_does_torchvisions_pairs(policy: str, shape: tuple[int, int, int]) -> None:
    """Each operation, its chance, strength and sign, by torchvision's own tables of pairs and of strengths."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    part, count = augment("autoaugment", shape, policy=policy), 300
    batch, drawn = images(shape, count), draws(part, count)
    drawn.uniform[:2] = torch.tensor([[0.0], [1 - 2**-24]])
    theirs = AutoAugment(AutoAugmentPolicy(policy))
    space, done = theirs._augmentation_space(10, shape[1:]), set()
    for image, out, (which, *rest) in zip(batch, part.apply(batch, drawn), drawn.uniform.tolist(), strict=True):
        for place, (op, chance, strength) in enumerate(theirs.policies[int(which * 25)]):
            if rest[place] < chance:
                magnitudes, signed = space[op]
                amount = float(magnitudes[strength]) if strength is not None else 0.0
                ours = "solarize" if op == "Invert" else NAMES.get(op, op).lower()
                ours = ours if ours in OPS else f"{ours[:-1]}_{ours[-1]}"
                amount = -amount if signed and rest[2 + place] < 0.5 else amount
                image = apply_ops(image[None], torch.tensor([OPS.index(ours)]), torch.tensor([amount]))[0]
                done.add(op)
        # A strength that is rounded elsewhere moves some pixels by one level, and equalize spreads levels
        assert (out.double() - image).abs().mean() < 0.5, which
    assert len(done) > 8


def test_autoaugments_first_pair_on_cifar10_is_the_papers() -> None:
    """Table 7: invert with probability 0.1, contrast with probability 0.2 and strength 6."""
    part, batch = augment("autoaugment", (3, 12, 17), policy="cifar10"), images((3, 12, 17), 3)
    rows = [[0.0, 0.05, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.1, 0.0, 0.9]]
    inverted, same, contrasted = part.apply(batch, Draws(torch.tensor(rows), 0))
    assert torch.equal(inverted, 255 - batch[0]) and torch.equal(same, batch[1])
    assert largest_difference(contrasted, expected("contrast", batch[2], 0.6)) <= 0.6


def test_randaugment_of_one_op_draws_evenly_and_of_magnitude_0_changes_little() -> None:
    seen = recognized_ops(augment("randaugment", (3, 30, 41), ops=1, magnitude=30), 2800)
    assert abs(seen.count("equalize") - 200) < 4 * 14 and abs(seen.count("identity") - 200) < 4 * 14
    part = augment("randaugment", (3, 30, 41), ops=1, magnitude=0)
    still = recognized_ops(part, 1400)
    assert abs(still.count("identity") - 1400 * 12 / 14) < 60  # all but autocontrast and equalize


def test_randaugment_does_its_ops_one_after_another() -> None:
    part, single = (augment("randaugment", (3, 30, 41), ops=ops, magnitude=12) for ops in (3, 1))
    batch = images((3, 30, 41))
    drawn = draws(part)
    step = batch
    for i in range(3):
        step = single.apply(step, Draws(drawn.uniform[:, 2 * i : 2 * i + 2], 0))
    assert torch.equal(part.apply(batch, drawn), step)


def test_augmix_is_the_weighted_mean_of_its_chains() -> None:
    batch = images((3, 30, 41), 8)
    part = augment("augmix", (3, 30, 41), width=2, severity=10)
    drawn = draws(part, 8, seed=3)
    space = OpRanges(0.3, 41 / 3, 10.0, 30.0, 0.0, (4, 0))
    for image, out, u in zip(batch, part.apply(batch, drawn), drawn.uniform, strict=True):
        chains = u[1:].view(2, 11)
        weights = -torch.log(1 - chains[:, 0])
        mixed = (1 - u[0]) * image
        for weight, chain in zip(weights / weights.sum(), chains, strict=True):
            one = image[None]
            for place in range(1 + int(chain[1] * 3)):
                which, strength, sign = chain[2 + 3 * place : 5 + 3 * place]
                op = 1 + (which * 9).long()[None]
                signed = torch.tensor([-1.0 if sign < 0.5 else 1.0])
                one = apply_ops(one, op, space.amounts(op, (strength * 10).floor()[None] / 9, signed))
            mixed = mixed + u[0] * weight * one[0]
        assert largest_difference(out, mixed) <= 0.5001


def test_augmix_without_a_share_is_the_image() -> None:
    part, batch = augment("augmix", (1, 8, 8)), images((1, 8, 8))
    drawn = draws(part)
    drawn.uniform[:, 0] = 0
    assert torch.equal(part.apply(batch, drawn), batch)
