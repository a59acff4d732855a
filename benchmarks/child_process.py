"""Child processes that answer: one per loop, so no framework's imports or patches affect another's timings."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self


class Failed(Exception):
    """A child raised an exception or ended; the text says how."""


@dataclass(frozen=True)
class _Failure:
    """The message of a child that failed."""

    text: str


class Child:
    """A spawned process that runs `function(connection, *arguments)`; its output is discarded."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function, arguments), daemon=False)
        self.process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()

    def ask(self) -> Any:
        """Let the child continue, and return what it sends next."""
        self.connection.send(None)
        return self.receive()

    def receive(self) -> Any:
        """Return what the child sends; raises Failed if it failed."""
        try:
            answer = self.connection.recv()
        except EOFError:
            self.process.join()
            raise Failed(f"its process ended with code {self.process.exitcode}") from None
        if isinstance(answer, _Failure):
            raise Failed(answer.text)
        return answer


def _serve(connection: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run the function in the child, and send its error if there is one."""
    with tempfile.TemporaryFile() as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        try:
            function(connection, *arguments)
        except Exception:
            connection.send(_Failure(traceback.format_exc().strip().splitlines()[-1]))
