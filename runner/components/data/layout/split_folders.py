"""Folders of the training, validation and test images: by words in their names, or by `data.splits`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.components.data.layout.folder_listing import Skipped, has_images, list_folder
from runner.components.data.layout.layout_settings import Splits
from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, escaped
from runner.user_paths import is_dir

_SPLITS = ("train", "val", "test")
_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "devel", "development"),
    "test": ("test", "testing", "eval", "evaluation", "evaluate", "holdout"),
}
# Short words that may as well be names of classes: they count if all other folders are splits
_SHORT_WORDS = {"train": ("tr", "trn"), "val": ("va", "vl"), "test": ("te", "ts", "tst")}
# Words beside them that say nothing
_FILLERS = ("dataset", "data", "sets", "set", "split", "folder", "images", "image", "imgs", "img", "photos", "pictures")
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_SHORT_SPLIT_OF = {word: split for split, words in _SHORT_WORDS.items() for word in words}
# The names before other words were known, in the order in which they are looked for
_EXACT = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
# Words of a name in camel case or with separators; a year, as in train2017, is a word
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\W\d_]+")
_YEAR = re.compile(r"(19|20)[0-9]{2}")
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class SplitFolders:
    """The folders of the splits; without split folders (`flat`) the class folders stand in `train`."""

    train: Path
    val: Path | None = None
    test: Path | None = None
    flat: bool = False

    def below(self, folder: Path) -> list[str]:
        """Return the names of the split folders that stand directly in a folder."""
        return [each.name for each in (self.train, self.val, self.test) if each and each.parent == folder]


def find_splits(root: Path, splits: Splits, skipped: Skipped) -> SplitFolders:
    """Return the folders of the splits below `root`.

    Args:
        root: Folder of the data set.
        splits: The folders; `auto` for those whose names say so; `exact` for `train`, `val` (or `valid`, `validation`)
            and `test`; None if all folders are classes.
        skipped: Takes the folders that are left out.

    Raises:
        DataError: Names are ambiguous; the message shows the choices.
        ConfigError: A folder of `splits` is missing, or two are the same.
    """
    if splits is None:
        return SplitFolders(root, flat=True)
    if isinstance(splits, dict):
        return _given(root, splits)
    names, _ = list_folder(root, Skipped())
    if splits == "exact":
        return _exact(root, names, skipped)
    found = splits_by_name(names)
    others = [name for name in names if name not in found]
    if not found:
        return SplitFolders(root, flat=True)
    _check_no_classes(root, found, [name for name in others if has_images(root / name)])
    _check_one_each(root, found)
    skipped.folders.extend(str(root / name) for name in others)
    return _folders_of({split: root / name for name, split in found.items()})


def _folders_of(found: Mapping[str, Path]) -> SplitFolders:
    """Return the folders of the splits by name."""
    return SplitFolders(found["train"], found.get("val"), found.get("test"))


def _given(root: Path, splits: Mapping[str, str]) -> SplitFolders:
    """Return the folders that `data.splits` names."""
    found = {split: root / name for split, name in splits.items()}
    for split, folder in found.items():
        key = f"data.splits.{split}: got {escaped(splits[split])!r}"
        if Path(splits[split]).is_absolute() or ".." in Path(splits[split]).parts:
            raise ConfigError(f"{key}, must be a folder below data.root")
        if not is_dir(folder, error=DataError, key=f"data.splits.{split}"):
            folders = ", ".join(map(escaped, list_folder(root, Skipped())[0][:8])) or "none"
            raise ConfigError(f"{key}, must be a folder below data.root (folders in {printable(root)}: {folders})")
        for other, place in found.items():
            # A split may stand beside the class folders of another, but not inside one of them
            if other != split and (place == folder or (folder in place.parents and place.parent != folder)):
                raise ConfigError(
                    f"{key}, must not hold the images of data.splits.{other} ({escaped(splits[other])!r})"
                )
    return _folders_of(found)


def _exact(root: Path, names: Sequence[str], skipped: Skipped) -> SplitFolders:
    """Return the split folders as they were found before other words than the plain ones were known."""
    if "train" not in names:
        return SplitFolders(root, flat=True)
    found = {name: split for split, words in _EXACT.items() for name in words if name in names}
    _check_one_each(root, found)
    skipped.folders.extend(str(root / name) for name in names if name not in found)
    return _folders_of({split: root / name for name, split in found.items()})


def splits_by_name(names: Sequence[str]) -> dict[str, str]:
    """Return the split of each folder whose name says one."""
    read = {name: split for name in names if (split := _split_in_name(name, _SPLIT_OF))}
    short = {name: split for name in names if (split := _split_in_name(name, _SPLIT_OF | _SHORT_SPLIT_OF))}
    if len(short) == len(names) > 1 and any(split == "train" for _, split in short.values()):
        read = short
    # Words as in seg_train count if another split has the same; freight_train may be a class
    partners = {stem: {split for other, split in read.values() if other == stem} for stem, _ in read.values()}
    return {name: split for name, (stem, split) in read.items() if not stem or {"train"} < partners[stem]}


def split_of_word(word: str) -> str | None:
    """Return the split that a word in a table means, None for another word."""
    stem, split = _split_in_name(word, _SPLIT_OF | _SHORT_SPLIT_OF) or ((), None)
    return None if stem else split


def split_of_path(root: Path, splits: Splits, paths: Iterable[str]) -> Callable[[str], str] | None:
    """Return the function that gives the split of images by the folders in their paths below `root`.

    None if the paths have no training folder beside others: then nothing says which split an image is in.
    Raises DataError for a path in none of the folders that `splits` names.
    """
    if splits is None:
        return None
    if isinstance(splits, dict):
        # The innermost folder counts
        given = sorted(splits.items(), key=lambda each: -len(Path(each[1]).parts))
        prefixes = [(split, "" if Path(name) == Path() else f"{Path(name)}/") for split, name in given]
        for path in paths:
            if not path.startswith(tuple(prefix for _, prefix in prefixes)):
                raise DataError(f"data.splits: {printable(root / path)} is in none of its folders")
        return lambda path: next(split for split, prefix in prefixes if path.startswith(prefix))
    tops = {path.rpartition("/")[0].partition("/")[0] for path in paths}
    found = splits_by_name(sorted(tops))
    if tops != found.keys() or not {"train"} < set(found.values()):
        return None
    _check_one_each(root, found)
    return lambda path: found[path.partition("/")[0]]


def _split_in_name(name: str, split_of: Mapping[str, str]) -> tuple[tuple[str, ...], str] | None:
    """Return the split that a name says and the words that have nothing to do with it; None without exactly one."""
    words = [_without_filler(word.lower(), split_of) for word in _WORD.findall(name)]
    splits = {split_of[word] for word in words if word in split_of}
    stem = tuple(word for word in words if word not in split_of and word not in _FILLERS and not _YEAR.fullmatch(word))
    return (stem, splits.pop()) if len(splits) == 1 else None


def _without_filler(word: str, split_of: Mapping[str, str]) -> str:
    """Return the word of a split without a filler that is joined to it, as in `trainset`; other words as they are."""
    stems = (word.removesuffix(filler) for filler in _FILLERS if word.endswith(filler))
    return next((stem for stem in stems if stem in split_of), word)


def _check_no_classes(root: Path, found: Mapping[str, str], classes: Sequence[str]) -> None:
    """Raise DataError if there are other folders with images beside split folders, or no training split."""
    if classes:
        splits = _suggestion(found, None if "train" in found.values() else ".")
        raise DataError(
            f"data.root: {printable(root)} holds folders named like splits ({_listed(found)}) beside other folders of "
            f"images ({_listed(classes)}); choose data.splits={splits} or, if every folder is a class, data.splits=null"
        )
    if "train" not in found.values():
        raise DataError(
            f"data.root: {printable(root)} has no folder of training images among {_listed(found)}; choose one with "
            "data.splits={train: <folder>, ...}, or data.splits=null if every folder is a class"
        )


def _check_one_each(root: Path, found: Mapping[str, str]) -> None:
    """Raise DataError if two folders look like the same split."""
    for split in _SPLITS:
        names = [name for name, other in found.items() if other == split]
        if len(names) > 1:
            words = {"train": "training", "val": "validation", "test": "test"}[split]
            raise DataError(
                f"data.root: {printable(root)}: {_listed(names)} all look like the {words} split; keep one, or choose "
                f"one with data.splits={_suggestion(found)}"
            )


def _suggestion(found: Mapping[str, str], train: str | None = None) -> str:
    """Return a value of `data.splits` as typed: the first folder of each split."""
    chosen = {"train": train} if train else {}
    for name, split in sorted(found.items(), key=lambda each: _SPLITS.index(each[1])):
        chosen.setdefault(split, name)
    quoted = {split: name if _PLAIN.fullmatch(name) else f"'{escaped(name)}'" for split, name in chosen.items()}
    return f'"{{{", ".join(f"{split}: {name}" for split, name in quoted.items())}}}"'


def _listed(names: Sequence[str] | Mapping[str, str]) -> str:
    """Return at most eight names."""
    first = [escaped(name) for name in list(names)[:8]]
    return ", ".join([*first, *([f"... {len(names) - 8} more"] if len(names) > 8 else [])])
