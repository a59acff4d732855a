"""Files that are read ahead are soon in memory; paths that are not files do no harm."""

from __future__ import annotations

import ctypes
import mmap
import os
import time

import pytest

from runner.engine import read_ahead as module
from runner.engine.read_ahead import read_ahead

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no advice")
PAGE = mmap.PAGESIZE
SIZE = 12 << 20  # more than Linux reads ahead of one file by itself


def resident(path) -> float:
    """Return the share of a file's pages that lie in memory, without reading any (mincore(2))."""
    with path.open("rb+") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        pages, start = (ctypes.c_ubyte * (SIZE // PAGE))(), ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(SIZE), pages)
        del start  # or the map could not be closed
    assert not failed
    return sum(page & 1 for page in pages) / len(pages)


@pytest.fixture
def cold(tmp_path):
    """Return a file of which nothing is in memory."""
    path = tmp_path / "cold"
    path.write_bytes(os.urandom(SIZE))
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    if resident(path) > 0.01:
        pytest.skip("this file system keeps what it is told to forget")
    return path


def soon_in_memory(path) -> bool:
    deadline = time.monotonic() + 30
    while resident(path) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    return resident(path) == 1


def test_all_of_a_file_is_soon_in_memory(cold):
    read_ahead([cold])
    assert soon_in_memory(cold)


def test_what_is_no_file_is_passed_over_and_what_follows_it_is_read(cold, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    read_ahead([tmp_path / "pipe", tmp_path, tmp_path / "missing", "nul\0byte", tmp_path / "secret", cold])
    assert soon_in_memory(cold)


def test_a_system_that_takes_no_advice_is_left_alone(cold, monkeypatch):
    monkeypatch.setattr(module, "_advise", None)
    read_ahead([cold])
    time.sleep(0.2)
    assert resident(cold) < 0.01
