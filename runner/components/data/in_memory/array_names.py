"""Choice of the arrays that are examples and labels of each split: by the usual names, or as the config says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runner.errors import MOST_CHOICES, ConfigError, DataError, unknown

# An array for all examples, or one for each split
_Named = str | Mapping[str, str | None] | None
# The split of arrays that are not split
ALL = "all"
SPLITS = ("train", "val", "test")
_INPUTS = ("x", "image", "images", "img", "imgs", "data", "features", "input", "inputs", "pixels")
_LABELS = ("y", "label", "labels", "target", "targets")
# The usual words for each split, in lower case
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_ROLE = "|".join(sorted((*_INPUTS, *_LABELS), key=len, reverse=True))
_SPLIT = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_PATTERNS = (
    re.compile(rf"(?P<role>{_ROLE})(?:[_. -]?(?P<split>{_SPLIT}))?"),
    re.compile(rf"(?P<split>{_SPLIT})[_. -]?(?P<role>{_ROLE})"),
)


@dataclass(frozen=True)
class Chosen:
    """The names of examples and labels by split: `all`, or `train` with `val` and `test` if they exist; and notes."""

    inputs: Mapping[str, str]
    labels: Mapping[str, str]
    notes: tuple[str, ...]


def choose_arrays(names: Iterable[str], inputs: _Named, labels: _Named, where: str, listing: str) -> Chosen:
    """Return which arrays a data set uses.

    A validation or test split without labels is not used, and a note says so, as about arrays without a use.

    Args:
        names: The arrays of the file.
        inputs: The arrays of examples that the config names, None to choose by the usual names.
        labels: The same for labels.
        where: The file, for messages.
        listing: The arrays in words, for messages.

    Raises:
        ConfigError: The config names an unknown array, or not the same splits for both.
        DataError: The usual names are missing or ambiguous.
    """
    names = list(names)
    found_inputs, found_labels = (
        _by_name(names, words, key, where, listing) if given is None else _as_given(names, given, key)
        for given, words, key in ((inputs, _INPUTS, "inputs"), (labels, _LABELS, "labels"))
    )
    main = ALL if ALL in found_inputs else "train"
    if main not in found_labels:
        raise DataError(
            f"{where}: no labels for array '{found_inputs[main]}'; name them in data.labels (found {listing})"
        )
    used = [split for split in (main, *SPLITS[1:]) if split in found_inputs and split in found_labels]
    chosen_inputs = {split: found_inputs[split] for split in used}
    chosen_labels = {split: found_labels[split] for split in used}
    rest = [name for name in names if name not in (*chosen_inputs.values(), *chosen_labels.values())]
    more = f", ... {len(rest) - MOST_CHOICES} more" if len(rest) > MOST_CHOICES else ""
    notes = (f"data: arrays that are not used: {', '.join(rest[:MOST_CHOICES])}{more}",) if rest else ()
    return Chosen(chosen_inputs, chosen_labels, notes)


def _as_given(names: list[str], given: str | Mapping[str, str | None], key: str) -> dict[str, str]:
    """Return the arrays that the config names, by split."""
    chosen = {ALL: given} if isinstance(given, str) else {split: name for split, name in given.items() if name}
    for split, name in chosen.items():
        if name not in names:
            raise unknown(f"data.{key}" if split == ALL else f"data.{key}.{split}", "array", name, names)
    return chosen


def _by_name(names: list[str], words: tuple[str, ...], key: str, where: str, listing: str) -> dict[str, str]:
    """Return the arrays with one of the usual names, by split."""
    found: dict[str, str] = {}
    for name in names:
        match = next(filter(None, (pattern.fullmatch(name.lower()) for pattern in _PATTERNS)), None)
        if match is None or match["role"] not in words:
            continue
        split = SPLIT_WORDS[match["split"]] if match["split"] else ALL
        if split in found:
            raise DataError(
                f"{where}: '{found[split]}' and '{name}' may both be {key}; name one in data.{key} (found {listing})"
            )
        found[split] = name
    if not found.keys() & {ALL, "train"}:
        usual = "x and y, images and labels, or x_train, y_train, x_test and y_test"
        raise DataError(f"{where}: no {key} by the usual names ({usual}); name them in data.{key} (found {listing})")
    if ALL in found and "train" in found:
        raise DataError(
            f"{where}: '{found[ALL]}' and '{found['train']}' may both be {key}; name one in data.{key} (found "
            f"{listing})"
        )
    return found


def check_splits(inputs: _Named, labels: _Named) -> None:
    """Raise ConfigError if the config names examples by split and labels not, or the other way round."""
    if None in (inputs, labels) or isinstance(inputs, str) == isinstance(labels, str):
        return
    whole, parted = ("inputs", "labels") if isinstance(inputs, str) else ("labels", "inputs")
    raise ConfigError(f"data.{whole}: got one array, must be {{train: ...}} with splits, as data.{parted} is")
