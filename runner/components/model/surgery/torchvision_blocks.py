"""torchvision blocks that reuse one activation module, or call relu as a function, with one module per use.

A block gets a replacement class and the activations it lacks; its weights and their names stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """torchvision's ResNet BasicBlock, which uses one `relu` twice."""

    conv1: nn.Module
    bn1: nn.Module
    relu1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    downsample: nn.Module | None
    relu: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (B, C', H', W')."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """torchvision's ResNet Bottleneck, which uses one `relu` three times."""

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
        """Return the block's output (B, C', H', W')."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(out)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(out + shortcut)  # type: ignore[no-any-return]


class BasicConv2d(nn.Module):
    """torchvision's BasicConv2d of GoogLeNet and Inception, which calls relu."""

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


_REPLACEMENTS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "torchvision.models.resnet.BasicBlock": (BasicBlock, ("relu1",)),
    "torchvision.models.resnet.Bottleneck": (Bottleneck, ("relu1", "relu2")),
    "torchvision.models.googlenet.BasicConv2d": (BasicConv2d, ("relu",)),
    "torchvision.models.inception.BasicConv2d": (BasicConv2d, ("relu",)),
    "torchvision.models.densenet.DenseNet": (DenseNet, ("relu",)),
}


def separate_activations(model: nn.Module) -> None:
    """Give the known blocks one activation module per use; the model computes the same."""
    for module in model.modules():
        kind = type(module)
        twin, missing = _REPLACEMENTS.get(f"{kind.__module__}.{kind.__qualname__}", (kind, ()))
        module.__class__ = twin
        for name in missing:
            module.add_module(name, nn.ReLU())
