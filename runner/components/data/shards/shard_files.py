"""The local files that a folder, a file or a pattern names, and the split that each belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from runner.components.data.layout.split_folders import split_of_word
from runner.components.data.shards.shard_settings import ShardSplits
from runner.engine.saving.storage import printable
from runner.errors import KEY, ConfigError, DataError, brief, escaped
from runner.user_folders import expand_home
from runner.user_paths import expand_braces, is_dir, is_file, matching, walk

# Words before a colon: pipe:, http:, https:, s3:, hf:, file:, ...
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_WORD = re.compile(r"[A-Za-z]+")
_SPLITS = ("train", "val", "test")
# Files that one line names at most
_MOST_NAMES = 3
ALL = "all"


@dataclass(frozen=True)
class ShardFiles:
    """Files by split, in the order of their names: `all`, or `train` with `val` and `test` where they are there.

    `base` is the folder below which their names count.
    """

    base: Path
    splits: Mapping[str, Sequence[Path]]

    def all(self) -> list[Path]:
        """Return the files of all splits, sorted."""
        return sorted(path for paths in self.splits.values() for path in paths)

    def name(self, path: Path) -> str:
        """Return the name of a file below the base."""
        return path.relative_to(self.base).as_posix() if self.base != Path() else path.as_posix()


def check_local(root: str) -> None:
    """Raise ConfigError for a path that is a command or an address: nothing is started or fetched."""
    found = _SCHEME.match(root)
    if found:
        raise ConfigError(
            f"data.root: got {brief(escaped(root), KEY)}; expected local files, '{found[1].lower()}:' is never read"
        )


def find_shards(root: str, suffixes: Sequence[str], splits: ShardSplits) -> ShardFiles:
    """Return the files of a data set.

    Args:
        root: A folder, a file, or a pattern with `*`, `?`, `[...]`, `{000..012}` or `{a,b}`.
        suffixes: The suffixes of files in a folder, in lower case with their dots.
        splits: As the knob `splits`.

    Raises:
        ConfigError: The root is no local path.
        DataError: There are no files, or their splits are not known.
    """
    check_local(root)
    path = expand_home(root)
    if is_dir(path, error=DataError, key="data.root"):
        base, files = path, _files_below(path, suffixes)
        missing = f"has no file that ends in {' or '.join(suffixes)}"
    elif is_file(path, error=DataError, key="data.root"):
        base, files, missing = path.parent, [path], ""
    else:
        base, files = _base_of(path), _files_named(path)
        missing = "does not exist" if _plain(str(path)) else "matches no file"
    if not files:
        raise DataError(f"data.root: {printable(path)} {missing}")
    found = ShardFiles(base, {ALL: files})
    if splits is None:
        return found
    if splits == "auto":
        return ShardFiles(base, _by_words(found, files))
    return ShardFiles(base, _by_patterns(found, files, splits))


def _files_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of some kinds below a folder, without hidden ones, sorted."""

    def refuse(error: OSError) -> None:
        raise DataError(f"data.root: {printable(Path(error.filename or folder))}: {error.strerror}") from error

    found = []
    for place, folders, names in walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place) / name for name in names if name.lower().endswith(tuple(suffixes)) and name[0] != "."]
    return sorted(found)


def _plain(text: str) -> bool:
    """Return True for a path without a pattern."""
    return not any(sign in text for sign in "*?[{")


def _files_named(pattern: Path) -> list[Path]:
    """Return the files that a pattern names. Raises DataError for one that braces name and that is not there."""
    try:
        texts = expand_braces(str(pattern))
    except ValueError as error:
        raise DataError(f"data.root: {printable(pattern)} {error}") from error
    found: set[Path] = set()
    for text in texts:
        paths = [Path(text)] if _plain(text) else matching(text)
        files = [path for path in paths if is_file(path, error=DataError, key="data.root")]
        if not files and len(texts) > 1:
            raise DataError(f"data.root: {printable(Path(text))} does not exist, which {printable(pattern)} names")
        found |= set(files)
    return sorted(found)


def _base_of(pattern: Path) -> Path:
    """Return the folder of a pattern that has no pattern in its own path."""
    return next((folder for folder in pattern.parents if _plain(str(folder))), Path())


def _by_words(found: ShardFiles, files: Sequence[Path]) -> Mapping[str, Sequence[Path]]:
    """Return the files by the split whose word is in their names; all of them where no name has one."""
    splits: dict[str, list[Path]] = {}
    for path in files:
        words = {split for word in _WORD.findall(found.name(path)) if (split := split_of_word(word))}
        if len(words) > 1:
            raise DataError(
                f"data.root: {printable(path)} has the words of two splits in its name; choose "
                "'data.splits={train: <pattern>, val: <pattern>}' or data.splits=null"
            )
        splits.setdefault(words.pop() if words else ALL, []).append(path)
    if splits.keys() == {ALL}:
        return splits
    if ALL in splits or "train" not in splits:
        some = ", ".join(escaped(found.name(path)) for path in (splits.get(ALL) or files)[:_MOST_NAMES])
        what = "no split is in the name of" if ALL in splits else "there is no training file among"
        raise DataError(
            f"data.root: {what} {some}; choose 'data.splits={{train: <pattern>, val: <pattern>}}' or data.splits=null"
        )
    return {split: splits[split] for split in _SPLITS if split in splits}


def _by_patterns(found: ShardFiles, files: Sequence[Path], patterns: Mapping[str, str]) -> Mapping[str, Sequence[Path]]:
    """Return the files by the pattern that their names below the base match."""
    splits: dict[str, list[Path]] = {}
    taken: dict[Path, str] = {}
    for split in _SPLITS:
        if split not in patterns:
            continue
        try:
            texts = expand_braces(patterns[split])
        except ValueError as error:
            raise ConfigError(f"data.splits: got {brief(escaped(patterns[split]), KEY)}, which {error}") from error
        splits[split] = [path for path in files if any(fnmatchcase(found.name(path), text) for text in texts)]
        if not splits[split]:
            raise DataError(f"data.splits: {split}: no file below {printable(found.base)} matches '{patterns[split]}'")
        for path in splits[split]:
            if taken.setdefault(path, split) != split:
                raise DataError(f"data.splits: {printable(path)} is in {taken[path]} and in {split}")
    return splits
