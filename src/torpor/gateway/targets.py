"""Which instance a request goes to, and who may wait while there is none: the activator's rules. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torpor.gateway import names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from torpor.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """How much is held at once, for all functions together, and for how long."""

    max_requests: int = 5_000
    max_bytes: int = 256 * 1024 * 1024
    max_seconds: float = names.HOLD_SECONDS


class Holding:
    """Counts what is held."""

    def __init__(self, limits: HoldLimits) -> None:
        self._limits = limits
        self.requests = 0
        self.bytes = 0

    def admit(self, size_bytes: int) -> bool:
        """Take a request in, with what has come of it so far; False when there is no room."""
        if self.requests >= self._limits.max_requests:
            return False
        if self.bytes + size_bytes > self._limits.max_bytes:
            return False
        self.requests += 1
        self.bytes += size_bytes
        return True

    def grow(self, size_bytes: int) -> bool:
        """More came of a request that is held; False when there is no room for it, and nothing is counted."""
        if self.bytes + size_bytes > self._limits.max_bytes:
            return False
        self.bytes += size_bytes
        return True

    def leave(self, size_bytes: int) -> None:
        """A request is held no longer; ``size_bytes`` is all that was counted of it."""
        self.requests -= 1
        self.bytes -= size_bytes


@dataclass(slots=True)
class _Function:
    loads: dict[Endpoint, int] = field(default_factory=dict)  # requests under way through the activator
    problem: str | None = None


class Targets:
    """The functions that are declared, their instances, and how many requests each has from here."""

    def __init__(self) -> None:
        self._functions: dict[str, _Function] = {}

    def declare(self, keys: Collection[str]) -> Sequence[Endpoint]:
        """Make ``keys`` the functions that there are; returns the instances of the others."""
        gone = [key for key in self._functions if key not in keys]
        removed = [endpoint for key in gone for endpoint in self._functions.pop(key).loads]
        for key in keys:
            self._functions.setdefault(key, _Function())
        return removed

    def __contains__(self, key: str) -> bool:
        return key in self._functions

    def publish(self, key: str, endpoints: Iterable[Endpoint]) -> Sequence[Endpoint]:
        """Make ``endpoints`` the instances of a function; returns the ones that are no longer.

        An instance proves that the function starts, so that what kept it from starting is forgotten. That
        a function has none is nothing new if it is not declared.
        """
        function = self._functions.get(key) or _Function()
        loads = {endpoint: function.loads.get(endpoint, 0) for endpoint in endpoints}
        if loads:
            self._functions[key] = function
        removed = [endpoint for endpoint in function.loads if endpoint not in loads]
        function.loads = loads
        if loads:
            function.problem = None
        return removed

    def endpoints(self, key: str) -> Sequence[Endpoint]:
        """The instances of a function."""
        function = self._functions.get(key)
        return () if function is None else tuple(function.loads)

    def loads(self, key: str) -> Mapping[Endpoint, int]:
        """How many requests each instance of a function has from here."""
        function = self._functions.get(key)
        return {} if function is None else dict(function.loads)

    def fail(self, key: str, problem: str | None) -> None:
        """Say why a function can't start, or that nothing is known to keep it from that."""
        function = self._functions.get(key)
        if function is not None:
            function.problem = problem

    def problem(self, key: str) -> str | None:
        """Why the function can't start."""
        function = self._functions.get(key)
        return None if function is None else function.problem

    def pick(self, key: str, avoid: Collection[Endpoint] = ()) -> Endpoint | None:
        """The instance with the fewest requests from here, and one more for it; ``None`` when there is none.

        Of equal ones, the one that was picked longest ago.
        """
        function = self._functions.get(key)
        if function is None:
            return None
        loads = function.loads
        candidates = [endpoint for endpoint in loads if endpoint not in avoid] if avoid else loads
        endpoint = min(candidates, key=loads.__getitem__, default=None)
        if endpoint is not None:
            loads[endpoint] = loads.pop(endpoint) + 1  # and to the end of the dict
        return endpoint

    def release(self, key: str, endpoint: Endpoint) -> None:
        """A request that :meth:`pick` counted is done with."""
        function = self._functions.get(key)
        if function is not None and endpoint in function.loads:
            function.loads[endpoint] = max(0, function.loads[endpoint] - 1)
