"""Where an instance or a part of the platform listens."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from pathlib import Path
from typing import NamedTuple, Self

_LONGEST_SOCKET_PATH = 100  # sun_path has 108 bytes on Linux, 104 on macOS
_LONGEST_SOCKET_NAME = 16


class Endpoint(NamedTuple):
    """An IP address and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def instance(self) -> str:
        """The id of the instance that listens there; empty where that is not known."""
        return ""


class InstanceEndpoint(Endpoint):
    """One that knows whose it is; equal to the plain one."""

    _instance: str

    def __new__(cls, host: str, port: int, instance: str) -> Self:
        """``instance`` is its id."""
        made = super().__new__(cls, host, port)
        made._instance = instance
        return made

    @property
    def instance(self) -> str:
        """The id of the instance that listens there."""
        return self._instance


def free_ports(count: int) -> list[int]:
    """``count`` different TCP ports of loopback that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def socket_folder(preferred: Path) -> Path:
    """A folder for unix sockets that no other user may enter: ``preferred``, made where it is missing.

    Where its path is too long for a socket's it is a new temporary one, which the caller removes.
    """
    if len(str(preferred)) + 1 + _LONGEST_SOCKET_NAME > _LONGEST_SOCKET_PATH:
        return Path(tempfile.mkdtemp(prefix="torpor-"))
    preferred.mkdir(parents=True, exist_ok=True)
    preferred.chmod(0o700)
    return preferred
