"""Messages between the provider and the processes that fork for it: JSON frames with descriptors beside them.

A frame is its length and its number of descriptors, then the JSON. Descriptors travel with the frame's first
byte (``SCM_RIGHTS``). Both ends are the platform's own, so a frame that is wrong is a fault of the platform
and raises. It is used by the warm parent: keep its imports to the standard library.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Message = dict[str, Any]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # a thousand variables of the greatest length and then some
MAX_DESCRIPTORS = 8
_HEADER = struct.Struct("!II")
_READ_BYTES = 64 * 1024
_CLOSE_ON_EXEC: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def pack(message: Message, descriptors: int = 0) -> bytes:
    """The frame of ``message`` that ``descriptors`` travel with."""
    body = json.dumps(message).encode()
    if len(body) > MAX_MESSAGE_BYTES or descriptors > MAX_DESCRIPTORS:
        raise ValueError(f"a message of {len(body)} bytes and {descriptors} descriptors is over the limit")
    return _HEADER.pack(len(body), descriptors) + body


def send_some(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> int:
    """Send the start of ``data`` with ``descriptors``; how many bytes went. Raises ``OSError``."""
    if not descriptors:
        return sock.send(data)
    rights = array.array("i", descriptors)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send ``message`` on a blocking socket. Raises ``OSError`` when the other end is gone."""
    data = pack(message, len(descriptors))
    sent = send_some(sock, data, descriptors)
    while sent < len(data):
        sent += send_some(sock, data[sent:])


class Inbox:
    """Takes frames off a socket as they come."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def receive(self) -> list[tuple[Message, list[int]]] | None:
        """What has come, without waiting; ``None`` when the other end is gone.

        The caller owns the descriptors.
        """
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                _READ_BYTES,
                socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize),
                socket.MSG_DONTWAIT | _CLOSE_ON_EXEC,
            )
        except (BlockingIOError, InterruptedError):
            return []
        except ConnectionError:
            return None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._take_descriptors(content)
        if not data:
            return None
        self._buffer += data
        return self._take_frames()

    def close(self) -> None:
        """Close descriptors of which the frame never came."""
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _take_descriptors(self, content: bytes) -> None:
        rights = array.array("i")
        rights.frombytes(content[: len(content) - len(content) % rights.itemsize])
        for descriptor in rights:
            os.set_inheritable(descriptor, False)
            self._descriptors.append(descriptor)

    def _take_frames(self) -> list[tuple[Message, list[int]]]:
        frames = []
        while len(self._buffer) >= _HEADER.size:
            length, count = _HEADER.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES or count > MAX_DESCRIPTORS:
                raise ValueError("a frame is over the limit")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            message = json.loads(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            frames.append((message, [self._descriptors.popleft() for _ in range(count)]))
        return frames
