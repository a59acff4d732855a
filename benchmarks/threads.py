"""Time of whole runs with `threads=auto`, one thread and one thread per core, on a quiet and on a busy machine.

`python -m benchmarks.threads [rounds] [words of a command line]`; without words the default run. The busy machine is
this one with one process per core that computes without end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rounds import spread

_BUSY = "while True: sum(range(10**6))"
_QUIET_OUTPUT = ("figures=never", "hydra.run.dir=run")


def times(words: Sequence[str], settings: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of whole runs for each value of `threads`, in turns, after one round to warm up."""
    found: dict[str, list[float]] = {each: [] for each in settings}
    for number in range(1 + rounds):
        for each in settings:
            seconds = _run([*words, f"threads={each}"])
            if number:
                found[each].append(seconds)
    return found


def _run(words: Sequence[str]) -> float:
    """Return the seconds of one run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "runner", *words, *_QUIET_OUTPUT],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=True,
        )
        return time.perf_counter() - begun


@contextmanager
def _busy(cores: int) -> Iterator[None]:
    """Keep all cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(cores)]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()


def main(rounds: int, words: Sequence[str]) -> None:
    """Print median and range of each setting, quiet and busy."""
    cores = len(os.sched_getaffinity(0))
    settings = ("auto", "1", str(cores))
    for name, others in (("quiet", 0), ("busy", cores)):
        with _busy(others):
            for setting, seconds in times(words, settings, rounds).items():
                found = spread(seconds)
                whole = f"({found.low:.1f} to {found.high:.1f}, n={found.n})"
                print(f"{name}: threads={setting}: {found.median:.1f} s {whole}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5, sys.argv[2:])
