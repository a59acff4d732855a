"""task=profile: the time of a step by operation, and a trace of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from runner.assemble import Experiment, assemble
from runner.assemble.load_data import load
from runner.engine.contracts import Probe, Watch, Watched
from runner.engine.saving import storage
from runner.engine.saving.storage import printable
from runner.engine.short_run import short_run
from runner.engine.timing import TAGS
from runner.errors import escaped
from runner.printing import counted, write_stdout
from runner.registry import register
from runner.schema import NonNegativeInt, PositiveInt
from runner.screen_tables import print_table
from runner.tasks.batch_size import with_batch_size
from runner.tasks.job import Job
from runner.tasks.report import print_progress, speed_in_words
from runner.tasks.run_folder import Run, run_folder_if_writable
from runner.user_paths import full

# TensorBoard's profiler plugin looks for this ending; Perfetto opens it too.
_TRACE = "profile/steps.pt.trace.json.gz"
_SHOWN = 10
# Log level at which the profiler does not print each start and stop, or that there is no GPU.
_QUIET = "6"
# Operations that make the host wait, and whether they count on a GPU. cudaDeviceSynchronize is left out, because the
# profiler itself ends with one.
_WAITS = {"aten::_local_scalar_dense": False, "cudaStreamSynchronize": True, "cudaEventSynchronize": True}
# Of an operation: autograd puts `autograd::engine::evaluate_function: ` before the names of backward passes
_LONGEST_NAME = 48


@dataclass(frozen=True)
class Recording:
    """The operations of `steps` profiled steps: a row of torch's `key_averages()` per name.

    Times are an operation's own, without the operations that it calls: the device's on a GPU, else the host's.
    """

    rows: Sequence[Any]
    steps: int
    on_gpu: bool

    @cached_property
    def operations(self) -> list[Any]:
        """The operations that the host called, most expensive first, without annotations such as `ProfilerStep*`."""
        found = [row for row in self.rows if row.device_type.name == "CPU" and not row.is_user_annotation]
        return sorted(found, key=self.own, reverse=True)

    def own(self, row: Any) -> float:
        """Return an operation's own time per step, in milliseconds."""
        return self.device(row) if self.on_gpu else self.host(row)

    def host(self, row: Any) -> float:
        """Return the host's own time in an operation, in milliseconds per step."""
        return float(row.self_cpu_time_total) / 1000 / self.steps

    def device(self, row: Any) -> float:
        """Return the GPU's time in the kernels of an operation, in milliseconds per step."""
        return float(row.self_device_time_total) / 1000 / self.steps

    @property
    def milliseconds(self) -> float:
        """The wall time of a step, in milliseconds."""
        total = sum(row.cpu_time_total for row in self.rows if row.key == "ProfilerStep*" and row.cpu_time_total)
        return float(total) / 1000 / self.steps

    @property
    def calls(self) -> float:
        """The calls of torch's operations per step, nested calls included."""
        return sum(int(row.count) for row in self.operations if row.key.startswith("aten::")) / self.steps

    @property
    def busy(self) -> float:
        """The share of the wall time in [0, 1] in which the GPU, or without one the host, works on operations."""
        return sum(map(self.own, self.operations)) / self.milliseconds

    @property
    def waits(self) -> float:
        """How often per step the host waits for the device; on the CPU, how often it reads one value of a tensor."""
        return sum(int(row.count) for row in self.operations if _WAITS.get(row.key) == self.on_gpu) / self.steps


@register("task")
def profile(job: Job, *, steps: PositiveInt, warmup: NonNegativeInt) -> int:
    """Train `steps` steps after `warmup` ones and print the ten most expensive operations; nothing is saved.

    The cost of a whole step is measured without the profiler, which slows small operations. Leaves a run folder with
    `profile/steps.pt.trace.json.gz`.
    """
    job, loaded, lines = with_batch_size(job, load(job.config))
    experiment = assemble(job.config, loaded=loaded)
    for line in lines:
        print_progress(f"  {line}")
    with run_folder_if_writable(job, experiment) as run:
        cost = _measure(experiment, warmup, steps)
        recording, save_trace = _record(experiment, steps)
        if run:
            run.result.steps = experiment.learner.step
            run.afterwards.save(_TRACE, save_trace)
    _show(run, experiment, cost, recording)
    return 0


def _measure(experiment: Experiment, warmup: int, steps: int) -> dict[str, float]:
    """Return the `time/` tags of some steps after a warm-up, without the profiler."""
    recipe, learner, batches = experiment.recipe, experiment.learner, experiment.batches
    short_run(recipe, learner, batches, steps=warmup)
    curves = short_run(recipe, learner, batches, steps=steps)
    return {tag: float(curves[tag].values[-1]) for tag in TAGS}


def _record(experiment: Experiment, steps: int) -> tuple[Recording, Callable[[Path], None]]:
    """Train some steps under the profiler, after one for the profiler to warm up; also return what saves the trace."""
    os.environ.setdefault("KINETO_LOG_LEVEL", _QUIET)
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

    def save_trace(folder: Path) -> None:
        path = folder / _TRACE
        storage.make_folder(path.parent)
        with storage.convert_os_errors(path):
            recorder.export_chrome_trace(full(path))

    return Recording(list(recorder.key_averages()), steps, on_gpu), save_trace


def _show(run: Run | None, experiment: Experiment, cost: dict[str, float], recording: Recording) -> None:
    """Print the operations, the cost of a step, and how to open the trace."""
    steps, examples = counted(recording.steps, "step"), counted(experiment.batches.batch, "example")
    rows = operation_table(recording, _SHOWN)
    title = (
        f"{len(rows)} of {counted(len(recording.operations), 'operation')}, the most expensive: {steps} of {examples}"
    )
    print_table(rows, title=title)
    rest = "of the time the GPU works" if recording.on_gpu else "of the time; the rest is Python"
    waits = "waits for the device" if recording.on_gpu else "reads of single values (.item)"
    lines = [
        f"speed         {speed_in_words(cost)}",
        f"profiler      {recording.milliseconds:.3g} ms/step while it records",
        f"operations    {recording.calls:.0f} per step, {recording.busy:.0%} {rest}",
        f"host          {recording.waits:.3g} {waits} per step",
    ]
    if run and _TRACE in run.afterwards.saved:
        logdir = escaped(shlex.quote(str(run.folder)))
        lines += [
            f"view          https://ui.perfetto.dev, Open trace file: {printable(run.folder / _TRACE)}",
            f"or            pip install torch-tb-profiler; tensorboard --logdir {logdir}",
        ]
    write_stdout("\n".join(lines) + "\n")


def _shortened(name: str) -> str:
    """Return an operation's name, cut at its start so that the table is at most 100 columns wide."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"


def operation_table(recording: Recording, most: int) -> list[dict[str, str]]:
    """Return a table row for each of the `most` most expensive operations."""
    total = sum(map(recording.own, recording.operations))
    return [
        {
            "operation": _shortened(row.key),
            "calls per step": f"{row.count / recording.steps:.4g}",
            **({"GPU, ms per step": f"{recording.device(row):.3f}"} if recording.on_gpu else {}),
            "own time, ms per step": f"{recording.host(row):.3f}",
            "share": f"{recording.own(row) / total:.1%}",
        }
        for row in recording.operations[:most]
    ]
