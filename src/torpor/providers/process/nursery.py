"""A process that forks others for the platform, the warm parent or a template, and the children it has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from torpor.children import describe_exit
from torpor.providers.process.channel import Channel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from torpor.providers.process.wire import Message


class Child(Protocol):
    """Something that was, or is about to be, forked."""

    id: str

    def started(self, pid: int) -> None:
        """It runs as process ``pid``."""

    def ended(self, reason: str) -> None:
        """It has ended, or was never started; ``reason`` completes "it ..."."""

    def kill(self) -> None:
        """End it now, if it still runs."""


class Nursery:
    """``on_message`` gets what is not about a child; ``on_end`` is called when the process is gone."""

    def __init__(
        self, sock: socket.socket, on_message: Callable[[Message], None], on_end: Callable[[], None]
    ) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._children: dict[str, Child] = {}
        self._channel = Channel(sock, self._receive, self._lost)

    @property
    def open(self) -> bool:
        """Whether it can fork."""
        return self._channel.open

    def fork(self, child: Child, request: Message, descriptors: Sequence[int]) -> None:
        """Have ``child`` forked as ``request`` says. The descriptors are closed here."""
        self._channel.send({**request, "id": child.id}, descriptors)
        if self._channel.open:
            self._children[child.id] = child
        else:
            asyncio.get_running_loop().call_soon(child.ended, "could not be forked")

    def close(self) -> None:
        """End the forking process, and its children with it."""
        self._channel.close()

    def finish(self) -> None:
        """Take in what the forking process has still said; it is known to have ended."""
        self._channel.finish()

    def _receive(self, message: Message) -> None:
        event = message["event"]
        if event == "started":
            self._children[message["id"]].started(message["pid"])
        elif event == "ended":
            child = self._children.pop(message["id"])
            child.ended(message.get("error") or describe_exit(message["code"]))
        else:
            self._on_message(message)

    def _lost(self) -> None:
        children, self._children = list(self._children.values()), {}
        for child in children:  # the kernel kills them too, where it can
            child.kill()
        self._on_end()
        for child in children:
            child.ended("ended with the process that it was forked from")
