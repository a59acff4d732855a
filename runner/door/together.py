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
from runner.errors import ConfigError, RunnerError
from runner.hashes import digest
from runner.status import Status, ending, print_error
from runner.streams import flush_streams, silence

if TYPE_CHECKING:
    from runner.door.command import Command
    from runner.engine.joining import Meeting, Words
    from runner.engine.together import Strategy

# Tasks that several processes can share
_TASKS = ("train",)


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
    from runner.engine.joining import Meeting

    command, words, strategy = _read(arguments)
    meeting: Meeting | None = None
    try:
        with handled(DEFAULT):
            meeting = Meeting(place, strategy)
            meeting.agree(words)
        assert command is not None
        return _train(command, meeting)
    except BaseException as error:
        found = ending(error)
        if meeting is not None:
            if found.status is not Status.INTERRUPTED:
                meeting.fail(error, str(found.reason), found.exit_code)
            if isinstance(error, ProcessLost) and meeting.speaks():
                speak()
        code = print_error(error).exit_code
        if meeting is not None and not place.rank:
            meeting.told()
        return code


def _read(arguments: Arguments) -> tuple[Command | None, Words, Strategy]:
    """Return the checked command, what this process says about it to the others, and how long it waits for them."""
    from runner.door.command import checked_command
    from runner.engine.joining import Words
    from runner.engine.together import Strategy

    try:
        if arguments.multirun:
            raise ConfigError(
                "-m: several processes train one model; run the sweep without torchrun, which uses all cores"
            )
        command = checked_command(arguments)
        if command.sweep or command.config is None or command.config["task"]["name"] not in _TASKS:
            name = "a sweep" if command.config is None else f"task={command.config['task']['name']}"
            raise ConfigError(f"{name}: runs in one process; start it without torchrun")
        knobs = command.config["strategy"]
        strategy = Strategy(timeout=float(knobs["timeout"]), start_timeout=float(knobs["start_timeout"]))
        return command, Words(digest=digest([command.config, runner.__version__])), strategy
    except RunnerError as error:
        return None, Words(error=str(error), exit_code=error.exit_code), Strategy()


def _train(command: Command, meeting: Meeting) -> int:
    """Run the job with all processes joined."""
    from torch import distributed

    job = command.job()
    folder = meeting.folder() if meeting.place.attempt else None
    if folder is not None:
        job = replace(job, folder=str(folder), folder_name=folder.name)
    with ExitStack() as held:
        with handled(DEFAULT):
            group = held.enter_context(meeting.joined())
        code = command.start(replace(job, world=group))
        distributed.barrier()
        distributed.destroy_process_group()
    return code
