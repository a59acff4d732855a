"""Synthetic data sets: their distribution, and what they depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components.data.synthetic import _SHAPES
from runner.engine.contracts import Data, Split
from runner.errors import ConfigError
from runner.registry import build

YAML = Path(__file__).parents[2] / "conf" / "data" / "synthetic.yaml"


def synthetic(**changes: Any) -> Data:
    return build("data", {**yaml.safe_load(YAML.read_text()), **changes})


def pixels(split: Split) -> Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def points(split: Split) -> np.ndarray:
    """Undo the map from the plane to pixels: coordinates in [-1, 1] before the margin of a tenth."""
    return (pixels(split)[:, :, 0, 0].double() / 255 * 2 - 1).numpy() / 0.9


@pytest.mark.parametrize("kind", ["spirals", "blobs", "shapes"])
def test_the_data_follow_from_their_seed_and_the_splits_do_not_from_each_other(kind: str) -> None:
    first, again, other = synthetic(kind=kind), synthetic(kind=kind, test=50, val=20), synthetic(kind=kind, data_seed=1)
    assert first.test is not None and again.test is not None
    assert torch.equal(pixels(first.train), pixels(again.train))
    assert not torch.equal(pixels(first.train), pixels(other.train))
    assert not torch.equal(pixels(first.train)[:300], pixels(first.val))
    assert len(first.test().labels) == 300 and len(again.test().labels) == 50
    counts = first.train.labels.bincount()
    assert counts.max() - counts.min() <= 1 and len(counts) == 3 == len(first.classes)
    assert first.shape == pixels(first.train).shape[1:] and pixels(first.train).dtype == torch.uint8


def test_spirals_lie_on_their_arms() -> None:
    data = synthetic(kind="spirals", classes=4, noise=0.0)
    x, y = points(data.train).T
    radius = np.hypot(x, y)
    arm = (np.arctan2(y, x) / (2 * np.pi) - radius) % 1 * 4  # the angle grows by a turn from center to rim
    off = (arm - data.train.labels.numpy() + 2) % 4 - 2
    assert np.abs(off * radius).max() < 0.05  # within the steps of eight bits


def test_blobs_have_the_centres_and_the_width_asked_for() -> None:
    data = synthetic(kind="blobs", classes=3, noise=0.04, train=6000)
    for label in range(3):
        cloud = points(data.train)[data.train.labels == label]
        angle = 2 * np.pi * label / 3
        assert np.allclose(cloud.mean(0), [0.6 * np.cos(angle), 0.6 * np.sin(angle)], atol=0.01)
        assert np.allclose(cloud.std(0) * 0.9 / 2, 0.04, rtol=0.06)


def test_shapes_are_told_apart_by_the_share_of_their_box_that_they_fill() -> None:
    data = synthetic(kind="shapes", classes=len(_SHAPES), noise=0.0, size=64, train=120)
    wanted = {"disc": np.pi / 4, "square": 1.0, "cross": 0.51, "ring": 0.6 * np.pi / 4, "triangle": 0.5, "bar": 1.0}
    for image, label in zip(pixels(data.train)[:, 0].numpy(), data.train.labels, strict=True):
        lit = image > (int(image.min()) + int(image.max())) / 2
        rows, columns = lit.any(1), lit.any(0)
        assert abs(lit.sum() / (rows.sum() * columns.sum()) - wanted[data.classes[label]]) < 0.09
        assert (rows.sum() * 2 < columns.sum()) == (data.classes[label] == "bar")


def test_more_kinds_of_shapes_than_there_are_is_refused() -> None:
    assert len(_SHAPES) == 6
    with pytest.raises(ConfigError, match=r"data.classes: got 7, must be <= 6 with kind=shapes"):
        synthetic(kind="shapes", classes=7)
