"""Weights from a file into a model whose classifier is new."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor, nn

from runner.engine.parts import keep
from runner.engine.saving import tensor_file
from runner.errors import CheckpointError, ConfigError

DENSENET = re.compile(r"(norm|conv)\.([12])\.")  # published files write norm.1, the modules are called norm1


def load(model: nn.Module, path: str) -> None:
    """Give a model all weights of a file but those of its classifier, and mark them as kept from initialization.

    Classifiers that only help training (aux1, AuxLogits) are left out too. Raises ConfigError where there is no such
    file, CheckpointError where it cannot be read or is not of this model.
    """
    own, state = model.state_dict(), renamed(read(path), model)
    head = classifier(model)
    body = {name: tensor for name, tensor in own.items() if not name.startswith(f"{head}.")}
    missing = [name for name in body if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in own and not name.lower().startswith("aux")]
    wrong = [name for name in body if name in state and state[name].shape != body[name].shape]
    for names, what in ((missing, "are missing"), (extra, "are not of this model"), (wrong, "have another shape")):
        if names:
            raise CheckpointError(f"model.weights: {path}: {len(names)} weights {what}, the first is {names[0]}")
    model.load_state_dict({name: state[name] for name in body if name in state}, strict=False)
    keep(parameter for name, parameter in model.named_parameters() if name in body)


def read(path: str) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a file that torch saved; nothing in it is executed."""
    if not Path(path).is_file():
        raise ConfigError(f"model.weights: no file at {path}")
    try:
        if path.endswith(".safetensors"):
            return tensor_file.parse(tensor_file.read_bytes(Path(path).resolve()), "it")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        reason = str(error) if isinstance(error, CheckpointError) else type(error).__name__
        raise CheckpointError(f"model.weights: {path} cannot be read ({reason})") from error
    if isinstance(state, dict):
        state = next((state[key] for key in ("state_dict", "model") if key in state), state)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"model.weights: {path} holds no tensors by name")
    return {str(name): tensor for name, tensor in state.items()}


def renamed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors under the model's names, where a file has the older ones of densenets."""
    names = set(model.state_dict())
    return {name if name in names else DENSENET.sub(r"\1\2.", name): tensor for name, tensor in state.items()}


def classifier(model: nn.Module) -> str:
    """Return the name of the last layer, which gives the logits."""
    layers: list[str] = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return layers[-1]
