"""The decoration of a run folder, made after the result is written: pictures and TensorBoard pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runner.decoration import decorative
from runner.engine.figures.picture import Picture, draw_all, save_all
from runner.engine.logs.event_file import append_values


@dataclass
class Afterwards:
    """The decoration of a run folder, planned while the task runs.

    Attributes:
        saved: The names of the files that could be written.
        planned: What is still to do: what is missing if it fails, and the action.
    """

    saved: list[str] = field(default_factory=list)
    planned: list[tuple[str, Callable[[Path], None]]] = field(default_factory=list)

    def add(self, what: str, action: Callable[[Path], None]) -> None:
        """Plan an action on the run folder; `what` is missing if it fails, as in `TensorBoard pages: not written`."""
        self.planned.append((what, action))

    def save(self, name: str, action: Callable[[Path], None]) -> None:
        """Plan an action on the run folder that writes the file `name` there."""

        def save(folder: Path) -> None:
            action(folder)
            self.saved.append(name)

        self.add(f"{name}: not written", save)

    def draw(self, name: str, picture: Picture, *, tag: str, step: int = 0) -> None:
        """Plan a picture: its file in the run folder, and its tag and step in TensorBoard."""

        def save(folder: Path) -> None:
            drawn = draw_all({name: picture})
            self.saved += save_all(folder, drawn)
            for content in drawn.values():
                append_values(folder, step, {tag: content})

        self.add(f"figure {name}: not shown in TensorBoard", save)

    def run(self, folder: Path) -> None:
        """Do all that is planned, in order."""
        for what, action in self.planned:
            with decorative(what):
                action(folder)
        self.planned.clear()
