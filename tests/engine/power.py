"""What a disk holds after a power cut: all operations of a run are recorded, and any prefix of them is replayed.

After ALICE (Pillai et al. 2014) and CrashMonkey (Mohan et al. 2018): bytes that were not synced may be lost, and names
that were not synced too, each by itself.
"""

import os
from pathlib import Path

from runner.engine.saving.disk import Disk

NAMES = ("lost", "kept")  # what becomes of names that no sync of their folder followed
BYTES = ("lost", "kept")  # what becomes of bytes that no sync of their file followed


class RecordingDisk(Disk):
    """A disk that works and records all operations."""

    def __init__(self):
        self.events, self._paths = [], {}

    def create(self, path):
        return self._opened(super().create(path), path, "create")

    def open(self, path):
        return self._opened(super().open(path), path, "open")

    def write(self, file, data):
        at = os.lseek(file, 0, os.SEEK_CUR)
        count = super().write(file, data)
        self.events.append(("write", file, at, bytes(data[:count])))
        return count

    def truncate(self, file, size):
        super().truncate(file, size)
        self.events.append(("truncate", file, size))

    def fsync(self, file):
        super().fsync(file)
        self.events.append(("fsync", file))

    def close(self, file):
        self.events.append(("close", file))
        super().close(file)

    def replace(self, old, new):
        super().replace(old, new)
        self.events.append(("replace", old, new))

    def unlink(self, path):
        super().unlink(path)
        self.events.append(("unlink", path))

    def mkdir(self, path):
        super().mkdir(path)
        self.events.append(("mkdir", path))

    def fsync_folder(self, path):
        super().fsync_folder(path)
        self.events.append(("fsync_folder", path))

    def _opened(self, file, path, how):
        self.events.append((how, file, path))
        return file


class FileBytes:
    """A file's bytes, as written and as synced."""

    def __init__(self, data=b""):
        self.written = self.synced = data


class ReplayedDisk:
    """A disk after some of the recorded operations; a name leads to a `FileBytes`, or to None for a folder."""

    def __init__(self, held):
        self.names = {path: None if data is None else FileBytes(data) for path, data in held.items()}
        self.durable = dict(self.names)
        self.open = {}

    def play(self, event):
        kind, *what = event
        getattr(self, f"_{kind}")(*what)

    def left(self, names, data):
        """Return what the disk holds: {path: bytes, or None for a folder}."""
        found = self.names if names == "kept" else self.durable
        there = {path: body for path, body in found.items() if self._reached(path, found)}
        return {path: body and getattr(body, "written" if data == "kept" else "synced") for path, body in there.items()}

    def _reached(self, path, found):
        return all(parent in found for parent in path.parents if parent in self.names)

    def _create(self, file, path):
        self.names[path] = self.open[file] = FileBytes()

    def _open(self, file, path):
        self.open[file] = self.names[path]

    def _write(self, file, at, data):
        body = self.open[file]
        body.written = body.written[:at].ljust(at, b"\0") + data + body.written[at + len(data) :]

    def _truncate(self, file, size):
        self.open[file].written = self.open[file].written[:size]

    def _fsync(self, file):
        self.open[file].synced = self.open[file].written

    def _close(self, file):
        self.open.pop(file)

    def _replace(self, old, new):
        self.names[new] = self.names.pop(old)

    def _unlink(self, path):
        del self.names[path]

    def _mkdir(self, path):
        self.names[path] = None

    def _fsync_folder(self, folder):
        kept = {path: body for path, body in self.durable.items() if path.parent != folder}
        self.durable = kept | {path: body for path, body in self.names.items() if path.parent == folder}


def power_cuts(held, events, promised):
    """Every disk that the power may leave at each moment, in each way: (what was promised by then, {path: bytes}).

    `promised` has an entry for each number of events; a disk that was seen with the same promise is left out.
    """
    played, seen = ReplayedDisk(held), set()
    for moment in range(len(events) + 1):
        for names in NAMES:
            for data in BYTES:
                disk = played.left(names, data)
                files = tuple(sorted((str(path), body) for path, body in disk.items() if body is not None))
                if (promised[moment], files) not in seen:
                    seen.add((promised[moment], files))
                    yield promised[moment], disk
        if moment < len(events):
            played.play(events[moment])


def disk_contents(folder):
    """Return the current content of a folder: {path: bytes, or None for a folder}."""
    return {path: path.read_bytes() if path.is_file() else None for path in Path(folder).rglob("*")}


def restore(disk, root, place):
    """Write the content of a disk below `root` to another folder."""
    for path, data in sorted(disk.items()):
        if path.is_relative_to(root):
            target = place / path.relative_to(root)
            if data is None:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
