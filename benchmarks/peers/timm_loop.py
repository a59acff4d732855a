"""`train_one_epoch` of timm's train.py, unchanged, from a checkout (the script is not in timm's package)."""

from __future__ import annotations

import importlib.util
import os
from types import ModuleType

from timm.task import ClassificationTask
from torch import nn

from benchmarks.contest import TIMM_SCRIPT
from benchmarks.work import Pace, TensorBatches, Work


def _script() -> ModuleType:
    """Return the module of train.py; the environment variable TIMM_TRAIN_SCRIPT has its path."""
    found = importlib.util.spec_from_file_location("timm_train", os.environ[TIMM_SCRIPT])
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def run(work: Work, pace: Pace) -> nn.Module:
    """Train one epoch over all steps, with the defaults of the script."""
    train = _script()
    arguments = train.parser.parse_args([])
    arguments.prefetcher, arguments.distributed, arguments.rank, arguments.world_size = False, False, 0, 1
    model = work.model()
    task = ClassificationTask(model, criterion=nn.CrossEntropyLoss(), device=work.device)
    optimizer = work.optimizer_of(model)
    train.train_one_epoch(0, model, TensorBatches(work, pace), optimizer, arguments, task=task, device=work.device)
    return model
