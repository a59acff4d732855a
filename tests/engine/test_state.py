"""State of optimizers and scores is restored bit for bit and type for type; an unknown structure is rejected."""

import json
import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.engine.saving import tensor_file
from runner.engine.saving.state import flatten, restore


def through_json(state, known=None):
    """The state after a trip through JSON, tensors as a file would give them back."""
    known = known or {}
    tensors, tree = flatten(state, known)
    return restore(
        json.loads(json.dumps(tree, allow_nan=False)), tensor_file.on_cpu(tensors), tensor_file.on_cpu(known)
    )


def comparable(value):
    """A value in which == means: same types, same bits."""
    if isinstance(value, torch.Tensor):
        packed = torch.empty(value.numel(), dtype=value.dtype)
        packed.copy_(value.detach().reshape(-1))
        return ("tensor", value.dtype, tuple(value.shape), value.stride(), bytes(packed.view(torch.uint8).tolist()))
    if type(value) is float:
        return ("float", struct.pack("<d", value))
    if isinstance(value, dict):
        return ("dict", [(comparable(key), comparable(item)) for key, item in value.items()])
    if type(value) in (list, tuple):
        return (type(value), [comparable(item) for item in value])
    return (type(value), value)


payloads = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | payloads | st.text(st.characters(codec=None))
keys = st.integers() | st.text() | st.booleans() | st.none() | st.floats(allow_nan=False)
states = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=10,
)


@given(states)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_nested_values_come_back_type_for_type_and_bit_for_bit(state):
    assert comparable(through_json(state)) == comparable(state)


def test_dicts_that_look_like_our_own_tags_come_back():
    for state in ({"tuple": [1]}, {"tensor": "x"}, {"dict": []}, {"float": "00"}, {"known": {}}, {"value": 1}):
        assert comparable(through_json(state)) == comparable(state)


DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.complex64),
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)], ids=str)
def test_tensors_of_every_type_and_shape_come_back(dtype, shape, tmp_path):
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (*shape, dtype.itemsize), dtype=torch.uint8)
    tensor = bits.view(dtype).reshape(shape)
    file = tensor_file.write(tmp_path / "x.safetensors", flatten(tensor, {})[0])
    back = restore(flatten(tensor, {})[1], tensor_file.read(tmp_path, file), {})
    assert comparable(back) == comparable(tensor)


LAYOUTS = {
    "channels last": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    "channels last, 1x1": torch.randn(4, 3, 1, 1).to(memory_format=torch.channels_last),
    "channels last, one channel": torch.randn(4, 1, 3, 3).to(memory_format=torch.channels_last),
    "transposed": torch.randn(3, 4).T,
    "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
    "of one, with a stride": torch.randn(6)[3:4].as_strided((1, 1), (7, 3)),
    "parameter": torch.nn.Parameter(torch.randn(3, 2).T),
}


@pytest.mark.parametrize("tensor", LAYOUTS.values(), ids=LAYOUTS)
def test_dense_layouts_keep_their_strides(tensor):
    assert comparable(through_json(tensor)) == comparable(tensor)


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(12)[::3], torch.arange(12).view(3, 4)[:, 1:3], torch.ones(1).expand(4), torch.arange(8)[2:6]],
    ids=["steps", "columns", "expanded", "slice"],
)
def test_views_with_gaps_or_overlaps_come_back_contiguous(tensor):
    back = through_json([tensor])[0]
    assert comparable(back) == comparable(tensor.contiguous())


def test_conjugate_and_negative_views_come_back():
    conjugate = torch.view_as_complex(torch.randn(5, 2)).conj()
    assert torch.equal(through_json(conjugate), conjugate.resolve_conj())
    assert torch.equal(through_json(conjugate.imag), conjugate.imag.resolve_neg())


def test_the_same_memory_is_stored_once_and_comes_back_as_one():
    tensor = torch.randn(4)
    state = {"a": tensor, "b": [tensor, tensor.detach()], "c": tensor.clone(), "d": tensor[:2], "e": tensor.view(2, 2)}
    tensors, _ = flatten(state, {})
    assert len(tensors) == 4
    back = through_json(state)
    assert comparable(back) == comparable(state)
    assert back["b"][0] is back["a"] and back["b"][1] is back["a"]
    assert back["c"] is not back["a"]
    back["d"].zero_()
    assert torch.equal(back["a"], tensor)


def test_what_is_known_is_not_stored_again():
    weights = {"w": torch.randn(3), "b": torch.randn(2)}
    state = {"model": dict(weights), "momentum": weights["w"].clone()}
    tensors, _ = flatten(state, weights)
    assert list(tensors) == ["/momentum"]
    assert comparable(through_json(state, weights)) == comparable(state)


def test_places_that_read_the_same_do_not_collide():
    state = {1: torch.zeros(1), "1": torch.ones(1), "1'": torch.full((1,), 2.0)}
    assert comparable(through_json(state)) == comparable(state)


def test_ordered_dicts_and_numpy_floats_come_back_plain():
    module = torch.nn.Linear(2, 2)
    back = through_json({"model": module.state_dict(), "lr": np.float64(0.1)})
    assert type(back["model"]) is dict and list(back["model"]) == ["weight", "bias"]
    assert type(back["lr"]) is float and back["lr"] == 0.1


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": [1, object()]}, "state/a/1: cannot store a object"),
        ({"a": {(1, 2): 3}}, "state/a: cannot store a key of type tuple"),
        ({"a": b"x"}, "state/a: cannot store a bytes"),
        ({"a": {1}}, "state/a: cannot store a set"),
        ({"a": np.int64(1)}, "state/a: cannot store a int64"),
        ({"a": torch.float32}, "state/a: cannot store a dtype"),
    ],
)
def test_what_cannot_come_back_is_not_taken(state, said):
    with pytest.raises(TypeError, match=f"^{said}$"):
        flatten(state, {})


def deep(levels, wrap):
    tree = 1
    for _ in range(levels):
        tree = wrap(tree)
    return tree


MALFORMED = {
    "no object": [1],
    "empty": {},
    "no strides": {"value": 1},
    "strides of a list": {"value": 1, "strides": [1]},
    "unknown tag": {"value": {"eval": "1"}, "strides": {}},
    "two tags": {"value": {"tuple": [], "dict": []}, "strides": {}},
    "no tag": {"value": {}, "strides": {}},
    "missing tensor": {"value": {"tensor": "nope"}, "strides": {}},
    "missing known": {"value": {"known": "nope"}, "strides": {}},
    "tensor by list": {"value": {"tensor": ["t"]}, "strides": {}},
    "tuple of a number": {"value": {"tuple": 1}, "strides": {}},
    "dict of a number": {"value": {"dict": 1}, "strides": {}},
    "dict without values": {"value": {"dict": [[1]]}, "strides": {}},
    "list as a key": {"value": {"dict": [[[1], 2]]}, "strides": {}},
    "tensor as a key": {"value": {"dict": [[{"tensor": "t"}, 2]]}, "strides": {}},
    "short float": {"value": {"float": "00"}, "strides": {}},
    "float of letters": {"value": {"float": "zz" * 8}, "strides": {}},
    "float of a number": {"value": {"float": 1}, "strides": {}},
    "deep lists": {"value": deep(5000, lambda tree: [tree]), "strides": {}},
    "deep tuples": {"value": deep(5000, lambda tree: {"tuple": [tree]}), "strides": {}},
    **{
        f"strides {strides}": {"value": {"tensor": "t"}, "strides": {"t": strides}}
        for strides in ([1], [1, 1, 1], [1, 3], [2**70, 1], [-3, 1], [3, True], [3.0, 1], "31", 7, [0, 0], [6, 2])
    },
}


@pytest.mark.parametrize("tree", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_tree_is_refused(tree):
    with pytest.raises(ValueError, match=r"^the state tree is malformed"):
        restore(tree, {"t": torch.zeros(2, 3)}, {})


def test_the_malformed_trees_are_malformed_in_one_thing_only():
    assert restore({"value": {"tensor": "t"}, "strides": {"t": [1, 2]}}, {"t": torch.zeros(2, 3)}, {}).stride() == (
        1,
        2,
    )
    assert restore({"value": {"float": "7ff0000000000000"}, "strides": {}}, {}, {}) == math.inf
    assert restore({"value": deep(100, lambda tree: {"tuple": [tree]}), "strides": {}}, {}, {}) is not None
