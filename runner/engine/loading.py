"""Batches of a split that is not in memory: decoded ahead by processes, pinned, and copied beside the computation."""

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

Request = tuple[Tensor, Tensor | None]  # index (B,) int64 and uniforms (B, k) in [0, 1), both on the CPU
Order = tuple[NDArray[Any], NDArray[Any] | None]  # a request as a worker gets it

LOST = "DataLoader worker"  # what torch's words begin with when one is gone


class Streamed(Split, Protocol):
    """A split whose images are made when they are asked for, from random numbers where it takes any.

    `workers` processes are to load it (0: none); an image takes `uniforms` random numbers in training.
    """

    @property
    def workers(self) -> int:
        """Return how many processes are to load it."""
        ...

    @property
    def uniforms(self) -> int:
        """Return how many random numbers an image takes in training."""
        ...

    def fetch(self, index: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) uint8 at `index`, as training sees them if there are `uniforms` (B, k)."""
        ...


def prefetched(
    split: Split, requests: Iterable[Request], device: torch.device, *, workers: int, ahead: int = 4
) -> Generator[Tensor, None, None]:
    """Yield the images (B, C, H, W) uint8 that each request asks for, in order, on the device.

    `workers` processes make `ahead` batches before they are asked for (0: the calling thread makes each when it is);
    the images are the same. On CUDA they come through pinned memory, copied on a stream of their own. No global random
    number is drawn. When the generator ends or is closed, no process, thread or shared memory of it is left. Raises
    what the split raises, as one line, and DataError when a process was killed.
    """
    pin = device.type == "cuda"
    made = in_workers(split, requests, workers, ahead, pin) if workers else here(split, requests, pin)
    with contextlib.closing(made):
        yield from copied(made, device) if pin else (images.to(device) for images in made)


def fetch(split: Any, index: Tensor, uniforms: Tensor | None) -> Tensor:
    """Return the images of a request; only a split that takes random numbers is given any."""
    images: Tensor = split.fetch(index) if uniforms is None else split.fetch(index, uniforms)
    return images


def here(split: Split, requests: Iterable[Request], pin: bool) -> Generator[Tensor, None, None]:
    """Yield the images, each made when it is asked for."""
    for request in requests:
        images = fetch(split, *request)
        yield images.pin_memory() if pin else images


def in_workers(
    split: Split, requests: Iterable[Request], workers: int, ahead: int, pin: bool
) -> Generator[Tensor, None, None]:
    """Yield the images, made ahead by processes."""
    loader: DataLoader[Tensor | RunnerError] = DataLoader(
        Remote(split),
        sampler=(to_numpy(request) for request in requests),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=math.ceil(ahead / workers),
        pin_memory=pin,
        generator=torch.Generator(),  # its own, or iter() would draw from the global one
        worker_init_fn=settle,
        multiprocessing_context=context(split),
    )
    iterator: Any = iter(loader)
    try:
        while True:
            images = taken(iterator)
            if images is None:
                return
            yield images
    finally:
        iterator._shutdown_workers()  # now, not when the garbage collector comes by
        for process in iterator._workers:  # torch asks one that hangs to end, but it is deaf
            if process.is_alive():
                process.kill()


def taken(iterator: Any) -> Tensor | None:
    """Return the next images of torch's loader, or None at the end; raises what the split raised."""
    lost = False
    try:
        images = next(iterator, None)
    except (OSError, EOFError):  # it died while it handed images over
        lost = True
    except RuntimeError as error:
        if LOST not in str(error):
            raise
        lost = True
    if lost:  # here, and below, so that no traceback keeps the loader and its files
        raise DataError("a process that loads images was killed (out of memory, or of /dev/shm?); fewer: data.workers")
    if isinstance(images, RunnerError):
        raise type(images)(str(images))
    return images


class Remote(Dataset[Tensor | RunnerError]):
    """A split as a worker sees it: what it raises for the user comes back as a value, so that it stays one line."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, order: Order) -> Tensor | RunnerError:
        """Return the images of an order, or why there are none."""
        index, uniforms = order
        try:
            return fetch(self.split, torch.from_numpy(index), None if uniforms is None else torch.from_numpy(uniforms))
        except RunnerError as error:
            return error


def to_numpy(request: Request) -> Order:
    """Return a request as arrays: tensors would take a file of shared memory each."""
    index, uniforms = request
    return index.numpy(), None if uniforms is None else uniforms.numpy()


def settle(_: int) -> None:
    """Make a worker depend on its parent alone.

    Signals that go to the whole process group are the parent's business, which stops its workers when it is done. torch
    looks for the death of who forked the worker; here that is the fork server, which waits for its workers in turn.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=end_with, args=[multiprocessing.parent_process()], daemon=True).start()


def end_with(parent: BaseProcess) -> None:
    """End this process when its parent ends, however that is."""
    parent.join()
    os._exit(1)


def context(split: Split) -> BaseContext:
    """Return how workers start: forked by a server that has no threads and no CUDA, with what they need imported.

    Forking this process itself would be quicker the first time, but is not safe once threads or CUDA are in use.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, type(split).__module__])
    return server


def copied(batches: Iterable[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """Yield pinned batches on a CUDA device; the copies run beside what the caller has queued so far."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for images in batches:
        with torch.cuda.stream(side):
            copy = images.to(device, non_blocking=True)
        current = torch.cuda.current_stream(device)
        current.wait_stream(side)
        copy.record_stream(current)  # its memory is not given away while the caller's stream may still read it
        yield copy
