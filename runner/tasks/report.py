"""Messages of a run to the terminal and to TensorBoard, at its start and its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from runner import plain_yaml
from runner.assemble import Experiment
from runner.decoration import decorative
from runner.engine.fingerprint import Fingerprint
from runner.engine.logs.console import Console
from runner.engine.logs.log import Log
from runner.engine.logs.plugin_pages import chart_layout, session_end, session_start
from runner.engine.logs.sinks import METRICS
from runner.engine.monitor import Monitor
from runner.engine.nonfinite_trace import explain_divergence
from runner.engine.saving import checkpoint
from runner.engine.saving.checkpoint import Snapshot
from runner.engine.saving.folder import Result
from runner.engine.saving.storage import printable
from runner.engine.timing import MEMORY, SPEED, STEP, WAIT, median_cost
from runner.errors import Diverged, escaped
from runner.printing import counted, standard_error, write_stderr, write_stdout
from runner.screen_tables import print_table
from runner.status import Status
from runner.tasks.hparams import row_name, typed_hparams
from runner.tasks.job import Job
from runner.tasks.next_steps import after_run


def print_progress(line: str) -> None:
    """Write a line to standard error, where progress goes."""
    write_stderr(f"{escaped(line)}\n")


def show_start(experiment: Experiment, snapshot: Snapshot | None, *, resumed: bool) -> None:
    """Print a summary of the training, and the step from which a resumed run continues."""
    for line in (*experiment.summary, *filter(None, [experiment.features.line])):
        print_progress(f"  {line}")
    if experiment.stages:
        with decorative("table of the stages: not shown"):
            print_table(experiment.stages, split=False, stream=standard_error())
    for note in snapshot.notes if snapshot else ():
        print_progress(f"  {note}")
    if resumed:
        start = f"resumes after step {snapshot.step}" if snapshot else "no checkpoint: starts at step 0"
        print_progress(f"  {start} of {experiment.recipe.total_steps}")


def device_name(experiment: Experiment) -> str:
    """Return the name of the run's device."""
    if experiment.device.type == "cuda":
        return f"{experiment.device} ({torch.cuda.get_device_name(experiment.device)})"
    threads = torch.get_num_threads()
    return f"{experiment.device} ({counted(threads, 'thread')})"


def make_console(experiment: Experiment) -> Console:
    """Return the console that shows the progress of a run."""
    recipe = experiment.recipe
    return Console(
        steps=recipe.total_steps,
        steps_per_epoch=recipe.steps_per_epoch,
        batch_size=experiment.batches.batch,
        averaged=experiment.learner.average.module is not experiment.learner.model,
        monitor=experiment.settings.monitor,
    )


def log_start(log: Log, job: Job, fingerprint: Fingerprint) -> None:
    """Log hyperparameters, chart layout and config to TensorBoard at the start of a run.

    The HPARAMS page has the trials of sweeps only. It ticks the first five hyperparameters that differ, in alphabetical
    order, and between single runs nearly all differ.
    """
    if not log.has_event_file:
        return
    if job.is_trial:
        with decorative("TensorBoard's HPARAMS page: not written"):
            log.add(0, {"hparams/start": session_start(typed_hparams(job.config), row_name(job, fingerprint))})
    with decorative("TensorBoard's CUSTOM SCALARS page: not written"):
        log.add(0, {"layout": chart_layout()})
    with decorative("TensorBoard's TEXT page: not written"):
        text = plain_yaml.dump(job.config).decode()
        note = f"{job.config['note']}\n\n" if job.config["note"] else ""
        log.add(0, {"config": f"{note}```yaml\n{text}```"})


def log_end(log: Log, job: Job, step: int) -> None:
    """Write all rows, and log to TensorBoard that the run succeeded."""
    log.flush()
    log.positions()
    log_session_end(log, job, step, succeeded=True)
    log.positions()


def log_session_end(log: Log, job: Job, step: int, *, succeeded: bool) -> None:
    """Log to TensorBoard's HPARAMS page how a trial ended."""
    if log.has_event_file and job.is_trial:
        with decorative("TensorBoard's HPARAMS page: end of the run not written"):
            log.add(step, {"hparams/end": session_end(succeeded=succeeded)})


def explained(error: Diverged, folder: Path, experiment: Experiment) -> Diverged:
    """Return the error of a run that diverged, with the first tensor that was not finite and the last checkpoint."""
    found = error
    with decorative("cause of the divergence: not found"):
        found = explain_divergence(
            error, experiment.recipe, experiment.learner, experiment.batches, experiment.validation
        )
    with decorative("last checkpoint: not read"):
        return Diverged(f"{found}; {_last_checkpoint_in_words(folder)}")
    return found


def _last_checkpoint_in_words(folder: Path) -> str:
    """Return in words which checkpoint a diverged run has."""
    snapshot = checkpoint.load(folder)
    return f"the checkpoint of step {snapshot.step} is kept" if snapshot else "there is no checkpoint before it"


def show_summary(
    folder: Path, job: Job, result: Result, more: Sequence[str] = (), findings: Sequence[str] = ()
) -> None:
    """Print the scores of a finished run, more lines about it, how to view it, and what the doctor found."""
    with decorative("summary: not shown"):
        _show_summary(folder, job, result, more)
    write_stdout("".join(f"{line}\n" for line in findings))


def _show_summary(folder: Path, job: Job, result: Result, more: Sequence[str]) -> None:
    scores = result.scores
    shown = {
        "validation, best": scores["val"]["best"],
        "validation, last": scores["val"]["last"],
        **_snapshot_rows("validation", scores["val"]),
        "training examples, last": scores["train_eval"]["last"],
        **({"test, best weights": scores["test"]} if "test" in scores else {}),
        **_snapshot_rows("test", scores.get("test", {})),
    }
    monitor = Monitor(job.config["monitor"])
    more_columns = [monitor.metric] if monitor.is_of_component else []
    rows = [_score_row(name, each, more_columns) for name, each in shown.items()]
    ended = "stopped early" if result.status is Status.STOPPED else result.status
    length = f"{counted(result.steps, 'step')} ({counted(result.epochs, 'epoch')})"
    print_table(_without_repeated_column(rows), title=f"{ended} after {length} in {result.seconds:.1f} s")
    cost: Mapping[str, float] = {}
    with decorative("speed: not shown"):
        cost = median_cost(folder / METRICS)
    lines = [
        *_other_scores(scores["val"]["best"], more_columns),
        *map(escaped, more),
        *([f"speed         {speed_in_words(cost)}"] if cost else []),
        f"saved in      {printable(folder)}",
        *after_run(folder, job, result),
    ]
    write_stdout("\n".join(lines) + "\n")


def _snapshot_rows(split: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of the newest snapshot and of all together by the names of their rows."""
    at_end = scores.get("last", {}).get("step") == scores.get("snapshot", {}).get("step")
    names = {} if at_end else {"snapshot": "last snapshot"}
    if "ensemble" in scores:
        names["ensemble"] = f"ensemble of {scores['ensemble']['members']}"
    return {f"{split}, {words}": scores[name] for name, words in names.items() if name in scores}


def _other_scores(scores: Mapping[str, float], shown: Sequence[str] = ()) -> list[str]:
    """Return a line with the scores that the table does not have, none if there are none."""
    others = {name: value for name, value in scores.items() if name not in ("accuracy", "loss", "nll", "step", *shown)}
    return [f"more scores   {', '.join(f'{name} {value:.4f}' for name, value in others.items())}"] if others else []


def speed_in_words(cost: Mapping[str, float]) -> str:
    """Return the median cost of a step in words."""
    step = f"{cost[SPEED]:.0f} examples/s, {cost[STEP]:.3g} ms/step"
    return f"{step}, data wait {cost[WAIT]:.0%}, peak memory {cost[MEMORY]:.0f} MB"


def _score_row(name: str, scores: Mapping[str, float], more: Sequence[str] = ()) -> dict[str, object]:
    """Return one line of the table; `more` names scores besides accuracy, loss and nll."""
    step = scores.get("step")
    return {
        "split": name,
        "accuracy": scores["accuracy"],
        "loss": scores.get("loss"),
        "nll": scores.get("nll"),
        **{each: scores.get(each) for each in more},
        "step": None if step is None else int(step),
    }


def _without_repeated_column(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the rows without `nll` where it says nothing new: it equals the loss, or there is none."""
    told = [f"{row['nll']:.4f}" for row in rows if isinstance(row["nll"], float)]
    losses = [f"{row['loss']:.4f}" for row in rows if isinstance(row["loss"], float)]
    return [{k: v for k, v in row.items() if k != "nll"} for row in rows] if told in ([], losses) else rows


def show_scores(folder: Path, split: str, scores: Mapping[str, float], weights: Path) -> None:
    """Print the scores of an evaluation."""
    # Not as the title of the table, which wraps at the width of the columns
    write_stdout(f"{printable(folder)}: {escaped(weights.name)}\n")
    print_table(_without_repeated_column([_score_row(split, scores)]))
    write_stdout("".join(f"{line}\n" for line in _other_scores(scores)))
