"""Where a study is kept: our journal in the sweep's folder, or a database by URL."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import CheckpointError, ConfigError, StorageError
from runner.expand_user import expanded
from runner.search.journal import Journal

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
DATABASES = ("sqlite", "postgresql", "mysql")
NEEDED = (5, 6)  # Optuna's versions: from, below


def installed() -> None:
    """Raise ConfigError, with the command that helps, unless Optuna is there in a version that fits."""
    command = "pip install 'optuna>=5,<6'"
    try:
        version = importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"hydra/sweeper: optuna is not installed: {command}") from error
    if not NEEDED[0] <= int(version.partition(".")[0]) < NEEDED[1]:
        raise ConfigError(f"hydra/sweeper: optuna {version} does not fit: {command}")


def opened(url: str | None, folder: Path) -> BaseStorage:
    """Return the storage that a URL names; without one, or for a path, a journal.

    Raises ConfigError, in one line, for what cannot be opened.
    """
    import optuna
    from optuna.storages.journal import BaseJournalBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is not None and "://" in url:
        return database(url)
    BaseJournalBackend.register(Journal)
    path = folder / JOURNAL if url is None else Path(expanded("hydra.sweeper.storage", url))
    try:
        return optuna.storages.JournalStorage(Journal(path))  # type: ignore[arg-type]
    except (StorageError, CheckpointError) as error:
        raise ConfigError(f"hydra.sweeper.storage: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"hydra.sweeper.storage: {path} is no journal of Optuna's ({error})") from error


def database(url: str) -> BaseStorage:
    """Return the storage in a database."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    kind = url.partition("://")[0]
    if kind.partition("+")[0] not in DATABASES:
        raise ConfigError(
            f"hydra.sweeper.storage: got '{kind}://...', must be a path or a URL of {', '.join(DATABASES)}"
        )
    try:
        return optuna.storages.RDBStorage(url)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"hydra.sweeper.storage: cannot open {shown(url)}: {reason}") from error


def shown(url: str) -> str:
    """Return a URL without what stands before its host: a password."""
    kind, _, rest = url.partition("://")
    return f"{kind}://{rest.rpartition('@')[2]}"
