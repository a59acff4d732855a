"""The healthy data sets of the bank as arrays: photographs, letters, tables, and runner's own sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
_SPLITS = ("train", "val", "test")
_LETTERS = "ABDEFGHKRSTX"
# Data sets of images; the others are features
IMAGES = (
    "digits",
    "shapes",
    "shapes_large",
    "cifar16",
    "photos16",
    "photos12",
    "letters",
    "small_letters",
    "vehicles",
    "numerals",
    "photos_test",
)


def made(name: str, photographs: Path | None) -> Arrays:
    """Return a data set as arrays `x_<split>` and `y_<split>`."""
    if name in _PHOTOGRAPHS:
        return _photographs(photographs, **_PHOTOGRAPHS[name])
    return _MADE[name]() if name in _MADE else _generated(name)


def _generated(name: str) -> Arrays:
    """Return one of runner's own data sets as arrays of 8 bits."""
    # Registers them
    import runner.components.data  # noqa: F401
    from runner.registry import build

    common = {"placement": "host", "sampling": "shuffle", "batch_size": 64}
    sizes = {"train": 1200, "val": 600, "test": 100, "data_seed": 0, "size": 16}
    configs: dict[str, dict[str, Any]] = {
        "digits": {"name": "digits", "classes": None, "limit": None, "limit_seed": 0},
        "shapes": {"name": "synthetic", "kind": "shapes", "classes": 6, "noise": 0.15, **sizes},
        "shapes_large": {"name": "synthetic", "kind": "shapes", "classes": 6, "noise": 0.15, **sizes, "train": 6000},
        "spirals": {"name": "synthetic", "kind": "spirals", "classes": 5, "noise": 0.03, **sizes},
    }
    data = build("data", {**configs[name], **common})
    found: Arrays = {}
    for split in _SPLITS:
        part = data.test() if split == "test" else getattr(data, split)
        pixels, labels = part.pixels.numpy(), part.labels.numpy()
        found |= {f"x_{split}": _as_stored(pixels), f"y_{split}": labels}
    return found


def _as_stored(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (N, C, H, W) as (N, H, W, C), and points (N, C, 1, 1) as features (N, C)."""
    return pixels[:, :, 0, 0] if pixels.shape[2:] == (1, 1) else pixels.transpose(0, 2, 3, 1)


def _photographs(
    folder: Path | None, *, size: int, first: int, counts: Sequence[int], names: str = "", of: str = "train"
) -> Arrays:
    """Return a part of CIFAR-10, smaller.

    Args:
        folder: The images as `<split>/<class>/<image>`.
        size: The side in pixels.
        first: The number of images of each class that are passed over.
        counts: The images of a class in each split.
        names: The classes; empty: all.
        of: The split of CIFAR-10 that they are from.
    """
    from PIL import Image

    if folder is None:
        raise SystemExit("--photographs: needed for these data: a folder of CIFAR-10 images as <split>/<class>/<image>")
    classes = names.split() or sorted(path.name for path in (folder / "train").iterdir())
    found: dict[str, list[Any]] = {f"{axis}_{split}": [] for split in _SPLITS for axis in "xy"}
    ends = np.cumsum(counts)
    for label, name in enumerate(classes):
        paths = sorted((folder / of / name).iterdir())[first : first + int(ends[-1])]
        for place, path in enumerate(paths):
            split = _SPLITS[int(np.searchsorted(ends, place, side="right"))]
            found[f"x_{split}"].append(np.asarray(Image.open(path).convert("RGB").resize((size, size))))
            found[f"y_{split}"].append(label)
    return {key: np.stack(values) if key[0] == "x" else np.array(values) for key, values in found.items()}


def _letters(letters: str = _LETTERS, seed: int = 5) -> Arrays:
    """Return drawn letters of 16 x 16 pixels: turned, moved, of several sizes, with noise."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(seed)
    fonts = [ImageFont.load_default(size) for size in (10, 12, 14)]

    def draw(label: int) -> NDArray[np.uint8]:
        image = Image.new("L", (16, 16), 0)
        where = (8 + random.normal(0, 1), 8 + random.normal(0, 1))
        ink = int(random.integers(90, 256))
        ImageDraw.Draw(image).text(where, letters[label], ink, fonts[random.integers(3)], anchor="mm")
        turned = np.asarray(image.rotate(random.normal(0, 15), Image.Resampling.BILINEAR), float)
        return (turned + random.normal(0, 35, turned.shape)).clip(0, 255).astype(np.uint8)[..., None]

    found: Arrays = {}
    for split, count in zip(_SPLITS, (9000, 1000, 100), strict=True):
        labels = np.arange(count) % len(letters)
        found |= {f"x_{split}": np.stack([draw(int(label)) for label in labels]), f"y_{split}": labels}
    return found


def _clusters() -> Arrays:
    """Return 24 features of 8 classes, each of two clusters (scikit-learn's generator, after Guyon 2003)."""
    from sklearn.datasets import make_classification

    features, labels = make_classification(
        n_samples=4100, n_features=24, n_informative=12, n_redundant=6, n_classes=8, n_clusters_per_class=2,
        class_sep=1.6, random_state=7,
    )  # fmt: skip
    return _cut(features, labels, (3000, 1000, 100))


def _small_letters() -> Arrays:
    """Return drawn small letters."""
    return _letters("acdefghkmnprsuwz", 6)


def _numerals() -> Arrays:
    """Return drawn numerals."""
    return _letters("0123456789", 9)


def _blocks() -> Arrays:
    """Return 16 features of 6 classes, each of three clusters (scikit-learn's generator, after Guyon 2003)."""
    from sklearn.datasets import make_classification

    features, labels = make_classification(
        n_samples=5100, n_features=16, n_informative=10, n_redundant=2, n_classes=6, n_clusters_per_class=3,
        class_sep=1.4, random_state=11,
    )  # fmt: skip
    return _cut(features, labels, (4000, 1000, 100))


def _quantiles() -> Arrays:
    """Return 10 normal features whose distance from the middle is the class (scikit-learn)."""
    from sklearn.datasets import make_gaussian_quantiles

    features, labels = make_gaussian_quantiles(n_samples=4900, n_features=10, n_classes=4, random_state=8)
    order = np.random.default_rng(4).permutation(len(labels))
    return _cut(features[order], labels[order], (4000, 800, 100))


def _cancer() -> Arrays:
    """Return scikit-learn's 569 breast tumors: 30 features, two classes."""
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(3).permutation(len(labels))
    return _cut(features[order], labels[order], (380, 170, 19))


def _cut(features: NDArray[Any], labels: NDArray[Any], counts: Sequence[int]) -> Arrays:
    """Return features as three splits, one after the other."""
    ends = [0, *np.cumsum(counts).tolist()]
    found: Arrays = {}
    for split, start, end in zip(_SPLITS, ends, ends[1:], strict=False):
        found |= {f"x_{split}": features[start:end].astype(np.float32), f"y_{split}": labels[start:end]}
    return found


_MADE: Mapping[str, Callable[[], Arrays]] = {
    "letters": _letters,
    "small_letters": _small_letters,
    "clusters": _clusters,
    "cancer": _cancer,
    "quantiles": _quantiles,
    "numerals": _numerals,
    "blocks": _blocks,
}
# Enough images for 1 % of them to hold each class, few enough for a run of seconds. The two new sets share no image
_PHOTOGRAPHS: Mapping[str, dict[str, Any]] = {
    "cifar16": {"size": 16, "first": 0, "counts": (300, 80, 80)},
    "photos16": {"size": 16, "first": 460, "counts": (800, 150, 10)},
    "photos12": {"size": 12, "first": 1420, "counts": (1200, 200, 10), "names": "bird cat deer dog frog horse ship"},
    "photos_test": {"size": 12, "first": 0, "counts": (800, 150, 10), "of": "test"},
    "vehicles": {"size": 12, "first": 2830, "counts": (1500, 250, 10), "names": "airplane automobile ship truck"},
}
