"""Tensors by name from files of torch and safetensors, whatever they are nested in, and their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.engine.saving import tensor_file
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict, versions_in
from runner.errors import CheckpointError, brief, escaped
from runner.user_paths import full, real

# Where programs store the weights of a model in a file, averaged ones first, as timm reads them
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "module")
_DEPTH = 3
# What DistributedDataParallel, torch.compile and Lightning put before each name
_WRAPPERS = ("module.", "_orig_mod.", "model.")


def read_tensors(path: Path, key: str) -> StateDict:
    """Return the tensors of a .safetensors file or of a file saved by torch; nothing in it is executed.

    Optimizer states and other entries of a training checkpoint are left out, as are the prefixes that wrappers put
    before all names.

    Raises:
        CheckpointError: The file cannot be read, or holds no tensors by name; the message begins with `key`.
    """
    try:
        if path.suffix == ".safetensors":
            return _without_wrappers(tensor_file.parse(tensor_file.read_bytes(real(path)), path.name))
        content = torch.load(full(path), map_location="cpu", weights_only=True)
    except Exception as error:
        # torch and safetensors raise many exception types for damaged files
        raise CheckpointError(f"{key}: {printable(path)} cannot be read ({_reason(error, path)})") from error
    state = _innermost(content)
    tensors = {str(name): each for name, each in state.items() if isinstance(each, Tensor)}
    if not tensors:
        raise CheckpointError(f"{key}: {printable(path)} holds no tensors by name ({_found_instead(content)})")
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise CheckpointError(
                f"{key}: {printable(path)}: {escaped(name)} is sparse, quantized or without values; "
                "expected a dense tensor"
            )
    found = StateDict(tensors)
    found.versions = versions_in(state) if hasattr(state, "_metadata") else None
    return _without_wrappers(found)


def _reason(error: Exception, path: Path) -> str:
    """Return why a file cannot be read, in words where torch has the name of an exception only."""
    if isinstance(error, CheckpointError):
        return str(error).removeprefix(f"{path.name}: ")
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if type(error).__name__ == "UnpicklingError" and "weights_only" in str(error).lower():
        return "it is damaged or holds other objects than tensors; save the model's state_dict()"
    return f"it is damaged or not a file of torch.save: {type(error).__name__}"


def _found_instead(content: Any) -> str:
    """Return what a file holds that has no tensors by name."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}; save the model's state_dict()"
    names = brief(", ".join(map(str, content))) or "nothing"
    return f"it has {escaped(names)}; save the model's state_dict() alone, or as 'state_dict'"


def _innermost(content: Any) -> Mapping[Any, Any]:
    """Return the mapping of a file's content that holds the model's tensors."""
    for _ in range(_DEPTH):
        inner = next((content[nest] for nest in _NESTS if _holds_tensors(content, nest)), None)
        if inner is None:
            break
        content = inner
    return content if isinstance(content, Mapping) else {}


def _holds_tensors(content: Any, nest: str) -> bool:
    """Return True if an entry of a mapping is one with tensors, at any depth that is searched."""
    inner = content.get(nest) if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping):
        return False
    return any(isinstance(each, (Tensor, Mapping)) for each in inner.values())


def _without_wrappers(state: StateDict) -> StateDict:
    """Return tensors without the prefixes that all names have because of a wrapper around the model."""
    while prefix := next((each for each in _WRAPPERS if all(name.startswith(each) for name in state)), None):
        state = renamed(state, prefix, "")
        if not state:
            break
    return state


def renamed(state: StateDict, old: str, new: str) -> StateDict:
    """Return tensors and versions with another prefix where they have the old one; other names stay."""

    def name_of(name: str) -> str:
        return f"{new}{name.removeprefix(old)}" if name.startswith(old) else name

    found = StateDict((name_of(name), tensor) for name, tensor in state.items())
    if state.versions is not None:
        # A module is named without the dot at its end, and the whole model by nothing
        found.versions = {
            name_of(f"{name}." if name else "").removesuffix("."): each for name, each in state.versions.items()
        }
    return found


def sha256_of_tensors(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: their names, types, shapes and bytes, whatever the order and kind of the file."""
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().resolve_conj().resolve_neg().contiguous()
        found.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode("utf-8", "surrogateescape"))
        # An empty tensor has no bytes to view
        if tensor.numel():
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_finite(state: Mapping[str, Tensor], key: str, where: str, names: Iterable[str]) -> None:
    """Raise CheckpointError if one of some tensors holds a value that is not finite."""
    for name in names:
        tensor = state[name]
        # Types of 8 bits have no isfinite
        if not (tensor.float() if tensor.is_floating_point() else tensor).isfinite().all():
            raise CheckpointError(f"{key}: {where}: {escaped(name)} holds values that are not finite")
