"""Models of torchvision and timm: every architecture builds, parts are swapped, errors are one line."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from test_model import CIFAR, DIGITS, batch, make
from torch import nn

from runner.errors import ConfigError


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_timm_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # what import finds where a package is missing
    with pytest.raises(ConfigError, match="timm is not installed; pip install timm"):
        make("timm")


@pytest.mark.parametrize(
    "arch", ["mobilenet_v3_small", "googlenet", "squeezenet1_1", "shufflenet_v2_x0_5", "regnet_y_400mf"]
)
def test_torchvision_models_of_every_make_give_logits(arch):
    model = make("torchvision", shape=CIFAR, num_classes=7, arch=arch)
    assert model.training
    assert model(batch(CIFAR)[0]).shape == (4, 7)


def test_grey_images_reach_torchvision_models_as_three_equal_colors():
    torch.manual_seed(0)
    gray = make("torchvision", shape=DIGITS).eval()
    images, _ = batch()
    torch.testing.assert_close(gray(images), gray.net(images.repeat(1, 3, 1, 1)))
    with pytest.raises(ConfigError, match="images have 4 channels, must be 1 or 3"):
        make("torchvision", shape=(4, 32, 32))


class Library(ModuleType):
    """As much of timm as `model=timm` asks for, with one model: a norm with its activation inside, and a classifier."""

    def is_model(self, arch):
        return arch in self.list_models()

    def list_models(self):
        return ["small"]

    def get_pretrained_cfg(self, arch):
        return SimpleNamespace(fixed_input_size=False)

    def create_model(self, arch, *, pretrained, num_classes, in_chans):
        norm = nn.BatchNorm2d(8)
        norm.register_module("act", nn.ReLU())
        norm.forward = lambda x: norm.act(nn.BatchNorm2d.forward(norm, x))
        return nn.Sequential(nn.Conv2d(in_chans, 8, 3), norm, nn.Flatten(), nn.Linear(288, num_classes))


@pytest.mark.parametrize(("swap", "kind"), [(None, nn.Tanh), (["activation"], nn.Tanh), (["norm"], nn.ReLU)])
def test_parts_of_timm_models_are_swapped_as_swap_says(monkeypatch, swap, kind):
    monkeypatch.setitem(sys.modules, "timm", Library("timm"))
    model = make("timm", arch="small", activation="tanh", norm="group", swap=swap)
    found = {type(m) for m in model.modules()}
    assert kind in found
    assert ({nn.GroupNorm, nn.BatchNorm2d} & found) == ({nn.BatchNorm2d} if swap == ["activation"] else {nn.GroupNorm})
    assert model(batch()[0]).shape == (4, 10)
    with pytest.raises(ConfigError, match="unknown timm model 'smal'; did you mean 'small'"):
        make("timm", arch="smal")
