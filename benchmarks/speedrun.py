"""`recipe=speedrun_cifar10` by the timing rule of the published 94 % script, and what one of its steps does.

`python -m benchmarks.speedrun [seeds=0,1,2] [data=imagefolder data.root=... ...]` takes overrides as `python -m runner`
does, and runs on whatever device there is. The rule (airbench94_muon of KellerJordan/cifar10-airbench): counted are the
whitening, every step of training, and the last evaluation with its six views; not counted are reading the data, a
whole warm-up run before, in which everything is compiled, and the plain evaluation after each epoch. The script
trains on all images in 25 steps an epoch: for cifar10 all but 25 here. Accuracies are of the test split where there is
one, as in the script, else of the validation split. Last comes the whole command in a process of its own, end to end.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.timing_rule import Result, Unscored, by_the_rule, rewinder
from runner.assemble import Experiment, assemble
from runner.door.compose import checked, compose_parts, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.engine.logs.log import Log, open_logs
from runner.engine.train import update

RECIPE = ["recipe=speedrun_cifar10"]
EVERYTHING = ["data.val_size=25", "data.batch_size=1999"]  # the script sets nothing aside; 25 steps, all full
COMPILED = ["compile=true"]  # on CUDA, as the script; by itself a run as short as this one is not
SYNCS = ("aten::_local_scalar_dense", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
STEPS = 5  # that the profiler watches


def counted(made: Experiment, first: int) -> str:
    """Return operations, kernels on the device and waits of the host per step, from step `first` on."""
    recipe, learner = made.recipe, made.learner
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if made.device.type == "cuda" else [])]
    stream = made.batches.stream(first, first + STEPS + 2)
    learner.step = first

    def step() -> None:
        images, labels = next(stream)
        learner.set_lr()
        update(recipe, learner, *recipe.mix(images, labels, learner.step))

    step(), step()  # states and kernels are made
    with profile(activities=activities) as seen:
        for _ in range(STEPS):
            step()
    events = seen.events() or []
    every = [event for event in events if event.name.startswith("aten::")]
    top = [event for event in every if event.cpu_parent is None or not event.cpu_parent.name.startswith("aten::")]
    kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)
    waits = sum(event.name in SYNCS for event in events)
    return (
        f"per step from {first} on: {len(top) / STEPS:.0f} operations ({len(every) / STEPS:.0f} with those inside), "
        f"{kernels / STEPS:.0f} kernels on the device, {waits / STEPS:g} waits of the host"
    )


def table(results: Sequence[Result]) -> str:
    """Return accuracies after each epoch as a Markdown table: mean, lowest and highest over the runs."""
    columns = [*zip(*(result.epochs for result in results), strict=True), tuple(r.last for r in results)]
    names = [*map(str, range(1, len(columns))), "six views"]
    rows = [
        f"| {name} | {statistics.mean(found):.4f} | {min(found):.4f} | {max(found):.4f} | {len(found)} |"
        for name, found in zip(names, columns, strict=True)
    ]
    return "\n".join(["| epoch | mean | lowest | highest | n |", "|---|---|---|---|---|", *rows])


def config_of(words: list[str]) -> dict[str, Any]:
    """Return the config of a command line."""
    conf = find_conf()
    given = read_overrides(conf, words)
    with hydra_opened(conf):
        return checked(conf, compose_parts(conf, given), given)


def once(words: list[str], *, warm: bool) -> Result:
    """Return the result of a run; `warm` makes a whole one before it, which counts for nothing."""
    config = config_of(words)
    made = assemble(config)
    made.learner.patience = Unscored(made.learner.patience.monitor, limit=None)
    with tempfile.TemporaryDirectory() as folder, closing(open_logs(Path(folder), positions=None, step=0)) as log:
        if warm:
            again = rewinder(made)
            by_the_rule(made, config["init"], Log(), scored=False)
            again()
        return by_the_rule(made, config["init"], log)


def main(words: list[str]) -> None:
    """Print accuracies over seeds, the seconds by the rule and end to end, and what the profiler counts in a step."""
    given = [word for word in words if not word.startswith("seeds=")]
    seeds = [word.removeprefix("seeds=").split(",") for word in words if word.startswith("seeds=")]
    chosen = [*RECIPE, *([] if any(word.startswith("data=") for word in given) else EVERYTHING), *given]
    cuda = torch.cuda.is_available()
    fast = [*chosen, *(COMPILED if cuda else [])]
    made = assemble(config_of(fast))
    name = torch.cuda.get_device_name(made.device) if cuda else f"{torch.get_num_threads()} CPU thread(s)"
    print(f"{' '.join(fast)}\ntorch {torch.__version__}, {name}", flush=True)
    for first in (0, made.recipe.total_steps - STEPS - 2):  # tensors may rest by the end
        print(counted(made, first), flush=True)
    results = []
    for seed in seeds[-1] if seeds else ("0", "1", "2"):
        results.append(once([*fast, f"seed={seed}"], warm=cuda))
        print(f"seed {seed}: {results[-1]}", flush=True)
    print(table(results))
    seconds = sorted(result.seconds for result in results)
    print(f"by the rule: {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}, n={len(seconds)})")
    print(f"end to end, as the recipe is, start and reading the data included: {whole(chosen):.2f} s (n=1)")


def whole(words: list[str]) -> float:
    """Return the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "runner", *words, f"outputs={folder}"], check=True, capture_output=True)
        return time.perf_counter() - start


if __name__ == "__main__":
    main(sys.argv[1:])
