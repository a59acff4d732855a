"""task=profile: what a step spends its time on, by operation, and a trace of it to look at."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from runner.assemble import Experiment, assemble
from runner.engine.contracts import Probe, Watch, Watched
from runner.engine.logs.console import summary_table
from runner.engine.saving import storage
from runner.engine.saving.folder import Result, lock
from runner.engine.short_run import short_run
from runner.engine.timing import TAGS
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
    experiment = assemble(job.config)
    folder = place(job)
    result = Result()
    with lock(folder), reported(folder, result):
        tell(f"run {folder} on {device_name(experiment)}")
        describe(folder, job, device=device_name(experiment))
        cost = measure(experiment, warmup, steps)
        recording = record(experiment, steps, folder)
        result.steps = experiment.learner.step
        result.status, result.exit = "done", 0
    show(folder, experiment, cost, recording)
    return 0


def measure(experiment: Experiment, warmup: int, steps: int) -> dict[str, float]:
    """Return the `time/` tags of some steps after a warm-up, without the profiler."""
    recipe, learner, batches = experiment.recipe, experiment.learner, experiment.batches
    short_run(recipe, learner, batches, steps=warmup)
    curves = short_run(recipe, learner, batches, steps=steps)
    return {tag: float(curves[tag].values[-1]) for tag in TAGS}


def record(experiment: Experiment, steps: int, folder: Path) -> Recording:
    """Train some steps under the profiler, after one for the profiler to warm up, and write the trace."""
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

        recipe, learner, batches = experiment.recipe, experiment.learner, experiment.batches
        short_run(recipe, learner, batches, steps=1 + steps, log_every=recipe.log_every, probes=[Probe(1, mark)])
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
