"""Gain of reading files ahead when none of them is in memory: start-up on MNIST's files, and decoding of JPEGs.

`python -m benchmarks.read_ahead [rounds]`. To measure another disk, start it there, or in a Linux control group that
limits the read rate.
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

_PLAIN = OURS.replace(
    "from runner import tasks\n", "from runner import tasks\ntasks._prefetch_data = lambda config: None\n"
)
_IMAGES = 10_000


def _evict(paths: Iterable[Path]) -> None:
    """Remove files from the page cache."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def start(folder: Path, rounds: int) -> Pairs:
    """Return the seconds to the second step on files like MNIST's (with reading ahead, without)."""
    write_mnist(folder)
    words = ("model=mlp", "data=mnist", f"data.root={folder}", "data.download=false")
    pairs = []
    for _ in range(1 + rounds):
        found = []
        for program in (OURS, _PLAIN):
            _evict(folder.rglob("*-ubyte"))
            found.append(seconds(program, *words))
        pairs.append((found[0], found[1]))
    return pairs[1:]


def decode(folder: Path, rounds: int, *, cold: bool) -> Pairs:
    """Return the seconds of decoding JPEGs of 32 x 32 pixels (with reading ahead, without)."""
    from runner.components.data.pixels.decode import View
    from runner.components.data.pixels.decoder_messages import Findings
    from runner.components.data.pixels.image_files import decode_in_chunks
    from runner.engine import read_ahead

    files = _write_images(folder)
    advise, pairs = read_ahead._advise, []
    for _ in range(1 + rounds):
        found = []
        for read_ahead._advise in (advise, None):  # None: as on a system without posix_fadvise
            if cold:
                _evict(map(Path, files))
            begun = time.perf_counter()
            with redirect_stderr(io.StringIO()):  # hides the progress bar
                images = sum(
                    len(chunk) for chunk in decode_in_chunks(files, View((32, 32)), 1, Findings(), "images", keep=False)
                )
            found.append(time.perf_counter() - begun)
            assert images == _IMAGES
        pairs.append((found[0], found[1]))
    return pairs[1:]


def _write_images(folder: Path) -> list[str]:
    """Write small JPEGs if they do not exist, and return their paths."""
    from PIL import Image

    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(_IMAGES)]
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
