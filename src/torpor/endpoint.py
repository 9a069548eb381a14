"""Where an instance or a part of the platform listens."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import tempfile
from pathlib import Path
from typing import NamedTuple, Self

_LONGEST_SOCKET_PATH = 100  # sun_path has 108 bytes on Linux, 104 on macOS
_LONGEST_SOCKET_NAME = 16
_LISTENED = range(20_000, 30_000)  # Kubernetes' node ports begin at 30000


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
    """``count`` different TCP ports of loopback that nothing listens on now.

    None of them is of the range that systems take for outgoing connections (32768 and up on Linux, 49152 and
    up by RFC 6335 section 6): one of those could be gone before its caller listens. Raises ``OSError`` where
    there are not so many.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(_LISTENED, len(_LISTENED)):
            if len(found) == count:
                break
            with contextlib.suppress(OSError):  # somebody listens on it
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
        if len(found) < count:
            raise OSError(errno.EADDRINUSE, f"{count} free ports were wanted, there are {len(found)}")
        return found


def socket_folder(preferred: Path) -> Path:
    """A folder for unix sockets that no other user may enter: ``preferred``, made where it is missing.

    Where its path is too long for a socket's it is a new temporary one, which the caller removes.
    """
    if len(str(preferred)) + 1 + _LONGEST_SOCKET_NAME > _LONGEST_SOCKET_PATH:
        return Path(tempfile.mkdtemp(prefix="torpor-"))
    preferred.mkdir(parents=True, exist_ok=True)
    preferred.chmod(0o700)
    return preferred
