"""Models of other libraries by name: they bring their own activations and norms, and no Slots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from runner.components.model.layers import named
from runner.components.model.weights import load
from runner.errors import ConfigError, unknown
from runner.registry import register

Shape = tuple[int, int, int]


@register("model")
def torchvision(shape: Shape, num_classes: int, *, arch: str, weights: str | None) -> nn.Module:
    """Return torchvision's classification model of a name, with a new classifier.

    `weights` is a .safetensors or .pt file; initialization then touches the classifier only. Grey images are repeated
    over the three colours. Auxiliary classifiers are off. Raises ConfigError for an unknown name, images that the model
    does not take and a file that is not there, CheckpointError for a file of another model.
    """
    from torchvision import models

    choices = models.list_models(module=models)
    if arch not in choices:
        raise unknown("model.arch", "torchvision model", arch, choices)
    if shape[0] not in (1, 3):
        raise ConfigError(f"model=torchvision: images have {shape[0]} channels, must be 1 or 3")
    make = partial(models.get_model, arch, weights=None, num_classes=num_classes, **settings(arch, shape))
    model = tried(make, (3, *shape[1:]), f"torchvision's {arch}")
    if weights is not None:
        load(model, weights)
    return model if shape[0] == 3 else named(colour=Repeat(3), net=model)


@register("model")
def timm(shape: Shape, num_classes: int, *, arch: str, weights: str | None) -> nn.Module:
    """Return timm's model of a name, with a new classifier and as many input channels as the images have.

    `weights` as for torchvision. Raises ConfigError where timm is not installed, too.
    """
    try:
        library = import_module("timm")
    except ImportError:
        raise ConfigError("model=timm: timm is not installed; pip install timm") from None
    if not library.is_model(arch):
        raise unknown("model.arch", "timm model", arch, library.list_models())
    fixed = library.get_pretrained_cfg(arch).fixed_input_size
    size = {"img_size": shape[1:]} if fixed else {}
    make = partial(library.create_model, arch, pretrained=False, num_classes=num_classes, in_chans=shape[0], **size)
    model = tried(make, shape, f"timm's {arch}")
    if weights is not None:
        load(model, weights)
    return model


def settings(arch: str, shape: Shape) -> dict[str, Any]:
    """Return what torchvision's builders want to know beyond the number of classes."""
    if arch in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if arch.startswith("vit_"):
        return {"image_size": shape[1]}
    return {"input_size": shape[1:]} if arch.startswith("maxvit") else {}


def tried(make: Callable[[], nn.Module], shape: Shape, what: str) -> nn.Module:
    """Return the model if it takes images of this shape, which is tried without storage; else raise ConfigError."""
    try:
        model = make().eval()
        tensors = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
        with torch.device("meta"), torch.no_grad():
            torch.func.functional_call(model, tensors, (torch.zeros(2, *shape),))
    except (RuntimeError, ValueError, AssertionError) as error:
        size, words = f"{shape[1]}x{shape[2]}", " ".join(str(error).split())[:160]
        raise ConfigError(f"model.arch: {what} does not take images of {size}: {words}") from error
    return model.train()


class Repeat(nn.Module):
    """One channel repeated: (B, 1, H, W) -> (B, count, H, W)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Return the image with `count` equal channels."""
        return x.expand(-1, self.count, -1, -1)
