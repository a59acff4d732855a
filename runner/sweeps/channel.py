"""Messages between the sweep and the processes that run its trials: one mapping of plain values a line.

A line is a Python literal, read by `ast.literal_eval`: unlike JSON it leaves keys that are numbers as they are, and
unlike a pickle it can only be a value.
"""

from __future__ import annotations

import ast
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

PIECE = 1 << 16

Message = dict[str, Any]


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One end of a stream socket; a message arrives whole or not at all."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket, self._rest = stream, b""

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Send a message; raises Closed if nobody is there to read it."""
        try:
            self._socket.sendall(repr(message).encode("utf-8", "surrogateescape") + b"\n")
        except OSError as error:
            raise Closed from error

    def receive(self) -> Iterator[Message]:
        """Wait for bytes, then yield the messages that they complete; raises Closed at the end of the stream."""
        try:
            piece = self._socket.recv(PIECE)
        except OSError:
            piece = b""
        if not piece:
            raise Closed
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield ast.literal_eval(line.decode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Let go of this end."""
        with contextlib.suppress(OSError):
            self._socket.close()
