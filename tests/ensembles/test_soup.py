"""Averaged weights and the loss between two models, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from runner.engine.state_dict import StateDict
from runner.ensembles.soup import averaged, loss_barrier


def state(*values, count=3, dtype=torch.float32):
    return {"weight": torch.tensor(values, dtype=dtype), "num_batches_tracked": torch.tensor(count)}


def test_weights_are_averaged_and_counts_are_the_first_ones():
    found = averaged([state(1.0, 2.0), state(3.0, 6.0, count=9)], [0.25, 0.75])
    assert torch.equal(found["weight"], torch.tensor([2.5, 5.0]))
    assert found["num_batches_tracked"] == 3


def test_shares_need_not_sum_to_one():
    assert torch.equal(averaged([state(1.0), state(3.0), state(8.0)], [1, 1, 1])["weight"], torch.tensor([4.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_equal_weights_stay_as_they_are(dtype):
    same = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = averaged([{"w": same}] * 3, [1 / 3] * 3)["w"]
    assert torch.equal(found, same) and found.dtype is dtype


def test_the_mean_is_that_of_torchs_own_average():
    models = [torch.nn.Linear(4, 3) for _ in range(4)]
    mean = torch.optim.swa_utils.AveragedModel(models[0])
    for model in models:
        mean.update_parameters(model)
    found = averaged([model.state_dict() for model in models], [0.25] * 4)
    for name, expected in mean.module.state_dict().items():
        assert torch.allclose(found[name], expected, atol=1e-6)


def test_infinite_buffers_stay_infinite():
    mask = torch.tensor([0.0, -math.inf])
    assert torch.equal(averaged([{"mask": mask}, {"mask": mask.clone()}], [0.5, 0.5])["mask"], mask)


def test_the_versions_of_modules_are_kept():
    first = StateDict(state(1.0))
    first.versions = {"norm": 2}
    assert averaged([first, state(2.0)], [0.5, 0.5]).versions == {"norm": 2}


def test_the_barrier_is_the_height_above_the_line_between_the_losses():
    # A parabola is below its chords, its negative above them, most in the middle
    assert loss_barrier(lambda t: (2 * t - 1) ** 2, (1.0, 1.0)) == pytest.approx(-0.75)
    assert loss_barrier(lambda t: 1 - (2 * t - 1) ** 2, (0.0, 0.0)) == pytest.approx(1.0)
    assert loss_barrier(lambda t: 3 + 2 * t, (3.0, 5.0)) == pytest.approx(0.0)
