"""A real TensorBoard server on loopback, asked as its page asks it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 300


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen, said: Path) -> None:
        self._process, self._said = process, said
        self._address = self.wait(lambda: re.search(r"http://[\w.]+:\d+/", said.read_text()))[0]
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __call__(self, path: str, body: Any = None) -> Any:
        """Return an answer: what its JSON says, or the bytes of an image."""
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"})
        with self._opener.open(asked, timeout=60) as answer:
            return json.load(answer) if answer.headers.get_content_type() == "application/json" else answer.read()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return the value of a condition once it is true; fail if the server ends, or does not get there."""
        end = time.monotonic() + PATIENCE
        while (began := time.monotonic()) < end and self._process.poll() is None:
            if found := condition():
                return found
            # A server that reads runs answers slowly: leave it as much time as the answer took
            time.sleep(max(0.1, time.monotonic() - began))
        raise AssertionError(self._said.read_text())


@contextmanager
def served(logdir: Path, folder: Path, *, fast: str = "false") -> Iterator[Server]:
    """Serve a log folder; `fast` chooses the reader, and what the server says goes into `folder`."""
    said = folder / "tensorboard.txt"
    words = ["--logdir", str(logdir), "--port", "0", "--host", "127.0.0.1", f"--load_fast={fast}"]
    with said.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "tensorboard.main", *words], stdout=stderr, stderr=stderr)
    try:
        yield Server(process, said)
    finally:
        process.kill()
        process.wait()
