"""Roles of config keys: each key's annotation says once whether it changes the experiment; imports no torch.

    workers: Annotated[NonNegativeInt | None, Role.EXECUTION]

A key without a role changes the experiment. Hashes, groups of seeds, hyperparameters, comparability, what may change on
resume, `~` and the reference page all follow from these marks (`runner.keys`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple


class ByValue:
    """Base of the objects in annotations: equal to another of the same class with equal fields.

    They are no dataclasses, because each command line defines them all, and a frozen dataclass takes 0.5 ms.
    """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class Role(StrEnum):
    """The effect of changing a key."""

    EXPERIMENT = "experiment"  # the numbers: another configuration
    EXECUTION = "execution"  # how the same numbers are computed: device, workers, memory format, compiling
    OBSERVATION = "observation"  # what is recorded of the run, and what it is called
    SEED = "seed"  # the random numbers: another repeat of the same configuration
    PATH = "path"  # where files are


class Aspect(StrEnum):
    """Why runs may be hard to compare when the key differs between them."""

    BUDGET = "budget"  # how long a run trains
    SELECTION = "selection"  # which validation is called the best
    CADENCE = "cadence"  # at which steps a run validates
    TRAINING = "training"  # how training examples are read; the scored examples stay the same
    EXAMPLES = "examples"  # which examples are scored, although the key is a path


class FilePath(ByValue):
    """Marks a path: a leading `~` is the home folder, and the command line takes the text as typed.

    With `expand=False` the config keeps the `~`, so that it is the same on every machine, and the user of the path
    expands it. `lists` allows a list in brackets. `prefetch` is a pattern below the path: files that a run will read.
    """

    def __init__(self, *, expand: bool = True, lists: bool = False, prefetch: str | None = None) -> None:
        self.expand, self.lists, self.prefetch = expand, lists, prefetch


class Verbatim(ByValue):
    """Marks a text that the command line takes as typed, commas and brackets included; `lists` as for `FilePath`."""

    def __init__(self, *, lists: bool = False) -> None:
        self.lists = lists


class Unnamed(ByValue):
    """Marks a key that folder names leave out; paths are left out anyway."""


class Unswept(ByValue):
    """Marks a key that is the same for all trials of a sweep."""


class ReadBy(ByValue):
    """Marks a setting that only one task reads."""

    def __init__(self, task: str) -> None:
        self.task = task


Mark = Role | Aspect | FilePath | Verbatim | Unnamed | Unswept | ReadBy


class Marks(NamedTuple):
    """All marks of one key."""

    role: Role = Role.EXPERIMENT
    aspects: frozenset[Aspect] = frozenset()
    path: FilePath | None = None
    verbatim: Verbatim | None = None
    unnamed: bool = False
    unswept: bool = False
    reader: str | None = None

    def typed(self, text: str) -> bool:
        """Return True if the command line takes this text as typed; a list in brackets is read where one is allowed."""
        mark = self.path or self.verbatim
        return mark is not None and not (mark.lists and text.startswith("[") and text.endswith("]"))


NO_MARKS = Marks()


def marks_in(annotation: Any) -> Marks:
    """Return the marks of an annotated type."""
    return marks_of([rule for rule in getattr(annotation, "__metadata__", ()) if isinstance(rule, Mark)])


def marks_of(found: Sequence[Mark]) -> Marks:
    """Return the marks of a list as one record. Of several roles the last counts: the one beside the knob itself."""
    if not found:
        return NO_MARKS
    kinds = {type(mark): mark for mark in found}
    path, verbatim, reader = kinds.get(FilePath), kinds.get(Verbatim), kinds.get(ReadBy)
    return Marks(
        role=next((mark for mark in reversed(found) if isinstance(mark, Role)), Role.EXPERIMENT),
        aspects=frozenset(mark for mark in found if isinstance(mark, Aspect)),
        path=path if isinstance(path, FilePath) else None,
        verbatim=verbatim if isinstance(verbatim, Verbatim) else None,
        unnamed=Unnamed in kinds,
        unswept=Unswept in kinds,
        reader=reader.task if isinstance(reader, ReadBy) else None,
    )
