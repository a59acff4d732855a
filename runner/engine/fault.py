"""Where a test may have a run killed: named points, of which nothing is there unless a test asks for one.

With RUNNER_TESTING=1, RUNNER_FAULT="<point>:<n>[:<share>]" kills the process (SIGKILL) when a point is reached for the
n-th time; of a write that share of its bytes is made first. Without it `armed` gives the recipe back as it is, and the
disk stays what it was.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from runner.engine.logs.event_file import FORM
from runner.engine.logs.sinks import METRICS
from runner.engine.recipe import Recipe
from runner.engine.saving import storage
from runner.engine.saving.disk import Disk
from runner.engine.saving.folder import RESULT
from runner.engine.saving.manifest import FOLDER
from runner.errors import ConfigError, unknown

STEP = ("step.forward", "step.backward", "step.optimizer", "evaluate")
LOG = ("log.write", "log.flush")
CHECKPOINT = ("checkpoint.serialize", "checkpoint.write", "checkpoint.fsync", "checkpoint.rename")
POINTS = (*STEP, *LOG, *CHECKPOINT, "status.write")


@dataclass
class Fault:
    """The point at which to die, and how often it was reached."""

    point: str
    number: int
    share: float = 0.0
    reached: int = 0

    def due(self, point: str) -> bool:
        """Count a point that is reached, and tell whether it is the one."""
        self.reached += point == self.point
        return point == self.point and self.reached == self.number

    def at(self, point: str) -> None:
        """Die if it is due."""
        if self.due(point):
            die()


def armed(recipe: Recipe) -> Recipe:
    """Return a recipe that dies where the environment says, and have the disk do so too; else the recipe as it is."""
    if os.environ.get("RUNNER_TESTING") != "1" or "RUNNER_FAULT" not in os.environ:
        return recipe
    fault = asked(os.environ["RUNNER_FAULT"])
    storage.disk = Deadly(fault)
    return replace(
        recipe,
        forward=after(fault, "step.forward", recipe.forward),
        clip=after(fault, "step.backward", recipe.clip),  # which comes between the gradients and the optimizer
        constraints=[lambda _: fault.at("step.optimizer"), *recipe.constraints],
        predict=after(fault, "evaluate", recipe.predict),
    )


def asked(text: str) -> Fault:
    """Return the fault that a text asks for."""
    point, _, rest = text.partition(":")
    number, _, share = rest.partition(":")
    if point not in POINTS:
        raise unknown("RUNNER_FAULT", "point", point, POINTS)
    try:
        return Fault(point, int(number), float(share or 0))
    except ValueError as error:
        raise ConfigError(f"RUNNER_FAULT: got '{text}', must be <point>:<n>[:<share>]") from error


def after(fault: Fault, point: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that reaches a point once it is made."""

    def reaching(*arguments: Any) -> Any:
        answer = call(*arguments)
        fault.at(point)
        return answer

    return reaching


def die() -> NoReturn:
    """End this process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("outlived a SIGKILL")


class Deadly(Disk):
    """A disk on which the process dies at a point; which one an operation is, its path tells."""

    def __init__(self, fault: Fault) -> None:
        self._fault, self._paths = fault, dict[int, Path]()

    def create(self, path: Path) -> int:
        """Die before a file of a checkpoint is there."""
        if path.parent.name == FOLDER:
            self._fault.at("checkpoint.serialize")
        return self._noted(super().create(path), path)

    def open(self, path: Path) -> int:
        """Remember what is open."""
        return self._noted(super().open(path), path)

    def write(self, file: int, data: memoryview) -> int:
        """Die in the middle of a write."""
        point = {"log": "log.write", FOLDER: "checkpoint.write"}.get(self._kind(file))
        if point and self._fault.due(point):
            super().write(file, data[: int(len(data) * self._fault.share)])
            die()
        return super().write(file, data)

    def fsync(self, file: int) -> None:
        """Die before what was written is on the disk."""
        if point := {"log": "log.flush", FOLDER: "checkpoint.fsync"}.get(self._kind(file)):
            self._fault.at(point)
        super().fsync(file)

    def replace(self, old: Path, new: Path) -> None:
        """Die between a write and its rename."""
        if new.parent.name == FOLDER:
            self._fault.at("checkpoint.rename")
        elif new.name == RESULT:
            self._fault.at("status.write")
        super().replace(old, new)

    def _noted(self, file: int, path: Path) -> int:
        self._paths[file] = path
        return file

    def _kind(self, file: int) -> str:
        path = self._paths[file]
        return "log" if path.name == METRICS or FORM.fullmatch(path.name) else path.parent.name
