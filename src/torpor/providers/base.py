"""What a provider of instances promises: the one protocol between deciding how many and making them run.

An instance moves through :class:`InstanceState` in order and never back. A provider tells the data path where
to send requests through an :class:`EndpointPublisher`, and ends an instance only in the order that loses no
request: withdraw its endpoint, wait until the data path has taken that in, signal, wait for the instance to
finish.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.endpoint import Endpoint
    from torpor.spec.models import Function


class InstanceState(StrEnum):
    """The life of an instance."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable version of a function: what it declares, and its name, such as ``resize-00003``."""

    name: str
    function: Function


@dataclass(frozen=True, slots=True)
class Instance:
    """What is known of one running instance. Times are seconds since the epoch."""

    id: str
    function: str  # its key, "namespace/name"
    revision: str
    endpoint: Endpoint
    state: InstanceState
    pid: int | None
    started_at: float
    ready_at: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class FunctionState:
    """What a provider knows of a function beside its instances.

    ``start_method`` says how instances are started (for processes: ``fork`` or ``import``) and why if it is
    not the fast way; ``problem`` is what keeps the function from running, in words for its author, or
    ``None``.
    """

    revision: str
    desired: int
    restarts: int
    start_method: str
    problem: str | None


class EndpointPublisher(Protocol):
    """The data path as a provider sees it."""

    async def publish(self, key: str, endpoints: Sequence[Endpoint]) -> None:
        """Make ``endpoints`` the function's only targets; returns when the data path has taken that in."""
        ...


class Provider(Protocol):
    """Runs instances of functions. Functions are named by their key, ``namespace/name``."""

    async def apply(self, revision: Revision) -> None:
        """Make ``revision`` the one that runs, replacing what ran before without losing a request.

        It is proved to start before anything is replaced; what ran goes on when it does not.
        Raises :class:`~torpor.errors.HandlerError` or :class:`~torpor.errors.EnvironmentBuildError`.
        """
        ...

    async def remove(self, key: str) -> None:
        """Drain and end every instance of the function and forget it; nothing happens if it is unknown."""
        ...

    def scale(self, key: str, replicas: int) -> None:
        """Set how many instances should run; the provider goes there by itself, restarting what dies."""
        ...

    def instances(self, key: str) -> Sequence[Instance]:
        """The instances of the function, the draining ones among them."""
        ...

    def state(self, key: str) -> FunctionState | None:
        """What is known of the function, ``None`` if it was never applied."""
        ...

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """Call ``on_change`` with a function's key whenever anything about its instances has changed."""
        ...

    async def close(self) -> None:
        """End every instance and everything that was started for them."""
        ...
