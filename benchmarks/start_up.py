"""From the command to the second optimizer step, against a bare script that imports torch and steps torch.optim."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from benchmarks.rounds import interleave, report

BARE = """
import torch
x, y = torch.randn(64, 64), torch.randint(10, (64,))
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for _ in range(2):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
"""
OURS = """
import os, sys
import runner.engine.train as engine
update = engine.update
def counted(recipe, learner, *batch):
    out = update(recipe, learner, *batch)
    if learner.step == 2:
        os._exit(0)
    return out
engine.update = counted
from runner.__main__ import main
sys.exit(main(["model=mlp"]))
"""


def seconds(code: str) -> float:
    """Return the seconds of a fresh process that runs the code."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - start


if __name__ == "__main__":
    found = interleave(lambda: seconds(OURS), lambda: seconds(BARE), 10)
    report("start to second step", found, unit="s", scale=1)
