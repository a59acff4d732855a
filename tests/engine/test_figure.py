"""The picture of a run's curves."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from runner.engine.figures.curves import loss_axis_top, loss_figure

pytestmark = pytest.mark.rendered


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def colour(picture, red, green, blue):
    return (np.abs(picture - np.array([red, green, blue])).max(axis=2) < 12).sum()


def test_dots_average_and_validation_are_drawn(tmp_path):
    rows = [{"step": s, "train/loss": 1 / s, "train/loss_average": 1.2 / s} for s in range(1, 201)]
    bare = pixels(loss_figure(write(tmp_path / "bare.jsonl", rows)).draw())
    for row in rows[::20]:
        row |= {"val/loss": 0.5, "val/accuracy": 0.5}
    full = pixels(loss_figure(write(tmp_path / "full.jsonl", rows)).draw())
    blue, orange, grey = (31, 119, 180), (255, 127, 14), (204, 204, 204)
    assert colour(bare, *blue) > 300 and colour(bare, *grey) > 300 and colour(bare, *orange) == 0
    assert colour(full, *orange) > 600


def test_a_run_of_nothing_and_one_that_diverged_can_be_drawn(tmp_path):
    assert loss_figure(write(tmp_path / "none.jsonl", [])).draw().startswith(b"\x89PNG")
    rows = [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": "NaN"}, {"step": 3, "train/loss": "Infinity"}]
    assert loss_figure(write(tmp_path / "bad.jsonl", rows)).draw().startswith(b"\x89PNG")


def test_one_spike_does_not_flatten_the_curve():
    rows = [(step, {"train/loss": 1.0}) for step in range(200)] + [(200, {"train/loss": 1e6})]
    assert loss_axis_top(rows) == 1.1
    assert loss_axis_top([]) is None and loss_axis_top([(1, {"train/loss": 0.0})]) is None
