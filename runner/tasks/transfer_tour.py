"""task=transfer_tour: pre-train on some classes, then transfer to others with few images of each."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Annotated, Any

from runner import user_paths
from runner.assemble import assemble
from runner.engine.saving.folder import RESULT, Result, read_result
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import ConfigError
from runner.printing import write_stdout
from runner.registry import register
from runner.schema import PositiveInt, Range
from runner.screen_tables import print_table
from runner.tasks.job import Config, Job, Launch, Vary
from runner.tasks.report import print_progress
from runner.tasks.run_folder import continued_run_folder
from runner.tasks.transfer_trials import TRAINING, Overrides, run_trials, variants_of

# Names of the ways in tables and files
_PROBE, _TUNED, _SCRATCH = "linear probe", "lp_ft", "from scratch"
_PAIRS = ((_PROBE, _SCRATCH), (_TUNED, _SCRATCH), (_PROBE, _TUNED))
_WAYS: dict[str, Overrides] = {
    _PROBE: {"transfer": "feature_extraction"},
    _TUNED: {"transfer": "lp_ft"},
    _SCRATCH: {"transfer": "none", "init_from": None},
}
# An epoch of few images is one step, which takes less time than a validation
_CADENCE: Overrides = {"validate_every": "50%"}


@register("task")
def transfer_tour(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    source: list[str | int],
    target: list[str | int],
    per_class: PositiveInt,
    steps: PositiveInt,
    seeds: Annotated[int, Range(2)],
) -> int:
    """Pre-train on the classes `source`, then learn the classes `target` from `per_class` images of each.

    Three ways get the same `steps`: a linear probe and `lp_ft` of the pre-trained weights, and training from scratch.
    Each seed has another choice of images. Leaves `report.json` and all trainings as ordinary runs. After an
    interrupt, the same command or `resume=<folder>` continues.
    """
    _check(job.config, source, target)
    base = vary(job.config, {**TRAINING, "data.classes": source})
    images = {**_CADENCE, "data.classes": target, "data.limit": per_class * len(target), "steps": steps}
    # Reject unsupported combinations before a folder exists
    experiment = assemble(base)
    assemble(vary(job.config, {**TRAINING, **images}))
    with continued_run_folder(job, experiment) as run:
        print_progress(f"  pre-training on {', '.join(map(str, source))}")
        weights = _pretrained(base, launch, run.folder / "source")
        ways = {way: {"init_from": str(weights), **images, **own} for way, own in _WAYS.items()}
        variants = variants_of(job, vary, ways, seeds, more=lambda i: {"data.limit_seed": i})
        trials = run_trials(variants, launch, run.folder / "target")
        report = {"source": source, "target": target, "per_class": per_class, "steps": steps, **trials.record(_PAIRS)}
        write_atomic(run.folder / "report.json", json.dumps(report, indent=1).encode() + b"\n")
    classes = ", ".join(map(str, target))
    print_table(trials.rows(), title=f"{classes} from {per_class} images each, {steps} steps: validation at the end")
    write_stdout("".join(f"{trials.words(*pair)}\n" for pair in _PAIRS))
    write_stdout(f"saved in      {printable(run.folder)}\n")
    return 0


def _check(config: Config, source: list[str | int], target: list[str | int]) -> None:
    """Raise ConfigError if the data cannot choose classes and images, or if a class is both source and target."""
    if not {"classes", "limit", "limit_seed"} <= config["data"].keys():
        raise ConfigError(
            f"data: got {config['data']['name']}; expected data with the knobs classes, limit and limit_seed, such as "
            "digits or imagefolder"
        )
    if both := sorted({str(name) for name in source} & {str(name) for name in target}):
        raise ConfigError(f"task.target: has {', '.join(both)}, which task.source has, too; expected other classes")


def _pretrained(config: Config, launch: Launch, folder: Path) -> Path:
    """Return the folder of the run that is pre-trained below a folder."""
    result = launch([config], folder)[0]
    folders = [path.parent for path in user_paths.matching(f"{glob.escape(str(folder))}/*/{RESULT}")]
    return next(each for each in folders if _is_same(read_result(each), result))


def _is_same(found: Result, result: Any) -> bool:
    """Return True for the result of the same run: it has the same weights on the same data."""
    return found.weights is not None and (found.weights, found.data) == (result.weights, result.data)
