"""Data files are read ahead before torch is imported: exactly the files that torchvision will read."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from torchvision import datasets

from runner.annotations import marks
from runner.tasks import prefetch_matching
from tests.test_start_up import ended

NAMES = ("cifar10", "cifar100", "mnist", "fashion_mnist", "svhn")
FILES = {name: marks("data", name)["root"].path.prefetch for name in NAMES}
ASKED = """
import sys
from runner import tasks
from runner.__main__ import main
class Thread:
    def __init__(self, target, args, daemon):
        self.work = lambda: target(*args)
    def start(self):
        self.work()
tasks.threading.Thread = Thread
tasks.read_ahead = lambda files: print("asked", *files, "torch" in sys.modules)
assert main(sys.argv[1:])  # the data are no data
"""


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_every_file_of_cifar_that_is_read_is_asked_for(name):
    made = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    read = [file for file, _ in (*made.train_list, *made.test_list)]  # the checksums of all are looked at
    assert read and all(fnmatch(f"{made.base_folder}/{file}", FILES[name]) for file in read)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_training_files_of_mnist_are_asked_for_and_no_others(name):
    made = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[name]
    packed = [file for file, _ in made.resources]
    files = [f"{made.__name__}/raw/{file}" for file in (*packed, *(file.removesuffix(".gz") for file in packed))]
    asked = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
    assert [file for file in files if fnmatch(file, FILES[name])] == [f"{made.__name__}/raw/{file}" for file in asked]


def test_the_training_file_of_svhn_is_asked_for():
    assert datasets.SVHN.split_list["train"][1] == FILES["svhn"]


def test_the_files_are_asked_for_before_torch_is_imported(tmp_path):
    file = tmp_path / "some data/cifar-10-batches-py/data_batch_1"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    words = ["data=cifar10", f"data.root={tmp_path}/some data", "data.download=false"]
    assert ended(ASKED, *words, cwd=tmp_path) == f"asked {file} False\n"


def test_a_folder_that_cannot_be_is_left_to_the_data_set_to_name(tmp_path):
    prefetch_matching(tmp_path / "nul\0byte", "*")
    prefetch_matching(tmp_path / "missing", "*")
