"""Batches from worker processes: equal for any number of workers, and nothing is left when loading ends."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import ROOT
from torch import Tensor

import runner.components  # noqa: F401
from runner.components.data.pixels.decode import CropBounds, View
from runner.components.data.pixels.image_files import ImageFiles
from runner.engine.loading import Request, prefetched
from runner.errors import DataError

CPU = torch.device("cpu")
COUNT, BATCH = 24, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{i:02}.jpg")
    return sorted(map(str, folder.glob("*.jpg")))


def split(files: list[str]) -> ImageFiles:
    view = View((16, 16), crop=CropBounds((0.1, 1.0), (0.75, 4 / 3)))
    return ImageFiles(files, torch.zeros(len(files), dtype=torch.int64), view, threads=1, workers=0)


def requests(uniforms: bool = True) -> Iterator[Request]:
    generator = torch.Generator().manual_seed(1)
    draws = torch.rand(COUNT, 4, generator=generator)
    for index in torch.randperm(COUNT, generator=generator).split(BATCH):
        yield index, draws[index] if uniforms else None


class _SignalledWhenBorn(ImageFiles):
    """A split whose arrival in a process sends that process a signal, as one to the group may at that moment."""

    number = signal.SIGTERM

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_does_not_end_a_worker_that_is_starting(files: list[str], number: signal.Signals) -> None:
    whole = split(files)
    born = _SignalledWhenBorn.__new__(_SignalledWhenBorn)
    born.__dict__.update(whole.__dict__, number=number)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    made = list(prefetched(born, requests(), CPU, workers=2))
    assert len(made) == COUNT // BATCH and signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("uniforms", [True, False])
def test_batches_are_those_of_the_split_in_order_whatever_the_workers(
    files: list[str], workers: int, uniforms: bool
) -> None:
    made = list(prefetched(split(files), requests(uniforms), CPU, workers=workers))
    wanted = [
        split(files).fetch(index) if draws is None else split(files).fetch(index, draws)
        for index, draws in requests(uniforms)
    ]
    assert len(made) == COUNT // BATCH and all(map(torch.equal, made, wanted))
    assert made[0].dtype == torch.uint8 and made[0].shape == (BATCH, 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 1])
def test_no_global_random_number_is_drawn(files: list[str], workers: int) -> None:
    def drawn() -> tuple[Tensor, bytes, object]:
        return torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()

    before = drawn()
    assert len(list(prefetched(split(files), requests(), CPU, workers=workers))) == COUNT // BATCH
    after = drawn()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def children(parent: int) -> dict[int, str]:
    """Return the processes that a process started, with their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may end at any moment
            if int((process / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found[int(process.name)] = (process / "cmdline").read_text()
    return found


def workers_of(process: int) -> set[int]:
    """Return what the fork server of a process started; the server itself stays for the next loading."""
    servers = [child for child, words in children(process).items() if "multiprocessing.forkserver" in words]
    return {worker for server in servers for worker in children(server)}


def entries(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def traces() -> tuple[set[int], int, int]:
    """Return what loading could leave behind in this process: workers, threads, open files."""
    return workers_of(os.getpid()), threading.active_count(), len(entries("/proc/self/fd"))


def memory() -> set[str]:
    """Return the shared memory there is; semaphores may be those of a test that runs beside this one."""
    return {name for name in entries("/dev/shm") if not name.startswith("sem.")}


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def ignores_signals(pid: int) -> bool:
    """Return True if a process ignores SIGINT and SIGTERM."""
    (line,) = (each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("SigIgn:"))
    return all(int(line.split()[1], 16) >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))


@pytest.fixture
def clean(files: list[str]) -> Iterator[None]:
    """Check that the test leaves no workers, threads or files of loading behind."""
    list(prefetched(split(files), requests(), CPU, workers=1))  # starts the fork server
    gc.collect()  # what earlier tests left; what this one leaves must go by itself
    before, shared = traces(), memory()
    yield
    assert eventually(lambda: traces() == before), (before, traces())
    assert eventually(lambda: memory() <= shared)


@pytest.mark.usefixtures("clean")
def test_nothing_is_left_at_the_end(files: list[str]) -> None:
    list(prefetched(split(files), requests(), CPU, workers=2))


@pytest.mark.usefixtures("clean")
def test_nothing_is_left_when_it_is_closed_early(files: list[str]) -> None:
    with closing(prefetched(split(files), requests(), CPU, workers=2)) as batches:
        next(batches)
        assert len(workers_of(os.getpid())) == 2


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("reason", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_exception(files: list[str], reason: type[BaseException]) -> None:
    batches = prefetched(split(files), requests(), CPU, workers=2)
    next(batches)
    with pytest.raises(reason):
        batches.throw(reason())


def refusal(batches: Iterator[Tensor]) -> str:
    """Return the line of the DataError that some batch is (pytest.raises would keep its frames)."""
    try:
        for _ in batches:
            pass
    except DataError as error:
        return str(error)
    raise AssertionError("nothing was refused")


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_one_line_that_names_it(files: list[str], tmp_path: Path, workers: int) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(files[0]).read_bytes()[:300])
    whole = [*files[: COUNT // 2], str(broken), *files[COUNT // 2 + 1 :]]
    line = refusal(prefetched(split(whole), requests(), CPU, workers=workers))
    assert line.startswith(f"{broken}: cannot be read as an image (") and "\n" not in line


@pytest.mark.usefixtures("clean")
def test_a_killed_worker_is_one_line(files: list[str]) -> None:
    def endless() -> Iterator[Request]:
        while True:
            yield from requests()

    with closing(prefetched(split(files), endless(), CPU, workers=1)) as batches:
        next(batches)
        (worker,) = workers_of(os.getpid())
        os.kill(worker, signal.SIGKILL)
        line = refusal(batches)
    assert line.startswith("data.workers: a worker was killed") and "\n" not in line


@pytest.mark.usefixtures("clean")
def test_workers_leave_signals_to_the_parent(files: list[str]) -> None:
    def endless() -> Iterator[Request]:
        while True:
            yield from requests()

    with closing(prefetched(split(files), endless(), CPU, workers=2)) as batches:
        next(batches)
        # The second worker may still be starting
        assert eventually(lambda: all(map(ignores_signals, workers_of(os.getpid()))), 30)
        for worker in workers_of(os.getpid()):
            os.kill(worker, signal.SIGINT)
            os.kill(worker, signal.SIGTERM)
        for _ in range(20):
            next(batches)


ORPHANS = """
import sys, time
sys.path.insert(0, {tests!r})
from test_loading import *
if __name__ == "__main__":
    batches = prefetched(split(sys.argv[1:]), requests(), CPU, workers=2)
    next(batches)
    print(*workers_of(os.getpid()), flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.ci_slice
def test_workers_end_when_their_parent_is_killed(files: list[str], tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(ORPHANS.format(tests=str(Path(__file__).parent)))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    before = memory()
    with subprocess.Popen(
        [sys.executable, str(script), *files], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        workers = parent.stdout.readline().split()
        assert len(workers) == 2
        parent.kill()
    assert eventually(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 20)
    assert eventually(lambda: memory() <= before, 30)  # the tracker of shared things takes away what is left


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_on_cuda_the_batches_are_the_same_while_the_device_is_busy(files: list[str], workers: int) -> None:
    device = torch.device("cuda")
    busy = torch.rand(2000, 2000, device=device)
    sums = []
    for images in prefetched(split(files), requests(), device, workers=workers):
        busy = busy @ busy / 2000
        sums.append(images.sum(dtype=torch.int64))
        del images
    wanted = [split(files).fetch(*request).sum(dtype=torch.int64) for request in requests()]
    assert torch.stack(sums).tolist() == torch.stack(wanted).tolist()
