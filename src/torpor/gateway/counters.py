"""Counters that never fall, from ones that do: Envoy's start at 0 again when it, or a cluster, does. Pure."""

from __future__ import annotations


class Counters:
    """One counter for each key."""

    def __init__(self) -> None:
        self._base: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def observe(self, key: str, value: int) -> int:
        """Take ``value`` as read now; returns the count over all restarts."""
        last = self._last.get(key, 0)
        if value < last:
            self._base[key] = self._base.get(key, 0) + last
        self._last[key] = value
        return self._base.get(key, 0) + value

    def total(self, key: str) -> int:
        """The count as observed last."""
        return self._base.get(key, 0) + self._last.get(key, 0)

    def forget(self, key: str) -> None:
        """Start this counter anew."""
        self._base.pop(key, None)
        self._last.pop(key, None)
