"""The calls of the Python API: the same checks, runs and folders as on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf

from runner.api.main_options import options_of_main, uses_main
from runner.api.result import Result, config_in, made_result, result_in
from runner.api.session import call, import_matplotlib
from runner.door.arguments import Arguments, read_arguments
from runner.door.command import Command, checked_command
from runner.door.compose import with_values_set
from runner.engine.interruption import Interrupted
from runner.errors import ConfigError, TrialsFailed, brief
from runner.printing import write_stderr
from runner.registry import MAIN, registered_in
from runner.tasks.job import Job

_FLAGS = "--config-dir and --config-name"


def train(overrides: Iterable[str] = (), *, plugins: Sequence[str | ModuleType] = ()) -> Result:
    """Train a model, as `python -m runner` does, and return how the run ended.

    Args:
        overrides: The words of the command line, as in `["model=mlp", "optim.lr=0.1"]`; flags for a folder of your own
            options (`--config-dir`) are allowed.
        plugins: The modules with your own components, or their names.

    Raises:
        ConfigError: If a word is wrong, before anything is written.
        Diverged: If the loss, a gradient or a weight is not finite; `folder` names the run.
        Interrupted: After Ctrl-C (a KeyboardInterrupt). The run has saved itself: `train([f"resume={error.folder}"])`.
        RunnerError: For all other errors that you can act on, such as DataError or StorageError.

    """
    job: list[Job] = []

    def body() -> Result:
        with checked("runner.train", overrides, plugins) as command:
            job.append(_single_job(command))
            task = job[0].config["task"]["name"]
            if task != "train":
                raise ConfigError(f"task: got {task}; runner.train trains, call runner.run for another task")
            _start(command, job[0])
        return result_in(job[0].opened[-1])

    return call("runner.train", body, lambda: _last_opened(job))


def run(overrides: Iterable[str], *, plugins: Sequence[str | ModuleType] = ()) -> None:
    """Run any task, as in `run(["task=compare", "runs=outputs"])`; its answer is printed and in its files.

    Args:
        overrides: The words of the command line.
        plugins: The modules with your own components, or their names.

    Raises:
        RunnerError: What the command line prints as an error.

    """
    job: list[Job] = []

    def body() -> None:
        with checked("runner.run", overrides, plugins) as command:
            job.append(_single_job(command))
            _start(command, job[0])

    call("runner.run", body, lambda: _last_opened(job))


def sweep(overrides: Iterable[str], *, plugins: Sequence[str | ModuleType] = ()) -> list[Result]:
    """Run a sweep, as `python -m runner -m` does, and return how each trial ended.

    A trial that fails or diverges raises nothing: its result has the status and the reason. A repeated call returns the
    results that are there and runs the other trials only.

    Args:
        overrides: The words of the command line, some with several values, as in `["optim.lr=0.1,0.01", "seed=0,1"]`.
        plugins: The modules with your own components, or their names.

    Returns:
        The results: of a grid in the order of its values, of a search the best first.

    Raises:
        ConfigError: If a word of any trial is wrong, before anything is written.
        Interrupted: After Ctrl-C (a KeyboardInterrupt). All trials have saved themselves: repeat the call.
        RunnerError: For what ends the whole sweep, such as a full disk.

    """
    place: list[Path] = []

    def body() -> list[Result]:
        with checked("runner.sweep", overrides, plugins, multirun=True) as command:
            assert command.sweep is not None
            place.append(command.sweep.folder)
            return _run_trials(command)

    return call("runner.sweep", body, lambda: place[0] if place else None)


def compose(overrides: Iterable[str] = (), *, plugins: Sequence[str | ModuleType] = ()) -> dict[str, Any]:
    """Return the checked config of a command line as plain dicts, as `--cfg job --resolve` prints it.

    Args:
        overrides: The words of the command line.
        plugins: The modules with your own components, or their names; they are not imported.

    Raises:
        ConfigError: If a word is wrong.

    """

    def body() -> dict[str, Any]:
        with checked("runner.compose", overrides, plugins, cfg="job") as command:
            found = with_values_set(command.conf, command.parts, command.given)
        return dict(OmegaConf.to_container(found, resolve=True))  # type: ignore[arg-type]

    return call("runner.compose", body)


def result(folder: str | Path) -> Result:
    """Return how the run in a folder stands, such as that of `Diverged.folder`.

    Args:
        folder: The run folder.

    Raises:
        CheckpointError: If the folder holds no run.

    """
    return result_in(folder)


@contextmanager
def checked(
    what: str, overrides: Iterable[str], plugins: Sequence[str | ModuleType], **flags: Any
) -> Iterator[Command]:
    """Yield the checked command of a call; `flags` are those that the call stands for."""
    arguments = _arguments(what, overrides)
    modules = _module_names(plugins)
    with options_of_main(arguments.overrides) as (more, named):
        if not named:
            command = checked_command(_with_plugins(arguments, modules)._replace(**flags), more)
        if named or (more and uses_main(command)):
            _refuse_launcher(arguments.overrides)
            command = checked_command(_with_plugins(arguments, [*modules, MAIN])._replace(**flags), more)
        yield command


def _refuse_launcher(words: Sequence[str]) -> None:
    """Raise ConfigError for settings of the launcher: no other process has the components of this one."""
    for word in words:
        if word.startswith(("hydra.launcher.", "hydra/launcher")):
            raise ConfigError(
                f"{word.partition('=')[0]}: not supported with components of {MAIN}, whose trials run in this "
                "process, one after the other; put the components into a module and give it as a plugin"
            )


def _single_job(command: Command) -> Job:
    """Return the job of a single run; raises ConfigError for a sweep."""
    if command.sweep:
        raise ConfigError("resume: names a sweep; call runner.sweep")
    return command.job()


def _last_opened(jobs: Sequence[Job]) -> Path | None:
    """Return the folder that the task of a job opened last, None if it opened none."""
    return next((folder for job in jobs for folder in job.opened[::-1]), None)


def words_of(what: str, overrides: Iterable[str]) -> list[str]:
    """Return the overrides of a call; raises ConfigError for those that are no list of strings."""
    # The keys of a mapping are no overrides, nor are the letters of a string
    given = isinstance(overrides, Iterable) and not isinstance(overrides, (str, bytes, Mapping))
    words = list(overrides) if given else []
    if not given or not all(isinstance(word, str) for word in words):
        raise ConfigError(f'{what}: overrides must be a list of strings, as in ["model=mlp", "epochs=1"]')
    return words


def _arguments(what: str, overrides: Iterable[str]) -> Arguments:
    """Return the words of a call; raises ConfigError for those that are no words, and for flags of the terminal."""
    arguments = read_arguments(words_of(what, overrides))
    if arguments._replace(overrides=(), config_dir=None, config_name="config") != read_arguments([]):
        raise ConfigError(f"{what}: takes no flags but {_FLAGS} (runner.sweep is -m, runner.compose is --cfg job)")
    return arguments


def _module_names(plugins: Sequence[str | ModuleType]) -> list[str]:
    """Return the names of the modules that a call has as its plugins; raises ConfigError for what is none."""
    if isinstance(plugins, str) or not all(isinstance(each, (str, ModuleType)) for each in plugins):
        raise ConfigError(
            f'plugins: got {brief(repr(plugins))}; expected a list of modules or of their names, as in ["my_lab.parts"]'
        )
    return [each if isinstance(each, str) else each.__name__ for each in plugins]


def _with_plugins(arguments: Arguments, modules: Sequence[str]) -> Arguments:
    """Return the words of a call with its plugins, in one word as on the command line."""
    if not modules:
        return arguments
    names = ",".join(dict.fromkeys(modules))
    return arguments._replace(overrides=(*arguments.overrides, f"plugins=[{names}]"))


def _start(command: Command, job: Job) -> None:
    """Run the task of a job; raises Interrupted if a signal ended it."""
    import_matplotlib()
    # Late: a wrong word needs no torch
    from runner.api.torch_state import default_torch

    with default_torch():
        _raise_for(command.start(job))


def _run_trials(command: Command) -> list[Result]:
    """Run the trials of a sweep; a trial that failed has a result that says so."""
    outcome: list[tuple[Path, Any]] = []
    with ExitStack() as held:
        # Trials have processes of their own, except those with components of this one
        if "torch" in sys.modules or registered_in(MAIN):
            from runner.api.torch_state import default_torch

            held.enter_context(default_torch())
        try:
            _raise_for(command.start_sweep(outcome))
        except TrialsFailed as error:
            _raise_for(error.exit_code)
            if len(outcome) < max(1, len(command.sweep.jobs) if command.sweep else 0):
                # Some trials never ended
                raise
            write_stderr(f"runner: {error}\n")
    return [made_result(folder, found, config_in(folder)) for folder, found in outcome]


def _raise_for(code: int) -> None:
    """Raise Interrupted for an exit code that says so."""
    if code > 128:
        raise Interrupted(code - 128)
