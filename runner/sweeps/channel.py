"""Messages between the sweep and the processes that run its trials: one mapping of plain values each.

They are written by `marshal`: unlike JSON it leaves keys that are numbers as they are, unlike a pickle it can only be a
value, and it takes microseconds. All ends are of one program, none is on another machine.
"""

from __future__ import annotations

import contextlib
import marshal
import socket
from collections.abc import Iterator
from typing import Any

PIECE = 1 << 16
LENGTH = 8  # bytes before each message that hold its length

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
        content = marshal.dumps(message)
        try:
            self._socket.sendall(len(content).to_bytes(LENGTH, "big") + content)
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
        self._rest += piece
        while len(self._rest) >= (end := LENGTH + int.from_bytes(self._rest[:LENGTH], "big")):
            content, self._rest = self._rest[LENGTH:end], self._rest[end:]
            yield marshal.loads(content)

    def only(self) -> Message:
        """Wait for the one message that there will be; raises Closed if none comes."""
        while True:
            for message in self.receive():
                return message

    def close(self) -> None:
        """Let go of this end."""
        with contextlib.suppress(OSError):
            self._socket.close()
