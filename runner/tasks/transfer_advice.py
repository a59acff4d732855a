"""task=transfer_advice: which way to transfer, by the rule of the lectures and by a short trial."""

from __future__ import annotations

import json
from typing import Annotated, Any

from runner.assemble import Experiment, assemble
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import ConfigError
from runner.printing import write_stdout
from runner.registry import register
from runner.schema import Positive, PositiveInt, Range
from runner.screen_tables import print_table
from runner.tasks.feature_shift import feature_shift
from runner.tasks.job import Job, Launch, Vary
from runner.tasks.probe_stages import StageSource, probe_all, source_of
from runner.tasks.run_folder import continued_run_folder
from runner.tasks.stage_report import StageReport, show_stages, stages_figure, stages_record
from runner.tasks.transfer_rule import Measured, advise
from runner.tasks.transfer_trials import Overrides, Trials, run_trials, variants_of

_PROBE, _TUNED = "linear probe", "fine-tune"
_WAYS: dict[str, Overrides] = {
    _PROBE: {"transfer": "feature_extraction"},
    _TUNED: {"transfer": "fine_tune"},
}
_PAIRS = ((_TUNED, _PROBE),)


@register("task")
def transfer_advice(
    job: Job,
    vary: Vary,
    launch: Launch,
    *,
    little: PositiveInt,
    similar: Positive,
    examples: Annotated[int, Range(2)],
    seeds: Annotated[int, Range(2)],
) -> int:
    """Say which way to transfer the weights of `init_from` to these data: what the lectures say, and what a trial says.

    Measures the data per class and how similar they are to those of the weights, which gives a cell of the 2x2 rule.
    Then trains a linear probe and fine-tunes, `seeds` runs of each with the length of the config. Leaves `report.json`,
    `stages.json` with its plot, and the trainings as ordinary runs in `runs/`. After an interrupt, the same command or
    `resume=<folder>` continues.
    """
    if job.config["init_from"] is None:
        raise ConfigError("init_from: got null; expected the weights to transfer: a run folder or a file of weights")
    variants = variants_of(job, vary, _WAYS, seeds)
    # Reject unsupported combinations before a folder exists
    experiment, _ = (assemble(variants[way][0]) for way in (_PROBE, _TUNED))
    source = source_of(experiment, job.config)
    reader = source.reader()
    with continued_run_folder(job, experiment) as run:
        stages = probe_all(source, reader, examples)
        measured = _measure(experiment, source, stages)
        advice = advise(measured, stages, little=little, similar=similar)
        trials = run_trials(variants, launch, run.folder / "runs")
        report = {**advice.record(), "trial": {**trials.record(_PAIRS), "better": trials.better(*_PAIRS[0])}}
        write_atomic(run.folder / "report.json", json.dumps(report, indent=1).encode() + b"\n")
        write_atomic(run.folder / "stages.json", stages_record(stages))
        run.afterwards.draw("stages.png", stages_figure(stages), tag="stages")
    show_stages(stages)
    write_stdout("".join(f"{line}\n" for line in advice.lines()))
    _show_trial(trials, len(variants[_PROBE]))
    write_stdout(f"saved in      {printable(run.folder)}\n")
    return 0


def _measure(experiment: Experiment, source: StageSource, stages: StageReport) -> Measured:
    """Return what the rule needs to know."""
    counts = experiment.loaded.data.train.labels.bincount(minlength=len(experiment.classes)).tolist()
    sample: Any = experiment.validation["train_eval"]
    return Measured(
        images=sum(counts),
        classes=len(counts),
        fewest=min(counts),
        shift=feature_shift(source.model, sample, source.autocast),
    )


def _show_trial(trials: Trials, seeds: int) -> None:
    """Print what the trial says, with the override of the way that it favors."""
    print_table(trials.rows(), title=f"short trial, {seeds} seeds each: validation at the end")
    better = trials.better(*_PAIRS[0])
    word = _WAYS[better or _PROBE]["transfer"]
    why = "" if better else "  (the cheaper one: the seeds show no difference)"
    write_stdout(f"{trials.words(*_PAIRS[0])}\n\nthe trial says:     transfer={word}{why}\n")
