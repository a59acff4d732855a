"""The storage of a study: a journal in the sweep's folder, or a database by URL."""

from __future__ import annotations

import importlib.metadata
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import CheckpointError, ConfigError, StorageError
from runner.expand_user import expanded
from runner.passwords import masked_reason, masked_url
from runner.search.journal import Journal
from runner.user_paths import full

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "study.journal"
KEY = "hydra.sweeper.storage"
# Not saved in environment.json
_VARIABLE = "STUDY_STORAGE"
_DATABASES = ("sqlite", "postgresql", "mysql")
# Supported major versions of Optuna: from, below
_SUPPORTED = (5, 6)
# Seconds that a write to SQLite waits for those of other processes
_SQLITE_TIMEOUT = 120
# Another program may create the tables at the same time: these errors pass
_PASSING = re.compile(r"already exists|locked|duplicate key|UNIQUE constraint|deadlock|concurrently", re.IGNORECASE)
_ATTEMPTS = 20
_PAUSE = 0.25


def check_optuna_installed() -> None:
    """Raise ConfigError, with the command to install it, unless a supported version of Optuna is installed."""
    command = "pip install 'optuna>=5,<6'"
    try:
        version = importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(f"hydra/sweeper: optuna is not installed: {command}") from error
    if not _SUPPORTED[0] <= int(version.partition(".")[0]) < _SUPPORTED[1]:
        raise ConfigError(f"hydra/sweeper: optuna {version} is not supported: {command}")


def is_database(url: str) -> bool:
    """Return True if a storage is the URL of a database, False if it is the path of a journal."""
    return "://" in url


def journal_path(url: str) -> Path:
    """Return the path of a journal."""
    return Path(expanded(KEY, url))


def check_storage(url: str) -> None:
    """Raise ConfigError if a storage is of an unknown kind or in memory only, without opening it."""
    if not is_database(url):
        return
    kind = url.partition("://")[0]
    if kind.partition("+")[0] not in _DATABASES:
        raise ConfigError(f"{KEY}: got '{kind}://...', must be a path or a URL of {', '.join(_DATABASES)}")
    if kind.startswith("sqlite") and sqlite_path(url) is None:
        raise ConfigError(f"{KEY}: got {url}, a database in memory, which ends with this process; name a file")


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite database, None if it is in memory."""
    from sqlalchemy.engine import make_url

    with storage_errors(url, ConfigError):
        found = make_url(url)
    name = (found.database or "").partition("?")[0].removeprefix("file:")
    in_memory = name in ("", ":memory:") or "mode=memory" in url
    return None if in_memory else Path(name)


def stored_url(url: str) -> str:
    """Return a URL without its password, as it may be written to files; processes started later know the password."""
    if masked_url(url) != url:
        os.environ[_VARIABLE] = url
    return masked_url(url)


def full_url(url: str) -> str:
    """Return a URL from `stored_url` with its password, which the environment of this process has."""
    known = os.environ.get(_VARIABLE, "")
    return known if masked_url(known) == url else url


def open_storage(url: str | None, folder: Path, *, keep_connections: bool = False) -> BaseStorage:
    """Return the storage of a URL; without a URL, or for a path, a journal.

    Whoever keeps connections to a database calls `close_storage`; else each access makes a new one. Raises ConfigError
    if it cannot be opened.
    """
    import optuna
    from optuna.storages.journal import BaseJournalBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is not None and is_database(url):
        return _database(url, keep_connections)
    BaseJournalBackend.register(Journal)
    path = folder / JOURNAL if url is None else journal_path(url)
    try:
        return optuna.storages.JournalStorage(Journal(path))  # type: ignore[arg-type]
    except (StorageError, CheckpointError) as error:
        if url is None:
            raise
        raise ConfigError(f"{KEY}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(f"{KEY}: {path} is not a journal of Optuna ({error})") from error


def _database(url: str, keep_connections: bool) -> BaseStorage:
    """Return the storage in a database, whose tables are created if they are missing."""
    check_storage(url)
    attempt = 1
    while True:
        try:
            with storage_errors(url, ConfigError):
                return _connected(url, keep_connections)
        except ConfigError as error:
            if attempt == _ATTEMPTS or not _PASSING.search(str(error)):
                raise
        attempt += 1
        time.sleep(_PAUSE)


def _connected(url: str, keep_connections: bool) -> BaseStorage:
    """Return Optuna's storage in a database."""
    import optuna
    from sqlalchemy.pool import NullPool

    # A server may have closed a connection meanwhile
    options: dict[str, Any] = {"pool_pre_ping": True} if keep_connections else {"poolclass": NullPool}
    if url.startswith("sqlite") and "timeout=" not in url:
        options["connect_args"] = {"timeout": _SQLITE_TIMEOUT}
    return optuna.storages.RDBStorage(_with_full_path(url), engine_kwargs=options)


def _with_full_path(url: str) -> str:
    """Return a URL with the file of SQLite in full: the driver opens it later, wherever the process is then."""
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    file = parsed.database
    if parsed.get_backend_name() != "sqlite" or not file or file == ":memory:" or file.startswith("file:"):
        return url
    return parsed.set(database=full(file)).render_as_string(hide_password=False)


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a database; a journal has none."""
    import optuna

    if isinstance(storage, optuna.storages.RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def storage_errors(url: str | None, kind: type[ConfigError] | type[StorageError] = StorageError) -> Iterator[None]:
    """Convert the errors of a database to one line, without its password."""
    if url is None or not is_database(url):
        yield
        return
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        raise kind(_line(url, cause)) from None
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        # While a database is opened: a malformed URL, or a schema of another version of Optuna
        if kind is StorageError:
            raise
        raise kind(_line(url, error)) from None


def _line(url: str, error: BaseException) -> str:
    """Return what is wrong with a storage, in one line."""
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    hint = ""
    if isinstance(error, ImportError):
        cause = error.__cause__ or error
        module = getattr(cause, "name", None)
        hint = f"; pip install {'psycopg[binary]' if module == 'psycopg' else module}" if module else ""
    return f"{KEY}: cannot use {masked_url(url)}: {masked_reason(reason, url)}{hint}"
