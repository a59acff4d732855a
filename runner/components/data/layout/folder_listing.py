"""The folders and image files below a folder, without hidden and system entries, which are counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.components.data.pixels.image_kinds import is_image
from runner.errors import escaped
from runner.user_paths import full, leads_up, walk

# Lower-case names that operating systems, editors and storage devices leave behind; names with a dot are hidden anyway
_SYSTEM = frozenset(
    {
        *("__macosx", "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found"),
        *("system volume information", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        "__pycache__",
    }
)
# Names that one line lists at most
_MOST_NAMES = 5


@dataclass(frozen=True)
class Skipped:
    """Entries of a folder that a data set leaves out, for one line per kind."""

    # By name
    hidden: Counter[str] = field(default_factory=Counter)
    # By suffix
    others: Counter[str] = field(default_factory=Counter)
    # Paths
    links: list[str] = field(default_factory=list)
    upward: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Return a line for each kind of entry that was left out."""
        counted = {
            "hidden or system files and folders": self.hidden,
            "files that are not images": self.others,
        }
        listed = {
            "folders that are not a split": self.folders,
            "images outside the class folders": self.loose,
            "links to folders inside class folders": self.links,
            "links to a folder that they are in": self.upward,
        }
        return (
            *(
                f"data: left out {what}: {found.total()} ({_most_frequent(found)})"
                for what, found in counted.items()
                if found
            ),
            *(f"data: left out {what}: {len(found)} ({_first(found)})" for what, found in listed.items() if found),
        )


def _most_frequent(found: Counter[str]) -> str:
    """Return the most frequent names with their counts."""
    ranked = sorted(found.items(), key=lambda each: (-each[1], each[0]))
    more = [f"... {len(ranked) - _MOST_NAMES} more names"] if len(ranked) > _MOST_NAMES else []
    return ", ".join([*(f"{escaped(name)} {count}" for name, count in ranked[:_MOST_NAMES]), *more])


def _first(found: list[str]) -> str:
    """Return the first of some paths."""
    return escaped(found[0]) if len(found) == 1 else f"the first is {escaped(found[0])}"


def _is_hidden(name: str) -> bool:
    """Return True for a hidden entry, and for one that a system and not the user has made."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _without_hidden(names: Iterable[str], skipped: Skipped) -> list[str]:
    """Return the names that are not hidden, and count the others."""
    kept = []
    for name in names:
        if _is_hidden(name):
            # macOS leaves one of these beside each file
            skipped.hidden["._*" if name.startswith("._") else name] += 1
        else:
            kept.append(name)
    return kept


def list_folder(folder: Path, skipped: Skipped) -> tuple[list[str], list[str]]:
    """Return the sorted names of the subfolders and of the files in a folder."""
    try:
        with os.scandir(full(folder)) as entries:
            kinds = {entry.name: entry.is_dir() for entry in entries}
    except OSError as error:
        # As typed, for the message
        error.filename = f"{folder}{str(error.filename).removeprefix(full(folder))}"
        raise
    names = sorted(_without_hidden(kinds, skipped))
    folders = [name for name in names if kinds[name]]
    upward = [name for name in folders if leads_up(folder / name)]
    skipped.upward.extend(str(folder / name) for name in upward)
    return [name for name in folders if name not in upward], [name for name in names if not kinds[name]]


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the subfolders, for a message; a link that goes round is no folder here."""
    names: list[str] = next(walk(folder), ("", [], []))[1]
    return sorted(name for name in names if not _is_hidden(name))


def images_under(folder: Path, skipped: Skipped) -> list[str]:
    """Return the sorted paths of all images under a folder; count all that is left out."""
    found = []
    for place, links, files in _walk(folder, skipped):
        skipped.links.extend(links)
        for file in files:
            # A Path per file takes ten times as long
            path = os.path.join(place, file)  # noqa: PTH118
            if is_image(path):
                found.append(path)
            else:
                skipped.others[kind_of(file)] += 1
    return sorted(found)


def has_images(folder: Path) -> bool:
    """Return True if there is an image under a folder."""
    return any(is_image(os.path.join(place, file)) for place, _, files in _walk(folder, Skipped()) for file in files)  # noqa: PTH118


def kind_of(file: str) -> str:
    """Return the suffix of a file's name in lower case, or words where it has none."""
    suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122
    return suffix or "no suffix"


def _walk(folder: Path, skipped: Skipped) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, links to folders, file names) of a folder and those below; links are not followed (no loops)."""

    def refuse(error: OSError) -> None:
        # `walk` skips folders that cannot be listed
        raise error

    for place, folders, files in walk(folder, onerror=refuse):
        # `walk` descends into what this list holds
        folders[:] = _without_hidden(folders, skipped)
        paths = (os.path.join(place, name) for name in folders)  # noqa: PTH118
        yield place, [path for path in paths if os.path.islink(full(path))], _without_hidden(files, skipped)  # noqa: PTH114


def relative_paths(root: Path, files: Sequence[str]) -> list[str]:
    """Return paths relative to a folder that contains all of them (os.path.relpath is ten times slower)."""
    start = 0 if root == Path() else len(os.path.join(root, ""))  # noqa: PTH118
    return [file[start:] for file in files]
