"""What identifies each kind of data: equal for the same examples anywhere, different for any other examples."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from running import job
from test_data import write_idx

import runner.components  # noqa: F401  (registers them)
from runner import registry
from runner.assemble.load_data import fingerprint_before_reading, load
from runner.components.data import digits as digits_module
from runner.engine import file_digests
from runner.engine.contracts import Data, Images
from runner.engine.fingerprint import Fingerprint, Part, differences, digest, identified_by
from runner.errors import DataError
from runner.registry import register, shared_knobs
from runner.schema import NonNegativeInt, PositiveInt
from tests.running import ROOT

CONF = ROOT / "conf" / "data"


def config(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "data": {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes},
        "plugins": [],
        "folds": None,
        "fold": None,
    }


def fingerprint(name: str, **changes: Any) -> Fingerprint:
    return load(config(name, **changes)).fingerprint


def folder(root: Path, **changes: Any) -> Fingerprint:
    return fingerprint("imagefolder", root=str(root), size=[4, 4], workers=0, **changes)


def write_images(root: Path, seed: int = 0) -> Path:
    """Write 20 images of two classes, one in a subfolder that has the name of another."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for number in range(20):
        path = root / ("ants", "bees")[number % 2] / ("", "more")[number // 2 % 2] / f"{number // 4}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trust the state of files that were just written, and note the files that are opened."""
    opened: list[str] = []
    content = file_digests._content

    def noted(path: str, status: os.stat_result) -> bytes:
        opened.append(path)
        return content(path, status)

    monkeypatch.setattr(file_digests, "_TICK", -(10**18))
    monkeypatch.setattr(file_digests, "_content", noted)
    return opened


def test_the_same_images_in_another_place_at_another_time_are_the_same_data(images: Path, tmp_path: Path) -> None:
    before = folder(images)
    copy = shutil.copytree(images, tmp_path / "a folder, far away", copy_function=shutil.copyfile)
    for path in copy.rglob("*.bmp"):
        os.utime(path, (1e9, 1e9))
    assert folder(copy) == before
    moved = images.rename(tmp_path / "moved")
    assert folder(moved) == before


def test_the_counts_are_those_of_the_splits(images: Path) -> None:
    found = folder(images)
    assert found.classes == ("ants", "bees")
    opened = load(config("imagefolder", root=str(images), size=[4, 4], workers=0)).data
    assert opened.test is not None
    for name, split in {"train": opened.train, "val": opened.val, "test": opened.test()}.items():
        assert found.parts[name].counts == tuple(split.labels.bincount(minlength=2).tolist())
    assert sum(part.count or 0 for part in found.parts.values()) == 20


def swap(a: Path, b: Path) -> None:
    a.rename(a.with_suffix(".tmp"))
    b.rename(a)
    a.with_suffix(".tmp").rename(b)


CHANGES = {
    "a class has another name": (lambda root: (root / "bees").rename(root / "wasps"), "'bees' and with 'wasps'"),
    "a class more": (lambda root: shutil.copytree(root / "bees", root / "wasps"), "with 'wasps'"),
    "an image less": (lambda root: (root / "ants" / "2.bmp").unlink(), "'ants' "),
    "an image has another name": (lambda root: (root / "ants" / "2.bmp").rename(root / "ants" / "20.bmp"), "names"),
    "an image in another folder": (
        lambda root: (root / "ants" / "more" / "2.bmp").rename(root / "ants" / "12.bmp"),
        "names",
    ),
    "one name in two folders, swapped": (
        lambda root: swap(root / "ants" / "0.bmp", root / "ants" / "more" / "0.bmp"),
        "other contents",
    ),
    "images of two classes swapped": (
        lambda root: swap(root / "ants" / "0.bmp", root / "bees" / "0.bmp"),
        "other contents",
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_every_change_of_a_folder_is_another_set_and_is_named(images: Path, how: str) -> None:
    change, word = CHANGES[how]
    before = folder(images)
    change(images)
    now = folder(images)
    assert now.id != before.id
    assert word in differences(before, now)
    assert differences(now, now) == ""


def test_a_change_at_equal_size_with_the_old_time_is_noticed(images: Path, settled: list[str]) -> None:
    before = folder(images)
    path = images / "bees" / "1.bmp"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    time.sleep(0.05)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    now = folder(images)
    assert now.id != before.id
    assert "other contents under the same names and sizes" in differences(before, now)


def test_files_are_read_once(images: Path, settled: list[str]) -> None:
    before = folder(images)
    assert len(settled) == 20
    assert (
        folder(images) == before
        and fingerprint_before_reading(config("imagefolder", root=str(images), size=[4, 4], workers=0)) == before
    )
    # Other splits of the same files, and files that were added
    assert folder(images, val_fraction=0.3).id != before.id
    assert len(settled) == 20
    shutil.copyfile(images / "ants" / "0.bmp", images / "ants" / "new.bmp")
    assert folder(images).id != before.id
    assert settled[20:] == [str(images / "ants" / "new.bmp")]


def test_files_that_were_just_written_are_read_again(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    content = file_digests._content
    monkeypatch.setattr(file_digests, "_content", lambda path, status: opened.append(path) or content(path, status))
    assert folder(images, duplicates="ignore") == folder(images, duplicates="ignore")
    assert len(opened) == 40


def test_a_damaged_or_unwritable_cache_costs_only_time(
    images: Path, settled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = folder(images)
    for path in file_digests.cache_home().iterdir():
        path.write_bytes(b"\0" * 77)
    assert folder(images) == before
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert folder(images, cache=None) == before


def test_knobs_about_training_and_pixels_do_not_matter(images: Path) -> None:
    before = folder(images)
    assert folder(images, batch_size=3, crop="resized", center=0.5).id == before.id


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    raw, random = tmp_path / "mnist" / "MNIST" / "raw", np.random.default_rng(0)
    for part, count in (("train", 100), ("t10k", 30)):
        write_idx(raw / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path / "mnist"


def packed(root: Path) -> Fingerprint:
    return fingerprint("mnist", root=str(root), download=False, val_size=20)


@pytest.mark.parametrize(("name", "part"), [("train-images-idx3-ubyte", "train"), ("t10k-labels-idx1-ubyte", "test")])
def test_a_packed_set_is_identified_by_its_files(mnist: Path, tmp_path: Path, name: str, part: str) -> None:
    before = packed(mnist)
    copy = shutil.copytree(mnist, tmp_path / "copy")
    (copy / "notes.txt").write_text("not read")
    assert packed(copy).id == before.id
    path = copy / "MNIST" / "raw" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    now = packed(copy)
    assert {split for split in ("train", "val", "test") if now.parts[split] != before.parts[split]} == (
        {"train", "val"} if part == "train" else {"test"}
    )


def test_a_packed_set_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not in"):
        fingerprint_before_reading(config("mnist", root=str(tmp_path), download=False))


@pytest.mark.parametrize(
    "change", [{"data_seed": 1}, {"kind": "blobs"}, {"train": 999}, {"val": 299}, {"test": 1}, {"noise": 0.03}]
)
def test_synthetic_data_are_identified_by_what_they_are_generated_from(change: dict[str, Any]) -> None:
    before = fingerprint("synthetic")
    assert fingerprint("synthetic", **change).id != before.id
    assert fingerprint("synthetic", batch_size=7).id == before.id
    assert fingerprint("gaussian").id != before.id


def test_the_digits_are_identified_by_their_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Other tests run at the same time, and would find the fingerprint of the changed file
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = fingerprint("digits")
    assert fingerprint("digits", batch_size=3).id == before.id
    assert sum(before.parts["train"].counts or ()) == 1200
    import gzip

    rows = gzip.decompress(digits_module._digits_file().read_bytes())
    (tmp_path / "digits.csv.gz").write_bytes(gzip.compress(rows.replace(b"16", b"15", 1)))
    monkeypatch.setattr(digits_module, "_digits_file", lambda: tmp_path / "digits.csv.gz")
    assert fingerprint("digits").id != before.id


class Streamed:
    """A user's split that is not in memory."""

    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        self.pixels, self.labels = pixels, labels

    def fetch(self, index: torch.Tensor) -> torch.Tensor:
        return self.pixels[index]


STATE: dict[str, Any] = {}


def users_own_set() -> Data:
    """Return what the test wants."""
    make = Streamed if STATE["streamed"] else Images
    split = make(STATE["pixels"], STATE["labels"])

    def closed() -> Images:
        raise AssertionError("the test split is not opened")

    return Data(split, split, closed, (1, 2, 2), STATE["classes"], 4)


@pytest.fixture(params=[False, True], ids=["in memory", "streamed"])
def own(request: pytest.FixtureRequest) -> Iterator[None]:
    pixels = torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2)
    STATE.update(pixels=pixels, labels=torch.arange(10) % 2, classes=("a", "b"), streamed=request.param)
    yield
    STATE.clear()


def own_fingerprint() -> Fingerprint:
    return load({"data": {"name": "users_own_set"}, "plugins": [], "folds": None, "fold": None}).fingerprint


def test_a_users_plain_data_set_is_identified_by_labels_and_pixels(own: None) -> None:
    before = own_fingerprint()
    assert own_fingerprint() == before and before.parts["train"].counts == (5, 5)
    STATE["pixels"] = STATE["pixels"].clone()
    assert own_fingerprint().id == before.id
    STATE["pixels"][3, 0, 0, 1] += 1
    assert differences(before, own_fingerprint()).startswith("train: other contents")
    STATE["labels"] = (torch.arange(10) + 1) % 2
    relabelled = own_fingerprint()
    assert relabelled.id != before.id
    STATE["classes"] = ("b", "a")
    assert own_fingerprint().id != relabelled.id


@shared_knobs
class Shelf:
    """Knobs that a user's data sets share."""

    def __init__(self, *, shelf: NonNegativeInt) -> None:
        self.shelf = shelf


def users_identity(where: Shelf) -> dict[str, Part]:
    """Return what the test wants, without reading anything."""
    part = Part(listing=digest(["mine"]), content=digest([str(where.shelf)]))
    return {"train": part, "val": part}


@identified_by(users_identity)
def users_identified_set(where: Shelf, *, batch_size: PositiveInt) -> Data:
    """Return a split that must not be read to identify it."""

    class Unread(Streamed):
        def fetch(self, index: torch.Tensor) -> torch.Tensor:
            # Two examples are read to check what a user's data set returns
            assert len(index) <= 2, "pixels are not read"
            return super().fetch(index)

    split = Unread(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4) % 2)
    return Data(split, split, None, (1, 2, 2), ("a", "b"), batch_size)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    """Register the data sets of this file for its tests only: the contract tests run over all that are registered."""
    mine = {"users_own_set": users_own_set, "users_identified_set": users_identified_set}
    for name, made in mine.items():
        register("data", name=name)(made)
    yield
    for name in mine:
        registry._parts["data"].pop(name)


def test_a_users_data_set_may_say_itself_what_identifies_it() -> None:
    def found(**knobs: int) -> Fingerprint:
        return load(
            {"data": {"name": "users_identified_set", **knobs}, "plugins": [], "folds": None, "fold": None}
        ).fingerprint

    before = found(shelf=1, batch_size=4)
    assert found(shelf=1, batch_size=2).id == before.id != found(shelf=2, batch_size=4).id
    assert before.parts["train"].counts == (2, 2) and before.classes == ("a", "b")


def fingerprint_of(*words: str) -> Fingerprint:
    config = job(*words).config
    assert fingerprint_before_reading(config).id == load(config).fingerprint.id
    return load(config).fingerprint


def test_arrays_are_identified_by_their_file_the_test_split_too(tmp_path: Path) -> None:
    arrays = {f"{name}_{split}": np.arange(80) % 4 for name in "y" for split in ("train", "test")}
    arrays |= {f"x_{split}": np.arange(80 * 9, dtype=np.float32).reshape(80, 9) for split in ("train", "test")}
    np.savez(tmp_path / "a.npz", **arrays)
    shutil.copyfile(tmp_path / "a.npz", tmp_path / "copy.npz")
    np.savez(tmp_path / "b.npz", **{**arrays, "y_test": arrays["y_test"][::-1].copy()})
    found = [fingerprint_of("data=arrays", f"data.root={tmp_path / name}.npz") for name in ("a", "copy", "b")]
    assert found[0].id == found[1].id != found[2].id


def test_a_table_is_identified_by_its_file(tmp_path: Path) -> None:
    rows = [f"{i},{i * i % 7},{'ab'[i % 2]},{'xy'[i // 2 % 2]}" for i in range(80)]
    for name, some in {"a": rows, "copy": rows, "b": rows[:-1]}.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["p,q,r,s", *some]) + "\n")
    words = ("data=table", "data.label=r", "data.ignore=[s]")
    found = [fingerprint_of(*words, f"data.root={tmp_path / name}.csv") for name in ("a", "copy", "b")]
    assert found[0].id == found[1].id != found[2].id
