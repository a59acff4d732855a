"""A tracker in a process of its own: what its library does to signals, exit, memory and threads stays there.

The process reads requests from its standard input, one JSON object per line, and answers each on its standard output.
It ends when its input does, also after a kill of the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import runner
from runner.trackers.contract import TrackedRow, TrackedRun
from runner.user_paths import absolute

# Imports this very package, wherever the run's process has it from, and nothing of the working folder
_MAIN = "import sys; sys.path.insert(1, {root!r}); from runner.trackers.serve import serve; \
serve({kind!r}, {knobs!r}, {run})"
# Seconds that the process has to end by itself
_PATIENCE = 5.0


class _TrackerError(Exception):
    """An error that the process of a tracker reports."""


class InProcess:
    """A tracker whose calls a process of its own carries out.

    Args:
        kind: The tracker in `runner.trackers.serve`.
        knobs: What it is made with, plain values.
        environment: Environment variables of the process beside those of this one.
    """

    from_first_row = False

    def __init__(self, kind: str, knobs: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._kind, self._knobs, self._environment = kind, dict(knobs), dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._writing = threading.Lock()

    def start(self, run: TrackedRun) -> None:
        """Start the process, and its run there."""
        root = str(Path(runner.__file__).parent.parent)
        main = _MAIN.format(root=root, kind=self._kind, knobs=self._knobs, run=os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", main],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self._environment},
            encoding="utf-8",
            # A Ctrl-C in the terminal ends the run, which then says so here
            start_new_session=True,
        )
        described = {"name": run.name, "group": run.group, "sweep": run.sweep, "config": run.config, "key": run.id}
        self._ask("start", folder=absolute(run.folder), **described)

    def log(self, rows: Sequence[TrackedRow]) -> None:
        """Send rows."""
        self._ask("log", rows=rows)

    def finish(self, status: str, scores: Mapping[str, float]) -> None:
        """Send how the run ended."""
        self._ask("finish", status=status, scores=scores)

    def close(self) -> None:
        """End the process; kill it if it does not end."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        # A thread that waits for the process to read holds the pipe, and closing it would wait as well
        if self._writing.acquire(timeout=_PATIENCE):
            self._writing.release()
        else:
            process.kill()
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _ask(self, request: str, **values: Any) -> Any:
        """Return the answer to a request; raises _TrackerError if it is an error, or if the process has ended."""
        process = self._process
        assert process and process.stdin and process.stdout
        try:
            with self._writing:
                process.stdin.write(json.dumps([request, values]) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError) as error:
            raise _TrackerError(f"its process has ended: {error}") from error
        if not line:
            raise _TrackerError(f"its process has ended with exit code {process.wait(_PATIENCE)}")
        answer = json.loads(line)
        if "error" in answer:
            raise _TrackerError(answer["error"])
        return answer["answer"]
