"""Messages between the sweep and the processes that run its trials: one mapping of plain values a line.

A line is JSON, which cannot carry code. JSON keys are strings, so a mapping with other keys is sent as its items.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from runner.engine.private_descriptors import Private, keep_private

_PIECE = 1 << 16
# Bytes of a message; a config has some ten thousand
_LONGEST = 64 << 20
# Marks a mapping with keys that are not strings; no config contains a NUL
_ITEMS = "\0items"

Message = dict[str, Any]


class Closed(Exception):
    """The other end of the channel is closed, or does not take messages."""


class BadMessage(Closed):
    """The bytes that arrived are no message: other code than runner's wrote to the descriptor."""


class Channel(Private):
    """One end of a stream socket; a message arrives whole or not at all.

    No process that is forked from this one, or started by it, has the descriptor.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._socket, self._rest = stream, b""
        stream.set_inheritable(False)
        keep_private(self)

    def abandon(self) -> None:
        """Close the descriptor in a forked process."""
        with contextlib.suppress(OSError):
            os.close(self._socket.detach())

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._socket.fileno()

    def limit_waiting(self, seconds: float) -> None:
        """Give up a message after this time: the other end does not read."""
        self._socket.settimeout(seconds)

    def send(self, message: Message) -> None:
        """Send a message; raises Closed if the other end is closed, or does not read."""
        line = json.dumps(_packed(message)).encode() + b"\n"
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise Closed from error

    def receive(self) -> Iterator[Message]:
        """Wait for bytes, then yield the messages that they complete.

        Raises Closed at the end of the stream, BadMessage for anything that is no mapping in JSON.
        """
        try:
            piece = self._socket.recv(_PIECE)
        except OSError:
            piece = b""
        if not piece:
            raise Closed
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST:
            raise BadMessage
        for line in lines:
            yield _message_of(line)

    def only(self) -> Message:
        """Wait for the only message of this channel; raises Closed if none comes."""
        while True:
            for message in self.receive():
                return message

    def close(self) -> None:
        """Close this end."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _message_of(line: bytes) -> Message:
    """Return the message in a line."""
    try:
        message = json.loads(line, object_hook=_unpacked)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage from error
    if not isinstance(message, dict):
        raise BadMessage
    return message


def _packed(value: Any) -> Any:
    """Return a plain value in a form that JSON supports."""
    if isinstance(value, dict):
        if all(type(key) is str for key in value):
            return {key: _packed(each) for key, each in value.items()}
        return {_ITEMS: [[key, _packed(each)] for key, each in value.items()]}
    return [_packed(each) for each in value] if isinstance(value, list | tuple) else value


def _unpacked(packed: dict[str, Any]) -> dict[Any, Any]:
    """Return a mapping as it was before it was packed."""
    return dict(packed[_ITEMS]) if _ITEMS in packed else packed
