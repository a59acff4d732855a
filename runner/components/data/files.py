"""Many image files to pixels, by a pool of threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from runner.components.data.decode import View, decode, decode_window, named
from runner.components.data.progress import Progress
from runner.components.data.window import UNIFORMS
from runner.engine.read_ahead import read_ahead
from runner.engine.saving.storage import shown
from runner.errors import DataError

Result = TypeVar("Result")
Bad = dict[int, str]  # place of a file that cannot be read -> why

CHUNK = 64  # files that a thread takes at a time
WAITING = 4  # chunks that each thread may be ahead of who takes them


@dataclass(frozen=True)
class Files:
    """A split that decodes its images each time they are asked for: by `threads` here, by one in each of `workers`.

    With random numbers an image is a random window, without any it is the whole.
    """

    files: list[str]
    labels: Tensor
    view: View
    threads: int
    workers: int  # processes that are to load it

    @property
    def uniforms(self) -> int:
        """Return how many random numbers an image takes in training."""
        return UNIFORMS if self.view.crop else 0

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return the images (B, 3, H, W) uint8 at `index` (B,) int64; raises DataError that names a broken file.

        `uniforms` (B, 4) in [0, 1) choose a window of each.
        """
        files = [self.files[i] for i in index.tolist()]
        out = np.empty((len(files), 3, *self.view.size), np.uint8)
        draws = None if uniforms is None else uniforms.tolist()
        read_ahead(files)

        def fill(place: int) -> None:
            out[place] = named(files[place], lambda path: self.pixels(path, draws and draws[place]))

        if self.threads == 1 or get_worker_info():
            for place in range(len(files)):
                fill(place)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                for _ in pool.map(fill, range(len(files))):
                    pass
        return torch.from_numpy(out)

    def pixels(self, path: str, draw: Sequence[float] | None) -> NDArray[np.uint8]:
        """Return one image (3, H, W)."""
        return decode(path, self.view) if draw is None else decode_window(path, self.view, draw)


def decoded(files: Sequence[str], view: View, threads: int, bad: Bad | None, what: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of `files` in order, in chunks (n, 3, H, W).

    Raises DataError for the first that cannot be read; where `bad` is given it is left out and noted there.
    """

    def chunk(start: int, stop: int) -> tuple[NDArray[np.uint8], Bad]:
        found: list[NDArray[np.uint8]] = []
        failed = failures(
            files, range(start, stop), lambda path: found.append(decode(path, view)), keep=bad is not None
        )
        return np.stack(found) if found else np.empty((0, 3, *view.size), np.uint8), failed

    for images, failed in in_chunks(chunk, len(files), threads, what):
        if bad is not None:
            bad |= failed
        yield images


def failures(files: Sequence[str], places: Sequence[int], work: Callable[[str], Any], *, keep: bool) -> Bad:
    """Call `work` for each file and return those that fail, if they are to be kept; else the first is raised."""
    failed: Bad = {}
    read_ahead(files[place] for place in places)
    for place in places:
        try:
            named(files[place], work)
        except DataError as error:
            if not keep:
                raise
            failed[place] = str(error).removeprefix(f"{shown(Path(files[place]))}: ")
    return failed


def in_chunks(work: Callable[[int, int], Result], count: int, threads: int, what: str) -> Iterator[Result]:
    """Yield `work(start, stop)` for ranges that make up 0..count, in order, from a pool of threads.

    The first exception, in this order, is raised. `what` is said beside the bar.
    """
    step = max(1, min(CHUNK, count // threads))
    starts = iter(range(0, count, step))
    waiting: deque[tuple[int, Future[Result]]] = deque()
    progress = Progress(what, count)
    pool = ThreadPoolExecutor(threads)
    try:
        while True:
            for start in starts:
                stop = min(start + step, count)
                waiting.append((stop, pool.submit(work, start, stop)))
                if len(waiting) >= WAITING * threads:
                    break
            if not waiting:
                return
            done, future = waiting.popleft()
            yield future.result()
            progress.move(done)
    finally:
        progress.close()
        pool.shutdown(cancel_futures=True)
