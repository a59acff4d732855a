"""Decoded images on disk, so that a folder is decoded once: memory-mapped, verified before use, complete or absent.

A cache is a folder named by a key over the decoded files (relative path, size and modification times of each) and over
the decoding (size, fit, colors, decoder versions). It holds `pixels`, all images one after another, and `manifest`,
written last, with their number and sha256. Both are written under temporary names, synced and renamed while the folder
is locked. So a cache whose manifest fits is complete, whatever kills the writer, and any other is built again.

The key does not read contents, which takes as long as decoding for small files. It includes the kernel's change time
(ctime), which no program can set back, so that a changed file is noticed at any size.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner import user_folders
from runner.components.data.download import locked
from runner.components.data.pixels.decoder_messages import Findings
from runner.engine.saving import storage
from runner.errors import StorageError, escaped
from runner.printing import write_stderr
from runner.user_folders import expand_home
from runner.user_paths import full

# Limit of the manifest, which lists unreadable files
_MAX_MANIFEST_BYTES = 1 << 28
# Name of the folder of a cache
_KEY = re.compile(r"[0-9a-f]{32}")
# A cache unused for 90 days is removed
_MAX_UNUSED_SECONDS = 90 * 24 * 3600


@dataclass(frozen=True)
class Manifest:
    """Summary of a split: number of readable images, sha256 of their pixels, what decoders found, and other facts."""

    count: int
    sha256: str
    findings: Findings
    facts: dict[str, Any] = field(default_factory=dict)


def load_or_build(place: Path, make: Callable[[], Manifest], needed: int) -> Manifest:
    """Return the manifest of the complete cache at `place`, built by `make` if there is none.

    A second process that wants the same cache waits. A failure leaves nothing behind.

    Args:
        place: Folder of the cache.
        make: Builds the files and returns the manifest.
        needed: Disk space in bytes that building takes.

    Raises:
        StorageError: The disk refuses to write, or has less than `needed` bytes free.
    """
    with contextlib.suppress(OSError, ValueError):
        return _read_verified(place)
    with storage.convert_os_errors(place), locked(place):
        try:
            # Another process may have built it in the meantime
            return _read_verified(place)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            print_note(f"{storage.printable(place)}: damaged ({error}), made again")
        try:
            storage.remove_temporary(place)
            if needed > (free := shutil.disk_usage(full(place)).free):
                raise StorageError(f"{storage.printable(place)}: needs {needed} bytes, {free} are free")
            manifest = make()
            body = json.dumps(asdict(manifest))
            storage.write_atomic(place / "manifest", f"{_text_sha256(body)}\n{body}".encode())
        except BaseException:
            _remove(place)
            raise
    _remove_stale(place.parent)
    return manifest


def _read_verified(place: Path) -> Manifest:
    """Return the manifest of an unaltered cache. Raises OSError or ValueError otherwise."""
    values = _read_manifest(place / "manifest")
    if values["sha256"] and storage.sha256_of(place / "pixels") != values["sha256"]:
        raise ValueError("its pixels were altered")
    with contextlib.suppress(OSError):
        # The modification time records the last use
        os.utime(full(place / "manifest"))
    found = values["findings"]
    bad = {int(number): why for number, why in found["bad"].items()}
    kinds = {kind: (count, place, text) for kind, (count, place, text) in found["kinds"].items()}
    return Manifest(values["count"], values["sha256"], Findings(bad, kinds), values["facts"])


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return what an unaltered manifest says. Raises OSError or ValueError otherwise."""
    digest, body = storage.read(path, _MAX_MANIFEST_BYTES).decode().split("\n")
    if digest != _text_sha256(body):
        raise ValueError("its manifest was altered")
    values: dict[str, Any] = json.loads(body)
    return values


def _text_sha256(text: str) -> str:
    """Return the sha256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _remove_stale(caches: Path) -> None:
    """Remove caches unused for long: of changed files, or of settings no longer asked for."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += Path(full(caches)).glob("*/manifest")
    for manifest in found:
        with contextlib.suppress(OSError, ValueError):
            old = os.stat(full(manifest)).st_mtime < time.time() - _MAX_UNUSED_SECONDS  # noqa: PTH116
            # `data.cache` may be a folder that holds more than caches
            if old and _KEY.fullmatch(manifest.parent.name) and _read_manifest(manifest):
                _remove(manifest.parent)


def _remove(place: Path) -> None:
    """Remove the files of a cache, and its folder if it holds nothing else."""
    with contextlib.suppress(OSError, StorageError):
        storage.remove_temporary(place)
        for name in ("manifest", "pixels", ".lock"):
            Path(full(place / name)).unlink(missing_ok=True)
        Path(full(place)).rmdir()


def cache_folder(word: str | None) -> Path | None:
    """Return the folder that `data.cache` names; `auto` is one below the user's cache folder."""
    if word != "auto":
        return None if word is None else expand_home(word)
    folder = user_folders.cache_folder()
    if not user_folders.usual_cache_folder():
        print_note(f"the user's cache folder cannot be written to; images are kept in {storage.printable(folder)}")
    return folder / "images"


def print_note(message: str) -> None:
    """Print a line on standard error."""
    write_stderr(f"runner: {escaped(message)}\n")
