"""Run the front door in a forked child: its answer, its duration and the files it leaves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import select
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.__main__ import main

SECONDS = 2.0  # of CPU time for one answer
PATIENCE = 60.0  # seconds after which an answer that has not come is a hang
MEMORY = 8 << 30  # bytes of address space; who asks for more gets a MemoryError, and the test a traceback
ENDS = {"traceback": "Traceback (most", "bug": "this is a bug in runner"}


@dataclass(frozen=True)
class Answer:
    """The result of a command line."""

    code: int
    out: str
    err: str
    seconds: float
    left: list[str]

    @property
    def wrong(self) -> str:
        """Return what is wrong with the answer whatever was asked, empty if nothing is."""
        if found := [what for what, words in ENDS.items() if words in self.err + self.out]:
            return f"{found[0]}: {self.err[-300:]}"
        if self.left:
            return f"left on the disk: {self.left}"
        if self.code not in (0, 2):
            return f"exit code {self.code}"
        if self.code == 2 and (self.out or self.err.count("\n") != 1 or not self.err.startswith("runner: error: ")):
            return f"a refusal that is not one line: {self.out[:100]!r} {self.err[:300]!r}"
        if self.code == 0 and self.err:
            return f"accepted with words on stderr: {self.err[:300]!r}"
        return f"took {self.seconds:.1f} s" if self.seconds > SECONDS else ""


def answer(argv: Sequence[str]) -> Answer:
    """Answer a command line in this process and in this folder, which must be empty."""
    out, err, began = io.StringIO(), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(argv))
        except BaseException as error:  # the door lets none through
            code, _ = 70, err.write(f"{ENDS['traceback']}: {error!r}")
    return Answer(
        code,
        out.getvalue(),
        err.getvalue(),
        time.process_time() - began,
        sorted(path.name for path in Path().iterdir()),
    )


def answers(command_lines: Iterable[Sequence[str]]) -> Iterator[Answer]:
    """Yield the answers to command lines, all asked in one forked child; one that does not come is a failure here."""
    lines = list(command_lines)
    with tempfile.TemporaryDirectory() as folder:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            work(lines, folder, writer)
        os.close(writer)
        try:
            with os.fdopen(reader, encoding="utf-8") as stream:
                for argv in lines:
                    yield Answer(**json.loads(next_line(stream, argv)))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def next_line(stream: io.TextIOWrapper, argv: Sequence[str]) -> str:
    """Return the child's next line."""
    ready, _, _ = select.select([stream], [], [], PATIENCE)
    line = stream.readline() if ready else ""
    if not line:
        raise AssertionError(f"{'the child died' if ready else 'a hang'}: {[word[:200] for word in argv]}")
    return line


def work(lines: list[Sequence[str]], folder: str, writer: int) -> None:
    """Answer each command line in an empty folder, a line of JSON each, and end the process."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(folder)
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            for argv in lines:
                given = answer(argv)
                stream.write(json.dumps(given.__dict__) + "\n")
                stream.flush()
    finally:
        os._exit(0)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a user's config folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
