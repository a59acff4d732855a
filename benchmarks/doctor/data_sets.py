"""The data sets of the bank as .npz files: whole, with a hundredth of the examples, permuted labels, or a leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.doctor.faults import Alteration

_Arrays = dict[str, NDArray[Any]]
# Images of a split: enough for 1 % of them to hold each class, few enough for a run of seconds
_CIFAR_TRAIN, _CIFAR_VAL = 300, 80
_SHARE = 0.01


def data_file(name: str, alteration: Alteration, folder: Path, photographs: Path | None) -> Path:
    """Return the .npz file of a data set, which is made if it is not there.

    Args:
        name: `digits`, `shapes`, `cifar16` or `spirals`.
        alteration: What is done to the training or the validation split.
        folder: Where the file is.
        photographs: Folder of CIFAR-10 images as `<split>/<class>/<image>`, for `cifar16`.
    """
    path = folder / f"{name}-{alteration}.npz"
    if not path.is_file():
        whole = _cifar16(photographs) if name == "cifar16" else _generated(name)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **_altered(whole, alteration))
    return path


def _altered(arrays: _Arrays, alteration: Alteration) -> _Arrays:
    """Return the data with a fault."""
    random = np.random.default_rng(0)
    found = dict(arrays)
    if alteration is Alteration.PERMUTED:
        found["y_train"] = random.permutation(found["y_train"])
    elif alteration is Alteration.LEAK:
        chosen = random.permutation(len(found["y_train"]))[: len(found["y_val"])]
        found |= {"x_val": found["x_train"][chosen], "y_val": found["y_train"][chosen]}
    elif alteration is Alteration.FEW:
        labels = found["y_train"]
        each = max(1, round(_SHARE * len(labels) / (labels.max() + 1)))
        kept = np.concatenate([np.flatnonzero(labels == label)[:each] for label in range(labels.max() + 1)])
        found |= {"x_train": found["x_train"][kept], "y_train": labels[kept]}
    return found


def _generated(name: str) -> _Arrays:
    """Return one of runner's own data sets as arrays of 8 bits."""
    # Registers them
    import runner.components.data  # noqa: F401
    from runner.registry import build

    common = {"placement": "host", "sampling": "shuffle", "batch_size": 64}
    made = {"train": 1200, "val": 600, "test": 100, "data_seed": 0, "size": 16}
    configs: dict[str, dict[str, Any]] = {
        "digits": {"name": "digits", "classes": None, "limit": None, "limit_seed": 0},
        "shapes": {"name": "synthetic", "kind": "shapes", "classes": 6, "noise": 0.15, **made},
        "spirals": {"name": "synthetic", "kind": "spirals", "classes": 5, "noise": 0.03, **made},
    }
    data = build("data", {**configs[name], **common})
    found: _Arrays = {}
    for split in ("train", "val", "test"):
        part = data.test() if split == "test" else getattr(data, split)
        pixels, labels = part.pixels.numpy(), part.labels.numpy()
        found |= {f"x_{split}": _as_stored(pixels), f"y_{split}": labels}
    return found


def _as_stored(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (N, C, H, W) as (N, H, W, C), and points (N, C, 1, 1) as features (N, C)."""
    return pixels[:, :, 0, 0] if pixels.shape[2:] == (1, 1) else pixels.transpose(0, 2, 3, 1)


def _cifar16(photographs: Path | None) -> _Arrays:
    """Return a part of CIFAR-10 at half its size."""
    from PIL import Image

    if photographs is None:
        raise SystemExit("--photographs: needed for cifar16: a folder of CIFAR-10 images as <split>/<class>/<image>")
    classes = sorted(path.name for path in (photographs / "train").iterdir())
    found: dict[str, list[Any]] = {f"{axis}_{split}": [] for split in ("train", "val", "test") for axis in "xy"}
    for label, name in enumerate(classes):
        paths = sorted((photographs / "train" / name).iterdir())[: _CIFAR_TRAIN + 2 * _CIFAR_VAL]
        for place, path in enumerate(paths):
            split = ("train", "val", "test")[max(0, (place - _CIFAR_TRAIN) // _CIFAR_VAL + 1)]
            found[f"x_{split}"].append(np.asarray(Image.open(path).convert("RGB").resize((16, 16))))
            found[f"y_{split}"].append(label)
    return {key: np.stack(values) if key[0] == "x" else np.array(values) for key, values in found.items()}
