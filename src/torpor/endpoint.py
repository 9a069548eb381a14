"""Where an instance or a part of the platform listens."""

from __future__ import annotations

from typing import NamedTuple


class Endpoint(NamedTuple):
    """An IP address and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"
