"""Start a run in one of several processes, which torchrun or srun has started; one of them speaks to the user."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import runner
from runner.door.arguments import Arguments
from runner.engine.interruption import DEFAULT, handled
from runner.engine.process_errors import ProcessLost
from runner.engine.rendezvous import Place
from runner.errors import ConfigError
from runner.hashes import digest
from runner.status import Status, ending, print_error
from runner.streams import flush_streams, silence

if TYPE_CHECKING:
    from runner.door.command import Command
    from runner.engine.joining import Meeting

# Tasks that several processes can share
_TASKS = ("train",)
# Seconds that a process whose command was refused waits for the others
_REFUSED_WAIT = 600.0


def run_together(arguments: Arguments, place: Place) -> NoReturn:
    """Run a command line in one of several processes, and end this process with the exit code."""
    # One of them speaks to the user
    speak = silence() if place.rank else lambda: None
    code = _exit_code(arguments, place, speak)
    flush_streams()
    # Native threads of the exchange may abort a process that ends in the usual way
    os._exit(code)


def _exit_code(arguments: Arguments, place: Place, speak: Callable[[], None]) -> int:
    """Run a command line and return the exit code of this process."""
    from runner.engine.joining import Meeting, Words

    meeting: Meeting | None = None
    command, refusal = _read(arguments)
    try:
        said = Words(digest=_digest(command)) if command else Words.of(refusal)
        with handled(DEFAULT):
            meeting = Meeting(place, _wait(command))
            meeting.agree(said)
        assert command is not None
        return _train(command, meeting)
    except BaseException as error:
        # The refusal of this process has lines that the others do not know
        shown = refusal if refusal is not None and not place.rank else error
        found = ending(shown)
        if meeting is not None:
            if found.status is not Status.INTERRUPTED:
                meeting.fail(error, str(found.reason), found.exit_code)
            if isinstance(error, ProcessLost) and meeting.speaks():
                speak()
        code = print_error(shown).exit_code
        if meeting is not None and not place.rank:
            meeting.told()
        return code


def _read(arguments: Arguments) -> tuple[Command | None, BaseException | None]:
    """Return the checked command, or why it was refused."""
    from runner.door.command import checked_command

    try:
        if arguments.multirun:
            raise ConfigError(
                "-m: several processes train one model; run the sweep without torchrun, which uses all cores"
            )
        command = checked_command(arguments)
        if command.sweep or command.config is None or command.config["task"]["name"] not in _TASKS:
            name = "a sweep" if command.config is None else f"task={command.config['task']['name']}"
            raise ConfigError(f"{name}: runs in one process; start it without torchrun")
    except Exception as error:
        return None, error
    return command, None


def _digest(command: Command) -> str:
    """Return what must be the same in all processes."""
    return digest([command.config, runner.__version__])


def _wait(command: Command | None) -> float:
    """Return the seconds to wait for processes that have not started; a refused command does not say it."""
    return float(command.config["strategy"]["start_timeout"]) if command and command.config else _REFUSED_WAIT


def _train(command: Command, meeting: Meeting) -> int:
    """Run the job with all processes joined."""
    from torch import distributed

    job = command.job()
    timeout = float(job.config["strategy"]["timeout"])
    folder = meeting.folder() if meeting.place.attempt else None
    if folder is not None:
        job = replace(job, folder=str(folder), folder_name=folder.name)
    with ExitStack() as held:
        with handled(DEFAULT):
            group = held.enter_context(meeting.joined(timeout))
        code = command.start(replace(job, world=group))
        distributed.barrier()
        distributed.destroy_process_group()
    return code
