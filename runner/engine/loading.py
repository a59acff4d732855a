"""Batches of a split that is not in memory: decoded in advance by processes, pinned, copied during the computation."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runner.engine.contracts import Split
from runner.errors import DataError, RunnerError

# The index (B,) int64 and the uniforms (B, k) in [0, 1), both on the CPU.
Request = tuple[Tensor, Tensor | None]
# A request as a worker receives it.
_WorkerRequest = tuple[NDArray[Any], NDArray[Any] | None]

# Part of torch's message about a worker that ended.
_WORKER_LOST = "DataLoader worker"


class _Streamed(Split, Protocol):
    """A split whose images are loaded on request, from random numbers if it crops them."""

    @property
    def workers(self) -> int:
        """Return the number of processes that load it, 0 for none."""
        ...

    @property
    def uniforms(self) -> int:
        """Return the number of random numbers per image in training."""
        ...

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) uint8 at `index`; with `uniforms` (B, k) they are cropped for training."""
        ...


def prefetched(
    split: Split, requests: Iterable[Request], device: torch.device, *, workers: int, ahead: int = 4
) -> Generator[Tensor, None, None]:
    """Yield the images (B, C, H, W) uint8 that each request asks for, in order, on the device.

    `workers` processes load `ahead` batches in advance; with 0 the calling thread loads each batch on request. The
    images are the same. On CUDA they are copied from pinned memory on a separate stream. No global random number is
    drawn. When the generator ends or is closed, all its processes, threads and shared memory are released. Raises the
    errors of the split as one line, and DataError if a process was killed.
    """
    pin = device.type == "cuda"
    made = _load_in_workers(split, requests, workers, ahead, pin) if workers else _load_inline(split, requests, pin)
    with contextlib.closing(made):
        yield from _copy_to_gpu(made, device) if pin else (images.to(device) for images in made)


def fetch(split: Any, index: Tensor, uniforms: Tensor | None) -> Tensor:
    """Return the images of a request; only a split that takes random numbers is given any."""
    images: Tensor = split.fetch(index) if uniforms is None else split.fetch(index, uniforms)
    return images


def _load_inline(split: Split, requests: Iterable[Request], pin: bool) -> Generator[Tensor, None, None]:
    """Yield the images, each loaded on request."""
    for request in requests:
        images = fetch(split, *request)
        yield images.pin_memory() if pin else images


def _load_in_workers(
    split: Split, requests: Iterable[Request], workers: int, ahead: int, pin: bool
) -> Generator[Tensor, None, None]:
    """Yield the images, loaded in advance by processes."""
    loader: DataLoader[Tensor | RunnerError] = DataLoader(
        _WorkerSplit(split),
        sampler=(_as_arrays(request) for request in requests),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=math.ceil(ahead / workers),
        pin_memory=pin,
        # Without a generator iter() would draw from the global one.
        generator=torch.Generator(),
        worker_init_fn=_start_worker,
        multiprocessing_context=_start_method(split),
    )
    iterator: Any = iter(loader)
    try:
        while True:
            images = _next_images(iterator)
            if images is None:
                return
            yield images
    finally:
        # The garbage collector would do it later.
        iterator._shutdown_workers()
        # A worker that hangs ignores the SIGTERM that torch sends.
        for process in iterator._workers:
            if process.is_alive():
                process.kill()


def _next_images(iterator: Any) -> Tensor | None:
    """Return the next images of torch's loader, or None at the end; raises what the split raised."""
    lost = False
    try:
        images = next(iterator, None)
    except (OSError, EOFError):
        # A worker died while it sent images.
        lost = True
    except RuntimeError as error:
        if _WORKER_LOST not in str(error):
            raise
        lost = True
    # Raised outside of the `except`: a traceback would keep the loader and its files open.
    if lost:
        raise DataError("a process that loads images was killed (out of memory, or of /dev/shm?); fewer: data.workers")
    if isinstance(images, RunnerError):
        raise type(images)(str(images))
    return images


class _WorkerSplit(Dataset[Tensor | RunnerError]):
    """A split in a worker: returns a RunnerError as a value, so that its message stays one line."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, request: _WorkerRequest) -> Tensor | RunnerError:
        """Return the images of a request, or the error that the split raised."""
        index, uniforms = request
        try:
            return fetch(self.split, torch.from_numpy(index), None if uniforms is None else torch.from_numpy(uniforms))
        except RunnerError as error:
            return error


def _as_arrays(request: Request) -> _WorkerRequest:
    """Return a request as arrays: each tensor would need a file of shared memory."""
    index, uniforms = request
    return index.numpy(), None if uniforms is None else uniforms.numpy()


def _start_worker(_: int) -> None:
    """Ignore signals in a worker, and end it with its parent.

    The parent handles the signals of the process group and stops its workers. torch's own check watches the process
    that forked the worker, which here is the fork server, and that waits for its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=[multiprocessing.parent_process()], daemon=True).start()


def _exit_with(parent: BaseProcess) -> None:
    """Exit this process when its parent ends for any reason."""
    parent.join()
    os._exit(1)


def _start_method(split: Split) -> BaseContext:
    """Return the start method of workers: a fork server without threads and CUDA, which has imported their modules.

    Forking this process would be faster the first time, but is unsafe when threads or CUDA are in use.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, type(split).__module__])
    return server


def _copy_to_gpu(batches: Iterable[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """Yield pinned batches on a CUDA device; the copies overlap with the work that the caller has queued."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for images in batches:
        with torch.cuda.stream(side):
            copy = images.to(device, non_blocking=True)
        current = torch.cuda.current_stream(device)
        current.wait_stream(side)
        # The allocator must not reuse the memory while the caller's stream may read it.
        copy.record_stream(current)
        yield copy
