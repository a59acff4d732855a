"""Norms: moments over the right axes computed by hand, running statistics, and learned parameters."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import runner.components  # noqa: F401  (registers)
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf"
EPS = 0.1  # large, so that its place in the formula shows


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def maker(name, **knobs):
    return build("norm", yaml.safe_load((CONF / "norm" / f"{name}.yaml").read_text()) | knobs)


def spread(x, *, axes):
    """(x - mean) / sqrt(var + eps), by hand over these axes."""
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / ((x - mean).pow(2).mean(axes, keepdim=True) + EPS).sqrt()


@pytest.fixture
def images():
    x = torch.randn(5, 6, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scale = torch.arange(1, 7, dtype=torch.float64).view(1, 6, 1, 1)
    return x * scale + torch.arange(5, dtype=torch.float64).view(5, 1, 1, 1)


def test_batch_norm_takes_its_moments_per_channel_over_batch_and_pixels(images):
    got = maker("batch", eps=EPS)(6, 2).double()(images)
    torch.testing.assert_close(got, spread(images, axes=(0, 2, 3)))
    wrong = (images - images.mean((0, 2, 3), keepdim=True)) / (images.var((0, 2, 3), keepdim=True) + EPS)
    assert not torch.allclose(got, wrong, atol=0.1)


def test_layer_norm_takes_its_moments_per_example_over_channels_and_pixels(images):
    got = maker("layer", eps=EPS)(6, 2).double()(images)
    torch.testing.assert_close(got, spread(images, axes=(1, 2, 3)))


def test_instance_norm_takes_its_moments_per_example_and_channel_over_pixels(images):
    got = maker("instance", eps=EPS)(6, 2).double()(images)
    torch.testing.assert_close(got, spread(images, axes=(2, 3)))


def test_instance_norm_is_refused_where_there_are_no_pixels():
    with pytest.raises(ConfigError, match=r"norm=instance: a fully connected layer \(6 features\)"):
        maker("instance")(6, 0)


def test_group_norm_takes_its_moments_per_example_and_group_of_channels(images):
    got = maker("group", groups=3, eps=EPS)(6, 2).double()(images)
    by_hand = spread(images.view(5, 3, 2, 4, 3), axes=(2, 3, 4)).view_as(images)
    torch.testing.assert_close(got, by_hand)


def test_rms_norm_divides_by_the_root_mean_square_over_channels(images):
    by_hand = images / (images.square().mean(1, keepdim=True) + EPS).sqrt()
    norm = maker("rms", eps=EPS)(6, 2).double()
    torch.testing.assert_close(norm(images), by_hand)
    torch.testing.assert_close(maker("rms", eps=EPS)(6, 0).double()(images[..., 0, 0]), by_hand[..., 0, 0])
    by_torch = nn.functional.rms_norm(images.movedim(1, -1), (6,), eps=EPS).movedim(-1, 1)
    torch.testing.assert_close(norm(images), by_torch)
    norm.weight.data.copy_(torch.arange(6))
    torch.testing.assert_close(norm(images), by_hand * torch.arange(6.0)[:, None, None])
    assert not torch.allclose(norm(images), norm(images + 1), atol=0.1), "nothing is subtracted"


@pytest.mark.parametrize("dims", [0, 2])
def test_synchronized_batch_norm_in_one_process_is_batch_norm(dims):
    x, size = torch.randn(8, 6, *(3,) * dims), {"momentum": 0.3, "eps": EPS}
    synchronized, alone = maker("sync_batch", **size)(6, dims), maker("batch", **size)(6, dims)
    assert isinstance(synchronized, nn.SyncBatchNorm) and list(synchronized.state_dict()) == list(alone.state_dict())
    for _ in range(2):
        assert torch.equal(synchronized(x), alone(x))
    assert all(map(torch.equal, synchronized.state_dict().values(), alone.state_dict().values()))
    assert torch.equal(synchronized.eval()(x), alone.eval()(x))
    assert not maker("sync_batch", scale=False)(6, dims).weight.requires_grad


def test_moments_of_features_without_pixels(images):
    x = images[:, :, 0, 0]
    torch.testing.assert_close(maker("batch", eps=EPS)(6, 0).double()(x), spread(x, axes=(0,)))
    torch.testing.assert_close(maker("layer", eps=EPS)(6, 0).double()(x), spread(x, axes=(1,)))
    by_hand = spread(x.view(5, 3, 2), axes=(2,)).view_as(x)
    torch.testing.assert_close(maker("group", groups=3, eps=EPS)(6, 0).double()(x), by_hand)


def test_none_does_nothing(images):
    assert torch.equal(maker("none")(6, 2)(images), images)


@pytest.mark.parametrize("name", sorted(set(names("norm")) - {"none"}))
def test_scale_and_shift_are_learned_per_channel_from_one_and_zero(name):
    norm = maker(name)(16, 2)
    values = {"weight": [1] * 16} | ({} if name == "rms" else {"bias": [0] * 16})
    assert {key: value.tolist() for key, value in norm.named_parameters()} == values
    norm(torch.randn(4, 16, 3, 3)).pow(3).sum().backward()
    assert all(parameter.grad.any() for parameter in norm.parameters())


def test_batch_norm_evaluates_with_running_statistics_of_training_batches(images):
    norm = maker("batch", momentum=0.25, eps=EPS)(6, 2).double()
    norm(images)
    mean = 0.25 * images.mean((0, 2, 3))
    var = 0.75 + 0.25 * images.var((0, 2, 3), unbiased=True)
    norm.eval()
    test = images[:2] + 100
    by_hand = (test - mean.view(1, 6, 1, 1)) / (var.view(1, 6, 1, 1) + EPS).sqrt()
    torch.testing.assert_close(norm(test), by_hand)
    torch.testing.assert_close(norm(test[:1]), norm(test)[:1])


@pytest.mark.parametrize(("name", "dims"), [(n, d) for n in names("norm") for d in (0, 2) if (n, d) != ("instance", 0)])
def test_evaluation_is_independent_of_batch_mates(name, dims):
    norm = maker(name)(16, dims)
    x = torch.randn(8, 16, *(3,) * dims)
    norm(x)
    norm.eval()
    torch.testing.assert_close(norm(x)[:1], norm(x[:1]))


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ConfigError, match=r"norm\.groups: got 8, must divide the 20 channels"):
        maker("group", groups=8)(20, 2)


def test_norms_differ_where_their_axes_differ(images):
    outs = [maker(name)(6, 2).double()(images) for name in ("batch", "layer", "instance")]
    outs.append(maker("group", groups=2)(6, 2).double()(images))
    outs.append(maker("rms")(6, 2).double()(images))
    assert all(not torch.allclose(a, b, atol=0.05) for i, a in enumerate(outs) for b in outs[:i])
    assert isinstance(maker("none")(6, 2), nn.Identity)


@pytest.mark.parametrize("dims", [0, 2])
def test_batch_norm_without_a_scale_learns_the_shift_only(dims):
    norm, usual = maker("batch", scale=False)(6, dims), maker("batch")(6, dims)
    x = torch.randn(4, 6, *(3,) * dims)
    assert torch.equal(norm(x), usual(x))
    norm(x).pow(3).sum().backward()
    assert norm.weight.tolist() == [1] * 6 and norm.weight.grad is None and norm.bias.grad.any()
