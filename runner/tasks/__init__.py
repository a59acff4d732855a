"""Tasks, one file each, and the function that starts one.

train.py            train, validate, select the best checkpoint, read the test split once
evaluate.py         score a finished run again
predict.py          the classes of images with a finished run, as a table
export.py           the model of a finished run as one file, with a model card
out_file.py         the file that `task.out` names
trained/            a run restored for use without its data
save_evaluation.py  results of an evaluation, on the screen and in the run folder
temperature.py      scores after temperature scaling, for an evaluation
views_gain.py       the gain of several views over the plain prediction, for an evaluation
final_scores.py     the scores at the end of a run, with the selected weights
probe_phase.py      a fine-tuned model compared with the linear probe that it began with
class_scores.py     scores of each class: table and CSV
predictions.py      the predictions for a split, in a file
clean.py            remove weights files of finished runs
compare.py          compare runs
doctor_probe.py     short trainings that test a finding
doctor.py           say what may be wrong with finished runs
preview.py          schedule, augmented images and parameter groups without training
preview_images.py   the images of a preview
profile.py          time of a step by operation
init_report.py      activations and gradients before training
init_verdicts.py    rules that find problems of an initialization
init_tables.py      tables, JSON and events of an init report
init_figures.py     figures of an init report
probe_stages.py     linear classifiers on the features of each stage
stage_features.py   the features of a model's stages
stage_report.py     table, plot and JSON of the stages
linear_probe.py     logistic regression on features
transferability.py  LogME and the H-score
transfer_advice.py  the 2x2 rule of transfer, and a short trial
transfer_rule.py    what the lectures say for a cell of that rule
feature_shift.py    how far features are from those of the training
transfer_tour.py    pre-train on some classes, transfer to others
transfer_trials.py  ways to transfer, tried over seeds
grid_vs_random.py   grid against random search
kfold.py            a run for each fold of a cross-validation
run_protocol.py     steps of the protocol in a run folder, and their report
protocol.py         the first steps of the protocol, in order
check_init.py       step 1: the untrained model
overfit.py          step 2: a small sample
fit_subset.py       a training on a small sample
find_lr.py          step 3: learning rates
coarse.py           step 4: a coarse search
refine.py           step 5: a refining search
list.py             groups, options and knobs as text or Markdown
catalog.py          the catalog that task=list prints
reference.py        docs/reference.md
notebook.py         rebuild outputs/notebook.md
diagnose_run.py     the doctor at the end of a run
settings_check.py   settings of a new run that would do nothing in it
next_steps.py       what to do after a run or a sweep, as commands to copy
job.py              the job of a task, and the contracts of `vary` and `launch`
old_scores.py       scores in a checkpoint of an older version
make_commit.py      the function that saves a checkpoint
extend_run.py       `extend=<run>`: a new run that goes on from an earlier one
run_start.py        what a training run begins with
restore.py          the state of a run from its newest checkpoint that fits
run_folder.py       the folder of a run, its lock and its result
find_folder.py      the folder of a run: one that holds it already, or a free one
describe_run.py     the files that say what a run is
saved_config.py     the config of an earlier run, and what a command may change of it
saved_data.py       the data of an earlier run, compared with those of this command
hparams.py          hyperparameters for TensorBoard, each of one type
old_hparams.py      HPARAMS entries of older versions
afterwards.py       decoration of a run folder, made after the result
report.py           messages of a run to the terminal and TensorBoard
plugins.py          the user's plugins
batch_size.py       the largest batch that fits, found by trial
out_of_memory.py    the line about a run that ran out of memory
activity.py         what this process runs now
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import plain_yaml, user_paths
from runner.engine.garbage import collecting
from runner.engine.interruption import heed
from runner.engine.read_ahead import read_ahead
from runner.keys import marked_keys
from runner.registry import asks, build, names
from runner.tasks.activity import noted
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.plugins import known_cause, load_plugins
from runner.user_folders import expand_home, set_library_folders


def start(job: Job, *, vary: Vary | None = None, launch: Launch | None = None) -> int:
    """Run the task that the job's config names and return the exit code; plugins are imported first.

    A task with a parameter `vary` or `launch` gets the function given here.

    Raises:
        RunnerError: For errors that the user can fix, such as errors in plugins and sizes that exceed the memory.

    """
    if "torch" not in sys.modules:
        _prefetch_data(job.config)
    set_library_folders()
    load_plugins(job.config["plugins"])
    if job.config["resume"]:
        job = _resumed(job)
    _load_task(job.config["task"]["name"])
    # Signals may have arrived during the imports, which take most of the time so far
    heed()
    context: dict[str, Any] = {"vary": vary, "launch": launch}
    context = {name: given for name, given in context.items() if given}
    with collecting(), noted(f"task={job.config['task']['name']}"):
        try:
            code: int = build("task", job.config["task"], job=job, **context)
        except BaseException as error:
            if (cause := known_cause(error, job.config["plugins"])) is not error:
                raise cause from error
            raise
    return code


def _prefetch_data(config: dict[str, Any]) -> None:
    """Start reading the data files before torch is imported: the disk reads while the processor imports.

    The annotation of a data set's folder names the files (`FilePath`). A thread makes the requests, without the GIL:
    for 180 MB they take 40 ms.
    """
    for holder, name, _, marks in marked_keys(config, {"data"} & config.keys()):
        if marks.path and marks.path.prefetch:
            folder = expand_home(holder[name])
            threading.Thread(target=prefetch_matching, args=[folder, marks.path.prefetch], daemon=True).start()


def prefetch_matching(folder: Path, pattern: str) -> None:
    """Start reading the files of a folder that match a pattern; the data set reports what is wrong with them."""
    with suppress(OSError, ValueError):
        read_ahead(Path(user_paths.full(folder)).glob(pattern))


def _load_task(name: str) -> None:
    """Import the task of this name, if it comes with runner and not from a plugin."""
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        importlib.import_module(f"{__name__}.{name}")


def _resumed(job: Job) -> Job:
    """Return the job of the saved run that `resume=<folder>` names, if its task launches runs; else the job itself.

    task=train resumes its own folders, and says what is wrong with any other.
    """
    from runner.tasks.saved_config import resumed_job

    name = saved_task(job.config["resume"])
    if name is None or name == "train":
        return job
    _load_task(name)
    return resumed_job(job, name) if name in names("task") and asks("task", name, "launch") else job


def saved_task(folder: str) -> str | None:
    """Return the name of the task of a run folder, None if the folder has no config."""
    path = Path(folder) / "config.yaml"
    config = plain_yaml.load(path) if user_paths.is_file(path, key="resume") else None
    task = config.get("task") if isinstance(config, dict) else None
    return str(task.get("name")) if isinstance(task, dict) else None


def load_tasks() -> None:
    """Import every task that comes with runner, so that all are registered."""
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        importlib.import_module(module.name)
