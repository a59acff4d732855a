"""Conversion of a nested state to named tensors and a JSON tree, and back, bit for bit and without pickle.

In the tree, None, booleans, integers, strings, finite floats and lists are JSON values. Anything else is an object with
one key: `{"tuple": [...]}`, `{"dict": [[key, value], ...]}` (keeps type and order of the keys), `{"float": "<16 hex
digits>"}` (infinities, and NaN with its payload), `{"tensor": name}` for a tensor stored with the state, and `{"known":
name}` for one stored with the weights.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_PLAIN = (type(None), bool, int, str)
_KEYS = (*_PLAIN, float)


@dataclass
class _Collected:
    """The tensors collected so far by name, their strides if not contiguous, and the reference to each tensor."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    strides: dict[str, list[int]] = field(default_factory=dict)
    references: dict[Any, dict[str, str]] = field(default_factory=dict)


def flatten(state: Any, known: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split a nested state into tensors and a JSON tree.

    A tensor that is the same view of the same memory as an earlier one, or as one in `known`, is stored only once.

    Args:
        state: Nested dicts, lists and tuples of tensors, numbers, strings and None.
        known: Tensors that are stored elsewhere, by name.

    Returns:
        The tensors by name, which is their path in the state, and the tree that refers to them.

    Raises:
        TypeError: The state has a value or key of another type; the message gives its path.
    """
    collected = _Collected()
    for name, tensor in known.items():
        collected.references[_identity(tensor)] = {"known": name}
    value = _node(state, "", collected)
    return collected.tensors, {"value": value, "strides": collected.strides}


def _node(value: Any, path: str, collected: _Collected) -> Any:
    """Return the tree of a value at a path, and collect its tensors."""
    if isinstance(value, Tensor):
        return _reference(value, path, collected)
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        # numpy.float64 is a subclass of float; it is restored as a float.
        value = float(value)
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, dict):
        if unsupported := [key for key in value if type(key) not in _KEYS]:
            raise TypeError(f"state{path}: cannot store a key of type {type(unsupported[0]).__name__}")
        return {
            "dict": [
                [_node(key, path, collected), _node(item, f"{path}/{key}", collected)] for key, item in value.items()
            ]
        }
    if type(value) in (list, tuple):
        items = [_node(item, f"{path}/{i}", collected) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    raise TypeError(f"state{path}: cannot store a {type(value).__name__}")


def _reference(tensor: Tensor, path: str, collected: _Collected) -> dict[str, str]:
    """Return the reference to a tensor in the tree, and collect the tensor if it is new."""
    key = _identity(tensor)
    if key not in collected.references:
        name = _unused_name(path, collected.tensors)
        collected.tensors[name] = tensor.detach()
        collected.references[key] = {"tensor": name}
        if tensor.stride() != _packed_stride(tensor.shape) and _dense(tensor.shape, tensor.stride()):
            collected.strides[name] = list(tensor.stride())
    return collected.references[key]


def _unused_name(path: str, taken: Mapping[str, Tensor]) -> str:
    """Return a path as a name, made unique if two paths have the same text (the keys 1 and "1")."""
    name = path or "/"
    while name in taken:
        name += "'"
    return name


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Return a key that is equal for tensors that are the same view of the same memory."""
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _packed_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides that torch gives to a new contiguous tensor."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return True if the strides cover a block of memory without gaps and overlaps, as in channels_last."""
    step = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != step:
            return False
        step *= size
    return step > 0


def restore(tree: Any, tensors: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Any:
    """Return the state that `flatten` split.

    A tensor gets its old strides if they were dense, which fused optimizers need, else it is contiguous. References to
    the same view of the same memory become references to one tensor.

    Args:
        tree: The tree.
        tensors: The tensors stored with it, by name.
        known: The tensors stored elsewhere, by name.

    Raises:
        ValueError: The tree is malformed.
    """
    try:
        strides = tree["strides"]
        restored = {name: _with_strides(tensor, strides.get(name)) for name, tensor in tensors.items()}
        return _value_of(tree["value"], restored, known)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise ValueError(f"the state tree is malformed ({type(error).__name__})") from error


def _with_strides(tensor: Tensor, strides: Any) -> Tensor:
    """Return a contiguous tensor with the strides from the tree; unchanged if they are None."""
    if strides is None:
        return tensor
    numbers = [stride for stride in strides if type(stride) is int and 0 <= stride < 2**62]
    if len(numbers) != tensor.ndim or not _dense(tensor.shape, numbers):
        raise ValueError("strides")
    return torch.empty_strided(tensor.shape, numbers, dtype=tensor.dtype).copy_(tensor)


def _value_of(tree: Any, tensors: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Any:
    """Return the value that a tree represents."""
    if type(tree) in _KEYS:
        return tree
    if type(tree) is list:
        return [_value_of(item, tensors, known) for item in tree]
    ((kind, content),) = tree.items()
    match kind:
        case "tuple":
            return tuple(_value_of(item, tensors, known) for item in content)
        case "dict":
            return {_value_of(key, {}, {}): _value_of(item, tensors, known) for key, item in content}
        case "float":
            return struct.unpack(">d", bytes.fromhex(content))[0]
        case "tensor":
            return tensors[content]
        case "known":
            return known[content]
    raise ValueError(kind)
