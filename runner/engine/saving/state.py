"""Nested state <-> named tensors and a JSON tree, bit for bit and without pickle.

In the tree null, truth values, whole numbers, texts, finite numbers and lists stand for themselves; all else is an
object with one key: `{"tuple": [...]}`, `{"dict": [[key, value], ...]}` (keys keep type and order), `{"float": "<16 hex
digits>"}` (NaN with its payload, infinities), `{"tensor": name}` and `{"known": name}`.
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
class _Flattening:
    """The tensors and references collected so far."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    strides: dict[str, list[int]] = field(default_factory=dict)
    references: dict[Any, dict[str, str]] = field(default_factory=dict)


def flatten(state: Any, known: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a nested state, named by their place in it, and the tree that refers to them.

    One that is the same memory seen the same way as another, or as one in `known` (stored elsewhere), is referred to
    and not given again. Raises TypeError, with the place, for what is no dict, list, tuple, tensor, number or text.
    """
    met = _Flattening()
    for name, tensor in known.items():
        met.references[_identity(tensor)] = {"known": name}
    value = _node(state, "", met)
    return met.tensors, {"value": value, "strides": met.strides}


def _node(value: Any, place: str, met: _Flattening) -> Any:
    """Return the tree of one value and collect its tensors."""
    if isinstance(value, Tensor):
        return _reference(value, place, met)
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):  # numpy's too, which comes back as Python's
        value = float(value)
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if isinstance(value, dict):
        if odd := [key for key in value if type(key) not in _KEYS]:
            raise TypeError(f"state{place}: cannot store a key of type {type(odd[0]).__name__}")
        return {"dict": [[_node(key, place, met), _node(item, f"{place}/{key}", met)] for key, item in value.items()]}
    if type(value) in (list, tuple):
        items = [_node(item, f"{place}/{i}", met) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    raise TypeError(f"state{place}: cannot store a {type(value).__name__}")


def _reference(tensor: Tensor, place: str, met: _Flattening) -> dict[str, str]:
    """Return the tree's reference to a tensor, and collect the tensor if it is new."""
    key = _identity(tensor)
    if key not in met.references:
        name = _unused(place, met.tensors)
        met.tensors[name] = tensor.detach()
        met.references[key] = {"tensor": name}
        if tensor.stride() != _packed_stride(tensor.shape) and _dense(tensor.shape, tensor.stride()):
            met.strides[name] = list(tensor.stride())
    return met.references[key]


def _unused(place: str, taken: Mapping[str, Tensor]) -> str:
    """Return the place as a name, longer where two places read the same (the keys 1 and "1")."""
    name = place or "/"
    while name in taken:
        name += "'"
    return name


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Return a key that is equal for tensors that are equal views of the same memory."""
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _packed_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor, as torch gives them to a new one."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return True if strides visit a block of memory without gaps and overlaps (channels_last does)."""
    step = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1):
        if stride != step:
            return False
        step *= size
    return step > 0


def restore(tree: Any, tensors: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> Any:
    """Return the state that `flatten` was given; raises ValueError for a malformed tree.

    A tensor has its saved strides if they were dense, as fused optimizers need, and is contiguous otherwise. Tensors
    that shared memory are one tensor again.
    """
    try:
        strides = tree["strides"]
        laid = {name: _lay(tensor, strides.get(name)) for name, tensor in tensors.items()}
        return _value_of(tree["value"], laid, known)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise ValueError(f"the state tree is malformed ({type(error).__name__})") from error


def _lay(tensor: Tensor, strides: Any) -> Tensor:
    """Return a contiguous tensor in the memory layout noted for it."""
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
