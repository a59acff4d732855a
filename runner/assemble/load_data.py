"""Read a data set, find the fingerprint that identifies it, and map its labels to the classes that a model knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, get_args

import torch

from runner.assemble.data import check_labels
from runner.assemble.folds import fingerprint_of_fold, with_fold
from runner.batch_sizes import with_whole_step
from runner.engine.contracts import Data, InMemory, Split
from runner.engine.count_equal import count_equal
from runner.engine.data_digest import data_parts, split_counts
from runner.engine.data_summary import Found
from runner.engine.equal_examples import EqualExamples
from runner.engine.fingerprint import Fingerprint, Part, identity_of, named
from runner.errors import DataError
from runner.identity import data_state, recall, remember
from runner.registry import Config, apply, build, find, knobs


@dataclass(frozen=True)
class Loaded:
    """A data set, ready to be read, and what identifies it."""

    data: Data
    fingerprint: Fingerprint

    @cached_property
    def equal_examples(self) -> EqualExamples | None:
        """The validation examples that are in the training split, too; None if the splits are not in memory."""
        return count_equal(self.data.train, self.data.val)


# Data sets that this process keeps in memory for all its runs, by their config.
_preloaded: dict[str, Loaded] = {}


def load(config: Config) -> Loaded:
    """Return the data set that a config's `data` describes, with its fingerprint.

    Raises DataError if it is missing or broken, has an empty split, or a label outside its classes.
    """
    found = preloaded(config) or _load(config)
    data = with_fold(found.data, config)
    return found if data is found.data else Loaded(data, fingerprint_of_fold(found.fingerprint, config, data))


def preloaded(config: Config) -> Loaded | None:
    """Return the data set of a config if this process keeps it in memory, else None."""
    return _preloaded.get(repr(with_whole_step(config)["data"]))


def preload(config: Config) -> None:
    """Read a data set once for all runs in this process, if it is stored in memory."""
    placement = knobs(find("data", config["data"]["name"])).get("placement")
    if InMemory in (placement, *get_args(placement)[:1]):
        _preloaded[repr(with_whole_step(config)["data"])] = _load(config)


def _load(config: Config) -> Loaded:
    """Read a data set, and find its fingerprint: the one that was kept for the state of its files, or a new one."""
    state = data_state(config)
    data = build("data", with_whole_step(config)["data"])
    check_labels(data)
    # Without files, what identifies the data takes no time to find
    known = recall(state) if state and state.has_files else None
    if known is None or known.classes != data.classes:
        parts = _find_parts(config) or data_parts(data)
        known = Fingerprint(parts=parts).described(data.classes, split_counts(data))
        # Files that changed in the meantime may have been read before or after
        if state == data_state(config):
            remember(state, known)
    return Loaded(data, known)


def fingerprint_before_reading(config: Config) -> Fingerprint:
    """Return the fingerprint of the data or the fold of them that a config describes, if possible without decoding.

    Raises DataError if the data are missing.
    """
    return fingerprint_of_fold(_fingerprint_of_all(config), config)


def _fingerprint_of_all(config: Config) -> Fingerprint:
    """Return the fingerprint of the data that a config describes, without decoding anything if the data set can say it.

    Raises DataError if the data are missing.
    """
    state = data_state(config)
    if (known := recall(state)) is not None:
        return known
    try:
        parts = _find_parts(config)
    except DataError:
        # They may have to be downloaded first
        parts = None
    if parts is None:
        return (preloaded(config) or _load(config)).fingerprint
    found = Fingerprint(parts=parts)
    if state == data_state(config):
        remember(state, found)
    return found


def _find_parts(config: Config) -> Mapping[str, Part] | None:
    """Return what identifies each split, by the function of the data set itself; None if it has none."""
    identity = identity_of(find("data", config["data"]["name"]))
    return None if identity is None else apply(identity, "data", config["data"])


def with_classes_of(loaded: Loaded, classes: Sequence[str]) -> Loaded:
    """Return the data with the labels of a model that knows these classes, mapped by name.

    Raises DataError for a class that the model does not know.
    """
    data = loaded.data
    if tuple(classes) == data.classes:
        return loaded
    if unknown := set(data.classes) - set(classes):
        raise DataError(f"data: the model does not know the classes {named(unknown)} (it knows {named(classes)})")
    places = [list(classes).index(name) for name in data.classes]
    table = torch.tensor(places)
    opened = data.test
    mapped = replace(
        data,
        train=_relabelled(data.train, table),
        val=_relabelled(data.val, table),
        test=None if opened is None else lambda: _relabelled(opened(), table),
        classes=tuple(classes),
        found=None if data.found is None else _in_order_of(data.found, data.classes, classes),
    )
    return Loaded(mapped, loaded.fingerprint.in_order_of(classes))


def _in_order_of(found: Found, own: Sequence[str], classes: Sequence[str]) -> Found:
    """Return the examples per class in another order of the classes."""

    def turned(counts: Sequence[int]) -> list[int]:
        known = dict(zip(own, counts, strict=True))
        return [known.get(name, 0) for name in classes]

    counts = {split: None if each is None else turned(each) for split, each in found.counts.items()}
    return replace(found, total=turned(found.total), counts=counts)


def _relabelled(split: Split, table: torch.Tensor) -> Split:
    """Return a split with other labels."""
    labels = table[split.labels]
    if is_dataclass(split) and not isinstance(split, type) and "labels" in {each.name for each in fields(split)}:
        return replace(split, labels=labels)
    return _Relabelled(split, labels)


class _Relabelled:
    """A split of a user's own kind with other labels."""

    def __init__(self, split: Split, labels: torch.Tensor) -> None:
        self.split, self.labels = split, labels

    def fetch(self, index: torch.Tensor, *more: Any) -> torch.Tensor:
        """Return the images (B, C, H, W) of the examples at `index` (B,)."""
        return self.split.fetch(index, *more)

    def __getattr__(self, name: str) -> Any:
        """Return anything else that the split has."""
        # An object that is being unpickled has no split yet
        if name == "split" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.split, name)
