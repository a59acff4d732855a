"""Real faults for tests: child processes that die or hit limits, disks that fail, record, or lose power."""

import itertools
import os
import resource
import signal
import sys
import traceback
import warnings
from pathlib import Path

from runner.engine.saving.disk import Disk


def start_child(body):
    """Run `body()` in a forked child; returns its pid."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads; the child uses none
        pid = os.fork()
    if pid:
        return pid
    try:
        body()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def wait_for_child(pid):
    """Wait for a child; returns its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_in_child(body):
    return wait_for_child(start_child(body))


def limit_file_size(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class WatchedDisk(Disk):
    """A disk that calls `before(number, operation, *arguments)` before each operation."""

    OPERATIONS = ("create", "open", "write", "truncate", "fsync", "close", "replace", "unlink", "mkdir")

    def __init__(self, before):
        self.before, self.count = before, itertools.count()

    def __getattribute__(self, name):
        operation = object.__getattribute__(self, name)
        if name not in (*WatchedDisk.OPERATIONS, "fsync_folder"):
            return operation

        def call(*arguments):
            self.before(next(self.count), name, *arguments)
            return operation(*arguments)

        return call


def disk_that_kills(at):
    """Return a disk that kills the process before operation number `at`, or in the middle of a write."""

    def before(number, operation, *arguments):
        if number == at:
            if operation == "write":
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    return WatchedDisk(before)


def disk_that_fails(at, error):
    """Return a disk whose operation number `at` fails with an errno; all later ones succeed."""

    def before(number, operation, *_):
        if number == at and operation != "close":
            raise OSError(error, os.strerror(error))

    return WatchedDisk(before)


class RecordingDisk(Disk):
    """A disk that works and records all operations."""

    def __init__(self):
        self.events, self.paths = [], {}

    def create(self, path):
        file = super().create(path)
        self.paths[file] = path
        self.events.append(("create", path))
        return file

    def write(self, file, data):
        count = super().write(file, data)
        self.events.append(("write", self.paths[file], bytes(data[:count])))
        return count

    def fsync(self, file):
        super().fsync(file)
        self.events.append(("fsync", self.paths[file]))

    def replace(self, old, new):
        super().replace(old, new)
        self.events.append(("replace", old, new))

    def unlink(self, path):
        super().unlink(path)
        self.events.append(("unlink", path))

    def fsync_folder(self, path):
        super().fsync_folder(path)
        self.events.append(("fsync_folder", path))


def power_cuts(before, events):
    """What a disk may hold if the power goes after `events`: every {path: bytes} that POSIX allows.

    `before` is what it durably held. Bytes are there if they were synced (else the file is empty); names are as at the
    last sync of the folder, with any of the later changes, in any choice, on top.
    """
    names = {path: [data, data] for path, data in before.items()}  # path -> [bytes written, bytes synced]
    live, pending = dict(names), []
    for kind, path, *rest in events:
        if kind == "create":
            live[path] = [b"", b""]
            pending.append(({path: live[path]}, ()))
        elif kind == "write":
            live[path][0] += rest[0]
        elif kind == "fsync":
            live[path][1] = live[path][0]
        elif kind == "replace":
            live[rest[0]] = live.pop(path)
            pending.append(({rest[0]: live[rest[0]]}, (path,)))
        elif kind == "unlink":
            del live[path]
            pending.append(({}, (path,)))
        elif kind == "fsync_folder":
            names, pending = dict(live), []
    for chosen in itertools.product((True, False), repeat=len(pending)):
        found = dict(names)
        for (added, gone), happened in zip(pending, chosen, strict=True):
            if happened:
                found.update(added)
                for path in gone:
                    found.pop(path, None)
        yield {path: synced for path, (_, synced) in found.items()}


def file_contents(folder):
    """Return the bytes of every file below a folder."""
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}
