"""When checkpoints are saved: at given steps, by the clock, or never; and the best weights until the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Protocol

from runner.durations import is_date
from runner.engine.saving.held_weights import HeldWeights
from runner.engine.state_dict import StateDict
from runner.engine.world import ALONE, World

# The share of a run's time that its checkpoints may take
_SHARE = 0.02
# Seconds without a checkpoint after which one is saved, however long that takes
_LONGEST = 60.0
# Seconds that the first checkpoint is expected to take, so that runs of a second save one at their end only
_EXPECTED = 0.02


class Cadence(Protocol):
    """Decides after which steps a checkpoint is saved.

    Attributes:
        saves_best: True if each new best validation is saved immediately; False if its weights wait in memory.
        held: The best weights, as long as they are in memory only.
    """

    saves_best: bool
    held: HeldWeights

    def due(self, step: int) -> bool:
        """Return True if a checkpoint is due after `step`; all processes and a resumed run agree on it."""
        ...

    def overdue(self, step: int) -> bool:
        """Return True if a checkpoint is due after `step` by the clock of this process."""
        ...

    def hold(self, weights: StateDict, step: int) -> None:
        """Copy the best weights to memory, if `saves_best` is False; they are part of the next checkpoint."""
        ...

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Measure the body, which saves a checkpoint of `step`; then nothing is held any more."""
        ...


class Every:
    """A checkpoint at each of the dates round(k * interval), after the last step, and of each new best validation.

    Args:
        interval: The steps between checkpoints.
        last: The last step of the run.
    """

    saves_best = True

    def __init__(self, interval: int | Fraction, last: int) -> None:
        self.interval, self.last, self.held = interval, last, HeldWeights()

    def due(self, step: int) -> bool:
        """Return True at the dates and after the last step."""
        return is_date(step, self.interval) or step == self.last

    def overdue(self, step: int) -> bool:
        """Return False."""
        return False

    def hold(self, weights: StateDict, step: int) -> None:
        """Do nothing."""

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Measure nothing; after the body nothing is held any more."""
        yield
        self.held.clear()


class Never(Every):
    """No checkpoint but that of a new best validation: for trainings without a folder."""

    def __init__(self) -> None:
        super().__init__(interval=1, last=0)

    def due(self, step: int) -> bool:
        """Return False."""
        return False


class Automatic:
    """A checkpoint after an epoch if that takes at most 2 % of the run's time, after 60 s, and after the last step.

    The best weights wait in memory for the next checkpoint. The clock is the main process's, and the run may not depend
    on it otherwise.

    Args:
        steps_per_epoch: The steps of an epoch.
        last: The last step of the run.
        world: The processes that train together.
        clock: Returns the time in seconds.
    """

    saves_best = False

    def __init__(
        self, steps_per_epoch: int, last: int, world: World = ALONE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.last, self.held = last, HeldWeights()
        self._per_epoch, self._decides, self._clock = steps_per_epoch, world.is_main, clock
        self._saved_step = 0
        self._began = self._saved = clock()
        # Seconds of all checkpoints so far, and of the next one if it takes as long as the last
        self._spent, self._expected = 0.0, _EXPECTED

    def due(self, step: int) -> bool:
        """Return True after the last step."""
        return step == self.last

    def overdue(self, step: int) -> bool:
        """Return True in the main process if a checkpoint is affordable after an epoch, or the last one is too old."""
        if not self._decides or step == self._saved_step:
            return False
        now = self._clock()
        if now - self._saved >= _LONGEST:
            return True
        affordable = self._spent + self._expected <= _SHARE * (now - self._began)
        return affordable and step % self._per_epoch == 0

    def hold(self, weights: StateDict, step: int) -> None:
        """Copy the best weights to the host's memory."""
        self.held.copy(weights, step)

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Measure the body; then nothing is held any more."""
        began = self._clock()
        yield
        self._saved, self._saved_step = self._clock(), step
        self._expected = self._saved - began
        self._spent += self._expected
        self.held.clear()
