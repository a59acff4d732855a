"""What it saves that files are read ahead, where none of them is in memory: a start on MNIST's files, JPEGs decoded.

`python -m benchmarks.read_ahead [rounds]`. For another disk, start it where that disk is, or in a control group (Linux)
that limits how much is read of it in a second.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np

from benchmarks.rounds import Pairs, report
from benchmarks.start_up import OURS, seconds, write_mnist

PLAIN = OURS.replace("from runner import tasks\n", "from runner import tasks\ntasks.prefetch = lambda config: None\n")
IMAGES = 10_000


def evict(paths: Iterable[Path]) -> None:
    """Have the system forget what it holds of files in memory."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def start(folder: Path, rounds: int) -> Pairs:
    """Return the seconds to the second step on files of MNIST's form and size: with reading ahead, without."""
    write_mnist(folder)
    words = ("model=mlp", "data=mnist", f"data.root={folder}", "data.download=false")
    pairs = []
    for _ in range(1 + rounds):
        found = []
        for program in (OURS, PLAIN):
            evict(folder.rglob("*-ubyte"))
            found.append(seconds(program, *words))
        pairs.append((found[0], found[1]))
    return pairs[1:]


def decode(folder: Path, rounds: int, *, cold: bool) -> Pairs:
    """Return the seconds that JPEGs of 32 x 32 pixels take to decode: with reading ahead, without."""
    from runner.components.data.decode import View
    from runner.components.data.files import decoded
    from runner.engine import read_ahead

    files = write_images(folder)
    advise, pairs = read_ahead._advise, []
    for _ in range(1 + rounds):
        found = []
        for read_ahead._advise in (advise, None):  # None: on a system that takes no advice
            if cold:
                evict(map(Path, files))
            begun = time.perf_counter()
            with redirect_stderr(io.StringIO()):  # where the bar would be
                images = sum(len(chunk) for chunk in decoded(files, View((32, 32)), 1, None, "images"))
            found.append(time.perf_counter() - begun)
            assert images == IMAGES
        pairs.append((found[0], found[1]))
    return pairs[1:]


def write_images(folder: Path) -> list[str]:
    """Write small JPEGs, if they are not there, and return their paths."""
    from PIL import Image

    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(IMAGES)]
    for path in paths:
        if not path.exists():
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return [str(path) for path in paths]


def main(rounds: int = 9) -> None:
    """Print the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        report("start on cold files, with reading ahead and without", start(Path(folder), rounds), unit="s", scale=1)
        for cold in (True, False):
            title = f"decoding {'cold' if cold else 'warm'} JPEGs, with reading ahead and without"
            report(title, decode(Path(folder), rounds, cold=cold), unit="s", scale=1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
