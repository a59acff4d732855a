"""The benchmarked models as one writes them by hand; their tensors come in the order of the runner's models."""

from __future__ import annotations

from torch import nn


def mlp() -> nn.Module:
    """Return 64-128-128-10 on images (B, 1, 8, 8)."""
    hidden = [nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))


def cnn() -> nn.Module:
    """Return three blocks of convolution, batch norm, ReLU and pooling on images (B, 1, 32, 32)."""
    layers: list[nn.Module] = []
    for cin, cout in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 6))


def resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 with the usual first layer for images (B, 1, 32, 32)."""
    from torchvision.models import resnet18

    model = resnet18(num_classes=6)
    model.conv1, model.maxpool = nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.Identity()
    return model
