"""Models of other libraries by name, made like ours: with the activation and norm of the config, and with Slots."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from runner.components.model.layers import named
from runner.components.model.surgery import adapted
from runner.components.model.weights import load
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.errors import ConfigError, unknown
from runner.registry import register
from runner.roles import FilePath

Shape = tuple[int, int, int]
Swap = list[Literal["activation", "norm"]] | None


@register("model")
def torchvision(
    shape: Shape,
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    arch: str,
    weights: Annotated[str | None, FilePath()],
    swap: Swap,
) -> nn.Module:
    """Return torchvision's classification model of a name, with a new classifier and the activation and norm given.

    `weights` is a .safetensors or .pt file; initialization then touches the classifier only. `swap` names what becomes
    the config's; without it that is both, and an error where it would change what `weights` were trained with. Grey
    images are repeated over the three colours. Auxiliary classifiers are off. Raises ConfigError for an unknown name,
    images that the model does not take, parts that cannot be swapped and a file that is not there, CheckpointError for
    a file of another model.
    """
    from torchvision import models

    choices = models.list_models(module=models)
    if arch not in choices:
        raise unknown("model.arch", "torchvision model", arch, choices)
    if shape[0] not in (1, 3):
        raise ConfigError(f"model=torchvision: images have {shape[0]} channels, must be 1 or 3")
    make = partial(models.get_model, arch, weights=None, num_classes=num_classes, **settings(arch, shape))
    what, trained, colour = f"torchvision's {arch}", weights is not None, (3, *shape[1:])
    model = adapted(make, colour, activation, norm, swap=swap, trained=trained, what=what)
    if weights is not None:
        load(model, weights)
    return model if shape[0] == 3 else named(colour=Repeat(3), net=model)


@register("model")
def timm(
    shape: Shape,
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    arch: str,
    weights: Annotated[str | None, FilePath()],
    swap: Swap,
) -> nn.Module:
    """Return timm's model of a name, with a new classifier and as many input channels as the images have.

    `weights` and `swap` as for torchvision. Raises ConfigError where timm is not installed, too.
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
    what, trained = f"timm's {arch}", weights is not None
    model = adapted(make, shape, activation, norm, swap=swap, trained=trained, what=what)
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


class Repeat(nn.Module):
    """One channel repeated: (B, 1, H, W) -> (B, count, H, W)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """Return the image with `count` equal channels."""
        return x.expand(-1, self.count, -1, -1)
