"""`task.out`: the file that predict and export write, checked before the work begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner import user_paths
from runner.engine.saving import storage
from runner.errors import ConfigError, StorageError, brief, escaped


@contextmanager
def out_file(out: str, suffixes: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """Yield the path of a file that can be written when the body ends; an error in the body removes new folders again.

    Raises:
        ConfigError: Another name is needed: the suffix is another one, or there is a folder, or a file to keep.
        StorageError: The system refuses the path, as where this user may not write.
    """
    path = Path(out)
    check_name(path, suffixes, overwrite=overwrite)
    with storage.folders_above(path):
        with storage.convert_os_errors(path):
            temporary, file = storage.create_temporary(path.parent)
            storage.disk.close(file)
            storage.disk.unlink(temporary)
        yield path


def check_name(path: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Raise ConfigError if another name is needed, StorageError if the system refuses to look at the path."""
    name = brief(escaped(str(path)))
    if path.suffix not in suffixes:
        raise ConfigError(f"task.out: got '{name}'; expected a name that ends with {' or '.join(suffixes)}")
    if user_paths.is_dir(path, error=StorageError, key="task.out"):
        raise ConfigError(f"task.out: got '{name}', which is a folder; expected a file")
    if not overwrite and user_paths.exists(path, error=StorageError, key="task.out", links=False):
        raise ConfigError(f"task.out: '{name}' exists; choose another name, or task.overwrite=true")
