"""torchvision's data sets are imported without its models and torch's compiler; later imports get the full package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from running import ROOT

PROGRAM = """
import sys
from runner.components.data.torchvision_sets import _import_datasets as datasets
"""
ALONE = """
alone = datasets()
assert alone.CIFAR10.base_folder == "cifar-10-batches-py"
assert not {"torchvision", "torchvision.models", "torch._dynamo"} & set(sys.modules)
assert datasets() is alone
import torchvision
from torchvision import models
from torchvision.datasets import CIFAR10
assert torchvision.datasets is alone and datasets() is alone and CIFAR10 is alone.CIFAR10
assert callable(models.resnet18) and callable(torchvision.ops.nms) and callable(torchvision.utils.make_grid)
"""


def succeeds(program: str, *folders: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}
    command = [sys.executable, "-W", "error", "-c", PROGRAM + program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_data_sets_come_without_models_and_all_of_it_may_come_later() -> None:
    succeeds(ALONE)


def test_a_package_whose_data_sets_need_the_rest_is_imported_whole(tmp_path: Path) -> None:
    (tmp_path / "torchvision/datasets").mkdir(parents=True)
    (tmp_path / "torchvision/__init__.py").write_text("size = 3\nfrom torchvision import datasets\n")
    (tmp_path / "torchvision/datasets/__init__.py").write_text("from torchvision import size\n")
    succeeds("assert datasets().size == sys.modules['torchvision'].size == 3\n", tmp_path)
