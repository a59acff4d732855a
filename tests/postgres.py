"""A Postgres server for tests, on a socket in a temporary folder; tests that need it are skipped without one."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = "initdb", "pg_ctl"


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of an empty database, whose user has the password "pass word"."""
    driver = next((name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)), None)
    if driver is None or not all(map(shutil.which, PROGRAMS)):
        pytest.skip("needs Postgres (initdb, pg_ctl) and psycopg")
    # Not below tmp_path: the path of a socket has at most 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = "nobody" if os.getuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def run(*words: str) -> None:
        subprocess.run(words, user=user, cwd=folder, check=True, capture_output=True, timeout=120)

    try:
        (folder / "word").write_text("pass word")
        run("initdb", "-D", f"{folder}/data", "-U", "lab", "--auth=scram-sha-256", f"--pwfile={folder}/word", "-N")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql+{driver}://lab:pass%20word@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
