"""Run a command line in an audited child process: its answer, programs started, sockets, pickles and files written."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.__main__ import main

SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "epochs=1", "average=none", "figures=never")
PATIENCE = 60  # seconds until a child that has not answered is a hang
REFUSED = {2, 3}

# Audit events of Python that a command must not raise: programs started, network, pickles and prompts
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn", "os.startfile",
          "subprocess.Popen", "os.kill")  # fmt: skip
TALKS = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "urllib.Request", "ftplib.connect")
RUNS = ("pickle.find_class", "builtins.input")
WRITES = {  # event -> which of its arguments are paths
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.truncate": (0,), "os.link": (0, 1),
    "os.symlink": (1,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.mkfifo": (0,), "os.mknod": (0,),
    "shutil.rmtree": (0,), "shutil.move": (0, 1), "shutil.copyfile": (1,), "shutil.unpack_archive": (1,),
    "tempfile.mkstemp": (0,), "tempfile.mkdtemp": (0,), "sqlite3.connect": (0,),
}  # fmt: skip
FOLLOWING = ("os.truncate", "os.chmod", "os.chown", "os.utime", "shutil.copyfile")  # links; the others change the link
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """An audit hook that records forbidden events; it cannot be removed, so install it in a child process."""

    def __init__(self, allowed: Sequence[Path]) -> None:
        # The fingerprints of data are kept in the user's cache folder, which tests have set
        caches = Path(os.environ["XDG_CACHE_HOME"]) / "runner"
        self.allowed = [Path(os.path.realpath(path)) for path in (*allowed, caches)]
        self.seen: list[str] = []
        self._busy = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            if event in STARTS or event in TALKS or event in RUNS:
                self._note(event, arguments)
            elif event == "open" and _opens_to_write(*arguments):
                self._place(event, arguments[0], follow=not arguments[2] & os.O_NOFOLLOW)
            for index in WRITES.get(event, ()):
                self._place(event, arguments[index], follow=event in FOLLOWING)
        finally:
            self._busy = False

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and list(arguments[1])[:2] == ["git", "--no-optional-locks"]:
            return  # a run notes the commit it ran on
        self.seen.append(f"{event} {arguments!r:.200}")

    def _place(self, event: str, path: Any, *, follow: bool = True) -> None:
        if isinstance(path, int):
            return
        given = Path(os.fsdecode(path))
        real = Path(os.path.realpath(given)) if follow else Path(os.path.realpath(given.parent)) / given.name
        if str(real) != os.devnull and not any(real.is_relative_to(place) for place in self.allowed):
            self.seen.append(f"{event} {real}")


def _opens_to_write(path: Any, mode: str | None, flags: int) -> bool:
    """Return True if an open call may change a file."""
    return bool(set(mode or "") & set("wax+")) or bool(flags & WRITING)


def split_cases(values: Iterable[Any], every: int, name: Callable[[Any], str] = str) -> list[Any]:
    """Return parameters of a test of which one in `every` is in the fast suite, and the others are in CI's."""
    rest = (pytest.mark.slow, pytest.mark.ci_slice)
    return [
        pytest.param(value, marks=() if index % every == 0 else rest, id=name(value)[:60])
        for index, value in enumerate(values)
    ]


@dataclass(frozen=True)
class Effects:
    """The effects of a hostile input."""

    code: int
    out: str
    err: str
    events: list[str]


def run_watched(argv: list[str], folder: Path) -> Effects:
    """Run a command line in a forked child, in a folder that is the only place it may write to."""

    def run() -> list[Any]:
        out, err, watch = io.StringIO(), io.StringIO(), Watch([folder])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(argv)
        events, watch.allowed = list(watch.seen), [Path("/")]
        return [code, out.getvalue()[-9000:], err.getvalue()[-9000:], events]

    return Effects(*run_in_child(run, folder))


def run_in_child(work: Callable[[], Any], folder: Path) -> Any:
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


def assert_harmless(seen: Effects, folder: Path, codes: set[int] = REFUSED) -> None:
    """Check that an input was rejected in one line and did nothing."""
    assert seen.events == []
    assert not (folder.parent / "canary").exists() and not (folder / "canary").exists()
    assert "Traceback" not in seen.err, seen.err
    assert seen.code in codes, (seen.code, seen.err)
    if seen.code:
        assert seen.err.startswith("runner: error: ") and seen.err.count("\n") == 1, seen.err
        assert all(letter.isprintable() for letter in seen.err[:-1])
