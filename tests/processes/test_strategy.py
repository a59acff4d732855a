"""The knobs of strategy=ddp: which ones make the number of processes a part of the experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_equality import run

# Two processes train
pytestmark = [pytest.mark.slow, pytest.mark.ci_slice]
CASES: dict[str, dict[str, Any]] = {
    "exact": {"model": "mlp", "regularizer": ["dropout"]},
    "per_rank": {"model": "mlp", "regularizer": ["dropout"], "strategy.dropout": "per_rank"},
    "sync": {"model": "cnn", "norm": "batch"},
    "local": {"model": "cnn", "norm": "batch", "strategy.batch_norm": "local"},
}
COMMON = {"data.batch_size": 48, "average": "ema", "steps": 8}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("strategy")
    (folder / "choices.json").write_text(json.dumps({name: {**COMMON, **case} for name, case in CASES.items()}))
    return run(1, folder)[0], run(2, folder)


@pytest.mark.parametrize("name", CASES)
def test_the_processes_have_the_same_weights(name, found):
    _, (main, other) = found
    for key in ("weights", "average"):
        for tensor, value in main[name][key].items():
            assert torch.equal(value, other[name][key][tensor]), tensor
    assert main[name]["scores"] == other[name]["scores"]


@pytest.mark.parametrize("name, alike", [("exact", True), ("sync", True), ("per_rank", False), ("local", False)])
def test_only_the_exact_ones_have_the_losses_of_one_process(name, alike, found):
    one, (main, _) = found
    first = torch.isclose(main[name]["losses"][1:], one[name]["losses"][1:], rtol=1e-9, atol=0)
    assert bool(first.all()) is alike and (alike or not first.any())
