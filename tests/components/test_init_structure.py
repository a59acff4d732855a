"""Structured and data-dependent initializations: residual, orthogonal, dirac, lsuv, whiten."""

from math import sqrt

import numpy as np
import pytest
import torch
from test_init import DIGITS, Zoo, digits, init, model
from torch import nn
from torch.nn.functional import cross_entropy

from runner.engine.parts import Residual, Slot
from runner.errors import ConfigError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def blocks(net):
    return [m for m in net.modules() if isinstance(m, Residual)]


def test_residual_zeroes_the_norms_scale_where_a_norm_ends_the_branch():
    net = init("residual", model("resnet", norm="batch"))
    for block in blocks(net):
        assert not block.branch.norm2.weight.any() and block.branch.conv2.weight.any()
    images = torch.randn(4, *DIGITS)
    cross_entropy(net(images), torch.arange(4)).backward()
    largest = max(p.grad.abs().max().item() for p in net.parameters())
    assert largest < 10  # a convolution of zeros under the norm would make it 1 / sqrt(eps) = 316 times what it is


def test_residual_zeroes_the_convolution_where_no_norm_ends_the_branch():
    for knobs in ({"norm": "none"}, {"norm": "batch", "order": "pre"}):
        for block in blocks(init("residual", model("resnet", **knobs))):
            assert not block.branch.conv2.weight.any() and block.branch.conv1.weight.any()


def test_residual_blocks_start_as_their_shortcut():
    for knobs in ({"norm": "batch"}, {"norm": "none"}, {"norm": "layer"}):
        net = init("residual", model("resnet", **knobs))
        block = blocks(net)[0]
        x = torch.rand(2, 16, 8, 8)
        assert torch.equal(block(x), x)


def test_residual_is_refused_where_there_are_no_residual_blocks():
    with pytest.raises(ConfigError, match="no residual branch"):
        init("residual", model("mlp"))


def test_residual_knows_which_layer_of_a_branch_is_last():
    branch = nn.Sequential(nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2), nn.PReLU(), Slot("residual"))
    net = nn.Sequential(Residual(branch, nn.Identity(), nn.Identity()), nn.Linear(2, 2))
    init("residual", net)
    assert not branch[1].weight.any() and branch[0].weight.any() and branch[2].weight.any()


def test_orthogonal_rows_have_length_gain_and_right_angles():
    zoo = init("orthogonal", Zoo(), gain=1.5, head=None)
    for name in ("linear", "conv"):
        rows = zoo.get_submodule(name).weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2.25 * torch.eye(len(rows)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_convolutions_pass_their_inputs_through(groups):
    net = init("dirac", nn.Sequential(nn.Conv2d(4, 12, 3, padding=1, groups=groups), nn.Flatten(), nn.Linear(12, 2)))
    x = torch.randn(2, 4, 5, 5)
    out = net[0](x).view(2, groups, 12 // groups, 5, 5)
    torch.testing.assert_close(out[:, :, : 4 // groups].flatten(1, 2), x)
    assert net[0].weight.flatten(1).any(1).all()  # no filter of zeros
    assert net[2].weight.any()


def test_lsuv_gives_every_layer_unit_variance_on_the_images():
    images, spreads = digits(), []
    for net in (model("cnn"), model("resnet", activation="tanh"), model("resnet", norm="batch")):
        init("lsuv", net, images=images, bias=0.0, head=None)
        assert net.training
        for layer in (m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))):
            layer.register_forward_hook(lambda m, i, output: spreads.append(output.std().item()))
        net(images)
    np.testing.assert_allclose(spreads, 1, rtol=1e-3)
    assert len(spreads) > 10


def test_lsuv_directions_stay_orthonormal_and_biases_come_after():
    net = init("lsuv", model("mlp"), images=digits(), bias=0.1)
    rows = net.hidden.fc2.linear.weight
    gram = rows @ rows.T
    torch.testing.assert_close(gram / gram[0, 0], torch.eye(len(rows)), atol=1e-4, rtol=0)
    assert net.head.bias.tolist() == pytest.approx([0.1] * 10)


def test_whiten_turns_patches_into_uncorrelated_features_of_unit_variance():
    images = digits()
    net = init("whiten", model("cnn", channels=[18, 8]), images=images, eps=1e-9)
    conv = net.block1.conv
    with torch.no_grad():
        features = nn.functional.conv2d(images.double(), conv.weight.double())
    features = features.transpose(0, 1).flatten(1)
    torch.testing.assert_close(features[:9].cov(), torch.eye(9, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(features[9:], -features[:9], check_stride=False)


def test_whiten_takes_the_largest_components_and_leaves_the_other_filters_to_he():
    torch.manual_seed(0)
    net = init("whiten", model("cnn", channels=[40, 8]), images=digits())
    weight = net.block1.conv.weight
    lengths = weight[:9].flatten(1).norm(dim=1)
    assert (lengths.diff() > 0).all()  # 1 / sqrt(eigenvalue), largest eigenvalue first
    assert weight[18:].std().item() == pytest.approx(sqrt(2 / 9), rel=0.2)


def test_whiten_is_refused_without_a_convolution_on_the_image():
    with pytest.raises(ConfigError, match="no convolution that reads the image"):
        init("whiten", model("mlp"), images=digits())


def test_residual_is_refused_where_a_relu_would_keep_branches_at_zero():
    with pytest.raises(ConfigError, match="not supported with a ReLU"):
        init("residual", model("resnet9", norm="batch", width=8))
    net = init("residual", model("resnet9", norm="batch", width=8, activation="gelu"))
    cross_entropy(net(digits(4)), torch.arange(4)).backward()
    assert all(block.branch.unit2.norm.weight.grad.any() for block in blocks(net))


def test_whiten_leaves_the_rest_to_dirac_and_trains_no_frozen_filters():
    images = digits()
    net = init("whiten", model("cnn", channels=[18, 18]), images=images, rest="dirac", frozen=True)
    usual = init("whiten", model("cnn", channels=[18, 18]), images=images)
    assert torch.equal(net.block1.conv.weight, usual.block1.conv.weight)
    x = torch.randn(2, 18, 4, 4)
    torch.testing.assert_close(nn.functional.conv2d(x, net.block2.conv.weight, padding=1), x)
    cross_entropy(net(images[:4]), torch.arange(4)).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None]
    assert without == ["block1.conv.weight"]


def test_residual_is_refused_where_the_scales_it_zeroes_are_not_learned():
    net = model("resnet", norm="batch")
    for block in blocks(net):
        block.branch.norm2.weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"norm\.scale=false"):
        init("residual", net)
