"""A whole small run through the command line, against a plain script that does the same work.

`python -m benchmarks.whole_run [rounds] [epochs] [MLP|ResNet]`: both train on the digits with one thread,
without augmentation and probes, validate each epoch, keep an average of the weights and save the best. The script does
not log, cannot resume, and scores the validation split only. Start-up is left out: the time of a run of `epochs` minus
that of one of `SHORT` epochs. Both take turns. CPU seconds are those of the process; wall time also has what other
processes take.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.experiments import experiment
from benchmarks.rounds import report, spread

SHORT = 10
_SAME = ["augment=[]", "probe=[]", "data=digits", "data.batch_size=64", "seed=0", "threads=1", "device=cpu"]
# Others than those of `experiment`
_SAME += ["norm=batch", "average=ema", "scheduler=cosine", "validate_every=1epoch", "checkpoint_every=auto"]
_MODELS = {
    "MLP": ["model=mlp"],
    "ResNet": ["model=resnet", "model.depth=8", "model.width=8"],
}


class Cost(NamedTuple):
    """The cost of a process: seconds by the clock, seconds of the CPU, and its peak memory in MB."""

    wall: float
    cpu: float
    memory: float


def cost_of(words: list[str], folder: Path) -> Cost:
    """Run a command in a folder and return what it took; raises RuntimeError if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    began = time.perf_counter()
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"import os, sys; os.chdir({str(folder)!r}); {_RUN}", *words],
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)],
    )
    _, status, used = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)}: ended with {os.waitstatus_to_exitcode(status)}")
    return Cost(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


# `python -m <module> <words>` from another folder
_RUN = "import runpy; sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def prepare(words: list[str], path: Path) -> None:
    """Write the model and the data of a run, preprocessed, for the script."""
    made = experiment([*_SAME, *words, "epochs=1"])
    split = {}
    for name, source in (("train", made.loaded.data.train), ("val", made.loaded.data.val)):
        index = torch.arange(len(source.labels))
        images = made.learner.preprocess(source.fetch(index))
        split[name] = (images.contiguous(memory_format=torch.channels_last), source.labels)
    torch.save({"model": made.learner.model, **split}, path)


def main(rounds: int = 5, epochs: int = 300, *names: str) -> None:
    """Measure both, in turns, and print the ratios."""
    for name, words in _MODELS.items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            prepare(words, folder / "work.pt")
            given = [*_SAME, *words, "test=never", "figures=never", f"outputs={folder}/outputs"]

            def ours(count: int, given: list[str] = given, folder: Path = folder) -> Cost:
                return cost_of(["runner", *given, f"epochs={count}"], folder)

            def script(count: int, folder: Path = folder) -> Cost:
                return cost_of(
                    ["benchmarks.peers.whole_script", f"{folder}/work.pt", str(count), f"{folder}/best.pt"], folder
                )

            turns = [[each(count) for each in (ours, script) for count in (SHORT, epochs)] for _ in range(rounds)]
        for number, unit in ((0, "s by the clock"), (1, "s of CPU")):
            pairs = [(b[number] - a[number], d[number] - c[number]) for a, b, c, d in turns]
            report(f"{name}, {epochs - SHORT} epochs", pairs, unit=unit, scale=1.0)
        report(f"{name}, peak memory", [(b.memory, d.memory) for _, b, _, d in turns], unit="MB", scale=1.0)
        grown = spread([(b.memory - a.memory) - (d.memory - c.memory) for a, b, c, d in turns])
        print(f"{name}, more memory after {epochs} epochs than the script: {grown.median:.1f} MB (n={grown.n})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
