"""Data sets: fixed splits, content, and errors for unusable data."""

from __future__ import annotations

import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b, md5
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from runner import components  # noqa: F401  (registers all)
from runner.components.data.splitting import split_order, stratified_split
from runner.engine.contracts import Data, Images, Split
from runner.engine.randomness import key
from runner.errors import ConfigError, DataError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "data"


def data(name: str, **changes: Any) -> Data:
    return build("data", {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes})


def pixels(split: Split) -> Tensor:
    return split.fetch(torch.arange(len(split.labels)))


def opened(found: Data) -> Split:
    assert found.test is not None
    return found.test()


def rows(split: Split) -> set[bytes]:
    return {row.numpy().tobytes() for row in pixels(split)}


def test_fetch_returns_the_images_asked_for_in_that_order() -> None:
    images = Images(torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2), torch.arange(6))
    assert images.fetch(torch.tensor([4, 0, 4]))[:, 0, 0, 0].tolist() == [16, 0, 16]
    assert images.part(torch.tensor([5, 1])).labels.tolist() == [5, 1]


def test_set_aside_takes_every_class_in_proportion_and_exactly_as_many_as_asked() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[
        torch.randperm(100, generator=torch.Generator().manual_seed(1))
    ]
    aside, rest = stratified_split(labels, split_order(range(100)), 20)
    assert labels[aside].bincount().tolist() == [12, 6, 2]
    assert sorted([*aside.tolist(), *rest.tolist()]) == list(range(100))


def test_set_aside_gives_what_rounding_owes_to_the_next_class_and_empties_none() -> None:
    labels = torch.arange(40).repeat_interleave(3)  # 0.3 of an example per class
    aside, _ = stratified_split(labels, split_order(range(120)), 12)
    assert len(aside) == 12
    few, rest = stratified_split(torch.tensor([0, 1, 1, 1]), split_order(range(4)), 3)
    assert 0 in rest and len(few) == 2 and len(rest) == 2


def test_an_example_keeps_its_rank_whatever_else_is_there() -> None:
    assert split_order(["a/1.jpg", "b/2.jpg"])[1] == split_order(["b/2.jpg"])[0]
    assert split_order(range(5)).unique().numel() == 5


def test_a_rank_is_the_hash_of_the_name_on_every_machine() -> None:
    names = ["a/1.jpg", "ä/☃.png", 17, ""]
    hashes = [blake2b(f"0/split/{name}".encode(), digest_size=8).digest() for name in names]
    assert split_order(names).tolist() == [int.from_bytes(digest, "little") // 2 for digest in hashes]
    assert split_order(names).tolist() == [key(0, "split", name) for name in names]
    assert split_order([]).shape == (0,) and split_order([]).dtype == torch.int64


def test_digits_are_scikit_learns_stretched_to_white() -> None:
    from sklearn.datasets import load_digits

    wanted = np.round(load_digits().images * 255 / 16).astype(int)
    found = data("digits")
    parts = [found.train, found.val, opened(found)]
    assert sorted(x.tobytes() for x in wanted.astype(np.uint8)) == sorted(
        row.numpy().tobytes() for part in parts for row in pixels(part)
    )
    labels = {row.tobytes(): label for row, label in zip(wanted.astype(np.uint8), load_digits().target, strict=True)}
    assert all(labels[x.numpy().tobytes()] == y for p in parts for x, y in zip(pixels(p), p.labels, strict=True))


def test_digits_splits_are_disjoint_stratified_and_of_the_sizes_promised() -> None:
    found = data("digits")
    parts = [found.train, found.val, opened(found)]
    assert [len(part.labels) for part in parts] == [1200, 297, 300]
    assert len(set.union(*map(rows, parts))) == sum(map(len, map(rows, parts))) == 1797  # no two images are equal
    whole = torch.cat([part.labels for part in parts]).bincount()
    for part in parts:
        assert (part.labels.bincount() - whole * len(part.labels) / 1797).abs().max() < 1.5
    assert found.shape == pixels(found.train).shape[1:] == (1, 8, 8)
    assert pixels(found.train).dtype == torch.uint8 and found.train.labels.dtype == torch.int64


LOAD_DIGITS = """
import sys
from hashlib import md5
import runner.components
from runner.registry import build
knobs = {"classes": None, "limit": None, "limit_seed": 0, "batch_size": 1, "sampling": "shuffle", "placement": "auto"}
data = build("data", {"name": "digits", **knobs})
print(md5(data.train.pixels.numpy().tobytes()).hexdigest(), "sklearn" in sys.modules)
"""


def test_digits_load_without_scikit_learn_and_alike_in_every_process() -> None:
    run = subprocess.run([sys.executable, "-c", LOAD_DIGITS], capture_output=True, text=True, check=True)
    digest, imported = run.stdout.split()
    assert digest == md5(pixels(data("digits").train).numpy().tobytes()).hexdigest()
    assert imported == "False"


# CIFAR-10 in its own format, small


def write_cifar(folder: Path, per_batch: int = 20) -> dict[str, np.ndarray]:
    """Write the six batches and the names as Krizhevsky's archive has them; return the pixels of each batch."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    written = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        written[name] = random.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        labels = [i % 10 for i in range(per_batch)]
        (folder / name).write_bytes(pickle.dumps({"data": written[name], "labels": labels}))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return written


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, np.ndarray]]:
    """A tiny CIFAR-10 archive on a server of our own, with the checksums that torchvision is to find."""
    from torchvision.datasets import CIFAR10

    source = tmp_path / "source" / CIFAR10.base_folder
    written = write_cifar(source)

    def summed(names: list[str]) -> list[list[str]]:
        return [[name, md5((source / name).read_bytes()).hexdigest()] for name in names]

    archive = tmp_path / "source" / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "train_list", summed([f"data_batch_{i}" for i in range(1, 6)]))
    monkeypatch.setattr(CIFAR10, "test_list", summed(["test_batch"]))
    meta = {"filename": "batches.meta", "key": "label_names", "md5": summed(["batches.meta"])[0][1]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.read_bytes()).hexdigest())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(archive.parent))) as server:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield written
        server.shutdown()
        thread.join()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_cifar10_is_downloaded_split_and_read(cifar: dict[str, np.ndarray], tmp_path: Path) -> None:
    found = data("cifar10", root=str(tmp_path / "root"), val_size=10)
    assert found.shape == (3, 32, 32) and found.classes[3] == "cat"
    assert found.train.labels.bincount().tolist() == [9] * 10 and found.val.labels.bincount().tolist() == [1] * 10
    wanted = {row.tobytes() for name, batch in cifar.items() if name != "test_batch" for row in batch}
    assert rows(found.train) | rows(found.val) == wanted and not rows(found.train) & rows(found.val)
    assert rows(opened(found)) == {row.tobytes() for row in cifar["test_batch"]}
    changes = {"val_size": 10, "download": False, "placement": "host", "sampling": "balanced"}
    again = data("cifar10", root=str(tmp_path / "root"), **changes)
    assert torch.equal(pixels(again.val), pixels(found.val)) and (again.placement, again.sampling) == (
        "host",
        "balanced",
    )


def test_cifar10_recovers_from_a_download_that_was_cut_off(cifar: dict[str, np.ndarray], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(tmp_path / "source" / "cifar-10-batches-py", root / "cifar-10-batches-py")
    broken = root / "cifar-10-batches-py" / "data_batch_3"
    broken.write_bytes(broken.read_bytes()[:1000])
    (root / ".runner-download").mkdir()
    (root / ".runner-download" / "cifar-10-python.tar.gz").write_bytes(b"half")
    (root / ".runner-download" / "scrap").write_bytes(b"of another try")
    assert len(data("cifar10", root=str(root), val_size=10).train.labels) == 90
    assert not (root / ".runner-download").exists() and not (root / "scrap").exists()


@pytest.mark.parametrize("download", [True, False])
def test_cifar10_that_cannot_be_had_is_one_line(
    cifar: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, download: bool
) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:1/nobody-listens.tar.gz")
    with pytest.raises(DataError, match=r"data=cifar10: ") as caught:
        data("cifar10", root=str(tmp_path / "root"), download=download)
    assert str(tmp_path / "root") in str(caught.value) and "\n" not in str(caught.value)
    assert ("data.download is false" in str(caught.value)) is not download


def test_cifar10_must_leave_images_to_train_on(cifar: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.val_size: got 100, must be < 100"):
        data("cifar10", root=str(tmp_path / "root"), val_size=100)


# The other sets of torchvision, from files in their own formats


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array as MNIST's files hold it: magic number, sizes, bytes (LeCun, The MNIST database)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_the_two_mnists_are_read_from_their_files(tmp_path: Path, name: str, folder: str) -> None:
    random = np.random.default_rng(0)
    raw = tmp_path / folder / "raw"
    written = {}
    for part, count in (("train", 100), ("t10k", 30)):
        written[part] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", written[part])
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    found = data(name, root=str(tmp_path), download=False, val_size=20)
    assert found.shape == (1, 28, 28) and len(found.classes) == 10
    assert found.train.labels.bincount().tolist() == [8] * 10
    assert rows(found.train) | rows(found.val) == {image.tobytes() for image in written["train"]}
    assert np.array_equal(pixels(opened(found))[:, 0].numpy(), written["t10k"])


def test_svhn_is_read_from_its_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    random = np.random.default_rng(0)
    written = {}
    for part, count in (("train", 60), ("test", 20)):
        written[part] = random.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": written[part], "y": np.arange(1, count + 1)[:, None] % 10 + 1})  # 1..10, where 10 is zero
        checked = [SVHN.split_list[part][0], file.name, md5(file.read_bytes()).hexdigest()]
        monkeypatch.setitem(SVHN.split_list, part, checked)
    found = data("svhn", root=str(tmp_path), download=False, val_size=10)
    assert found.shape == (3, 32, 32) and found.classes == tuple("0123456789")
    assert found.train.labels.bincount().tolist() == [5] * 10
    assert np.array_equal(pixels(opened(found)).numpy(), written["test"].transpose(3, 2, 0, 1))


def test_cifar100_has_its_hundred_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    folder = tmp_path / CIFAR100.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", 200), ("test", 100)):
        values = {"data": random.integers(0, 256, (count, 3072), dtype=np.uint8)}
        values["fine_labels"] = [i % 100 for i in range(count)]
        (folder / part).write_bytes(pickle.dumps(values))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"thing{i}" for i in range(100)]}))
    for attribute, names in (("train_list", ["train"]), ("test_list", ["test"])):
        monkeypatch.setattr(CIFAR100, attribute, [[n, md5((folder / n).read_bytes()).hexdigest()] for n in names])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5((folder / "meta").read_bytes()).hexdigest()}
    monkeypatch.setattr(CIFAR100, "meta", meta)
    found = data("cifar100", root=str(tmp_path), download=False, val_size=100)
    assert found.train.labels.bincount().tolist() == found.val.labels.bincount().tolist() == [1] * 100
    assert found.classes[99] == "thing99" and len(opened(found).labels) == 100


def test_decoding_leaves_a_minute_for_sixty_thousand(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    for i in range(400):
        folder = tmp_path / f"class{i % 2}"
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{i}.jpg")
    start = time.process_time()  # of all threads, whatever else the machine does
    data("imagefolder", root=str(tmp_path))
    assert time.process_time() - start < 0.2  # that is 30 s for 60,000
