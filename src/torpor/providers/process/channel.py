"""The platform's end of a control channel: frames out and in, on the running loop, never blocking it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from typing import TYPE_CHECKING

from torpor.providers.process import wire

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from torpor.providers.process.wire import Message

BUSY_SECONDS = 0.01


class Channel:
    """Calls ``on_message`` for each message and ``on_end`` once, when the other end is gone or it is closed.

    It owns ``sock``, and the descriptors given to :meth:`send`.
    """

    def __init__(
        self, sock: socket.socket, on_message: Callable[[Message], None], on_end: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._inbox = wire.Inbox(sock)
        self._on_message = on_message
        self._on_end = on_end
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)
        self.open = True

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send ``message`` soon, and close ``descriptors`` here; nothing happens once it has ended."""
        if not self.open:
            _close(descriptors)
            return
        self._unsent.append((wire.pack(message, len(descriptors)), descriptors))
        if len(self._unsent) == 1:
            self._flush()

    def close(self) -> None:
        """End the channel, which ends the process at its other end."""
        if not self.open:
            return
        self.open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._inbox.close()
        for _, descriptors in self._unsent:
            _close(descriptors)
        self._unsent.clear()
        self._on_end()

    def finish(self) -> None:
        """Take in what has come, and end the channel: its other end is known to be gone."""
        while self.open and self._readable():
            pass
        self.close()

    def _flush(self) -> None:
        while self.open and self._unsent:
            data, descriptors = self._unsent[0]
            try:
                sent = wire.send_some(self._socket, data, descriptors)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # descriptors in flight: the other end has to catch up
                    self._loop.call_later(BUSY_SECONDS, self._flush)
                    return
                self._loop.call_soon(self.close)  # not now: no caller of send() is called back by it
                return
            _close(descriptors)
            if sent < len(data):
                self._unsent[0] = (data[sent:], ())
            else:
                self._unsent.popleft()
        if self.open:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> bool:
        """Whether there was something."""
        received = self._inbox.receive()
        if received is None:
            self.close()
            return False
        for message, _ in received:
            self._on_message(message)
        return bool(received)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
