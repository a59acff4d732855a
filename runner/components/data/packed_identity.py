"""The identity of a set in one file or a few packed ones: sizes and contents of these files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runner.engine.file_digests import digest_files
from runner.engine.fingerprint import Part, digest
from runner.engine.saving.storage import printable
from runner.errors import DataError
from runner.user_folders import expand_home
from runner.user_paths import full, is_file, path_error


def packed_identity(training: str, test: str) -> Callable[..., dict[str, Part]]:
    """Return the function that identifies a packed set: by the files of its two parts, which patterns name."""

    def identity(*, root: str) -> dict[str, Part]:
        folder = expand_home(root)
        train = _packed_part(folder, training)
        if train is None:
            raise DataError(f"data.root: {printable(folder)} has no {training}")
        tested = _packed_part(folder, test)
        # Which training images validate follows from `val_size`
        return {"train": train, "val": train, **({"test": tested} if tested else {})}

    return identity


def file_identity(*, root: str) -> dict[str, Part]:
    """Return what identifies a set in one file, whatever the file is called. Which examples are split off follows."""
    path = expand_home(root)
    (size,), contents = digest_files(path.parent, [path.name])
    part = Part(listing=digest([str(size)]), content=digest(contents))
    return {"train": part, "val": part, "test": part}


def _packed_part(folder: Path, pattern: str) -> Part | None:
    """Return names, sizes and contents of the files that match a pattern, None if there are none."""
    place = Path(full(folder))
    try:
        found = [path for path in place.glob(pattern) if is_file(path, error=DataError, key="data.root")]
    except OSError as error:
        raise path_error(folder, error, error=DataError, key="data.root") from error
    names = sorted(path.relative_to(place).as_posix() for path in found)
    if not names:
        return None
    sizes, contents = digest_files(folder, names)
    return Part(
        listing=digest(f"{name} {size}" for name, size in zip(names, sizes, strict=True)), content=digest(contents)
    )
