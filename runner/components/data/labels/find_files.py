"""The image file that a cell of a CSV file means: by path, with or without suffix, or by name anywhere in the root."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.layout.split_folders import splits_by_name
from runner.user_paths import absolute


class FileFinder:
    """The image files below a folder, by path and by name.

    A path counts from the root or from the folder of the CSV file. A name without a folder is looked for everywhere.
    """

    def __init__(self, root: Path, files: Sequence[str], table: Path) -> None:
        self._root = absolute(root)
        self._files = dict(zip(relative_paths(root, files), files, strict=True))
        self._by_stem: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for path in self._files:
            folder, _, name = path.rpartition("/")
            stem = os.path.splitext(name)[0]  # noqa: PTH122
            self._by_stem.setdefault(f"{folder}/{stem}" if folder else stem, []).append(path)
            for word in {name, stem}:
                self._by_name.setdefault(word, []).append(path)
        self._folder = self._below_root(str(table.parent)) or ""
        # train.csv labels the images in train, although test has images of the same names
        self._split = next(iter(splits_by_name(re.findall(r"[A-Za-z]+", table.stem)).values()), None)

    def find(self, cell: str) -> list[str]:
        """Return the paths below the root that a cell may mean: one, none, or several if it is ambiguous."""
        for text in (cell, cell.replace("\\", "/")):
            if found := self._find(text):
                return found
        return []

    def file(self, path: str) -> str:
        """Return the file at a path below the root."""
        return self._files[path]

    def _find(self, text: str) -> list[str]:
        """Return what a text with slashes means."""
        if os.path.isabs(text):  # noqa: PTH117
            below = self._below_root(text)
            places = [] if below is None else [below]
        else:
            places = [os.path.normpath(os.path.join(*start, text)) for start in ((self._folder,), ())]  # noqa: PTH118
        for table in ({path: [path] for path in places if path in self._files}, self._by_stem):
            if found := list(dict.fromkeys(path for place in places for path in table.get(place, []))):
                # The folder of the CSV file comes first
                return table.get(places[0]) or found
        return self._anywhere(text) if "/" not in text else []

    def _anywhere(self, name: str) -> list[str]:
        """Return the files of a name; of several those in a folder of the same split as the CSV file."""
        found = self._by_name.get(name, [])
        if len(found) < 2 or self._split is None:
            return found
        split_of = splits_by_name(sorted({path.partition("/")[0] for path in found}))
        return [path for path in found if split_of.get(path.partition("/")[0]) == self._split] or found

    def _below_root(self, path: str) -> str | None:
        """Return a path relative to the root, None if it is not below it."""
        relative = os.path.relpath(absolute(path), self._root)
        return None if relative.split(os.sep, 1)[0] == os.pardir else "" if relative == os.curdir else relative
