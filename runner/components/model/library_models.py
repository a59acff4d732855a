"""Models of torchvision and timm by name, with the config's activation and norm, and weights from files."""

from __future__ import annotations

import re
from functools import partial
from importlib import import_module
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from runner.components.model.layers import sequential
from runner.components.model.surgery import adapt
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import keep
from runner.engine.saving import tensor_file
from runner.engine.state_dict import StateDict, load_state, versions_in
from runner.errors import CheckpointError, ConfigError, unknown
from runner.registry import register
from runner.roles import FilePath
from runner.user_paths import full, is_file, real

_Shape = tuple[int, int, int]
_Swap = list[Literal["activation", "norm"]] | None
# Published files write norm.1, the modules are named norm1
_DENSENET_KEY = re.compile(r"(norm|conv)\.([12])\.")


@register("model")
def torchvision(
    shape: _Shape,
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    arch: str,
    weights: Annotated[str | None, FilePath()],
    swap: _Swap,
) -> nn.Module:
    """Build a torchvision classification model with a new classifier and the config's activation and norm.

    Gray images are repeated over the three colors. Auxiliary classifiers are off. With `weights`, initialization sets
    the classifier only.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Unknown name, unsupported image size or channels, parts that cannot be swapped, or a missing file.
        CheckpointError: The file is broken or of another model.
    """
    from torchvision import models

    choices = models.list_models(module=models)
    if arch not in choices:
        raise unknown("model.arch", "torchvision model", arch, choices)
    if shape[0] not in (1, 3):
        raise ConfigError(f"model=torchvision: images have {shape[0]} channels, must be 1 or 3")
    make = partial(models.get_model, arch, weights=None, num_classes=num_classes, **torchvision_arguments(arch, shape))
    what, trained, color = f"torchvision's {arch}", weights is not None, (3, *shape[1:])
    model = adapt(make, color, activation, norm, swap=swap, trained=trained, what=what)
    if weights is not None:
        _load_weights(model, weights)
    return model if shape[0] == 3 else sequential(color=RepeatChannels(3), net=model)


@register("model")
def timm(
    shape: _Shape,
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    arch: str,
    weights: Annotated[str | None, FilePath()],
    swap: _Swap,
) -> nn.Module:
    """Build a timm model with a new classifier and as many input channels as the images.

    `weights` and `swap` are those of `torchvision`; models of a fixed input size are built for the images' size.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: timm is not installed, or one of the errors of `torchvision`.
        CheckpointError: The file is broken or of another model.
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
    model = adapt(make, shape, activation, norm, swap=swap, trained=trained, what=what)
    if weights is not None:
        _load_weights(model, weights)
    return model


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


def _load_weights(model: nn.Module, path: str) -> None:
    """Load all weights of a file but the classifier's, and protect them from initialization.

    Auxiliary classifiers (aux1, AuxLogits) are left out.

    Raises:
        ConfigError: The file is missing.
        CheckpointError: The file cannot be read or is of another model.
    """
    file = _read_weights(path)
    expected, state = model.state_dict(), _rename_densenet_keys(file, model)
    head = _classifier_name(model)
    body = {name: tensor for name, tensor in expected.items() if not name.startswith(f"{head}.")}
    missing = [name for name in body if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in expected and not name.lower().startswith("aux")]
    wrong = [name for name in body if name in state and state[name].shape != body[name].shape]
    for names, what in ((missing, "are missing"), (extra, "are not of this model"), (wrong, "have another shape")):
        if names:
            raise CheckpointError(f"model.weights: {path}: {len(names)} weights {what}, the first is {names[0]}")
    load_state(model, {name: state[name] for name in body if name in state}, file.versions, strict=False)
    keep(parameter for name, parameter in model.named_parameters() if name in body)


def _read_weights(path: str) -> StateDict:
    """Return the tensors of a .safetensors file or of a file saved by torch; nothing in it is executed."""
    if not is_file(path, key="model.weights"):
        raise ConfigError(f"model.weights: no file at {path}")
    try:
        if path.endswith(".safetensors"):
            return tensor_file.parse(tensor_file.read_bytes(real(path)), "it")
        state = torch.load(full(path), map_location="cpu", weights_only=True)
    except Exception as error:
        # torch and safetensors raise many exception types for damaged files
        reason = str(error) if isinstance(error, CheckpointError) else type(error).__name__
        raise CheckpointError(f"model.weights: {path} cannot be read ({reason})") from error
    if isinstance(state, dict):
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"model.weights: {path} holds no tensors by name")
    found = StateDict((str(name), tensor) for name, tensor in state.items())
    found.versions = versions_in(state) if hasattr(state, "_metadata") else None
    return found


def _rename_densenet_keys(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors under the model's names, where a file has the older ones of DenseNets."""
    names = set(model.state_dict())
    return {name if name in names else _DENSENET_KEY.sub(r"\1\2.", name): tensor for name, tensor in state.items()}


def _classifier_name(model: nn.Module) -> str:
    """Return the name of the last layer, which computes the logits."""
    layers: list[str] = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return layers[-1]
