"""A download never removes a file of the user: it is merged into the folders that are there, file by file."""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import md5
from http.server import HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import yaml
from running import ROOT
from test_data import Quiet, write_cifar

from runner import components  # noqa: F401  (registers all)
from runner.components.data.download import locked
from runner.components.data.pixels import image_cache
from runner.engine.contracts import Data
from runner.errors import DataError
from runner.registry import build

SETS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "svhn": "",
}


def load(name: str, root: Path) -> Data:
    values: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    return build("data", {**values, "root": str(root), "val_size": 10})


def digest(path: Path) -> str:
    return md5(path.read_bytes()).hexdigest()


def serve_mnist(source: Path, url: str, patch: pytest.MonkeyPatch, name: str) -> None:
    from torchvision import datasets

    kind = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
    resources = []
    for part, count in (("train", 50), ("t10k", 20)):
        for file, values in (
            (f"{part}-images-idx3-ubyte.gz", np.zeros((count, 28, 28), np.uint8)),
            (f"{part}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8)),
        ):
            header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (source / file).write_bytes(gzip.compress(header + values.tobytes()))
            resources.append((file, digest(source / file)))
    patch.setattr(kind, "mirrors", [f"{url}/"])
    patch.setattr(kind, "resources", resources)


def serve_cifar(source: Path, url: str, patch: pytest.MonkeyPatch, name: str) -> None:
    import pickle

    from torchvision import datasets

    kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    folder = source / kind.base_folder
    write_cifar(folder)
    if name == "cifar100":
        train = {"data": np.zeros((50, 3072), np.uint8), "fine_labels": [i % 10 for i in range(50)]}
        for file, content in (
            ("train", train),
            ("test", train),
            ("meta", {"fine_label_names": [str(i) for i in range(10)]}),
        ):
            (folder / file).write_bytes(pickle.dumps(content))
        lists = [["train"], ["test"]]
        patch.setattr(kind, "meta", {"filename": "meta", "key": "fine_label_names", "md5": digest(folder / "meta")})
    else:
        lists = [[f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]]
        names = {"filename": "batches.meta", "key": "label_names", "md5": digest(folder / "batches.meta")}
        patch.setattr(kind, "meta", names)
    for attribute, files in zip(("train_list", "test_list"), lists, strict=True):
        patch.setattr(kind, attribute, [[file, digest(folder / file)] for file in files])
    archive = source / kind.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, kind.base_folder)
    patch.setattr(kind, "tgz_md5", digest(archive))
    patch.setattr(kind, "url", f"{url}/{archive.name}")


def serve_svhn(source: Path, url: str, patch: pytest.MonkeyPatch, name: str) -> None:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    for part in ("train", "test"):
        file = source / f"{part}_32x32.mat"
        savemat(file, {"X": np.zeros((32, 32, 3, 50), np.uint8), "y": np.arange(50)[:, None] % 10 + 1})
        patch.setitem(SVHN.split_list, part, [f"{url}/{file.name}", file.name, digest(file)])


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Let torchvision find a small set of a name on a server of our own, and return an empty root."""
    source = tmp_path / "source"
    source.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(source)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def served(name: str) -> Path:
        url = f"http://127.0.0.1:{server.server_port}"
        {"svhn": serve_svhn, "mnist": serve_mnist, "fashion_mnist": serve_mnist}.get(name, serve_cifar)(
            source, url, monkeypatch, name
        )
        (tmp_path / "root").mkdir()
        return tmp_path / "root"

    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SETS)
def test_files_of_the_user_in_every_folder_survive_a_download(serve: Callable[[str], Path], name: str) -> None:
    root = serve(name)
    places = {Path(), Path(SETS[name]), Path(SETS[name]).parent, Path(SETS[name]) / "mine", Path("train")}
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / "weights.pt").write_bytes(b"my own")
    (root / ".lock").write_bytes(b"also mine")
    (root / ".download").mkdir()
    (root / ".download" / "thesis.txt").write_bytes(b"years of work")
    before = contents(root)
    assert len(load(name, root).train.labels) > 0
    after = contents(root)
    assert {file: after.get(file) for file in before} == before
    assert not (root / ".runner-download").exists()


@pytest.mark.parametrize("name", SETS)
def test_a_file_that_the_download_replaces_is_kept_beside_it(
    serve: Callable[[str], Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = serve(name)
    load(name, root)
    kinds = {"cifar10": "data_batch_1", "cifar100": "train", "svhn": "train_32x32.mat"}
    file = root / SETS[name] / kinds.get(name, "train-images-idx3-ubyte")
    whole = file.read_bytes()
    for number, mine in enumerate((b"my own", b"my second")):
        file.write_bytes(mine)
        # MNIST is complete for torchvision as long as all its files are there
        (root / "MNIST/raw/t10k-labels-idx1-ubyte").unlink(missing_ok=True)
        (root / "FashionMNIST/raw/t10k-labels-idx1-ubyte").unlink(missing_ok=True)
        load(name, root)
        assert file.read_bytes() == whole
        assert file.with_name(f"{file.name}.old{number or ''}").read_bytes() == mine
        assert f"kept as {file.name}.old" in capsys.readouterr().err


@pytest.mark.parametrize("blocked", ["MNIST", "MNIST/raw", "MNIST/raw/train-labels-idx1-ubyte"])
def test_what_is_in_the_way_of_a_download_is_named_and_stays(serve: Callable[[str], Path], blocked: str) -> None:
    root = serve("mnist")
    path = root / blocked
    path.parent.mkdir(parents=True, exist_ok=True)
    if blocked.endswith("ubyte"):
        path.mkdir()
        (path / "mine").write_bytes(b"my own")
    else:
        path.write_bytes(b"my own")
    before = contents(root)
    with pytest.raises(DataError) as caught:
        load("mnist", root)
    assert f"{path} is in the way" in str(caught.value) and "\n" not in str(caught.value)
    assert {file: found for file, found in contents(root).items() if file != ".lock"} == before


def test_a_download_goes_where_a_link_of_the_user_leads(serve: Callable[[str], Path], tmp_path: Path) -> None:
    root = serve("mnist")
    (tmp_path / "large disk").mkdir()
    (root / "MNIST").symlink_to(tmp_path / "large disk")
    load("mnist", root)
    assert (root / "MNIST").is_symlink() and (tmp_path / "large disk" / "raw" / "train-labels-idx1-ubyte").is_file()


def test_a_lock_empties_no_file(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("mine")
    with locked(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "mine"


def test_a_folder_for_caches_may_hold_old_folders_of_the_user(tmp_path: Path) -> None:
    years_ago = time.time() - 1000 * 24 * 3600
    key = "0123456789abcdef" * 2
    for folder in (tmp_path / "project", tmp_path / key):
        folder.mkdir()
        for file in ("manifest", "pixels", "thesis.txt"):
            (folder / file).write_bytes(b"my own")
            os.utime(folder / file, (years_ago, years_ago))
    before = contents(tmp_path)
    place = tmp_path / ("f" * 32)
    image_cache.load_or_build(place, lambda: image_cache.Manifest(0, "", {}), 0)
    os.utime(place / "manifest", (years_ago, years_ago))
    (place / "notes.txt").write_bytes(b"my own")
    image_cache.load_or_build(tmp_path / ("e" * 32), lambda: image_cache.Manifest(0, "", {}), 0)
    assert not (place / "manifest").exists() and (place / "notes.txt").exists()
    assert {file: contents(tmp_path).get(file) for file in before} == before
