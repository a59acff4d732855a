"""task=ensemble: finished runs as one model, with what that gains, in a folder that `run=` takes."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch

from runner.assemble import settings_and_device
from runner.decoration import decorative
from runner.engine.evaluation import Assessment
from runner.engine.saving.storage import printable
from runner.ensembles.calibration import PredictionScores
from runner.ensembles.report import EnsembleReport
from runner.ensembles.report_pages import print_report
from runner.ensembles.statistics import EnsembleStatistics
from runner.errors import ConfigError
from runner.printing import write_stdout
from runner.registry import register
from runner.roles import FilePath, Role
from runner.schema import Pattern, Positive
from runner.tasks.ensembling.candidates import find_candidates
from runner.tasks.ensembling.combining import Made, make_ensemble, scored_on_test, test_statistics
from runner.tasks.ensembling.folder import EnsembleRecord, new_folder, write_ensemble
from runner.tasks.ensembling.outputs import CommonData, check_has_test
from runner.tasks.ensembling.reports import report_of, save_reports
from runner.tasks.ensembling.soups import make_soup
from runner.tasks.job import Job
from runner.tasks.next_steps import after_ensemble
from runner.tasks.predictions import about_predictions, write_predictions
from runner.tasks.run_folder import count_test_reads
from runner.tasks.runs_given import patterns_of, subject_of
from runner.tasks.trained.saved_run import gives

_Members = Annotated[str, Pattern(r"all|greedy|best:[1-9][0-9]{0,5}", "all, greedy, or best:<k> as in best:5")]


@register("task")
def ensemble(
    job: Job,
    *,
    members: _Members,
    combine: Literal["probabilities", "logits", "weights"],
    temperature: Positive | Literal["fit"],
    final_test: bool,
    copy: bool,
    out: Annotated[str | None, Role.PATH, FilePath()],
) -> int:
    """Combine the runs that `runs=` names into one model, and report what that gains.

    Leaves a folder with `ensemble.json` that `run=` of evaluate, predict and export takes, and `runner.load`. Members
    are chosen by validation only. With `combine=weights` it holds one model with averaged weights (a model soup).
    """
    if copy and combine == "weights":
        raise ConfigError("task.copy: got true, must be false with task.combine=weights: the folder holds the soup")
    began = time.monotonic()
    patterns = patterns_of(job)
    models = find_candidates(patterns, job)
    data, seed = CommonData(models), job.config["seed"]
    if combine == "weights":
        made = make_soup(models, data, members, temperature, seed)
    else:
        made = make_ensemble(models, data, members, combine, temperature, seed)
    test = _read_test(made, data, seed) if final_test else None
    with new_folder(out, subject_of(patterns), job) as folder:
        _write(folder, job, made, test, copy=copy, seconds=time.monotonic() - began)
    _report(folder, job, made, test)
    return 0


def _report(folder: Path, job: Job, made: Made, test: _Test | None) -> None:
    """Print the report on an ensemble, save it, and print what to do next."""
    reports = _reports(made, test)
    with decorative("report: not shown"):
        for report in reports.values():
            print_report(report)
    pages = save_reports(folder, job, reports)
    view = [f"view          {printable(folder / page)}" for page in pages]
    next_steps = after_ensemble(folder, job, made.models[0].run.config["data"]["name"])
    write_stdout("".join(f"{line}\n" for line in (f"saved in      {printable(folder)}", *view, *next_steps)))


class _Test(NamedTuple):
    """The scores on the test split: without the temperature, and with it."""

    statistics: EnsembleStatistics
    scores: PredictionScores


def _read_test(made: Made, data: CommonData, seed: int) -> _Test:
    """Return the scores on the test split, after counting the read in the result of each run that is scored."""
    check_has_test(data)
    count_test_reads([made.models[place].run.folder for place in scored_on_test(made)])
    return _Test(*test_statistics(made, data, seed))


def _write(folder: Path, job: Job, made: Made, test: _Test | None, *, copy: bool, seconds: float) -> None:
    """Write the files of an ensemble into its folder."""
    _, device = settings_and_device(made.models[0].run.config)
    scores = {"val": {"best": asdict(made.scores)}, **({"test": asdict(test.scores)} if test else {})}
    record = EnsembleRecord(
        members=made.used,
        weights=made.shares,
        combine=made.combine,
        temperature=made.temperature.value,
        predict=job.config["predict"] if gives(job, "predict") else None,
        about=_about(made, test),
        scores=scores,
        test_reads=int(test is not None),
        seconds=seconds,
        is_soup=made.how == "weights",
    )
    write_ensemble(folder, job, record, copy=copy, device=str(device))
    if job.config["predictions"] == "never" or made.models[0].run.data.id is None:
        return
    with decorative("predictions/val.safetensors: not written"):
        found = Assessment(
            scores={},
            totals={},
            outputs=torch.from_numpy(made.log_p).float(),
            are_log_p=True,
            labels=torch.from_numpy(made.outputs.labels),
            ids=torch.from_numpy(made.outputs.ids),
        )
        about = about_predictions(
            made.used[0].run.config["predict"],
            step=None,
            weights="ensemble.json",
            data=str(made.models[0].run.data.id),
            classes=made.models[0].facts.classes,
        )
        write_predictions(folder, "val", found, about)


def _about(made: Made, test: _Test | None) -> dict[str, Any]:
    """Return how an ensemble was made and what it scores, as JSON values."""
    chosen = made.selection
    names = [model.name for model in made.models]
    found: dict[str, Any] = _finite(
        {
            "made_of": "weights" if made.how == "weights" else "predictions",
            "selected_by": chosen.words,
            "split": "val",
            "examples": {"selection": 0 if chosen.fitted is None else len(chosen.fitted), "scores": len(chosen.scored)},
            "models": dict(zip(names, map(float, chosen.weights), strict=True)),
            "best": names[chosen.best],
            "temperature_fitted_on": made.temperature.fitted_on or None,
            "val": {"scores": asdict(made.scores), **asdict(made.statistics)},
            **({"test": {"scores": asdict(test.scores), **asdict(test.statistics)}} if test else {}),
        }
    )
    return found


def _finite(value: Any) -> Any:
    """Return JSON values with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _reports(made: Made, test: _Test | None) -> dict[str, EnsembleReport]:
    """Return the report on each split that was scored."""
    names = [model.name for model in made.models]
    found = {"val": report_of(made, "validation", names, made.statistics, made.scores)}
    if test:
        scored = [names[place] for place in scored_on_test(made)]
        found["test"] = report_of(made, "test", scored, test.statistics, test.scores)
    return found
