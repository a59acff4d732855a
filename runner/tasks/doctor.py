"""task=doctor: read the curves of finished runs, say what may be wrong with them, and follow the advice."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from runner.comparing.runs import Run, find_runs
from runner.decoration import decorative
from runner.doctor.checkup import Checkup, Examined, examine
from runner.doctor.page import checkup_record, draw_pictures, html_page, markdown_page
from runner.doctor.screen import numbered_advice, print_checkup
from runner.doctor.words import command_words
from runner.engine.figures.picture import save_all
from runner.engine.saving.folder import create
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import ConfigError
from runner.hashes import group_hash, hash8
from runner.printing import visible, write_stdout
from runner.registry import register
from runner.roles import FilePath, Role
from runner.schema import PositiveInt
from runner.tasks.job import Config, Job, Vary
from runner.tasks.next_steps import command_line
from runner.tasks.runs_given import patterns_of
from runner.tasks.saved_config import MAY_CHANGE, saved_config
from runner.unused_settings import recipe_in

_PAGE = "doctor.html"
# Characters of a run's name in that of the run that follows its advice
_NAME_LENGTH = 80


@register("task")
def doctor(
    job: Job, vary: Vary, *, out: Annotated[str | None, Role.PATH, FilePath()], probe: bool, apply: PositiveInt | None
) -> int:
    """Say what may be wrong with finished runs, from the numbers that they logged, and what to try.

    Of several runs it says how many show each symptom. Nothing is written into the runs. `task.out` is a new folder for
    `doctor.html` (one file, no network), `doctor.md` and `doctor.json`. `task.probe` tests what the curves only suggest
    of the learning rate. `task.apply` trains a run again with a piece of its advice.
    """
    found = examine(_runs(job, "apply" if apply else "probe" if probe else None), vary)
    if probe:
        # Late: only training needs torch
        from runner.tasks.doctor_probe import probed

        found = probed(found, _config_of(found.runs[0], job, vary))
    with decorative("diagnosis: not shown"):
        print_checkup(found)
    if out is not None:
        _save(found, job, out)
    if apply is not None:
        return _train_with_advice(found.runs[0], job, vary, apply)
    if len(found.runs) == 1 and numbered_advice(found.runs[0]):
        words = ("task=doctor", f"run={found.runs[0].run.folder}", "task.apply=1", *_given_again(job))
        write_stdout(f"follow it     {command_line(*words)}\n")
    return 0


def _runs(job: Job, of_one: str | None) -> list[Run]:
    """Return the training runs that `run` or `runs` names, by default those of the latest sweep.

    `of_one` is the given knob that requires `run`.
    """
    one, several = job.config["run"], job.config["runs"]
    if one is not None and several is not None:
        raise ConfigError(f"run: got '{one}' beside runs=...; give one of them")
    if one is None and of_one is not None:
        value = str(job.config["task"][of_one]).lower()
        raise ConfigError(f"task.{of_one}: got {value}; requires run=<folder>, the run to train again")
    if one is None:
        patterns = patterns_of(job)
        found = find_runs(patterns)
        key = "runs"
    else:
        patterns, key = [str(one)], "run"
        try:
            found = find_runs(patterns)
        except ConfigError as error:
            raise ConfigError(f"run: {str(error).removeprefix('runs: ')}") from error
    if not found.runs:
        named = ", ".join(map(repr, patterns))
        why = next(iter(found.unreadable.values()), "what is there are runs of other tasks")
        raise ConfigError(f"{key}: got {named}; expected a training run ({why})")
    if one is not None and len(found.runs) > 1:
        raise ConfigError(f"run: got '{one}', which holds {len(found.runs)} runs; choose all of them with runs={one}")
    return found.runs


def _given_again(job: Job) -> list[str]:
    """Return the words of this command that the next one needs, too."""
    return [word for word in job.overrides if word.startswith("plugins=")]


def _save(found: Checkup, job: Job, out: str) -> None:
    """Write a checkup into a new folder, its numbers first."""
    folder = create(Path(out))
    write_atomic(folder / "doctor.json", json.dumps(checkup_record(found), indent=1, allow_nan=False).encode() + b"\n")
    given = f"python -m runner {' '.join(map(shlex.quote, job.overrides))}"
    drawn: dict[str, bytes] = {}
    with decorative("figures of the diagnosis: not drawn"):
        drawn = draw_pictures(found)
        saved = save_all(folder, {f"{name}.svg": picture for name, picture in drawn.items()})
        drawn = {name: picture for name, picture in drawn.items() if f"{name}.svg" in saved}

    def command(examined: Examined, advice: tuple[str, ...]) -> str:
        return command_line(*_words_with(examined, advice, job))

    for name, page in (("doctor.md", markdown_page), (_PAGE, html_page)):
        with decorative(f"{name}: not written"):
            write_atomic(folder / name, visible(page(found, drawn, command, given)).encode())
    write_stdout(f"saved in      {printable(folder)}\nview          {printable(folder / _PAGE)}\n")


def _words_with(examined: Examined, advice: tuple[str, ...], job: Job) -> list[str]:
    """Return the words of a command that trains a run again with a piece of advice."""
    config = examined.run.config
    groups = [key for key, value in config.items() if isinstance(value, dict)]
    return command_words(examined.history.facts.overrides, advice, groups, job.folders[1:])


def _train_with_advice(examined: Examined, job: Job, vary: Vary, number: int) -> int:
    """Train a run again with the piece of advice of a number, as a run whose name says the cause; return its code."""
    # Late: only training needs torch
    from runner.tasks.train import train_task

    folder, advice = examined.run.folder, numbered_advice(examined)
    if number > len(advice):
        some = f"a number from 1 to {len(advice)}" if advice else "none, because there is no advice"
        raise ConfigError(f"task.apply: got {number}; expected {some} for {printable(folder)}")
    finding, words = advice[number - 1]
    name = f"{folder.name[:_NAME_LENGTH]}-{finding.id}"
    note = f"{finding.id} in {folder.name}: {' '.join(words)}"
    config = vary(_config_of(examined, job, vary), words)
    config = vary(config, {"name": name, "note": note, "sweep": None, "resume": None})
    overrides = (*_words_with(examined, words, job), f"name={name}")
    made = replace(
        job, config=config, overrides=overrides, folder_name=name, folder=None, hash8=hash8(config),
        group_hash=group_hash(config), recipe=recipe_in(overrides),
    )  # fmt: skip
    return train_task(made, vary)


def _config_of(examined: Examined, job: Job, vary: Vary) -> Config:
    """Return the config of a run as this machine can train it; the command may change how it is computed."""
    base = saved_config(str(examined.run.folder), job, key="run", may_change=(*MAY_CHANGE, "task"))
    return vary(base, {"task": "train", "run": None, "runs": None})
