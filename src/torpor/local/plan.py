"""What a reload has to do: pure comparison of what runs with what is declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Plan:
    """Keys of functions to apply (new or changed) and to remove, each in order of name."""

    apply: tuple[str, ...]
    remove: tuple[str, ...]


def plan(running: Mapping[str, str], wanted: Mapping[str, str]) -> Plan:
    """Compare fingerprints by function key; what is the same in both is left alone."""
    return Plan(
        apply=tuple(sorted(key for key, print_ in wanted.items() if running.get(key) != print_)),
        remove=tuple(sorted(running.keys() - wanted.keys())),
    )
