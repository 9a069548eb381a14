"""Which function has which host and path, where several declare the same one. Pure.

No admission rule sees two resources at once. Gateways give a route to the function whose key comes first, as
:func:`torpor.gateway.routes.tables` does; the others are told here, so that their status can say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Route = tuple[str, str]
"""A host, empty for any, and a path prefix."""


class Claims:
    """The routes that functions declare; ``on_change`` is told whose standing another one has changed."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._routes: dict[str, frozenset[Route]] = {}
        self._rivals: dict[Route, set[str]] = {}

    def set(self, key: str, routes: Iterable[Route]) -> None:
        """The function ``key`` declares ``routes``, and no others."""
        before, after = self._routes.get(key, frozenset()), frozenset(routes)
        if before == after:
            return
        if after:
            self._routes[key] = after
        else:
            del self._routes[key]
        changed: set[str] = set()
        for route in before - after:
            self._rivals[route].discard(key)
            changed |= self._rivals[route]
            if not self._rivals[route]:
                del self._rivals[route]
        for route in after - before:
            rivals = self._rivals.setdefault(route, set())
            changed |= rivals
            rivals.add(key)
        for other in sorted(changed):
            self._on_change(other)

    def forget(self, key: str) -> None:
        """The function is gone."""
        self.set(key, ())

    def taken(self, key: str) -> Iterator[tuple[Route, str]]:
        """Each route of the function ``key`` that leads to another one, and to which."""
        for route in sorted(self._routes.get(key, ())):
            owner = min(self._rivals[route])
            if owner != key:
                yield route, owner
