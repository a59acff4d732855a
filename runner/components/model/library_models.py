"""Models of torchvision and timm by name, with the config's activation and norm."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any, Literal

from torch import Tensor, nn

from runner.components.model.layers import sequential
from runner.components.model.surgery import adapt
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.errors import ConfigError, unknown
from runner.registry import register

_Shape = tuple[int, int, int]
_Swap = list[Literal["activation", "norm"]] | None


@register("model")
def torchvision(
    shape: _Shape,
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    trained: bool | None,
    *,
    arch: str,
    swap: _Swap,
) -> nn.Module:
    """Build a torchvision classification model with a new classifier and the config's activation and norm.

    Gray images are repeated over the three colors. Auxiliary classifiers are off. `init_from` loads weights, also the
    published ones by name.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Unknown name, unsupported image size or channels, or parts that cannot be swapped.
    """
    from torchvision import models

    choices = models.list_models(module=models)
    if arch not in choices:
        raise unknown("model.arch", "torchvision model", arch, choices)
    if shape[0] not in (1, 3):
        raise ConfigError(f"model=torchvision: images have {shape[0]} channels, must be 1 or 3")
    make = partial(models.get_model, arch, weights=None, num_classes=num_classes, **torchvision_arguments(arch, shape))
    what, color = f"torchvision's {arch}", (3, *shape[1:])
    model = adapt(make, color, activation, norm, swap=swap, trained=bool(trained), what=what)
    return model if shape[0] == 3 else sequential(color=RepeatChannels(3), net=model)


@register("model")
def timm(
    shape: _Shape,
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    trained: bool | None,
    *,
    arch: str,
    swap: _Swap,
) -> nn.Module:
    """Build a timm model with a new classifier and as many input channels as the images.

    `swap` is that of `torchvision`; models of a fixed input size are built for the images' size.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: timm is not installed, or one of the errors of `torchvision`.
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
    return adapt(make, shape, activation, norm, swap=swap, trained=bool(trained), what=f"timm's {arch}")


def torchvision_arguments(arch: str, shape: _Shape) -> dict[str, Any]:
    """Return the arguments that torchvision's builders need beyond the number of classes."""
    if arch in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if arch.startswith("vit_"):
        return {"image_size": shape[1]}
    return {"input_size": shape[1:]} if arch.startswith("maxvit") else {}


class RepeatChannels(nn.Module):
    """Repeat one channel: (B, 1, H, W) -> (B, count, H, W)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Return the image (B, count, H, W) with equal channels."""
        return x.expand(-1, self.count, -1, -1)
