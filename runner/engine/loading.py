"""Batches of a split that is not in memory: worker processes prefetch them, and copies overlap with computation."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import threading
from collections.abc import Generator, Iterable
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runner.engine import interruption
from runner.engine.contracts import Split
from runner.errors import DataError, RunnerError
from runner.streams import guard
from runner.user_paths import anchor, in_start_folder, start_folder

# The arguments of `fetch`: positions (B,) int64 and uniform random numbers (B, k) in [0, 1), both on the CPU.
Request = tuple[Tensor, Tensor | None]
# A request as a worker receives it.
_WorkerRequest = tuple[NDArray[Any], NDArray[Any] | None]

# Part of torch's error message if a worker was killed.
_WORKER_LOST = "DataLoader worker"


class _Streamed(Split, Protocol):
    """A split that loads its images on request."""

    @property
    def workers(self) -> int:
        """Return the number of worker processes; 0 loads in the calling thread."""
        ...

    @property
    def uniforms(self) -> int:
        """Return how many uniform random numbers an image needs in training; 0 if images are not cropped."""
        ...

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) uint8 at `index` (B,); `uniforms` (B, k) give random crops for training."""
        ...


def prefetched(
    split: Split, requests: Iterable[Request], device: torch.device, *, workers: int, ahead: int = 4
) -> Generator[Tensor, None, None]:
    """Yield the images (B, C, H, W) uint8 of each request, in order, on the device.

    On CUDA the images are copied from pinned memory on a separate stream. torch's global generators are not used. When
    the generator ends or is closed, its processes, threads and shared memory are released.

    Args:
        split: Where the images come from.
        requests: The arguments of `split.fetch` for each batch.
        device: Where the images go.
        workers: The number of worker processes; 0 loads each batch in the calling thread. The images are the same.
        ahead: The number of batches to prefetch.

    Raises:
        RunnerError: What the split raised in a worker.
        DataError: A worker process was killed.
    """
    pin = device.type == "cuda"
    loaded = _load_in_workers(split, requests, workers, ahead, pin) if workers else _load_inline(split, requests, pin)
    with contextlib.closing(loaded):
        yield from _copy_to_gpu(loaded, device) if pin else (images.to(device) for images in loaded)


def fetch(split: Any, index: Tensor, uniforms: Tensor | None) -> Tensor:
    """Return the images (B, C, H, W) uint8 of a request; `uniforms` is None for a split that does not crop."""
    images: Tensor = split.fetch(index) if uniforms is None else split.fetch(index, uniforms)
    return images


def _load_inline(split: Split, requests: Iterable[Request], pin: bool) -> Generator[Tensor, None, None]:
    """Yield the images of each request, loaded in the calling thread."""
    for request in requests:
        images = fetch(split, *request)
        yield images.pin_memory() if pin else images


def _load_in_workers(
    split: Split, requests: Iterable[Request], workers: int, ahead: int, pin: bool
) -> Generator[Tensor, None, None]:
    """Yield the images of each request, prefetched by worker processes."""
    loader: DataLoader[Tensor | RunnerError] = DataLoader(
        _WorkerSplit(split),
        sampler=(_as_arrays(request) for request in requests),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=math.ceil(ahead / workers),
        pin_memory=pin,
        # Without a generator, iter() draws a seed from the global one, which would change the run's random numbers.
        generator=torch.Generator(),
        worker_init_fn=partial(_start_worker, start_folder()),
        multiprocessing_context=_start_method(split),
    )
    # A process that starts another asks for its working folder, which code of the user's may have deleted
    with in_start_folder():
        with interruption.same_mask():
            resource_tracker.ensure_running()
        # The fork server and its workers inherit the mask: a signal to the whole process group does not end a worker
        # that has not come to `_start_worker` yet
        with interruption.blocked(*interruption.STOPPING):
            iterator: Any = iter(loader)
    try:
        while True:
            images = _next_images(iterator)
            if images is None:
                return
            yield images
    finally:
        # Release the workers now instead of at the next garbage collection.
        iterator._shutdown_workers()
        # A worker that hangs ignores the SIGTERM that torch sends.
        for process in iterator._workers:
            if process.is_alive():
                process.kill()


def _next_images(iterator: Any) -> Tensor | None:
    """Return the next images of the loader, or None at the end; raise what the split raised."""
    worker_killed = False
    try:
        images = next(iterator, None)
    except (OSError, EOFError):
        # The worker died while sending images.
        worker_killed = True
    except RuntimeError as error:
        if _WORKER_LOST not in str(error):
            raise
        worker_killed = True
    # Not raised in the `except`: the traceback of the first error would keep the loader and its files open.
    if worker_killed:
        raise DataError("data.workers: a worker was killed (out of memory or of /dev/shm?); use fewer workers")
    if isinstance(images, RunnerError):
        raise type(images)(str(images))
    return images


class _WorkerSplit(Dataset[Tensor | RunnerError]):
    """A split in a worker; returns a RunnerError instead of raising it, because torch would add a traceback to it."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, request: _WorkerRequest) -> Tensor | RunnerError:
        """Return the images of a request, or the RunnerError that the split raised."""
        index, uniforms = request
        try:
            return fetch(self.split, torch.from_numpy(index), None if uniforms is None else torch.from_numpy(uniforms))
        except RunnerError as error:
            return error


def _as_arrays(request: Request) -> _WorkerRequest:
    """Return a request as numpy arrays: to send a tensor to a worker needs a file in shared memory."""
    index, uniforms = request
    return index.numpy(), None if uniforms is None else uniforms.numpy()


def _start_worker(folder: str | None, _: int) -> None:
    """Let paths count from a folder in a worker, ignore signals, and make it exit when its parent ends.

    The parent handles signals that go to the whole process group, and stops its workers. torch has a check for the
    parent, but it watches the process that forked the worker. Here that is the fork server, which outlives the parent
    because it waits for the workers.
    """
    # A worker that prints must not fail where the screen is lost
    guard()
    anchor(folder)
    interruption.ignore(*interruption.STOPPING)
    threading.Thread(target=_exit_with_parent, args=[multiprocessing.parent_process()], daemon=True).start()


def _exit_with_parent(parent: BaseProcess) -> None:
    """Exit this process when its parent ends for any reason."""
    parent.join()
    os._exit(1)


def _start_method(split: Split) -> BaseContext:
    """Return the start method of workers: a fork server that has imported their modules; `spawn` without one.

    To fork this process would be faster the first time, but is unsafe after threads or CUDA have started.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, type(split).__module__])
    return server


def _copy_to_gpu(batches: Iterable[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """Yield pinned batches on a CUDA device; the copies overlap with the kernels that the caller has launched."""
    copy_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for images in batches:
        with torch.cuda.stream(copy_stream):
            copy = images.to(device, non_blocking=True)
        current = torch.cuda.current_stream(device)
        current.wait_stream(copy_stream)
        # The allocator must not reuse the memory before the caller's stream has read it.
        copy.record_stream(current)
        yield copy
