"""Images with labels from a CSV file below the root, or from one in each split folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.components.data.labels.csv_table import Table, read_table
from runner.components.data.labels.find_files import FileFinder
from runner.components.data.labels.label_columns import Row, is_column, read_rows
from runner.components.data.labels.labeled_images import Labeled, labeled_source
from runner.components.data.layout.folder_listing import Skipped, images_under, relative_paths
from runner.components.data.layout.image_groups import groups_by_name
from runner.components.data.layout.layout_settings import LayoutSettings
from runner.components.data.layout.listing import GroupOf, Source
from runner.components.data.layout.split_folders import SplitFolders, find_splits, split_of_path, split_of_word
from runner.engine.saving.storage import printable
from runner.errors import ConfigError, DataError, brief, escaped
from runner.out_of_scope import MULTI_LABEL
from runner.user_folders import expand_home
from runner.user_paths import exists, is_file, listed

# Names that one line lists at most
_MOST_NAMES = 3


def read_labels(root: Path, settings: LayoutSettings) -> Source:
    """Return the images that `data.labels` gives a label.

    Raises:
        ConfigError: The file or a column does not exist.
        DataError: A row is wrong, or names a file that does not exist; the message has the line.
    """
    assert settings.labels is not None
    return _Reader(root, settings, settings.labels).read()


@dataclass
class _Image:
    """The label, split and group of one image, and the place of the first row that gives them."""

    label: str
    split: str | None
    group: str | None
    place: str


@dataclass
class _Left:
    """Rows and images that are left out or repeated, for one line each."""

    unlabeled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    repeated: int = 0
    header: str | None = None
    rows: int = 0


class _Reader:
    """Reads the CSV files of one data set."""

    def __init__(self, root: Path, settings: LayoutSettings, name: str) -> None:
        self.root, self.settings, self.name = root, settings, name
        self.skipped, self.left = Skipped(), _Left()
        self.files = images_under(root, self.skipped)
        self.images: dict[str, _Image] = {}
        self.has_groups = False

    def read(self) -> Source:
        """Return the images and their labels."""
        tables = self._tables()
        for split, path in tables:
            self._read_table(read_table(path), split)
        if self.left.missing:
            more = (
                f" ({len(self.left.missing)} of {self.left.rows} rows name none)" if len(self.left.missing) > 1 else ""
            )
            raise DataError(f"{self.left.missing[0]}{more}")
        if not self.images:
            raise DataError(f"{printable(tables[0][1])}: no row has a label")
        found = self._by_split()
        notes = (*self._notes(), *self.skipped.notes())
        return labeled_source(self.root, self.settings, found, printable(tables[0][1]), self._group_of(), notes)

    def _tables(self) -> list[tuple[str | None, Path]]:
        """Return the CSV file without a split, or one for each split."""
        path = self.root / expand_home(self.name)
        if exists(path, key="data.labels"):
            return [(None, path)]
        folders = find_splits(self.root, self.settings.splits, Skipped())
        places = ((split, folder / self.name) for split, folder in _items(folders))
        found: list[tuple[str | None, Path]] = [
            (split, path) for split, path in places if is_file(path, key="data.labels")
        ]
        if not found:
            raise ConfigError(f"data.labels: got '{escaped(brief(self.name))}', must be a file{self._hint()}")
        if found[0][0] != "train":
            raise DataError(
                f"data.labels: {printable(folders.train / self.name)} is missing, beside {printable(found[0][1])}"
            )
        return found

    def _hint(self) -> str:
        """Return where labels may be."""
        tables = [name for name in listed(self.root) if name.lower().endswith(".csv")][:_MOST_NAMES]
        there = f"; CSV files there: {', '.join(map(escaped, tables))}" if tables else ""
        typed = (
            "; a path counts from data.root, not from the current folder"
            if exists(self.name, key="data.labels")
            else ""
        )
        return f" in {printable(self.root)} or in each of its split folders{there}{typed}"

    def _read_table(self, table: Table, split: str | None) -> None:
        """Add the rows of a CSV file; `split` is that of all its images."""
        groups = self.settings.groups if self.settings.groups and is_column(table, self.settings.groups) else None
        self.has_groups = self.has_groups or groups is not None
        finder = FileFinder(self.root, self.files, table.path)
        rows = read_rows(table, self.settings.columns, groups)
        if self._is_header(rows, finder):
            self.left.header = table.where(0)
            rows = rows[1:]
        for row in rows:
            self._add(table, row, split, finder)

    def _is_header(self, rows: Sequence[Row], finder: FileFinder) -> bool:
        """Return True if the first of rows without a header names no file, and the second does."""
        return (
            rows[0].number == 0 and len(rows) > 1 and not finder.find(rows[0].file) and bool(finder.find(rows[1].file))
        )

    def _add(self, table: Table, row: Row, split: str | None, finder: FileFinder) -> None:
        """Add the image of a row."""
        self.left.rows += 1
        where = table.where(row.number)
        paths = finder.find(row.file) if row.file else []
        if len(paths) > 1:
            named = ", ".join(map(escaped, paths[:_MOST_NAMES]))
            raise DataError(f"{where}: '{escaped(brief(row.file))}' may be {named}; write its folder into the column")
        if not paths:
            self.left.missing.append(f"{where}: no image '{escaped(brief(row.file))}' in {printable(self.root)}")
            return
        if row.label is None:
            self.left.unlabeled.append(where)
            return
        if row.split is not None:
            split = split_of_word(row.split)
            if split is None:
                raise DataError(
                    f"{where}: got '{escaped(brief(row.split))}' as split, must be train, val or test "
                    "(data.columns=[file,label,split])"
                )
        if row.group == "":
            raise DataError(f"{where}: no group in column '{escaped(self.settings.groups or '')}'")
        self._keep(paths[0], _Image(row.label, split, row.group, where))

    def _keep(self, path: str, image: _Image) -> None:
        """Keep an image; raise DataError if an earlier row says something else about it."""
        earlier = self.images.setdefault(path, image)
        if earlier is image:
            return
        for what in ("label", "split", "group"):
            old, new = getattr(earlier, what), getattr(image, what)
            if old != new:
                scope = f"; {MULTI_LABEL}" if what == "label" else ""
                raise DataError(
                    f"{image.place}: gives '{escaped(path)}' the {what} '{escaped(brief(str(new)))}', but "
                    f"{earlier.place} '{escaped(brief(str(old)))}'{scope}"
                )
        self.left.repeated += 1

    def _by_split(self) -> dict[str, list[Labeled]]:
        """Return the images of each split; without splits in the tables those that the split folders say."""
        split_of = None
        if all(image.split is None for image in self.images.values()):
            split_of = split_of_path(self.root, self.settings.splits, self.images)
        file_of = dict(zip(relative_paths(self.root, self.files), self.files, strict=True))
        found: dict[str, list[Labeled]] = {}
        for path, image in self.images.items():
            split = image.split if split_of is None else split_of(path)
            found.setdefault(split or "all", []).append(Labeled(file_of[path], image.label))
        return found

    def _group_of(self) -> GroupOf | None:
        """Return the function that gives the groups of images, by a column or by names."""
        groups = self.settings.groups
        if groups is None:
            return None
        if not self.has_groups:
            return groups_by_name(
                groups, self.root, f"; '{escaped(groups)}' is no column of {escaped(self.name)} either"
            )
        group_of: Mapping[str, str | None] = {path: image.group for path, image in self.images.items()}
        return lambda files: [str(group_of[path]) for path in relative_paths(self.root, files)]

    def _notes(self) -> tuple[str, ...]:
        """Return lines about what was left out."""
        left, name = self.left, escaped(self.name)
        notes = []
        if left.unlabeled:
            notes.append(f"data: left out rows without a label: {len(left.unlabeled)} ({_first(left.unlabeled)})")
        if left.header:
            notes.append(f"data: {left.header}: names no image and counts as the header")
        if left.repeated:
            notes.append(f"data: {left.repeated} rows of {name} repeat what others say")
        others = [path for path in relative_paths(self.root, self.files) if path not in self.images]
        if others:
            places = Counter(path.rpartition("/")[0] or "." for path in others)
            listed = ", ".join(f"{escaped(place)} {count}" for place, count in places.most_common(_MOST_NAMES))
            more = ", ..." if len(places) > _MOST_NAMES else ""
            notes.append(
                f"data: left out images without a label in {name}: {len(others)} ({listed}{more}; "
                f"the first is {escaped(others[0])})"
            )
        return tuple(notes)


def _first(found: Sequence[str]) -> str:
    """Return the first of some places."""
    return found[0] if len(found) == 1 else f"the first is {found[0]}"


def _items(folders: SplitFolders) -> list[tuple[str, Path]]:
    """Return the split folders by split."""
    named = (("train", folders.train), ("val", folders.val), ("test", folders.test))
    return [(split, folder) for split, folder in named if folder is not None]
