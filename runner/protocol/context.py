"""The input of a step of the protocol: the config, what earlier steps found, and trainings within a budget."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from runner.assemble.load_data import Loaded
from runner.errors import ConfigError
from runner.printing import counted
from runner.protocol.outcome import StepResult

Config = dict[str, Any]
# (config, overrides) -> a checked config: `vary` of a task
_MakeVariant = Callable[[Config, Sequence[str] | Mapping[str, Any]], Config]
# (configs, folder) -> results of ordinary runs: `launch` of a task
_RunAll = Callable[[Sequence[Config], Path], Sequence[Any]]

_TRAININGS = re.compile(r"(\d+) ?trainings?")
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
# A budget is kept within this factor
_TOLERANCE = 1.1


@dataclass
class Budget:
    """The trainings and the seconds that all steps may take, and what they have taken.

    Attributes:
        trainings: The most trainings; infinite without a limit.
        seconds: The most seconds; infinite without a limit.
        used: The trainings so far.
        spent: The seconds of earlier steps and processes.
        began: When the present step began, on the clock of `now`.
        now: The clock in seconds.
    """

    trainings: float = math.inf
    seconds: float = math.inf
    used: int = 0
    spent: float = 0.0
    now: Callable[[], float] = time.monotonic
    began: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.began = self.now()

    @property
    def elapsed(self) -> float:
        """Return the seconds so far."""
        return self.spent + self.now() - self.began

    @property
    def left(self) -> float:
        """Return the trainings that are left."""
        return self.trainings - self.used

    def refusal(self, trainings: int, seconds: float = 0.0) -> str | None:
        """Return why so many trainings, of so many seconds together, do not fit; None if they do."""
        if trainings > self.left:
            return f"needs {counted(trainings, 'training')}, of which the budget has {max(0, int(self.left))} left"
        if self.elapsed + seconds > self.seconds * _TOLERANCE:
            left = max(0.0, self.seconds - self.elapsed)
            return f"needs about {seconds:.0f} s, of which the budget has {left:.0f} s left"
        return None


def parse_budget(text: str | None) -> Budget:
    """Return the budget of `30 trainings`, `90s`, `10min` or `2h`; None is no limit."""
    if text is None:
        return Budget()
    word = text.strip()
    if (found := _TRAININGS.fullmatch(word)) and int(found[1]) > 0:
        return Budget(trainings=int(found[1]))
    if (found := _TIME.fullmatch(word)) and float(found[1]) > 0:
        return Budget(seconds=float(found[1]) * _SECONDS[found[2]])
    raise ConfigError(
        f"task.budget: got '{text}'; expected a number of trainings or a time, as in '30 trainings', '10min'"
    )


@dataclass(frozen=True)
class Context:
    """The input of a step.

    Attributes:
        config: The checked config, with the handoff of earlier steps.
        vary: Makes a checked variant of a config.
        launch: Runs variants as ordinary runs on all cores.
        folder: The folder of the trainings of this step.
        loaded: The data; the test split is closed.
        facts: What earlier steps found.
        budget: What all steps may take.
        pinned: Keys that the user gave on the command line: no step changes them.
    """

    config: Config
    vary: _MakeVariant
    launch: _RunAll
    folder: Path
    loaded: Loaded
    facts: Mapping[str, Any]
    budget: Budget
    pinned: frozenset[str] = frozenset()

    def train(self, variants: Sequence[Config]) -> list[Any]:
        """Run variants in the folder, count them, and return their results in order."""
        different = {repr(sorted(each.items())) for each in variants}
        self.budget.used += len(different)
        return list(self.launch(variants, self.folder))


class Step(Protocol):
    """A step of the protocol."""

    @property
    def number(self) -> int:
        """Return its place in the order of all steps."""
        ...

    @property
    def name(self) -> str:
        """Return its name, which is also that of the task that runs it alone."""
        ...

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on but code, data and earlier steps, as JSON values."""
        ...

    def needs(self, context: Context) -> tuple[int, float]:
        """Return the trainings that the step needs at least, and the seconds that they take, 0 if unknown."""
        ...

    def run(self, context: Context) -> StepResult:
        """Return the result of the step; the status of a step that could not be done is `skip`."""
        ...


def without_test(loaded: Loaded) -> Loaded:
    """Return data whose test split cannot be opened: no step reads it."""
    return Loaded(replace(loaded.data, test=None), loaded.fingerprint)
