"""Blocks of torchvision that act more than once with one module, or call relu as a function: a module at each place.

A block gets the class of its twin and the activations it lacks; its weights and their names stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """torchvision's BasicBlock of resnets, which has one `relu` for two places."""

    conv1: nn.Module
    bn1: nn.Module
    relu1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    downsample: nn.Module | None
    relu: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """torchvision's Bottleneck of resnets, which has one `relu` for three places."""

    conv1: nn.Module
    bn1: nn.Module
    relu1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    relu2: nn.Module
    conv3: nn.Module
    bn3: nn.Module
    downsample: nn.Module | None
    relu: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(out)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class BasicConv2d(nn.Module):
    """torchvision's BasicConv2d of googlenet and inception, which calls relu."""

    conv: nn.Module
    bn: nn.Module
    relu: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolved, normalized, activated maps."""
        return self.relu(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class DenseNet(nn.Module):
    """torchvision's DenseNet, which calls relu after its last norm."""

    features: nn.Module
    relu: nn.Module
    classifier: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        out = functional.adaptive_avg_pool2d(self.relu(self.features(x)), (1, 1))
        return self.classifier(torch.flatten(out, 1))  # type: ignore[no-any-return]


TWINS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "torchvision.models.resnet.BasicBlock": (BasicBlock, ("relu1",)),
    "torchvision.models.resnet.Bottleneck": (Bottleneck, ("relu1", "relu2")),
    "torchvision.models.googlenet.BasicConv2d": (BasicConv2d, ("relu",)),
    "torchvision.models.inception.BasicConv2d": (BasicConv2d, ("relu",)),
    "torchvision.models.densenet.DenseNet": (DenseNet, ("relu",)),
}


def separate(model: nn.Module) -> None:
    """Give every place of the blocks known here an activation module of its own; what the model computes stays."""
    for module in model.modules():
        kind = type(module)
        twin, missing = TWINS.get(f"{kind.__module__}.{kind.__qualname__}", (kind, ()))
        module.__class__ = twin
        for name in missing:
            module.add_module(name, nn.ReLU())
