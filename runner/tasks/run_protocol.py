"""Run steps of the protocol in a run folder, write their report, and fail if a gate fails."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import plain_yaml
from runner.assemble import Experiment, assemble
from runner.assemble.load_data import load
from runner.comparing.runs import read_overrides
from runner.decoration import decorative
from runner.engine.figures.picture import draw_all, save_all
from runner.engine.logs.log import open_logs
from runner.engine.saving.storage import make_folders, printable, write_atomic
from runner.engine.user_code import imported_code
from runner.errors import ConfigError, GateFailed
from runner.printing import counted, write_stdout
from runner.protocol.context import Context, Step, parse_budget, without_test
from runner.protocol.figures import pictures_of
from runner.protocol.final_test import read_test_once
from runner.protocol.outcome import Level, StepResult
from runner.protocol.plain_config import quiet_overrides
from runner.protocol.recipe import recipe_yaml, word_of
from runner.protocol.report import Report, html, markdown, show
from runner.protocol.steps import Plan, Progress, run_steps, write_state
from runner.protocol.trial_figures import trial_pictures
from runner.settings import SETTINGS
from runner.tasks.job import Config, Job, Launch, Vary
from runner.tasks.next_steps import command_line, tensorboard_folder
from runner.tasks.report import print_progress
from runner.tasks.run_folder import Run, continued_run_folder

_CONF = "conf"
# Of the lines of a recipe's comment
_WIDTH = 118
# Of a recipe, in characters; a file name has at most 255
_LONGEST_NAME = 200
_NOT_WRITTEN = "report: not written"


def run_protocol(
    job: Job,
    vary: Vary,
    launch: Launch,
    steps: Sequence[Step],
    *,
    keep_going: bool = False,
    budget: str | None = None,
    final_test: bool = False,
) -> int:
    """Run steps in a new folder, or in that of the same command which did not end, and show the report.

    Raises:
        GateFailed: If a step failed, after the report.
    """
    allowed = parse_budget(budget)
    _check(job)
    base = vary(job.config, {"task": "train", **quiet_overrides(job.config)})
    loaded = without_test(load(base))
    # Reject unsupported combinations before a folder exists
    experiment = assemble(base, loaded=loaded)
    with continued_run_folder(job, experiment) as run:
        words = read_overrides(run.folder) if job.resumed else list(job.overrides)
        pinned = frozenset(word.lstrip("+").partition("=")[0] for word in words)
        context = Context(base, vary, launch, run.folder, loaded, {}, allowed, pinned)
        code = imported_code(job.config["plugins"])
        plan = Plan(steps=steps, context=context, code=code, keep_going=keep_going, say=print_progress)
        progress = run_steps(plan)
        report = _report(job, run, progress, words, experiment)
        if final_test and not progress.failed:
            report = _with_test(report, plan, progress, job)
        _show(report, run.folder)
        if progress.failed:
            # After an error nothing is done afterwards
            with decorative(_NOT_WRITTEN):
                _write(run.folder, job, report)
            raise _gate_failed(progress.failed)
        run.afterwards.add(_NOT_WRITTEN, lambda folder: _write(folder, job, report))
    return 0


def _with_test(report: Report, plan: Plan, progress: Progress, job: Job) -> Report:
    """Return a report with the score on the test split, which is read now unless it was read before."""
    line = read_test_once(replace(plan.context, config=job.config), progress.handoff)
    write_state(plan, progress)
    return replace(report, test=line)


def _show(report: Report, folder: Path) -> None:
    """Print a report and its folder."""
    show(report)
    write_stdout(f"saved in      {printable(folder)}\n")


def knobs_of(job: Job, vary: Vary, name: str, given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the knobs of a step's own task with some of them changed, checked; errors name them below `key`."""
    try:
        found = vary(job.config, {"task": name, **{f"task.{knob}": value for knob, value in given.items()}})["task"]
    except ConfigError as error:
        raise ConfigError(str(error).replace("task.", f"{key}.", 1)) from error
    return {knob: value for knob, value in found.items() if knob != "name"}


def _check(job: Job) -> None:
    """Raise ConfigError for what the steps cannot do."""
    if "test" in job.given and job.config["test"] == "end":
        raise ConfigError(f"test: got end, but task={job.config['task']['name']} never reads the test split")
    if job.config["extend"] is not None:
        raise ConfigError("extend: got a run, must be null with the protocol, which begins at untrained weights")


def _gate_failed(failed: StepResult) -> GateFailed:
    """Return the error for a step that failed."""
    return GateFailed(f"{failed.step} failed: {'; '.join(f'{each.name}: {each.why}' for each in failed.failures)}")


def _report(job: Job, run: Run, progress: Progress, words: Sequence[str], experiment: Experiment) -> Report:
    """Return the report; if nothing failed and there is something to hand on, with a recipe that is written here."""
    config = job.config
    count = sum(p.numel() for p in experiment.learner.model.parameters())
    about = (
        f"model={config['model']['name']} ({count:,} parameters), data={config['data']['name']} "
        f"({counted(len(experiment.loaded.data.train.labels), 'training example')}), "
        f"loss={config['loss']['name']}, optim={config['optim']['name']}, seed {config['seed']}"
    )
    commands = {}
    if progress.failed is None and progress.handoff:
        commands = _write_recipe(run.folder, config, words, progress)
    commands["view"] = f"tensorboard --logdir {tensorboard_folder(run.folder, job)}"
    return Report(
        results=progress.results, notes=progress.notes, commands=commands, sure=_certainty(progress), about=about
    )


def _write_recipe(folder: Path, config: Config, words: Sequence[str], progress: Progress) -> dict[str, str]:
    """Write the recipe and return the command that trains it, and the overrides alone."""
    path = folder / _CONF / "recipe"
    make_folders(path)
    groups = frozenset(key for key, value in config.items() if key not in SETTINGS and isinstance(value, Mapping))
    found = ", ".join(word_of(key, value) for key, value in progress.handoff.items())
    lines = [f"Found by the protocol in {folder.name}: {found}", *progress.notes, _certainty(progress)]
    about = "\n".join(textwrap.fill(line, _WIDTH) for line in lines if line)
    text = recipe_yaml(config, words, progress.handoff, groups, about)
    name = _recipe_name(folder)
    write_atomic(path / f"{name}.yaml", text.encode())
    kept = [word for word in words if word.startswith("plugins=")]
    overrides = " ".join(shlex.quote(word_of(key, value)) for key, value in progress.handoff.items())
    return {
        "use it": overrides,
        "train": command_line("--config-dir", str(folder / _CONF), f"recipe={name}", *kept),
    }


def _recipe_name(folder: Path) -> str:
    """Return a name that needs no quotes on the command line and is not that of a recipe that runner has."""
    return "-".join(["found", *re.findall(r"[A-Za-z0-9_]+", folder.name)])[:_LONGEST_NAME]


def _certainty(progress: Progress) -> str:
    """Return how sure the result is, in a sentence."""
    if progress.failed:
        return f"Nothing is handed on: {progress.failed.step} failed."
    searched = [str(each.measurements["sure"]) for each in progress.results if "sure" in each.measurements]
    if searched:
        return searched[-1]
    found = next((each for each in progress.results if each.step == "find_lr"), None)
    if found is None or not found.handoff:
        return ""
    seeds, steps = found.measurements["seeds"], found.measurements["iters"]
    return (
        f"How sure: the learning rate is the upper usable one of short trainings ({counted(steps, 'step')}, "
        f"{counted(seeds, 'seed')}, on training loss alone); a long training is often best at the same or a "
        "three times smaller one, and no validation score was compared."
    )


def _write(folder: Path, job: Job, report: Report) -> None:
    """Write the report as Markdown, as HTML and for TensorBoard, with its pictures."""
    drawn = draw_all({f"{step}.png": picture for step, picture in pictures_of(report.results).items()})
    save_all(folder, {**drawn, **draw_all(trial_pictures(folder, report.results))})
    names = {name.removesuffix(".png"): name for name in drawn}
    text = markdown(report, names)
    write_atomic(folder / "report.md", text.encode())
    write_atomic(folder / "report.html", html(report, {step: drawn[name] for step, name in names.items()}).encode())
    with closing(open_logs(folder, positions=None, step=0)) as log:
        config = plain_yaml.dump(job.config).decode()
        log.add(0, {"protocol/report": text, "config": f"```yaml\n{config}```"})
        log.add(0, {f"protocol/{step}": drawn[name] for step, name in names.items()})
        log.add(0, {f"protocol/failed/{each.step}": float(each.status is Level.FAIL) for each in report.results})
