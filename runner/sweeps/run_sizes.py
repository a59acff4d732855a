"""The sizes of runs on the disk, estimated in a process that may import torch; an estimate is never an error."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from runner.engine import processes
from runner.errors import RunnerError
from runner.sweeps.ask_process import ask_process
from runner.user_paths import full

# Bytes of a run when it has ended, and at most while it runs
Size = tuple[int, int]

# Seconds after which no other run is looked at, and after which the process that looks is ended
_ENOUGH, _LIMIT = 1.0, 10.0


def estimated(configs: Sequence[Mapping[str, Any]]) -> list[Size | None]:
    """Return the sizes of runs, None where one is not known, estimated here if torch is imported, else elsewhere."""
    if "torch" in sys.modules:
        return _sizes(configs)
    try:
        answers = ask_process(__name__, "_answers", list(map(dict, configs)))
    except RunnerError:
        return [None] * len(configs)
    return [None if each is None else (each[0], each[1]) for each in map(json.loads, answers)]


def estimated_in_fork(configs: Sequence[Mapping[str, Any]]) -> list[Size | None]:
    """Return the sizes of runs like `estimated`, from a forked process: what it builds cannot harm this one."""
    ours, theirs = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _write_and_exit(configs, theirs, parent)
    os.close(theirs)
    try:
        found = json.loads(_read(ours, time.monotonic() + _LIMIT))
        return [None if each is None else (int(each[0]), int(each[1])) for each in found]
    except (ValueError, TypeError, IndexError):
        return [None] * len(configs)
    finally:
        os.close(ours)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(pid, 0)


def sizes_in(message: Mapping[str, Any]) -> list[Size | None]:
    """Return the sizes in a message, where each has two numbers; a process with plugins may have sent anything."""
    numbers = message.get("sizes")
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        return []
    return [None if min(pair) < 0 else pair for pair in zip(numbers[::2], numbers[1::2], strict=False)]


def _read(descriptor: int, until: float) -> bytes:
    """Return what a process writes until it ends, or until a time."""
    found = b""
    while select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
        if not (piece := os.read(descriptor, 1 << 16)):
            break
        found += piece
    return found


def _write_and_exit(configs: Sequence[Mapping[str, Any]], descriptor: int, parent: int) -> NoReturn:
    """Write the sizes of runs to a descriptor, and end this forked process."""
    try:
        processes.end_with_parent(parent)
        # What a model prints is no output of the sweep
        with contextlib.suppress(OSError):
            nothing = os.open(full(os.devnull), os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
        os.write(descriptor, json.dumps(_sizes(configs)).encode())
    finally:
        os._exit(0)


def _answers(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the sizes of runs as JSON, in a process that has imported nothing yet."""
    import runner.components  # noqa: F401  (registers them)
    from runner.tasks.plugins import load_plugins

    for config in configs[:1]:
        load_plugins(config["plugins"])
    return [json.dumps(each) for each in estimated_in_fork(configs)]


def _sizes(configs: Sequence[Mapping[str, Any]]) -> list[Size | None]:
    """Return the sizes of runs, None where a run cannot be built; those that there is no time for get the mean."""
    import runner.components  # noqa: F401  (registers them)
    from runner.assemble.run_size import run_size

    began, found = time.monotonic(), list[Size | None]()
    for config in configs:
        if time.monotonic() - began > _ENOUGH:
            break
        found.append(None)
        with contextlib.suppress(Exception):
            found[-1] = run_size(config)
    known = [size for size in found if size]
    mean = (sum(s for s, _ in known) // len(known), sum(s for _, s in known) // len(known)) if known else None
    return [*found, *[mean] * (len(configs) - len(found))]
