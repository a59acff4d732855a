"""Roles of config keys: each key's annotation says once whether it changes the experiment; imports no torch.

    workers: Annotated[NonNegativeInt | None, Role.EXECUTION]

A key without a role changes the experiment. So does a field of the mappings in a knob's value (`Fields`). Hashes,
groups of seeds, hyperparameters, comparability, what may change on resume, `~` and the reference page all follow from
these marks (`runner.keys`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, get_args, get_origin

from runner.relations import ByValue, Fields


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
    expands it. `lists` allows a list in brackets. With `sweeps`, commas separate values to try. `prefetch` is a pattern
    below the path: files that a run will read. `reads` is a pattern of all files whose state says whether a data set is
    still the same, None for a path that it only writes to.
    """

    def __init__(
        self,
        *,
        expand: bool = True,
        lists: bool = False,
        sweeps: bool = False,
        prefetch: str | None = None,
        reads: str | None = "**",
    ) -> None:
        self.expand, self.lists, self.sweeps, self.prefetch, self.reads = expand, lists, sweeps, prefetch, reads


class Verbatim(ByValue):
    """Marks a text that the command line takes as typed, commas and brackets included; `lists` as for `FilePath`."""

    def __init__(self, *, lists: bool = False) -> None:
        self.lists = lists


class Unnamed(ByValue):
    """Marks a key that folder names leave out; paths are left out anyway."""


class Unswept(ByValue):
    """Marks a key that is the same for all trials of a sweep."""


class ReadBy(ByValue):
    """Marks a setting that only some tasks read."""

    def __init__(self, *tasks: str) -> None:
        self.tasks = tasks


Mark = Role | Aspect | FilePath | Verbatim | Unnamed | Unswept | ReadBy


class Marks(NamedTuple):
    """All marks of one key."""

    role: Role = Role.EXPERIMENT
    aspects: frozenset[Aspect] = frozenset()
    path: FilePath | None = None
    verbatim: Verbatim | None = None
    unnamed: bool = False
    unswept: bool = False
    readers: tuple[str, ...] = ()  # the only tasks that read it; none: all do
    fields: tuple[tuple[str, Role], ...] = ()  # fields of the knob's entries that do not change the experiment

    def typed(self, text: str) -> bool:
        """Return True if the command line takes this text as typed; a list in brackets is read where one is allowed."""
        mark = self.path or self.verbatim
        return mark is not None and not (mark.lists and text.startswith("[") and text.endswith("]"))

    def experiment(self, value: Any) -> Any:
        """Return the part of a knob's value that changes the numbers: its entries without the fields that do not."""
        without = dict(self.fields)
        if without and isinstance(value, (list, tuple)):
            return [self.experiment(entry) for entry in value]
        if without and isinstance(value, Mapping):
            return {name: item for name, item in value.items() if name not in without}
        return value


NO_MARKS = Marks()


def marks_in(annotation: Any) -> Marks:
    """Return the marks of an annotated type."""
    return marks_of(list(_rules_in(annotation)))


def _rules_in(annotation: Any) -> Iterator[Mark | Fields]:
    """Yield the marks of a type, and the fields of its entries."""
    yield from (rule for rule in getattr(annotation, "__metadata__", ()) if isinstance(rule, Mark | Fields))
    if get_origin(annotation) is list:
        yield from (rule for rule in _rules_in(get_args(annotation)[0]) if isinstance(rule, Fields))


def marks_of(found: Sequence[Mark | Fields]) -> Marks:
    """Return the marks of a list as one record. Of several roles the last counts: the one beside the knob itself."""
    if not found:
        return NO_MARKS
    kinds = {type(mark): mark for mark in found}
    path, verbatim, read_by = kinds.get(FilePath), kinds.get(Verbatim), kinds.get(ReadBy)
    return Marks(
        role=next((mark for mark in reversed(found) if isinstance(mark, Role)), Role.EXPERIMENT),
        aspects=frozenset(mark for mark in found if isinstance(mark, Aspect)),
        path=path if isinstance(path, FilePath) else None,
        verbatim=verbatim if isinstance(verbatim, Verbatim) else None,
        unnamed=Unnamed in kinds,
        unswept=Unswept in kinds,
        readers=read_by.tasks if isinstance(read_by, ReadBy) else (),
        fields=tuple(
            (name, role)
            for rule in found
            if isinstance(rule, Fields)
            for name, kind in rule.types
            if (role := marks_in(kind).role) is not Role.EXPERIMENT
        ),
    )
