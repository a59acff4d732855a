"""The Optuna study of a search, for Optuna's own tools: its plots, its dashboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from runner import user_paths
from runner.engine.saving.storage import printable
from runner.errors import ConfigError, unknown
from runner.search.storage import (
    JOURNAL,
    check_optuna_installed,
    check_storage,
    close_storage,
    is_database,
    open_storage,
    storage_errors,
)

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage


def study(folder: str | os.PathLike[str], storage: str | None = None, *, name: str | None = None) -> optuna.Study:
    """Return a copy of the study of a search: what is done with it does not change the search.

    Args:
        folder: The folder of the search, or the journal that `hydra.sweeper.storage` named.
        storage: The URL of a database to copy it to, such as `sqlite:///study.db`, which `optuna-dashboard` opens;
            None: the memory of this process.
        name: Which of several studies; None: the one that was begun last.

    Returns:
        The study, with a parameter for each axis.

    Raises:
        ConfigError: The folder holds no study, or the database cannot be used or has a study of this name.

    """
    check_optuna_installed()
    import optuna

    found = open_storage(str(_journal(Path(folder))), Path())
    names = [each.study_name for each in found.get_all_studies()]
    if not names or (name is not None and name not in names):
        raise unknown("name", "study", str(name), names or ["none"])
    chosen, target = name or names[-1], _target(storage)
    with storage_errors(storage, ConfigError):
        if any(each.study_name == chosen for each in target.get_all_studies()):
            close_storage(target)
            raise ConfigError(f"storage: has a study {chosen} already; choose another database")
        optuna.copy_study(from_study_name=chosen, from_storage=found, to_storage=target, to_study_name=chosen)
        return optuna.load_study(study_name=chosen, storage=target)


def _journal(folder: Path) -> Path:
    """Return the path of a journal; nothing is created."""
    path = folder / JOURNAL if user_paths.is_dir(folder, key="folder") else folder
    if not user_paths.is_file(path, key="folder"):
        raise ConfigError(f"folder: {printable(folder)} holds no {JOURNAL}, as a search with hydra/sweeper=optuna has")
    return path


def _target(storage: str | None) -> BaseStorage:
    """Return the storage to copy to."""
    import optuna

    if storage is None:
        return optuna.storages.InMemoryStorage()
    if not is_database(storage):
        raise ConfigError(f"storage: got {storage}, must be the URL of a database, such as sqlite:///study.db")
    check_storage(storage)
    return open_storage(storage, Path())
