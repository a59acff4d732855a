"""Audit hooks: programs started, sockets, pickles and writes outside of the allowed folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    """Notes what a process must not do from now on: it cannot be taken off again, so it belongs in a child."""

    def __init__(self, allowed: Sequence[Path]) -> None:
        self.allowed = [Path(os.path.realpath(path)) for path in allowed]
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
            elif event == "open" and opens_to_write(*arguments):
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


def opens_to_write(path: Any, mode: str | None, flags: int) -> bool:
    """Return True if an open call may change a file."""
    return bool(set(mode or "") & set("wax+")) or bool(flags & WRITING)
