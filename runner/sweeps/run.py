"""A sweep whose trials are known: all of them run, watched and told of."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from types import FrameType

from runner.sweeps.knobs import Knobs
from runner.sweeps.outcome import Ended
from runner.sweeps.pool import PAUSE, Pool
from runner.sweeps.screen import Screen
from runner.tasks.job import Job

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(jobs: Sequence[Job], knobs: Knobs, screen: Screen) -> tuple[list[Ended], int]:
    """Run jobs; return how each ended that did, in the given order, and the exit code if a signal ended the sweep.

    The first signal lets the trials save themselves, a second one ends them at once.
    """
    ended: list[Ended] = []
    with Pool(knobs, like=jobs[0]) as pool, told_to_stop() as told, closing(screen):
        for job in jobs:
            pool.submit(job)
        while not pool.idle() and len(told) < 2:
            if one := pool.next_done(PAUSE):
                ended.append(one)
                screen.over(one)
            screen.look(pool)
            if told:
                pool.stop_all()
    return sorted(ended, key=lambda each: each.number), 128 + told[0] if told else 0


@contextmanager
def told_to_stop() -> Iterator[list[int]]:
    """Give a list that the signals which ask for an end are put in, for as long as the body runs."""
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
