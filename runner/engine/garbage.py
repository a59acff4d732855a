"""When Python searches for garbage: not while a process imports, always while it works."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Pause the garbage collector for a process that imports, answers and ends.

    Almost all objects that imports make live to the end. Searching them again and again, and once more at the exit,
    takes a quarter of a short run. `collecting` turns the collector on for the work that makes garbage.
    """
    gc.disable()
    try:
        yield
    finally:
        # triton's bindings complain at the exit about objects that were not collected
        if "triton" not in sys.modules:
            gc.freeze()


@contextmanager
def collecting() -> Iterator[None]:
    """Collect garbage while the body runs; objects that exist before it are not searched where it was paused."""
    was_paused = not gc.isenabled()
    if was_paused:
        gc.freeze()
        gc.enable()
    try:
        yield
    finally:
        if was_paused:
            gc.disable()
