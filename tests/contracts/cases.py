"""Small configs in which an option, and each of its knobs, has an effect within three steps."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from small_runs import MANY, ONE, SMALL, build, small, write_color_images, write_teacher

import runner.components  # noqa: F401
from runner.registry import names

STEPS = 3
PICTURES = {"data": "synthetic", "data.kind": "shapes", "data.size": 32, "data.train": 64, "data.classes": 5}
DOWNLOADS = ("cifar10", "cifar100", "fashion_mnist", "mnist", "svhn")
OPTIONS = [
    (kind, name)
    for kind in (*ONE, *MANY)
    for name in names(kind)
    if name not in DOWNLOADS and (kind, name) != ("model", "timm")
]

KIND_SETTINGS: dict[str, dict[str, Any]] = {  # settings for all options of a kind
    "norm": {"model": "cnn", "model.hidden": []},  # instance norm is for convolutions only
    "init": {"model": "resnet"},  # init=residual needs residual branches
    "regularizer": {"model": "resnet9"},  # has block, head and residual places, and max pooling
    "average": {"optim": "schedulefree"},  # for average=schedulefree
    # For predict=mc_dropout and predict=swag
    "predict": {"regularizer": ["dropout"], "average": "swag", "average.start": "0%", "average.every": "1step"},
    "preprocess": {"data": "imagefolder", "data.size": [8, 8]},  # of gray images one channel's mean is the global one
    "resize": {"data": "imagefolder", "data.size": [16, 16], "model": "resnet"},  # takes images of any size
    "augment": {"data": "imagefolder", "data.size": [16, 16]},  # in color, for augment=pca_color
}
# Settings with which an option has an effect within three steps; its own knobs have no prefix
OPTION_SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("average", "lookahead"): {"every": 2},
    ("average", "polyak"): {"last": "70%"},  # by default the last tenth: one step of three
    ("average", "swag"): {"start": "0%", "every": "1step"},  # by default one step of three
    ("average", "snapshots"): {"at": ["1step", "2steps"]},  # by default at the ends of cycles
    ("mix", "cutmix"): {"p": 1.0},
    ("mix", "saliencymix"): {"p": 1.0},
    ("model", "torchvision"): PICTURES,
    ("model", "vgg"): PICTURES,
    ("probe", "gradient_noise"): {"accumulate": 2},  # measures micro-batches
    ("probe", "throughput"): {"every": 1},  # speaks from its second measurement on
    ("resize", "progressive"): {"begin": "0steps", "end": "3steps"},
    ("regularizer", "max_norm"): {"limit": 0.5},  # no weights of small models are longer than 3
}


@cache
def array_file(seed: int = 0) -> str:
    """Return a file of images with labels, and of other images and labels."""
    random, labels = np.random.default_rng(seed), np.arange(200) ** 2 % 5
    images = (random.integers(0, 100, (200, 5, 6, 3)) + 30 * labels[:, None, None, None]).astype(np.uint8)
    path = Path(mkdtemp()) / "x.npz"
    np.savez(path, x=images, y=labels, dark=images // 2, halves=labels // 2)
    return str(path)


@cache
def table_file(seed: int = 0) -> str:
    """Return a table with two numbers, a category, two kinds of classes, and a column of splits."""
    lines = ["a,b,group,y,part"]
    for i, (a, b) in enumerate(np.random.default_rng(seed).normal(size=(200, 2))):
        lines.append(f"{a + i % 3},{b},{i % 3},{i % 3 // 2},{['train', 'val'][i > 150]}")
    path = Path(mkdtemp()) / "x.csv"
    path.write_text("\n".join(lines))
    return str(path)


@cache
def weights_file() -> str:
    """Return a file of weights of the small model, with a classifier of other classes."""
    torch.manual_seed(5)
    tensors = build(small({})).learner.model.state_dict()
    path = Path(mkdtemp()) / "weights.pt"
    torch.save({name: t[:3] if name.startswith("head") else t + 0.1 for name, t in tensors.items()}, path)
    return str(path)


@cache
def teacher_folder(seed: int = 0) -> str:
    """Return the folder of a run on digits that was trained for a few steps."""
    return write_teacher(Path(mkdtemp()) / "teacher", f"seed={seed}")


OPTION_SETTINGS["distillation", "logits"] = {"teacher": teacher_folder()}
OPTION_SETTINGS["data", "arrays"] = {"root": array_file()}
OPTION_SETTINGS["data", "table"] = {"root": table_file(), "label": "y", "ignore": ["part"]}


def choices(kind: str, name: str, /, **changed: Any) -> dict[str, Any]:
    """Return a small run with an option in its surroundings; `changed` sets knobs of it, or whole dotted keys."""
    prefix = f"{kind}.{name}" if kind in MANY else kind
    made = {"steps": STEPS, **KIND_SETTINGS.get(kind, {}), kind: [name] if kind in MANY else name}
    own = SMALL.get(name, {}) if kind == "model" else {}
    for key, value in {**own, **OPTION_SETTINGS.get((kind, name), {}), **changed}.items():
        made[key if key in ("data", "accumulate") or "." in key else f"{prefix}.{key}"] = value
    if kind == "transfer":
        made = {"init_from": weights_file(), **made}
    if made.get("data") == "imagefolder":
        made = {"data.root": color_images(), **made}
    return small(made)


@cache
def color_images(seed: int = 0) -> str:
    """Return a folder of color pictures."""
    return write_color_images(Path(mkdtemp()), seed)
