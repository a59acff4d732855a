"""The benchmark of learning rates over widths: the best of known losses, one real run, and the files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import mup


def test_the_best_rate_has_the_smallest_geometric_mean() -> None:
    """1 and 0.01 have the geometric mean 0.1, below that of 0.2 and 0.2, although their mean is larger."""
    losses = {
        ("mup", 64, -8): [1.0, 0.01],
        ("mup", 64, -7): [0.2, 0.2],
        ("mup", 128, -8): [0.3, 0.3],
        ("mup", 128, -7): [0.2, 0.3],
        ("kaiming", 64, -7): [0.001, 0.001],
    }
    assert mup.best_exponents(losses, "mup") == {64: -8, 128: -7}


def test_a_run_learns_and_one_that_diverges_counts_as_the_worst() -> None:
    assert mup.loss_after(mup.overrides("mup", 64, -8, 0)) < math.log(10) - 0.5
    assert mup.loss_after(mup.overrides("kaiming", 64, 60, 0)) == pytest.approx(10 * math.log(10))


def test_the_files_hold_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With known losses whose optimum moves with the width for kaiming and stays for mup."""

    def known(words: list[str]) -> float:
        width = int(next(word for word in words if word.startswith("model.hidden")).partition("[")[2].split(",")[0])
        rate = float(next(word for word in words if word.startswith("optim.lr=")).partition("=")[2])
        best = -8 if "init=mup" in words else -8 - math.log2(width / 64)
        return math.exp(abs(math.log2(rate) - best))

    monkeypatch.setattr(mup, "loss_after", known)
    monkeypatch.setattr(mup, "describe_machine", lambda threads: {"cpu": "none"})
    monkeypatch.setattr(mup, "SEEDS", (0, 1))
    mup.main(str(tmp_path))
    found = json.loads((tmp_path / "mup.json").read_text())
    assert found["best"]["mup"] == {str(width): -8 for width in mup.WIDTHS}
    assert found["best"]["kaiming"] == {str(width): -8 - round(math.log2(width / 64)) for width in mup.WIDTHS}
    assert len(found["runs"]) == 2 * len(mup.WIDTHS) * len(mup.EXPONENTS) and len(found["runs"][0]["losses"]) == 2
    assert (tmp_path / "mup.png").read_bytes()[:4] == b"\x89PNG"
