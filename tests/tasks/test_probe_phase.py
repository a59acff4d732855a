"""A fine-tuned model that ends below its linear probe: said in one line and in result.json, and not else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from running import MLP

from runner.__main__ import main
from runner.engine.saving.folder import read_result
from runner.tasks.probe_phase import _fall

NAME = "FINETUNE_WORSE_THAN_PROBE"
PROBE = (*MLP, "augment=[]", "probe=[]", "epochs=6", "average=none", "figures=never", "test=never", "device=cpu")


@pytest.mark.parametrize(
    ("final", "falls"),
    [(0.9, False), (0.86, False), (0.85, True), (0.84, True), (0.5, True), (0.95, False)],
)
def test_the_limit_is_two_standard_errors_of_the_difference(final: float, falls: bool) -> None:
    """0.9 of 400 has a standard error of 0.0150, 0.86 one of 0.0173: two of the difference are 0.0459."""
    rows = [(10, 0.2), (20, 0.9), (30, 0.99), (40, final)]
    found = _fall(rows, 25, 400)
    assert (found is not None) is falls
    if found:
        error = (0.9 * 0.1 / 400 + final * (1 - final) / 400) ** 0.5
        assert found.errors == pytest.approx((0.9 - final) / error) and found.errors > 2


@pytest.mark.parametrize("rows", [[(30, 0.1)], [(10, 0.9)], []])
def test_a_run_without_a_validation_in_both_phases_has_no_finding(rows: list[tuple[int, float]]) -> None:
    assert _fall(rows, 20, 400) is None


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a good model of the same data, with a classifier of fewer classes."""
    folder = tmp_path_factory.mktemp("source") / "base"
    assert main([*PROBE, f"hydra.run.dir={folder}"]) == 0
    from safetensors.torch import load_file

    saved = load_file(folder / read_result(folder).weights)
    tensors = {n.removeprefix("model."): t for n, t in saved.items() if n.startswith("model.") and "head" not in n}
    torch.save(tensors, folder / "w.pt")
    return folder / "w.pt"


def trained(weights: Path, *words: str) -> Path:
    folder = weights.parent.with_name("-".join(words).replace("=", "").replace(".", ""))
    assert main([*PROBE, f"init_from={weights}", "transfer=lp_ft", *words, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_fine_tuning_that_destroys_the_features_is_found(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(weights, "transfer.lr_factor=300")
    assert json.loads((folder / "result.json").read_text())["findings"] == [NAME]
    lines = [line for line in capsys.readouterr().out.splitlines() if NAME in line]
    assert len(lines) == 1 and "lower transfer.lr_factor, or choose transfer=feature_extraction" in lines[0]


def test_fine_tuning_that_helps_has_no_finding(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(weights, "transfer.lr_factor=0.1")
    assert "findings" not in json.loads((folder / "result.json").read_text())
    assert NAME not in capsys.readouterr().out
