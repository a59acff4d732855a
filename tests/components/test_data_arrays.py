"""data=arrays: .npz files as people save them, against the arrays that were saved; and hostile files."""

from __future__ import annotations

import io
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.lib import format as npy
from sklearn.datasets import load_breast_cancer, load_digits

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Data, Images
from runner.errors import ConfigError, DataError, RunnerError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "data" / "arrays.yaml"
RANDOM = np.random.default_rng(0)
LABELS = np.arange(60) % 3
PIXELS = RANDOM.integers(0, 256, (60, 5, 6), dtype=np.uint8)


def load(path: Path, **changes: Any) -> Data:
    return build("data", {**yaml.safe_load(CONF.read_text()), "root": str(path), **changes})


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def parts(data: Data) -> list[Images]:
    found = [data.train, data.val, *([] if data.test is None else [data.test()])]
    assert all(isinstance(part, Images) for part in found)
    return found  # type: ignore[return-value]


def whole(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and labels of all splits together."""
    found = parts(data)
    return torch.cat([p.pixels for p in found]).numpy(), torch.cat([p.labels for p in found]).numpy()


def same_rows(found: np.ndarray, expected: np.ndarray) -> bool:
    """Return True if two arrays have the same examples in any order."""
    flat = [np.sort(np.ascontiguousarray(each).reshape(len(each), -1), axis=0) for each in (found, expected)]
    return np.array_equal(*flat)


def refused(path: Path, **changes: Any) -> str:
    with pytest.raises(RunnerError) as caught:
        load(path, **changes)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == (2 if isinstance(caught.value, ConfigError) else 7)
    return str(caught.value)


def test_keras_files_keep_their_splits(tmp_path: Path) -> None:
    test = RANDOM.integers(0, 256, (9, 5, 6), dtype=np.uint8)
    data = load(saved(tmp_path, x_train=PIXELS, y_train=LABELS, x_test=test, y_test=LABELS[:9]))
    train, val, kept = parts(data)
    assert np.array_equal(kept.pixels[:, 0].numpy(), test) and kept.labels.tolist() == LABELS[:9].tolist()
    assert (len(train.labels), len(val.labels), data.shape, data.classes) == (54, 6, (1, 5, 6), ("0", "1", "2"))
    assert same_rows(torch.cat([train.pixels, val.pixels]).numpy(), PIXELS)
    assert train.labels.bincount().tolist() == [18, 18, 18]


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"),
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_valid", "Y_valid", "X_test", "Y_test"),
        ("trainX", "trainy", "devX", "devy", "testX", "testy"),
    ],
)
def test_usual_names_of_split_arrays(tmp_path: Path, names: tuple[str, ...]) -> None:
    cut = [(PIXELS[a:b], LABELS[a:b]) for a, b in ((0, 30), (30, 45), (45, 60))]
    arrays = dict(zip(names, [each for pair in cut for each in pair], strict=True))
    for part, (pixels, labels) in zip(parts(load(saved(tmp_path, **arrays))), cut, strict=True):
        assert np.array_equal(part.pixels[:, 0].numpy(), pixels)
        assert part.labels.tolist() == labels.tolist()


def test_arrays_that_are_not_split_get_fixed_stratified_splits(tmp_path: Path) -> None:
    digits = load_digits()
    path = saved(tmp_path, images=digits.images, labels=digits.target)
    first, again = load(path), load(path)
    for one, other in zip(parts(first), parts(again), strict=True):
        assert torch.equal(one.pixels, other.pixels)
    pixels, labels = whole(first)
    assert same_rows(pixels[:, 0], digits.images.astype(np.uint8))
    assert np.array_equal(np.bincount(labels), np.bincount(digits.target))
    sizes = [len(part.labels) for part in parts(first)]
    assert sizes == [1437, 180, 180]
    shares = [np.bincount(part.labels.numpy(), minlength=10) / len(part.labels) for part in parts(first)]
    assert np.abs(shares[1] - shares[0]).max() < 0.01


def test_examples_keep_their_labels(tmp_path: Path) -> None:
    numbered = np.arange(60, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    for part in parts(load(saved(tmp_path, x=numbered, y=LABELS))):
        assert part.labels.tolist() == (part.pixels[:, 0, 0, 0] % 3).tolist()


@pytest.mark.parametrize(
    ("axes", "changes"),
    [((0, 2, 3, 1), {}), ((0, 1, 2, 3), {}), ((0, 2, 3, 1), {"layout": "nhwc"}), ((0, 1, 2, 3), {"layout": "nchw"})],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first_and_last(tmp_path: Path, axes: tuple[int, ...], changes: dict[str, Any], channels: int) -> None:
    pixels = RANDOM.integers(0, 256, (60, channels, 5, 6), dtype=np.uint8)
    data = load(saved(tmp_path, x=pixels.transpose(axes), y=LABELS), **changes)
    assert data.shape == (channels, 5, 6)
    assert same_rows(whole(data)[0], pixels)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((60, 3, 8, 3), "both the second and the last axis may be channels; set data.layout=nhwc or nchw"),
        ((60, 13, 8, 8), "neither the second nor the last axis looks like channels; set data.layout=nhwc or nchw"),
    ],
)
def test_unclear_channels_ask_for_the_layout(tmp_path: Path, shape: tuple[int, ...], says: str) -> None:
    path = saved(tmp_path, x=np.zeros(shape, np.uint8), y=LABELS)
    assert refused(path).endswith(f"array 'x': has shape {shape}, and {says}")
    assert load(path, layout="nchw").shape == shape[1:]


@pytest.mark.parametrize(
    ("pixels", "expected", "note"),
    [
        (PIXELS.astype(np.int64), PIXELS, "int64 pixels in 0..255, stored as uint8"),
        (PIXELS.astype(np.float32), PIXELS, "float32 pixels in 0..255, stored as uint8"),
        (PIXELS.astype(">i4"), PIXELS, "int32 pixels in 0..255, stored as uint8"),
        (PIXELS / 255, PIXELS, "float64 pixels in 0..1, multiplied by 255 and rounded to uint8"),
        ((PIXELS / 255).astype(">f4"), PIXELS, "float32 pixels in 0..1, multiplied by 255 and rounded to uint8"),
        ((PIXELS / 255).astype(np.float16), PIXELS, "float16 pixels in 0..1, multiplied by 255 and rounded to uint8"),
        (PIXELS > 99, (PIXELS > 99) * 255, "boolean pixels, multiplied by 255 and rounded to uint8"),
        (np.asfortranarray(PIXELS), PIXELS, None),
    ],
)
def test_pixels_of_other_types_become_uint8_and_a_line_says_so(tmp_path, pixels, expected, note) -> None:
    data = load(saved(tmp_path, x=pixels, y=LABELS))
    found = whole(data)[0]
    assert found.dtype == np.uint8
    assert same_rows(found[:, 0], expected.astype(np.uint8))
    assert data.notes == (() if note is None else (f"data: {note}",))


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (PIXELS.astype(np.uint16) * 257, "pixels are in 0..65535, must be whole in 0..255, or floats in 0..1"),
        (PIXELS.astype(int) - 1, "must be whole in 0..255, or floats in 0..1; data.kind=features takes any number"),
        (PIXELS / 127.5 - 1, "must be whole in 0..255, or floats in 0..1; data.kind=features takes any number"),
        (
            np.where(PIXELS[3, 2, 1] == PIXELS, np.nan, PIXELS / 255),
            "values are NaN or infinite in float32, the first (nan)",
        ),
        (PIXELS + 0.5, "must be whole in 0..255, or floats in 0..1"),
        (PIXELS * 1j, "has type complex128, expected numbers or text"),
        (PIXELS[0], "has 5 examples, and 'y' has 60 labels"),
        (PIXELS[:0], "has 0 examples, and 'y' has 60 labels"),
        (PIXELS[:, :, :0], "has shape (60, 5, 0), which is empty"),
        (PIXELS[:, 0, 0], "has shape (60,), must be (N, H, W), (N, H, W, C), (N, C, H, W) or features (N, D)"),
        (PIXELS.astype("datetime64[s]"), "has type datetime64[s], expected numbers or text"),
    ],
)
def test_other_pixels_are_refused(tmp_path: Path, pixels: np.ndarray, says: str) -> None:
    assert says in refused(saved(tmp_path, x=pixels, y=LABELS))


def test_all_splits_follow_the_range_of_the_training_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=PIXELS / 255, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    assert "array 'x_test': pixels are in 0..255, must be 0..1, as those to train on" in refused(path)
    path = saved(tmp_path, x_train=PIXELS, y_train=LABELS, x_test=PIXELS / 255, y_test=LABELS)
    assert "array 'x_test': pixels are in 0..1, must be whole in 0..255" in refused(path)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint8, bool])
def test_features_are_float32_channels_of_one_pixel(tmp_path: Path, kind: type) -> None:
    values = (RANDOM.normal(size=(60, 4)) * 9).astype(kind)
    data = load(saved(tmp_path, x=values, y=LABELS), duplicates="ignore")  # most booleans are equal
    found = whole(data)[0]
    assert (data.shape, found.dtype, data.notes) == ((4, 1, 1), np.float32, ())
    assert same_rows(found, values.astype(np.float32))


def test_features_of_any_shape_are_flattened_on_request(tmp_path: Path) -> None:
    data = load(saved(tmp_path, x=PIXELS / 7 - 3, y=LABELS), kind="features")
    assert data.shape == (30, 1, 1)
    assert same_rows(whole(data)[0], (PIXELS / 7 - 3).astype(np.float32))


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ((7, 2), np.nan, "1 values are NaN or infinite in float32, the first (nan) in example 7, feature 2"),
        ((59, 0), -np.inf, "1 values are NaN or infinite in float32, the first (-inf) in example 59, feature 0"),
        ((0, 3), 1e39, "1 values are NaN or infinite in float32, the first (inf) in example 0, feature 3"),
    ],
)
def test_features_that_are_not_finite_are_refused(
    tmp_path: Path, place: tuple[int, int], value: float, says: str
) -> None:
    values = RANDOM.normal(size=(60, 4))
    values[place] = value
    assert refused(saved(tmp_path, x=values, y=LABELS)).endswith(f"array 'x': {says}")


def test_a_line_names_features_that_float32_is_too_coarse_for(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(60, 3))
    values[:, 1] += 1.7e9
    (note,) = load(saved(tmp_path, x=values, y=LABELS)).notes
    assert note == "data: float32 rounds feature 1 by more than 0.001 standard deviations; subtract the mean first"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS.astype(">i2"), ("0", "1", "2")),
        (LABELS[:, None].astype(np.uint8), ("0", "1", "2")),
        (LABELS.astype(float), ("0", "1", "2")),
        (np.eye(3)[LABELS], ("0", "1", "2")),
        (np.array([2, 10, 1])[LABELS], ("1", "2", "10")),
        (LABELS > 0, ("0", "1")),
        (np.where(LABELS > 0, 1, -1), ("-1", "1")),
        (np.array(["item 10", "item 9", "b"])[LABELS], ("b", "item 9", "item 10")),
        (np.array(["grün", "日本", "é"])[LABELS], ("grün", "é", "日本")),
        (np.array([b"cat", b"dog", b"cow"])[LABELS], ("cat", "cow", "dog")),
    ],
)
def test_labels_are_numbered_in_the_natural_order_of_their_names(tmp_path: Path, labels, classes) -> None:
    numbered = np.arange(60, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    data = load(saved(tmp_path, x=numbered, y=labels))
    assert data.classes == classes
    flat = labels.argmax(1) if labels.shape == (60, 3) else labels.reshape(60)
    texts = [
        v.decode() if isinstance(v, bytes) else str(int(v)) if not isinstance(v, str) else v for v in flat.tolist()
    ]
    for part in parts(data):
        assert [classes[i] for i in part.labels.tolist()] == [texts[i] for i in part.pixels[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (LABELS - 1, "array 'y': label -1 at position 0, must be >= 0, or -1 and 1 only"),
        (LABELS + 0.5, "array 'y': label 0.5 at position 0 is not a whole number; must be a class, not a quantity"),
        (np.where(LABELS == 2, np.nan, LABELS), "array 'y': 20 labels are missing (NaN), the first at position 2"),
        (LABELS * 0, "array 'y': has only one class, '0'; must have at least two classes"),
        (LABELS[:59], "'x' has 60 examples, and 'y' has 59 labels"),
        (np.array(["a", "", "b"])[LABELS], "array 'y': 20 labels are missing, the first at position 1"),
        (np.eye(3)[LABELS] * 2, "labels have shape (60, 3), and rows that are not one-hot; must be one class each"),
        (np.zeros((60, 2, 2)), "labels have shape (60, 2, 2), must be (N,), (N, 1) or one-hot (N, classes)"),
        (LABELS.astype(object), "array y (has Python objects, which only pickle can read"),
        (np.array(5), "'x' has 60 examples, and 'y' has 0 labels"),
        (np.full(60, 2**63, np.uint64), "label 9223372036854775808 is too large for a class number"),
        (np.array([b"\xff", b"a", b"b"])[LABELS], "labels are bytes that are not UTF-8 text"),
    ],
)
def test_other_labels_are_refused(tmp_path: Path, labels: np.ndarray, says: str) -> None:
    assert says in refused(saved(tmp_path, x=PIXELS, y=labels))


def test_a_class_without_training_example_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS + 1)
    assert refused(path).endswith("array 'y_test': class '3' is not among the training labels")


def test_a_test_split_without_labels_is_named_and_not_used(tmp_path: Path) -> None:
    data = load(saved(tmp_path, x_train=PIXELS, y_train=LABELS, x_test=PIXELS, ids=LABELS))
    assert data.test is None
    assert data.notes == ("data: arrays that are not used: x_test, ids",)


def test_the_config_names_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path, a=PIXELS, b=LABELS, c=PIXELS[:30], d=LABELS[:30])
    assert same_rows(whole(load(path, inputs="a", labels="b"))[0][:, 0], PIXELS)
    data = load(path, inputs={"train": "a", "test": "c"}, labels={"train": "b", "test": "d"})
    assert np.array_equal(parts(data)[2].pixels[:, 0].numpy(), PIXELS[:30])


@pytest.mark.parametrize(
    ("names", "changes", "says"),
    [
        (
            ("images", "data", "y"),
            {},
            "'images' and 'data' may both be inputs; name one in data.inputs (found images (60, ",
        ),
        (("x", "x_train", "y"), {}, "'x' and 'x_train' may both be inputs; name one in data.inputs"),
        (
            ("arr_0", "arr_1"),
            {},
            "no inputs by the usual names (x and y, images and labels, or x_train, y_train, x_test",
        ),
        (("x", "arr_1"), {}, "no labels by the usual names"),
        (("x_test", "y_test"), {}, "no inputs by the usual names"),
        (("x", "y_train"), {}, "no labels for array 'x'; name them in data.labels"),
        (("x", "y"), {"inputs": "xx"}, "data.inputs: unknown array 'xx'; did you mean 'x'? (choose from: x, y)"),
        (("x", "y"), {"labels": {"train": "z"}, "inputs": {"train": "x"}}, "data.labels.train: unknown array 'z'"),
        (("x", "y"), {"labels": {"train": "y"}, "inputs": "x"}, "data.inputs: got one array, must be {train: ...}"),
    ],
)
def test_names_that_do_not_tell_are_refused_with_the_arrays(tmp_path, names, changes, says) -> None:
    assert says in refused(saved(tmp_path, **dict.fromkeys(names, PIXELS)), **changes)


def test_too_few_examples_for_a_split_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, x=PIXELS[:3], y=LABELS[:3])
    assert "data.val_fraction: got 0.4, which selects none of 3 examples of 3 classes" in refused(
        path, val_fraction=0.4, test_fraction=0.0
    )


class Trap:
    """An object whose unpickling is seen."""

    sprung: list[bool] = []  # noqa: RUF012

    def __reduce__(self):
        return (Trap.sprung.append, (True,))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    trap = np.array([Trap()] * 60, dtype=object)
    np.savez(tmp_path / "x.npz", x=PIXELS, y=trap)
    assert "array y (has Python objects, which only pickle can read" in refused(tmp_path / "x.npz")
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Trap()))
    assert refused(tmp_path / "p.npz").endswith("is not an .npz file, or is cut off")
    # An object array whose size fits its header
    body = io.BytesIO()
    npy.write_array_header_1_0(body, {"descr": "|O", "fortran_order": False, "shape": (60,)})
    with zipfile.ZipFile(tmp_path / "h.npz", "w") as file:
        file.writestr("x.npy", npy_bytes(PIXELS))
        file.writestr("y.npy", body.getvalue() + bytes(480))
    assert "has Python objects" in refused(tmp_path / "h.npz")
    assert Trap.sprung == []


def test_an_array_of_objects_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    assert load(saved(tmp_path, x=PIXELS, y=LABELS, meta=np.array({"a": 1}))).notes == (
        "data: arrays that are not used: meta",
    )


def npy_bytes(array: np.ndarray) -> bytes:
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


def forged(path: Path, header: dict[str, Any], body: bytes = b"", method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a file whose x has this header; y is fine."""
    start = io.BytesIO()
    npy.write_array_header_1_0(start, {"descr": "|u1", "fortran_order": False, "shape": (60,)} | header)
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("x.npy", start.getvalue() + body)
        file.writestr("y.npy", npy_bytes(LABELS))
    return path


@pytest.mark.parametrize("shape", [(60, 2**40), (60, 10**5, 10**5), (60, -1), (10**30, 2)])
def test_headers_that_promise_what_is_not_there_cost_no_memory(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = forged(tmp_path / "x.npz", {"shape": shape}, bytes(100))
    tracemalloc.start()
    assert "has 100 bytes, expected" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_zip_bomb_costs_neither_memory_nor_time(tmp_path: Path) -> None:
    """A file of 2 MB with 2 GB of zeros: only its header is decompressed."""
    path, size = tmp_path / "x.npz", 2 * 10**9
    start = io.BytesIO()
    npy.write_array_header_1_0(start, {"descr": "|u1", "fortran_order": False, "shape": (60, size // 60)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w") as stream:
            stream.write(start.getvalue())
            for _ in range(20):
                stream.write(bytes(10**6))
        file.writestr("y.npy", npy_bytes(LABELS))
    data = bytearray(path.read_bytes())
    # Its sizes in the list at the end, as if there were 2 GB; a member never gives more than the list says
    place = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, place + 24, size // 60 * 60 + start.tell())
    path.write_bytes(data)
    tracemalloc.start()
    began = time.process_time()
    assert "its arrays take 1908 MiB, must be <= data.memory (512 MiB)" in refused(path, memory=512)
    assert time.process_time() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_member_that_is_longer_than_its_list_says_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, x=PIXELS, y=LABELS)
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    assert "cannot be read as an .npz file (Bad CRC-32 for file 'x.npy')" in refused(path)


@pytest.mark.parametrize("kept", [0, 3, 100, 1000, -1, -22, -30, -200])
def test_files_that_are_cut_off_are_refused(tmp_path: Path, kept: int) -> None:
    path = saved(tmp_path, x=PIXELS, y=LABELS)
    path.write_bytes(path.read_bytes()[:kept])
    assert refused(path).startswith(f"data.root: {path} ")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    assert "compressed or encrypted in another way than numpy does" in refused(
        forged(tmp_path / "x.npz", {}, bytes(60), method)
    )


def test_other_files_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.npz").endswith("does not exist; expected an .npz file")
    assert refused(tmp_path).endswith("is not a file; expected an .npz file")
    np.save(tmp_path / "x.npy", PIXELS)
    assert "is an .npy file with one array" in refused(tmp_path / "x.npy")
    (tmp_path / "text.npz").write_text("x,y\n1,2\n" * 99)
    assert refused(tmp_path / "text.npz").endswith("is not an .npz file, or is cut off")
    np.savez(tmp_path / "empty.npz")
    assert "has no arrays" in refused(tmp_path / "empty.npz")


def test_thousands_of_arrays_are_refused_before_they_are_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        for i in range(1001):
            file.writestr(f"{i}.npy", b"")
    assert "has 1001 arrays in a list of" in refused(tmp_path / "x.npz")


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", npy_bytes(PIXELS))
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("x.npy", npy_bytes(PIXELS))
    assert "has two arrays named 'x'" in refused(tmp_path / "x.npz")


def test_compressed_files_hold_the_same(tmp_path: Path) -> None:
    cancer = load_breast_cancer()
    np.savez_compressed(tmp_path / "x.npz", data=cancer.data, target=cancer.target_names[cancer.target])
    data = load(tmp_path / "x.npz")
    assert data.classes == ("benign", "malignant")
    assert same_rows(whole(data)[0], cancer.data.astype(np.float32))


def test_data_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data.root: .*none\.npz does not exist; expected an \.npz file$"):
        load(tmp_path / "none.npz")
