"""task=profile: what a step spends its time on, by operation, and a trace of it to look at."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from runner.assemble import Experiment, assemble
from runner.engine.batches import EvalBatches
from runner.engine.contracts import Probe, Watch, Watched
from runner.engine.logs.console import summary_table
from runner.engine.logs.log import Log
from runner.engine.saving import storage
from runner.engine.saving.folder import Result, lock
from runner.engine.train import train
from runner.registry import register
from runner.schema import NonNegativeInt, PositiveInt
from runner.tasks.job import Job
from runner.tasks.operations import Recording, table
from runner.tasks.report import device_name, speed, tell
from runner.tasks.run_folder import describe, place, reported

TRACE = "steps.pt.trace.json.gz"  # the ending that TensorBoard's profiler plugin looks for; Perfetto unpacks it too
SHOWN = 10
QUIET = "6"  # of the profiler's own log, which writes each start and stop, and that there is no GPU, to the screen


@register("task")
def profile(job: Job, *, steps: PositiveInt, warmup: NonNegativeInt) -> int:
    """Train a few steps and show what they spend their time on; of the training nothing is kept.

    Prints the ten operations that cost most, and what a step costs as a whole; that is measured without the profiler,
    which slows small operations. Leaves a run folder with `profile/steps.pt.trace.json.gz`.
    """
    experiment = assemble(job.config | {"patience": None})
    folder = place(job)
    result = Result()
    with lock(folder), reported(folder, result):
        tell(f"run {folder} on {device_name(experiment)}")
        describe(folder, job, device=device_name(experiment))
        go_on(experiment, warmup)
        cost = go_on(experiment, warmup + steps)
        recording = record(experiment, steps, folder)
        result.steps = experiment.learner.step
        result.status, result.exit = "done", 0
    show(folder, experiment, cost, recording)
    return 0


def go_on(experiment: Experiment, until: int, *probes: Probe, log_every: int | None = None) -> dict[str, float]:
    """Train up to a step with the run's own loop and return the last of each number that it logs.

    Nothing is validated before the last step, and there only one example of each split: the loop ends with it.
    """
    recipe = replace(
        experiment.recipe,
        total_steps=until,
        validate_every=until + 1,
        checkpoint_every=until + 1,
        log_every=log_every or until + 1,
        probes=[*experiment.recipe.probes, *probes],
    )
    few = {name: first(batches) for name, batches in experiment.validation.items()}
    log = Log()
    train(recipe, experiment.learner, experiment.batches, few, log, lambda: None)
    return log.flush()


def first(batches: EvalBatches) -> EvalBatches:
    """Return the first example of a split."""
    return EvalBatches(
        batches.split, batch=1, preprocess=batches.preprocess, device=batches.device, index=batches.index[:1]
    )


def record(experiment: Experiment, steps: int, folder: Path) -> Recording:
    """Train so many steps under the profiler, after one for it to warm up, and write the trace into the folder."""
    os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
    from torch import profiler

    on_gpu = experiment.device.type == "cuda"
    activities = [profiler.ProfilerActivity.CPU, *([profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    schedule = profiler.schedule(wait=0, warmup=1, active=steps, repeat=1)
    with profiler.profile(activities=activities, schedule=schedule, acc_events=True) as recorder:

        def mark(watched: Watched) -> Watch:
            yield
            recorder.step()
            return {}

        until = experiment.learner.step + 1 + steps
        go_on(experiment, until, Probe(1, mark), log_every=experiment.recipe.log_every)
    storage.make_folder(folder / "profile")
    path = folder / "profile" / TRACE
    with storage.refusing(path):
        recorder.export_chrome_trace(str(path))
    return Recording(list(recorder.key_averages()), steps, on_gpu)


def show(folder: Path, experiment: Experiment, cost: dict[str, float], recording: Recording) -> None:
    """Print the operations, what a step costs, and how to look at the trace."""
    title = f"the {SHOWN} most expensive operations of {recording.steps} steps of {experiment.batches.batch} examples"
    summary_table(table(recording, SHOWN), title=title)
    rest = "of the time the GPU works" if recording.on_gpu else "of the time; the rest is Python"
    waits = "waits for the device" if recording.on_gpu else "reads of single values (.item)"
    lines = [
        f"speed         {speed(cost)}",
        f"profiler      {recording.milliseconds:.3g} ms/step while it records",
        f"operations    {recording.calls:.0f} per step, {recording.busy:.0%} {rest}",
        f"host          {recording.waits:.3g} {waits} per step",
        f"look at it    https://ui.perfetto.dev, Open trace file: {folder / 'profile' / TRACE}",
        f"or            pip install torch-tb-profiler; tensorboard --logdir {shlex.quote(str(folder))}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
