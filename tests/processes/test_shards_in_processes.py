"""Shards under torchrun: two processes read the images of one step together, with the losses of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT
from tar_shards import write_shards

QUICK = (
    "data=webdataset", "data.root=tars", "data.size=[8,8]", "data.batch_size=16", "data.memory=0", "data.workers=1",
    "data.order=shards", "data.window=2", "data.cache=null", "model=linear", "optim.lr=0.001", "augment=[]", "probe=[]",
    "figures=never", "predictions=never", "doctor=never", "test=never", "steps=8", "device=cpu",
)  # fmt: skip


def losses(place: Path, name: str, *launcher: str) -> list[float]:
    """Return the losses of a run in a process of its own, or in those of a launcher."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", *launcher, *(["-m"] if launcher else []), "runner", *QUICK, f"hydra.run.dir={name}"]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (place / name / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    write_shards(tmp_path / "tars", 5, 12)
    alone = losses(tmp_path, "one")
    joint = losses(tmp_path, "two", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert len(alone) == 8 and len(set(alone)) > 4
    # float32, in another order of summation
    assert joint == pytest.approx(alone, rel=1e-4)
