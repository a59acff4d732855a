"""Runs in 1, 2, 3 and 4 processes have the same numbers, but for rounding: in float64 they agree to 1e-12."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from running import ROOT

HERE = Path(__file__).parent
# A batch of 50 does not divide the training examples of the digits, so that the last step of an epoch is short
COMMON: dict[str, Any] = {"data.batch_size": 50, "average": "ema", "clip": 1.0, "steps": 60}
CASES: dict[str, dict[str, Any]] = {
    "mlp, momentum": {"model": "mlp"},
    "mlp, three micro-batches of uneven shares": {"model": "mlp", "data.batch_size": 17, "accumulate": 3},
    "mlp, empty shares": {"model": "mlp", "data.batch_size": 2, "accumulate": 1, "steps": 20},
    "mlp, empty shares, class weights": {
        "model": "mlp",
        "data.batch_size": 2,
        "loss.class_weights": "balanced",
        "steps": 9,
    },
    "cnn, empty shares, batch norm": {
        "model": "cnn",
        "norm": "batch",
        "data.batch_size": 3,
        "accumulate": 2,
        "steps": 9,
    },
    "mlp, dropout": {"model": "mlp", "regularizer": ["dropout"]},
    "mlp, mixup": {"model": "mlp", "mix": "mixup"},
    "mlp, class weights": {"model": "mlp", "loss.class_weights": "balanced", "loss.label_smoothing": 0.1},
    "mlp, penalties": {"model": "mlp", "regularizer": ["l2", "l1"]},
    "mlp, sam, adamw": {"model": "mlp", "update": "sam", "optim": "adamw"},
    "cnn, batch norm": {"model": "cnn", "norm": "batch", "steps": 30},
    "cnn, batch norm, micro-batches": {
        "model": "cnn",
        "norm": "batch",
        "accumulate": 2,
        "data.batch_size": 15,
        "steps": 30,
    },
    "cnn, dropout2d": {"model": "cnn", "norm": "batch", "regularizer": ["dropout2d"], "steps": 20},
    "cnn, cutmix": {
        "model": "cnn",
        "norm": "group",
        "norm.groups": 4,
        "mix": "cutmix",
        "augment": ["crop"],
        "steps": 20,
    },
    "resnet, stochastic depth": {"model": "resnet", "regularizer": ["stochastic_depth"], "steps": 15},
    "vit, dropout": {"model": "vit", "regularizer": ["dropout"], "steps": 20},
}


def run(size: int, folder: Path) -> list[dict[str, Any]]:
    """Return what each of several processes found, by case."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", HERE)))}
    words = [sys.executable, str(HERE / "joint_run.py")]
    children = [
        subprocess.Popen([*words, str(rank), str(size), str(folder)], env=environment, stderr=subprocess.PIPE)
        for rank in range(size)
    ]
    for child in children:
        _, said = child.communicate(timeout=500)
        assert child.returncode == 0, said.decode()[-3000:]
    return [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("joint")
    (folder / "choices.json").write_text(json.dumps({name: {**COMMON, **case} for name, case in CASES.items()}))
    return folder, run(1, folder)[0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.ci_slice), 3, 4])
def test_several_processes_have_the_numbers_of_one(size: int, alone: tuple[Path, dict[str, Any]]) -> None:
    folder, one = alone
    found = run(size, folder)
    for name in CASES:
        for rank, each in enumerate(found):
            for key in ("losses", "norms"):
                torch.testing.assert_close(
                    each[name][key],
                    one[name][key],
                    rtol=1e-12,
                    atol=1e-14,
                    msg=partial("{}: {}".format, f"{name}, rank {rank}, {key}"),
                )
            for key in ("weights", "average"):
                for tensor, value in each[name][key].items():
                    assert torch.equal(value, found[0][name][key][tensor]), (name, rank, tensor)
                    torch.testing.assert_close(value, one[name][key][tensor], rtol=1e-9, atol=1e-11)
            assert each[name]["scores"] == pytest.approx(one[name]["scores"], rel=1e-12), name
