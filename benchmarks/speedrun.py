"""`recipe=speedrun_cifar10` with the timing rule of the published 94 % script, and the operations of one step.

`python -m benchmarks.speedrun [seeds=0,1,2] [data=imagefolder data.root=... ...]` takes overrides as `python -m runner`
does, and uses the device that there is. The timing rule (airbench94_muon of KellerJordan/cifar10-airbench) counts the
whitening, every training step, and the last evaluation with its six views. It does not count reading the data, a
complete warm-up run in which everything is compiled, and the plain evaluation after each epoch. The script trains on
all images in 25 steps per epoch; here 25 images of cifar10 are left out. Accuracies are of the test split if there is
one, as in the script, else of the validation split. The last figure is the whole command in its own process.
"""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.experiments import config_of
from runner.assemble import Experiment, assemble
from runner.engine.evaluation import evaluate
from runner.engine.logs.log import Log, open_logs
from runner.engine.patience import Patience
from runner.engine.train import train, update
from runner.registry import build

_RECIPE = ["recipe=speedrun_cifar10"]
_EVERYTHING = ["data.val_size=25", "data.batch_size=1999"]  # the script has no validation set; 25 full steps per epoch
_COMPILED = ["compile=true"]  # on CUDA, as in the script; compile=auto does not compile such a short run
_SYNCS = ("aten::_local_scalar_dense", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
STEPS = 5  # steps under the profiler


def _counted(made: Experiment, first: int) -> str:
    """Return operations, GPU kernels and waits of the host per step, from `first` on."""
    recipe, learner = made.recipe, made.learner
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if made.device.type == "cuda" else [])]
    stream = made.batches.stream(first, first + STEPS + 2)
    learner.step = first

    def step() -> None:
        images, labels = next(stream)
        learner.set_lr()
        update(recipe, learner, *recipe.mix(images, labels, learner.step))

    step(), step()  # creates optimizer state and kernels
    with profile(activities=activities) as seen:
        for _ in range(STEPS):
            step()
    events = seen.events() or []
    every = [event for event in events if event.name.startswith("aten::")]
    top = [event for event in every if event.cpu_parent is None or not event.cpu_parent.name.startswith("aten::")]
    kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)
    waits = sum(event.name in _SYNCS for event in events)
    return (
        f"per step from {first} on: {len(top) / STEPS:.0f} operations "
        f"({len(every) / STEPS:.0f} including nested ones), "
        f"{kernels / STEPS:.0f} GPU kernels, {waits / STEPS:g} waits of the host"
    )


def _table(results: Sequence[_Result]) -> str:
    """Return the accuracy after each epoch as a Markdown table: mean, lowest and highest over the runs."""
    columns = [*zip(*(result.epochs for result in results), strict=True), tuple(r.last for r in results)]
    names = [*map(str, range(1, len(columns))), "six views"]
    rows = [
        f"| {name} | {statistics.mean(found):.4f} | {min(found):.4f} | {max(found):.4f} | {len(found)} |"
        for name, found in zip(names, columns, strict=True)
    ]
    return "\n".join(["| epoch | mean | lowest | highest | n |", "|---|---|---|---|---|", *rows])


def _once(words: list[str], *, warm: bool) -> _Result:
    """Return the result of a run; with `warm`, a complete warm-up run comes first."""
    config = config_of(words)
    made = assemble(config)
    made.learner.patience = _Unscored(made.learner.patience.monitor, limit=None)
    with tempfile.TemporaryDirectory() as folder, closing(open_logs(Path(folder), positions=None, step=0)) as log:
        if warm:
            again = _rewinder(made)
            _by_the_rule(made, config["init"], Log(), scored=False)
            again()
        return _by_the_rule(made, config["init"], log)


def main(words: list[str]) -> None:
    """Print accuracies over seeds, the seconds by the timing rule and end to end, and the operations of a step."""
    given = [word for word in words if not word.startswith("seeds=")]
    seeds = [word.removeprefix("seeds=").split(",") for word in words if word.startswith("seeds=")]
    chosen = [*_RECIPE, *([] if any(word.startswith("data=") for word in given) else _EVERYTHING), *given]
    cuda = torch.cuda.is_available()
    fast = [*chosen, *(_COMPILED if cuda else [])]
    made = assemble(config_of(fast))
    name = torch.cuda.get_device_name(made.device) if cuda else f"{torch.get_num_threads()} CPU thread(s)"
    print(f"{' '.join(fast)}\ntorch {torch.__version__}, {name}", flush=True)
    for first in (0, made.recipe.total_steps - STEPS - 2):  # parameters may be frozen at the end
        print(_counted(made, first), flush=True)
    results = []
    for seed in seeds[-1] if seeds else ("0", "1", "2"):
        results.append(_once([*fast, f"seed={seed}"], warm=cuda))
        print(f"seed {seed}: {results[-1]}", flush=True)
    print(_table(results))
    seconds = sorted(result.seconds for result in results)
    print(
        f"by the timing rule: {statistics.median(seconds):.2f} s "
        f"({seconds[0]:.2f} to {seconds[-1]:.2f}, n={len(seconds)})"
    )
    print(f"end to end, including start-up and reading the data: {_whole(chosen):.2f} s (n=1)")


def _whole(words: list[str]) -> float:
    """Return the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "runner", *words, f"outputs={folder}"], check=True, capture_output=True)
        return time.perf_counter() - start


@dataclass
class _Result:
    """The result of a run: accuracy after each epoch, final accuracy with six views, counted seconds."""

    epochs: list[float]
    last: float
    seconds: float


def _by_the_rule(made: Experiment, init: dict[str, Any], log: Log, *, scored: bool = True) -> _Result:
    """Train an experiment from its first step, and return its result by the timing rule."""
    clock, scores = _Clock(made.device), []
    test = made.test() if made.test else made.validation["val"]
    plain = replace(made.recipe, predict=build("predict", {"name": "plain"}, loss=made.recipe.loss))
    clock.start()
    images = next(made.batches.stream(0, 1))[0]
    build("init", init, images=images)(
        copy.deepcopy(made.learner.model).cpu()
    )  # for timing only; assembly has done it already
    clock.stop()
    per_epoch = made.recipe.steps_per_epoch
    for end in [*range(per_epoch, made.recipe.total_steps, per_epoch), made.recipe.total_steps]:
        clock.start()
        train(replace(made.recipe, total_steps=end), made.learner, made.batches, {}, log, lambda: None)
        clock.stop()
        if scored:
            scores.append(evaluate(plain, made.learner, test)["accuracy"])
    clock.start()
    last = evaluate(made.recipe, made.learner, test)["accuracy"]
    clock.stop()
    return _Result(scores, last, clock.seconds)


def _rewinder(made: Experiment) -> Callable[[], None]:
    """Return a function that restores the current state of an experiment and keeps its compiled code."""
    learner = made.learner
    state, weights = copy.deepcopy(learner.state_dict()), copy.deepcopy(learner.weights())

    def rewind() -> None:
        learner.load_state_dict(state, weights)
        learner.load_weights(weights)

    return rewind


class _Unscored(Patience):
    """Early stopping that ignores scores, because the timing rule evaluates outside of training."""

    def observe(self, scores: Mapping[str, float], step: int) -> bool:
        """Ignore the scores."""
        return False

    def rank(self, scores: Mapping[str, float]) -> float:
        """Return the same rank for all scores."""
        return 0.0


class _Clock:
    """Counts the seconds between `start` and `stop`, after the device has finished its work."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, 0.0

    def start(self) -> None:
        """Start counting."""
        self.wait()
        self.begun = time.perf_counter()

    def stop(self) -> None:
        """Stop counting."""
        self.wait()
        self.seconds += time.perf_counter() - self.begun

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


if __name__ == "__main__":
    main(sys.argv[1:])
