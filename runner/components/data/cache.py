"""Decoded images on disk, so that a folder is decoded once: mapped, checked before use, whole or not there.

A cache is a folder named by a key over what was decoded (each file's path below the root, its size and the times of
its last change) and how (size, centre, versions of the decoders). It holds `pixels`, all images one after another, and
`manifest`, written last, with their number and sha256. Both come under temporary names that are synced and renamed,
with the folder locked; so whatever kills the writer, a cache whose manifest fits is whole, and any other is made again.

Contents are not read for the key: that takes as long as decoding does where files are small. The kernel's own time of
the last change (ctime) is in it, which no program can set back; so a file that changes is noticed, whatever its size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.components.data.files import Bad
from runner.components.data.locking import locked
from runner.engine.saving import storage
from runner.errors import StorageError

LONGEST = 1 << 28  # bytes of a manifest, which names what cannot be read
UNUSED = 90 * 24 * 3600  # seconds after its last use when a cache goes


@dataclass(frozen=True)
class Manifest:
    """What is known of a split: how many images can be read, the sha256 of their pixels, and why others cannot."""

    count: int
    sha256: str
    bad: Bad


def kept(place: Path, make: Callable[[], Manifest], needed: int) -> Manifest:
    """Return the manifest of a whole cache at `place`, made first if there is none.

    Of two processes that want the same one the second waits. What fails leaves nothing. Raises StorageError for what
    the disk refuses, `needed` bytes among it.
    """
    with contextlib.suppress(OSError, ValueError):
        return whole(place)
    with storage.refusing(place), locked(place):
        try:
            return whole(place)  # another process made it in the meantime
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            say(f"{storage.shown(place)}: damaged ({error}), made again")
        try:
            storage.sweep(place)
            if needed > (free := shutil.disk_usage(place).free):
                raise StorageError(f"{storage.shown(place)}: needs {needed} bytes, {free} are free")
            made = make()
            body = json.dumps(asdict(made))
            storage.write_atomic(place / "manifest", f"{sha256(body)}\n{body}".encode())
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    drop_unused(place.parent)
    return made


def whole(place: Path) -> Manifest:
    """Return the manifest of a cache if all of it is as it was written, else raise OSError or ValueError."""
    digest, body = storage.read(place / "manifest", LONGEST).decode().split("\n")
    if digest != sha256(body):
        raise ValueError("its manifest was altered")
    values = json.loads(body)
    if values["sha256"] and storage.sha256_of(place / "pixels") != values["sha256"]:
        raise ValueError("its pixels were altered")
    with contextlib.suppress(OSError):
        os.utime(place / "manifest")  # used
    return Manifest(values["count"], values["sha256"], {int(number): why for number, why in values["bad"].items()})


def sha256(text: str) -> str:
    """Return the checksum of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def drop_unused(caches: Path) -> None:
    """Remove the caches that nobody has used for long: of files that have changed, for views no longer asked for."""
    for manifest in caches.glob("*/manifest"):
        with contextlib.suppress(OSError):
            if manifest.stat().st_mtime < time.time() - UNUSED:
                shutil.rmtree(manifest.parent)


def folder_of(word: str | None) -> Path | None:
    """Return the folder that `data.cache` names: `auto` is one among the user's caches."""
    if word != "auto":
        return None if word is None else Path(word).expanduser()
    among = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(among).expanduser() / "runner" / "images"


def say(words: str) -> None:
    """Write a line on standard error."""
    sys.stderr.write(f"runner: {words}\n")
    sys.stderr.flush()
