"""Decode many image files in order, by a pool of threads, with a progress bar."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from runner.components.data.pixels.decode import CROP_UNIFORMS, View, call_decoder, decode, decode_crop
from runner.components.data.pixels.decoder_messages import Findings, routed
from runner.engine.logs.console import Bar, format_duration
from runner.engine.read_ahead import read_ahead
from runner.engine.saving.storage import printable
from runner.errors import DataError
from runner.printing import standard_error, write_to

_Result = TypeVar("_Result")
# Files per task of a thread
FILES_PER_TASK = 64
# Chunks per thread that may wait to be consumed
_MAX_PENDING = 4
# Seconds before anything is shown
_SHOW_AFTER = 1.0


@dataclass(frozen=True)
class ImageFiles:
    """A split that decodes images on request: with `threads` here, with one thread in each of `workers` processes.

    With random numbers an image is a random crop, without them the whole image.
    """

    files: list[str]
    labels: Tensor
    view: View
    threads: int
    # Loader processes in training
    workers: int

    @property
    def uniforms(self) -> int:
        """Return the number of random numbers per image in training."""
        return CROP_UNIFORMS if self.view.crop else 0

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) uint8 at `index` (B,) int64. Raises DataError that names a broken file.

        `uniforms` (B, 4) in [0, 1) choose a crop of each.
        """
        files = [self.files[i] for i in index.tolist()]
        out = np.empty((len(files), *self.view.shape), np.uint8)
        draws = None if uniforms is None else uniforms.tolist()
        read_ahead(files)

        def fill(place: int) -> None:
            # What the decoder says is known since the files were validated
            out[place], _ = call_decoder(files[place], lambda path: self.pixels(path, draws and draws[place]))

        with routed:
            if self.threads == 1 or get_worker_info():
                for place in range(len(files)):
                    fill(place)
            else:
                with ThreadPoolExecutor(self.threads) as pool:
                    for _ in pool.map(fill, range(len(files))):
                        pass
        return torch.from_numpy(out)

    def pixels(self, path: str, draw: Sequence[float] | None) -> NDArray[np.uint8]:
        """Return one image (C, H, W)."""
        return decode(path, self.view) if draw is None else decode_crop(path, self.view, draw)


def decode_in_chunks(
    files: Sequence[str], view: View, threads: int, findings: Findings, what: str, *, keep: bool
) -> Iterator[NDArray[np.uint8]]:
    """Yield the images of `files` in order, in chunks (n, C, H, W) uint8, and add what decoders say to `findings`.

    Raises DataError for the first unreadable file. With `keep`, unreadable files are left out and noted there instead.
    """

    def chunk(start: int, stop: int) -> tuple[NDArray[np.uint8], Findings]:
        images: list[NDArray[np.uint8]] = []
        found = examine(files, range(start, stop), lambda path: images.append(decode(path, view)), keep=keep)
        return np.stack(images) if images else np.empty((0, *view.shape), np.uint8), found

    for images, found in map_chunks(chunk, len(files), threads, what):
        findings.merge(found)
        yield images


def examine(files: Sequence[str], places: Sequence[int], work: Callable[[str], Any], *, keep: bool) -> Findings:
    """Call `work` for each file; return which fail if `keep` (else raise the first error), and what decoders say."""
    findings = Findings()
    read_ahead(files[place] for place in places)
    with routed:
        for place in places:
            try:
                _, messages = call_decoder(files[place], work)
            except DataError as error:
                if not keep:
                    raise
                findings.bad[place] = str(error).removeprefix(f"{printable(Path(files[place]))}: ")
            else:
                if messages:
                    findings.add(place, messages)
    return findings


def map_chunks(work: Callable[[int, int], _Result], count: int, threads: int, what: str) -> Iterator[_Result]:
    """Yield `work(start, stop)` for ranges that cover 0..count, in order, from a pool of threads.

    The first exception, in this order, is raised. `what` labels the progress bar.
    """
    step = max(1, min(FILES_PER_TASK, count // threads))
    starts = iter(range(0, count, step))
    waiting: deque[tuple[int, Future[_Result]]] = deque()
    progress = Progress(what, count)
    pool = ThreadPoolExecutor(threads)
    try:
        while True:
            for start in starts:
                stop = min(start + step, count)
                waiting.append((stop, pool.submit(work, start, stop)))
                if len(waiting) >= _MAX_PENDING * threads:
                    break
            if not waiting:
                return
            done, future = waiting.popleft()
            yield future.result()
            progress.move(done)
    finally:
        progress.close()
        pool.shutdown(cancel_futures=True)


class Progress:
    """Show on standard error how many of `total` are done: a bar on a terminal, one line elsewhere.

    Nothing is shown during the first second.
    """

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what, self._total, self._stream = what, total, stream or standard_error()
        self._began = time.monotonic()
        self._bar: Bar | None = None
        self._said = False

    def move(self, done: int) -> None:
        """Report that `done` items are done."""
        passed = time.monotonic() - self._began
        if passed < _SHOW_AFTER or done == 0:
            return
        left = format_duration((self._total - done) * passed / done)
        if self._stream.isatty():
            self._bar = self._bar or Bar(self._stream, self._total)
            self._bar.move(done, {self._what: f"{done}/{self._total}", "": f"{done / passed:.0f}/s", "left": left})
        elif not self._said:
            self._said = True
            left = format_duration(self._total * passed / done)
            write_to(self._stream, f"{self._what}: {self._total} in about {left}\n")

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar:
            self._bar.close()
            self._bar = None
