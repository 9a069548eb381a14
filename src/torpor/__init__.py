"""Torpor: functions that rest at zero and wake on an event.

What a function's author imports is here, and is loaded when it is first asked for, so that the parts of the
platform, which all import this package, do not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent

    from torpor.runtime.context import Context
    from torpor.runtime.declare import function
    from torpor.runtime.partial import Failed
    from torpor.runtime.refusals import RejectError, RetryError

__all__ = ["CloudEvent", "Context", "Failed", "RejectError", "RetryError", "function"]

_HOMES = {
    "CloudEvent": "cloudevents.core.v1.event",
    "Context": "torpor.runtime.context",
    "Failed": "torpor.runtime.partial",
    "RejectError": "torpor.runtime.refusals",
    "RetryError": "torpor.runtime.refusals",
    "function": "torpor.runtime.declare",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'torpor' has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - most who import this package never come here

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
