"""Call a function in another process, because this one does not import torch: it forks, and starts in milliseconds."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from runner import errors, user_paths
from runner.engine import processes
from runner.engine.private_descriptors import PrivateDescriptor
from runner.errors import DataError, RunnerError, message_of
from runner.streams import guard

_PROGRAM = (
    "import ast, sys; sys.path[:] = ast.literal_eval(sys.argv[1]); "
    "from runner.sweeps.ask_process import _answer; _answer(*sys.argv[2:4], *map(int, sys.argv[4:]))"
)


def ask_process(module: str, function: str, questions: Sequence[Any]) -> list[str]:
    """Return the texts that a function of a module returns for JSON values, one each, called in another process.

    Raises the RunnerError that it raises there, and DataError if the process ends without an answer.
    """
    ours, theirs = os.pipe()
    paths = repr([path or user_paths.full(".") for path in sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, paths, module, function, str(theirs), str(os.getpid())],
        stdin=subprocess.PIPE,
        pass_fds=[theirs],
        text=True,
        cwd=user_paths.start_folder(),
        # The terminal sends Ctrl-C to all processes of a session, but this one ends it
        start_new_session=True,
    )
    os.close(theirs)
    with open(ours, encoding="utf-8") as answers:  # noqa: PTH123
        try:
            process.communicate(json.dumps(list(questions)))
            # What a plugin started there may still have the pipe
            processes.kill_group(process.pid, signal.SIGKILL)
            found = json.loads(answers.read())
        except ValueError as error:
            code = process.returncode
            raise DataError(f"data: cannot be identified (the process that reads them ended with {code})") from error
        finally:
            processes.kill_group(process.pid, signal.SIGKILL)
            process.wait()
    match found:
        case {"error": [str(kind), str(reason)]}:
            raise _error_class(kind)(reason)
        case {"answers": [*texts]} if len(texts) == len(questions):
            return list(map(str, texts))
    raise DataError("data: cannot be identified (other code wrote to the answer of the process that reads them)")


def _error_class(name: str) -> type[RunnerError]:
    """Return the class of an error by its name; DataError for one that is not ours."""
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, RunnerError) else DataError


def _answer(module: str, function: str, descriptor: int, parent: int) -> None:
    """Read questions from standard input, and write a function's answers to a descriptor."""
    processes.end_with_parent(parent)
    os.set_inheritable(descriptor, False)
    kept = PrivateDescriptor(descriptor)
    import torch

    user_paths.anchor(user_paths.start_folder())
    # The sweep's output is its own
    os.dup2(2, 1)
    guard()
    torch.set_num_threads(1)
    try:
        found: dict[str, Any] = {"answers": getattr(importlib.import_module(module), function)(json.load(sys.stdin))}
    except RunnerError as error:
        found = {"error": [type(error).__name__, message_of(error)]}
    with os.fdopen(kept.descriptor, "w", encoding="utf-8") as stream:
        json.dump(found, stream)
