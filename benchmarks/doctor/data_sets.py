"""The data sets of the bank as .npz files: whole, or with a fault such as permuted labels or a leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.doctor.faults import Alteration
from benchmarks.doctor.made_data import Arrays, made

_FEW, _PART, _INVERTED = 0.01, 0.05, 0.1
_NOISY, _RARE = 0.4, 50


def data_file(name: str, alteration: Alteration, folder: Path, photographs: Path | None) -> Path:
    """Return the .npz file of a data set, which is made if it is not there.

    Args:
        name: The data set: `digits`, `shapes`, `spirals`, `letters`, `clusters`, `cancer`, or some of the photographs.
        alteration: What is done to the training or the validation split.
        folder: Where the file is.
        photographs: Folder of CIFAR-10 images as `<split>/<class>/<image>`.
    """
    path = folder / f"{name}-{alteration}.npz"
    if not path.is_file():
        whole = made(name, photographs)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, allow_pickle=False, **_altered(whole, alteration))
    return path


def equal_examples(path: Path) -> dict[str, int]:
    """Return how many validation examples of a file equal a training example, or an earlier one, byte for byte."""
    with np.load(path) as arrays:
        train = [example.tobytes() for example in arrays["x_train"]]
        val = [example.tobytes() for example in arrays["x_val"]]
    known = {*train}
    counts = {"val_in_train": sum(each in known for each in val), "within_val": len(val) - len({*val})}
    return counts | {"val": len(val), "train": len(train)}


def _altered(arrays: Arrays, alteration: Alteration) -> Arrays:
    """Return the data with a fault."""
    random, labels = np.random.default_rng(0), arrays["y_train"]
    match alteration:
        case Alteration.PERMUTED:
            return arrays | {"y_train": random.permutation(labels)}
        case Alteration.NOISY:
            drawn = random.integers(0, labels.max() + 1, len(labels))
            return arrays | {"y_train": np.where(random.random(len(labels)) < _NOISY, drawn, labels)}
        case Alteration.SHIFTED:
            return arrays | {"y_val": (arrays["y_val"] + 1) % (labels.max() + 1)}
        case Alteration.LEAK:
            chosen = random.permutation(len(labels))[: len(arrays["y_val"])]
            return arrays | {"x_val": arrays["x_train"][chosen], "y_val": labels[chosen]}
        case Alteration.SORTED:
            order = np.argsort(labels, kind="stable")
            return arrays | {"x_train": arrays["x_train"][order], "y_train": labels[order]}
        case Alteration.RARE:
            return _rare(_rare(arrays, "train"), "val")
    return _other_inputs(arrays, alteration)


def _other_inputs(arrays: Arrays, alteration: Alteration) -> Arrays:
    """Return the data with fewer training examples or with other values."""
    match alteration:
        case Alteration.FEW | Alteration.PART:
            return _part(arrays, _FEW if alteration is Alteration.FEW else _PART)
        case Alteration.INVERTED:
            whole = {key: values.max(0) - values if key[0] == "x" else values for key, values in arrays.items()}
            return _part(whole, _INVERTED)
        case Alteration.LARGE if arrays["x_train"].dtype != np.uint8:
            return {key: values * 255 if key[0] == "x" else values for key, values in arrays.items()}
    return arrays


def _part(arrays: Arrays, share: float) -> Arrays:
    """Return the data with the first training examples of each class."""
    labels = arrays["y_train"]
    each = max(1, round(share * len(labels) / (labels.max() + 1)))
    kept = np.concatenate([np.flatnonzero(labels == label)[:each] for label in range(labels.max() + 1)])
    return arrays | {"x_train": arrays["x_train"][kept], "y_train": labels[kept]}


def _rare(arrays: Arrays, split: str) -> Arrays:
    """Return the data with one of 50 examples of each class but the first."""
    labels = arrays[f"y_{split}"]
    first = np.flatnonzero(labels == 0)
    others = [np.flatnonzero(labels == label) for label in range(1, int(labels.max()) + 1)]
    kept = np.sort(np.concatenate([first, *(places[: max(1, len(places) // _RARE)] for places in others)]))
    return arrays | {f"x_{split}": arrays[f"x_{split}"][kept], f"y_{split}": labels[kept]}
