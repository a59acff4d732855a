"""The summary of a run describes the model and what was changed in it."""

import sys
from pathlib import Path

import pytest
from running import job
from torch import nn

from runner.assemble import assemble
from runner.assemble.model import inventory

ROOT = Path(__file__).parents[2]


def test_an_inventory_counts_norms_activations_and_what_drops():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.ReLU(), nn.Dropout(0.5), nn.Dropout(0.1))
    assert inventory(model) == "1 BatchNorm2d, 2 ReLU, 2 Dropout of 0.1 to 0.5"
    assert inventory(nn.Linear(1, 1)) == "no norm, no activation"
    assert inventory(nn.Sequential(nn.GELU(), nn.Dropout(0.0))) == "1 GELU"


def test_the_summary_lists_what_was_swapped_and_where_dropout_went():
    overrides = (
        "model=torchvision",
        "activation=gelu",
        "norm=group",
        "regularizer=[dropout]",
        "probe=[]",
        "device=cpu",
    )
    summary = assemble(job(*overrides).config).summary
    # After the line about the data
    assert summary[1:4] == [
        "torchvision: 11,181,642 parameters; 20 GroupNorm, 17 GELU, 1 Dropout of 0.5",
        "20 BatchNorm2d -> GroupNorm, 17 ReLU -> GELU",
        "dropout 0.5 at 1 place (head)",
    ]


def test_own_models_have_the_same_inventory():
    summary = assemble(job("model=resnet", "activation=gelu", "norm=group", "probe=[]", "device=cpu").config).summary
    assert "7 GroupNorm, 7 GELU" in summary[1]


ROWS = [line for line in (ROOT / "docs" / "torchvision.md").read_text().splitlines() if line.startswith("| ")]
CHECKED = ["resnet18", "mobilenet_v3_small", "vit_b_16", "convnext_tiny", "squeezenet1_0", "googlenet", "alexnet"]
LARGE, SLOW = ("mobilenet_v3_small", "vit_b_16", "googlenet"), [pytest.mark.slow, pytest.mark.ci_slice]


@pytest.mark.parametrize("arch", [pytest.param(each, marks=SLOW) if each in LARGE else each for each in CHECKED])
def test_the_table_of_torchvisions_models_is_true(arch, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), *sys.path])
    from make_torchvision_table import row

    assert str(row(arch)) in ROWS


def test_the_table_has_every_model_of_torchvision():
    from torchvision import models

    assert [row.split(" | ")[0].strip("| ") for row in ROWS[1:]] == models.list_models(module=models)
