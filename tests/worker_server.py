"""The process that Python keeps to start image-loading workers from, for all tests of this process."""

from __future__ import annotations

from multiprocessing import forkserver


def stop_worker_server() -> None:
    """End the server that earlier tests started: it has their environment, and a forked process cannot wait for it."""
    forkserver._forkserver._stop()
