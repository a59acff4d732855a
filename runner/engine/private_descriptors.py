"""Descriptors that belong to one process: those that it forks close their copies.

A lock (flock) and a channel belong to all processes that have the descriptor. Programs that a process starts do not get
it anyway (close-on-exec).
"""

from __future__ import annotations

import contextlib
import os
from weakref import WeakSet


class Private:
    """Something with a file descriptor that no forked process may use: `abandon` is called there, once."""

    def abandon(self) -> None:
        """Close the descriptor of this process only, and forget it."""


class PrivateDescriptor(Private):
    """A descriptor that no forked process may use, while this object exists."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        keep_private(self)

    def abandon(self) -> None:
        """Close the descriptor in a forked process."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


_private: WeakSet[Private] = WeakSet()


def keep_private(owner: Private) -> None:
    """Have the descriptor of an object closed in all processes that this one forks."""
    _private.add(owner)


def _abandon_all() -> None:
    for owner in list(_private):
        owner.abandon()
    _private.clear()


os.register_at_fork(after_in_child=_abandon_all)
