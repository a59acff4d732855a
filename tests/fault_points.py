"""Points of a run at which tests kill it: in a step, in a write, before a rename.

`install(Fault("log.write", 2, 0.5))` prepares this process: the second write to a log makes half of its bytes, then
SIGKILL ends the process. A command does the same with tests/at_start on its path and FAULT_POINT="log.write:2:0.5".
The product knows nothing of it: its config, its environment and its files stay those of any other run.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from runner.engine.logs.event_file import FILE_NAME
from runner.engine.logs.sinks import METRICS
from runner.engine.recipe import Recipe
from runner.engine.saving import storage
from runner.engine.saving.disk import Disk
from runner.engine.saving.folder import RESULT
from runner.engine.saving.manifest import FOLDER

STEP = ("step.forward", "step.backward", "step.optimizer", "evaluate")
LOG = ("log.write", "log.flush")
CHECKPOINT = ("checkpoint.serialize", "checkpoint.write", "checkpoint.fsync", "checkpoint.rename")
POINTS = (*STEP, *LOG, *CHECKPOINT, "status.write")


@dataclass
class Fault:
    """Die when `point` is reached for the `number`-th time; `share` of a write is made before that."""

    point: str
    number: int
    share: float = 0.0
    reached: int = 0

    def due(self, point: str) -> bool:
        """Count a point that is reached; true if the process must die there."""
        self.reached += point == self.point
        return point == self.point and self.reached == self.number

    def at(self, point: str) -> None:
        """Die if it is due."""
        if self.due(point):
            die()


def install(fault: Fault) -> None:
    """Make the next training in this process die at a point of its steps or of its disk operations."""
    from runner.tasks import train as task

    assemble = task.assemble

    def assemble_with_points(*arguments: Any, **options: Any) -> Any:
        experiment = assemble(*arguments, **options)
        storage.disk = FaultyDisk(fault)  # from here on: assembly writes caches, which are no part of the run
        return replace(experiment, recipe=with_points(experiment.recipe, fault))

    task.assemble = assemble_with_points


def with_points(recipe: Recipe, fault: Fault) -> Recipe:
    """Return a recipe whose steps and evaluations reach their points."""
    return replace(
        recipe,
        forward=after(fault, "step.forward", recipe.forward),
        clip=after(fault, "step.backward", recipe.clip),  # called between the gradients and the optimizer
        constraints=[lambda _: fault.at("step.optimizer"), *recipe.constraints],
        predict=after(fault, "evaluate", recipe.predict),
    )


def parse(text: str) -> Fault:
    """Return the fault of `<point>:<n>[:<share>]`."""
    point, number, *share = text.split(":")
    if point not in POINTS:
        raise ValueError(f"{point} is none of {', '.join(POINTS)}")
    return Fault(point, int(number), *map(float, share))


def after(fault: Fault, point: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that reaches a point at its end."""

    def reaching(*arguments: Any) -> Any:
        answer = call(*arguments)
        fault.at(point)
        return answer

    return reaching


def die() -> NoReturn:
    """End this process, as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived SIGKILL")


class FaultyDisk(Disk):
    """A disk on which the process dies at a point; the path of the file says which point an operation is."""

    def __init__(self, fault: Fault) -> None:
        self._fault, self._paths = fault, dict[int, Path]()

    def create(self, path: Path) -> int:
        """Die before a file of a checkpoint is there."""
        if path.parent.name == FOLDER:
            self._fault.at("checkpoint.serialize")
        return self._remember(super().create(path), path)

    def open(self, path: Path) -> int:
        """Remember the path of an open file."""
        return self._remember(super().open(path), path)

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

    def _remember(self, file: int, path: Path) -> int:
        self._paths[file] = path
        return file

    def _kind(self, file: int) -> str:
        path = self._paths[file]
        return "log" if path.name == METRICS or FILE_NAME.fullmatch(path.name) else path.parent.name
