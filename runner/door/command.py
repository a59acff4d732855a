"""Execute a checked command line: print its config, or start a run or a sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from runner.annotations import context_of
from runner.door.arguments import Arguments
from runner.door.compose import Parts, compose_parts, compose_run, hydra_opened, with_values_set
from runner.door.folders import with_moment, with_run_folder
from runner.door.options import Conf, find_conf
from runner.door.overrides import ParsedOverride, read_overrides
from runner.door.resume_sweep import sweep_command
from runner.door.saved_choices import saved_choices
from runner.engine.garbage import collecting
from runner.engine.rendezvous import place_in
from runner.errors import ConfigError, brief
from runner.numerics import RENAMED_VALUES
from runner.printing import check_printed, visible, write_stderr, write_stdout

if TYPE_CHECKING:
    from runner.door.plan import Plan
    from runner.engine.saving.folder import Result
    from runner.sweeps.launcher import LauncherSettings
    from runner.tasks.job import Job

_OF_ONE_RUN = ("hydra.run.dir", "hydra.mode")


class Command(NamedTuple):
    """A checked command line: the config of one run or the plan of a sweep."""

    conf: Conf
    parts: Parts
    given: list[ParsedOverride]
    implied: int  # the first of `given` are of the saved run that the command line names
    config: dict[str, Any] | None  # None: a sweep
    sweep: Plan | None

    def job(self) -> Job:
        """Return the job of a single run."""
        _refuse_space(self.parts, self.given)
        # Late: an answer or an error needs no job
        from runner.door.jobs import single_job

        assert self.config is not None
        given = with_run_folder(self.given[self.implied :], self.config, self.parts.choices)
        return replace(single_job(self.config, given), folders=self.conf.folders)

    def start(self, job: Job) -> int:
        """Run the task of the job and return its exit code."""
        from runner.door.task_context import start_task

        return start_task(job, settings=lambda: _settings_of(self.parts))

    def start_sweep(self, outcome: list[tuple[Path, Result]] | None = None) -> int:
        """Run the sweep and return its exit code; `outcome` gets the folder and the result of each trial."""
        from runner.door.sweep import run_sweep

        assert self.sweep is not None
        return run_sweep(self.conf, self.sweep, self.given, outcome)


def run(arguments: Arguments) -> int:
    """Compose and check the config, then print it or start the run or sweep; return the exit code."""
    if not arguments.cfg and not arguments.info and (place := place_in(os.environ)):
        # Late: torch.distributed
        from runner.door.together import run_together

        run_together(arguments, place)
    command = checked_command(arguments)
    if arguments.cfg:
        return _show(command.conf, command.parts, command.given, resolve=arguments.resolve)
    if arguments.info:
        from runner.door.hydra_launchers import through_hydra

        return through_hydra([f"--info={arguments.info}", *(each.word for each in command.given)], command.conf)
    return command.start_sweep() if command.sweep else command.start(command.job())


def checked_command(arguments: Arguments, more: Sequence[Path] = ()) -> Command:
    """Return a command line, composed and checked; raises ConfigError if anything in it is wrong.

    `more` are config folders beside the user's, with options that have no file of the user.
    """
    arguments, conf = _resumed(arguments, more)
    # Known keys depend on the options of the saved run
    implied = read_overrides(conf, saved_choices(arguments.overrides))
    given = with_moment(read_overrides(conf, [*(each.typed for each in implied), *arguments.overrides]))
    config, sweep = None, None
    parts = compose_parts(conf, [each for each in given if not each.swept])
    _print_new_names(parts, given)
    if (arguments.multirun or parts.many) and not arguments.cfg and not arguments.info:
        from runner.door.plan import plan_sweep

        # Each composition of a trial creates garbage
        with hydra_opened(conf), collecting():
            sweep = plan_sweep(conf, parts, given)
    else:
        _refuse_several(conf, given, parts.config)
        config = compose_run(conf, parts, given)
        if not arguments.info:
            _refuse_sweep_keys(parts, given, config)
    return Command(conf, parts, given, len(implied), config, sweep)


def _resumed(typed: Arguments, more: Sequence[Path]) -> tuple[Arguments, Conf]:
    """Return a command line, that of a sweep where `resume=` names one, and its configs."""
    arguments = sweep_command(typed)
    conf = find_conf(arguments.config_dir, arguments.config_name, more)
    # The values of a sweep are those of an earlier command, maybe of an older version
    return arguments, conf._replace(allow_unused=arguments is not typed)


def _print_new_names(parts: Parts, given: list[ParsedOverride]) -> None:
    """Print a line for each value that has a new name, set by the command line or by a file."""
    for key, names in RENAMED_VALUES.items():
        typed = [each.text for each in given if each.key == key]
        text = str((typed or [OmegaConf.select(parts.config, key)])[0])
        for old, new in names.items():
            if old in text:
                write_stderr(f"runner: {key}: '{old}' is now called '{new}'\n")


def _settings_of(parts: Parts) -> LauncherSettings | None:
    """Return the settings of runner's launcher for a task that launches runs; imported late, because most do not."""
    from runner.door.plan import launcher_settings

    return launcher_settings(parts)


def _refuse_several(conf: Conf, given: list[ParsedOverride], config: DictConfig) -> None:
    """Reject several values for a key of a single run."""
    for each in given:
        if each.swept:
            many = each.key in conf.defaults and conf.several(each.key)
            listed = many or OmegaConf.is_list(OmegaConf.select(config, each.key))
            hint = f", or write a list: '{each.key}=[{each.text}]'" if listed else ""
            raise ConfigError(f"{each.key}: got several values ({each.text}); add -m to run each of them{hint}")


def _refuse_sweep_keys(parts: Parts, given: list[ParsedOverride], config: dict[str, Any]) -> None:
    """Reject settings of a sweep for a single run; a task that launches runs may set those of runner's launcher."""
    for each in given:
        if each.key.startswith("hydra.launcher.") and _launches(config):
            _settings_of(parts)
        elif each.sets_hydra and each.key not in _OF_ONE_RUN:
            raise ConfigError(f"{each.key}: belongs to a sweep; add -m")
    if config["rerun"] != "never" and not _launches(config):
        raise ConfigError("rerun: belongs to a sweep; add -m")


def _refuse_space(parts: Parts, given: Sequence[ParsedOverride]) -> None:
    """Reject the values to try that a file lists for keys that the command line leaves: a single run tries none."""
    if open_keys := [key for key in map(str, parts.searched) if key not in {each.key for each in given}]:
        keys = ", ".join(open_keys)
        raise ConfigError(f"hydra.sweeper.params: got values to try for {brief(keys)}; add -m to run each of them")


def _launches(config: dict[str, Any]) -> bool:
    """Return True if the task of a config, or of the run that it resumes, comes with runner and launches runs."""
    task = config["task"]["name"]
    if config["resume"]:
        from runner.tasks import saved_task

        task = saved_task(config["resume"]) or task
    return "launch" in context_of("task", task)


def _show(conf: Conf, parts: Parts, given: list[ParsedOverride], *, resolve: bool) -> int:
    """Print the config of this command line."""
    config = with_values_set(conf, parts, given)
    text = OmegaConf.to_yaml(config, resolve=resolve)
    write_stdout(text if visible(text) == text else _in_quotes(config, resolve=resolve))
    check_printed()
    return 0


def _in_quotes(config: DictConfig, *, resolve: bool) -> str:
    """Return a config as YAML in ASCII, with texts in quotes, so that what is escaped is read as it was."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes texts in quotes."""

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
    return str(yaml.dump(OmegaConf.to_container(config, resolve=resolve), Dumper=Dumper, sort_keys=False))
