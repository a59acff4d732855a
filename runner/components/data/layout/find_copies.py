"""The files of a data set that show the same image, and the cache of this answer for a set that did not change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from runner.components.data.copies import Copy
from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.layout.pixel_digests import pixel_digests
from runner.engine.file_digests import cache_home, digest_files, is_settled, state_of, write_cache
from runner.user_paths import absolute, full

# Raise it when the comparison changes
_VERSION = 1


def find_copies(root: Path, files: Sequence[str]) -> list[list[Copy]]:
    """Return the files below a folder that show the same image, at least two together, in the order of `files`."""
    sizes, key = _look(root, files)
    path = None if key is None else cache_home() / f"{key}.copies"
    kept = None if path is None else _read(path, len(files))
    if kept is not None:
        return kept
    found = _compare(root, files, sizes)
    if path is not None:
        write_cache(path, json.dumps(found).encode())
    return found


def _look(root: Path, files: Sequence[str]) -> tuple[list[int], str | None]:
    """Return the size of each file, 0 if there is none, and the name of the cache, None if a change may be missed."""
    from PIL import __version__

    digest = hashlib.blake2b(f"{_VERSION} {__version__} {absolute(root)}".encode(errors="surrogateescape"))
    sizes, settled, now = [], True, time.time_ns()
    for file in files:
        try:
            status = os.stat(full(file))  # noqa: PTH116  (a Path per file takes ten times as long)
        except (OSError, ValueError):
            sizes.append(0)
            digest.update(os.fsencode(f"{file}\0"))
            continue
        sizes.append(status.st_size)
        settled = settled and is_settled(status, now)
        digest.update(state_of(file, status))
    return sizes, digest.hexdigest()[:32] if settled else None


def _read(path: Path, count: int) -> list[list[Copy]] | None:
    """Return the kept answer about `count` files, None if there is none or it is damaged."""
    try:
        groups = json.loads(Path(full(path)).read_bytes())
        # The time of the last use decides when the file is removed
        os.utime(full(path))
        found = [[Copy(int(place), int(content)) for place, content in group] for group in groups]
        return found if all(0 <= place < count for group in found for place, _ in group) else None
    except (OSError, ValueError, TypeError):
        return None


def _compare(root: Path, files: Sequence[str], sizes: Sequence[int]) -> list[list[Copy]]:
    """Return the files that have equal bytes or equal pixels."""
    content = _contents(root, files, sizes)
    # One file stands for all with its bytes
    alone = sorted(set(content))
    digests = pixel_digests(root, [files[place] for place in alone])
    seen: dict[bytes, int] = {}
    shown = {
        place: place if digest is None else seen.setdefault(digest, place)
        for place, digest in zip(alone, digests, strict=True)
    }
    found: dict[int, list[Copy]] = {}
    for place, number in enumerate(content):
        found.setdefault(shown[number], []).append(Copy(place, number))
    return [group for group in found.values() if len(group) > 1]


def _contents(root: Path, files: Sequence[str], sizes: Sequence[int]) -> list[int]:
    """Return for each file the position of the first with the same bytes. Only files of equal size are read."""
    counts = Counter(sizes)
    places = [place for place, size in enumerate(sizes) if size and counts[size] > 1]
    names = relative_paths(root, files)
    _, digests = digest_files(root, [names[place] for place in places])
    found = list(range(len(files)))
    first: dict[tuple[int, bytes], int] = {}
    for place, digest in zip(places, digests, strict=True):
        earlier = first.setdefault((sizes[place], digest), place)
        # Files that cannot be read have one digest
        if earlier != place and all(os.access(full(files[each]), os.R_OK) for each in (place, earlier)):
            found[place] = earlier
    return found
