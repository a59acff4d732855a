"""Run a command line in an audited child process: its answer and its side effects."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from audit import Watch

from runner.__main__ import main

SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "epochs=1", "average=none", "figures=never")
PATIENCE = 60  # seconds until a child that has not answered is a hang
REFUSED = {2, 3}


def sliced(values: Iterable[Any], every: int, name: Callable[[Any], str] = str) -> list[Any]:
    """Return parameters of a test of which one in `every` is in the fast suite, and the others are in CI's."""
    rest = (pytest.mark.slow, pytest.mark.ci_slice)
    return [
        pytest.param(value, marks=() if index % every == 0 else rest, id=name(value)[:60])
        for index, value in enumerate(values)
    ]


@dataclass(frozen=True)
class Seen:
    """The effects of a hostile input."""

    code: int
    out: str
    err: str
    events: list[str]


def watched(argv: list[str], folder: Path) -> Seen:
    """Run a command line in a forked child, in a folder that is the only place it may write to."""

    def run() -> list[Any]:
        out, err, watch = io.StringIO(), io.StringIO(), Watch([folder])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(argv)
        events, watch.allowed = list(watch.seen), [Path("/")]
        return [code, out.getvalue()[-9000:], err.getvalue()[-9000:], events]

    return Seen(*child(run, folder))


def child(work: Callable[[], Any], folder: Path) -> Any:
    """Return what a function gives in a forked child, as JSON has it; one that gives nothing is a failure here."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            signal.alarm(PATIENCE)
            os.chdir(folder)
            sys.dont_write_bytecode = True
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(process, 0)
    assert data, "a hang, or a crash"
    return json.loads(data)


def harmless(seen: Seen, folder: Path, codes: set[int] = REFUSED) -> None:
    """Check that an input was refused in one line and did nothing."""
    assert seen.events == []
    assert not (folder.parent / "canary").exists() and not (folder / "canary").exists()
    assert "Traceback" not in seen.err, seen.err
    assert seen.code in codes, (seen.code, seen.err)
    if seen.code:
        assert seen.err.startswith("runner: error: ") and seen.err.count("\n") == 1, seen.err
        assert all(letter.isprintable() for letter in seen.err[:-1])
