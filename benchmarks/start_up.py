"""Time from the command to the second optimizer step, against a minimal torch script; and of commands without torch.

`python -m benchmarks.start_up [rounds]`. Both train an MLP and exit, without cleaning up, after the second step. runner
composes its config, creates its run folder and starts its logs before the first step. On digits, the minimal script
uses random numbers instead of the data. On files with the format and size of MNIST it reads them as in torchvision's
documentation.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rounds import interleave, report, spread

_ROOT = Path(__file__).parent.parent
_NUMBERS = """
import os, torch
x, y = torch.randn(64, 64), torch.randint(10, (64,))
"""
_FILES = """
import os, sys, torch
from torchvision.datasets import MNIST
data = MNIST(sys.argv[1])
x, y = data.data[:64].flatten(1) / 255, data.targets[:64]
"""
_BARE = """
model = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for _ in range(2):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
os._exit(0)
"""
OURS = """
import os, sys
from runner import tasks
from runner.__main__ import command
def set_and_look(learner, name, value):
    object.__setattr__(learner, name, value)
    if name == "step" and value == 2:
        os._exit(0)
def imported():
    from runner.engine.learner import Learner
    Learner.__setattr__ = set_and_look
    heed()
heed, tasks.heed = tasks.heed, imported  # called after the task is imported
sys.exit(f"ended with {command()} before the second step")
"""
# Arguments and exit code; the last two are config errors
_ANSWERS = {"--help": 0, "--cfg job": 0, "optim.lr=abc": 2, "model=resnett": 2}


def start_up(rounds: int) -> list[tuple[float, float]]:
    """Return the seconds to the second step (runner, minimal script) of each round."""
    return interleave(lambda: seconds(OURS, "model=mlp"), lambda: seconds(_NUMBERS + _BARE), rounds)


def _on_files(rounds: int) -> list[tuple[float, float]]:
    """Return the seconds to the second step on MNIST's files (runner, minimal script) of each round."""
    with tempfile.TemporaryDirectory() as root:
        write_mnist(Path(root))
        words = ("model=mlp", "data=mnist", f"data.root={root}", "data.download=false")
        return interleave(lambda: seconds(OURS, *words), lambda: seconds(_FILES + _BARE, root), rounds)


def write_mnist(root: Path) -> None:
    """Write noise in MNIST's file format: magic number, sizes, bytes."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images, labels = struct.pack(">4I", 0x803, count, 28, 28), struct.pack(">2I", 0x801, count)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images + os.urandom(count * 28 * 28))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels + bytes(range(10)) * (count // 10))


def _answers(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds by the clock and of the CPU of commands that do not import torch."""
    found: dict[str, list[tuple[float, float]]] = {words: [] for words in _ANSWERS}
    for number in range(rounds + 1):
        for words, code in _ANSWERS.items():
            before = _cpu_of_children()
            spent = answered(words, code), _cpu_of_children() - before
            found[words] += [spent] if number else []  # the first round fills the caches
    return found


def _cpu_of_children() -> float:
    """Return the CPU seconds of the processes that have ended, which say more than the clock on a busy machine."""
    used = os.times()
    return used.children_user + used.children_system


def seconds(code: str, *words: str) -> float:
    """Return the seconds of a new process that runs the code with arguments."""
    return _timed(["-c", code, *words], 0)


def answered(words: str, code: int) -> float:
    """Return the seconds of a command line that must end with an exit code."""
    return _timed(["-m", "runner", *words.split()], code)


def _timed(arguments: list[str], code: int) -> float:
    """Return the seconds of a new Python process in an empty folder; raises RuntimeError for another exit code."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have bytecode, so runner may too
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        spent = time.perf_counter() - start
    if ended.returncode != code:
        raise RuntimeError(f"exit code {ended.returncode}, not {code}: {ended.stderr}")
    return spent


def main(rounds: int = 10) -> None:
    """Print the ratios, and the seconds of each command without torch."""
    report("start to second step", start_up(rounds), unit="s", scale=1)
    report("start to second step, on files that torchvision reads", _on_files(rounds), unit="s", scale=1)
    for words, spent in _answers(rounds).items():
        for found, unit in zip(map(spread, zip(*spent, strict=True)), ("s", "s of CPU"), strict=True):
            print(f"{words}: {found.median:.2f} {unit} ({found.low:.2f} to {found.high:.2f}, n={found.n})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
