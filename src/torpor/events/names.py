"""How things are called in an event log: tokens, keys and the names of streams and consumers. Pure.

A token is a text that every broker takes as one step of a path: ASCII letters, digits, ``_``, ``-`` and
``=``. Different texts have different tokens.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")
_ESCAPED = re.compile(rb"[^A-Za-z0-9_-]")
_MAX_TOKEN = 120
_TO = "=to"  # no text has this token
_FUNCTION = "=fn"  # nor this one
_ANY_REVISION = "=any"
_BY_NAME = "function:"  # no name of a trigger begins so
_CALL, _CALLBACK = "call.", "callback."

DEFAULT_BROKER = "default/default"
"""The key of the broker that there is without any trigger that reads it."""
BROKER = "broker"
DEAD = "dead"
RECORDS = "records"
GROUPS = "groups"
SCHEDULES = "schedules"
"""The stream that knows where each schedule stands."""
DIRECT = "direct"
"""The consumer of a broker's events that go to functions by name."""
DIRECT_KEYS = f"{_FUNCTION}.>"
"""The keys of such events, as a consumer names them."""
SINK = "sink."
"""How the names of consumers begin that bring dead letters to a sink."""
DONE = "joined"
"""The stream that remembers, for a time, which groups were delivered."""

CALLS = "calls"
"""The stream of calls that nobody waits for; what happens to them is recorded as if it were a broker."""
OUTCOMES = "outcomes"
"""The stream of what came of them."""
CALLBACKS = "callbacks"
"""The stream of those outcomes that somebody is to be told."""


def token(text: str) -> str:
    """``text`` as one token; a long one is its SHA-256 instead."""
    return _token(text) if len(text) > _MAX_TOKEN else _known_token(text)


@lru_cache(4096)
def _known_token(text: str) -> str:
    """Types come again and again."""
    return text if _PLAIN.match(text) else _token(text)


def _token(text: str) -> str:
    raw = text.encode("utf-8", "surrogatepass")
    escaped = _ESCAPED.sub(lambda match: b"=%02X" % match[0][0], raw).decode("ascii")
    if not escaped:
        return "=empty"
    return escaped if len(escaped) <= _MAX_TOKEN else "=sha" + hashlib.sha256(raw).hexdigest()


def key_matches(pattern: str, key: str) -> bool:
    """Whether ``key`` is ``pattern``, or below it where it ends in ``.>``; ``>`` alone is above all."""
    if pattern == ">":
        return True
    return key.startswith(pattern[:-1]) if pattern.endswith(".>") else key == pattern


def any_key_matches(patterns: Iterable[str], key: str) -> bool:
    """Whether ``key`` matches one of ``patterns``."""
    return any(key_matches(pattern, key) for pattern in patterns)


def broker_stream(broker_key: str) -> str:
    """Stream of the events of a broker (key ``namespace/name``)."""
    return f"{BROKER}.{broker_key.replace('/', '.')}"


def dead_stream(broker_key: str) -> str:
    """Stream of the dead letters of a broker's triggers."""
    return f"{DEAD}.{broker_key.replace('/', '.')}"


def records_stream(broker_key: str) -> str:
    """Stream of what happened to the events of a broker."""
    return f"{RECORDS}.{broker_key.replace('/', '.')}"


def groups_stream(trigger_key: str) -> str:
    """Stream of the parts that a joining trigger holds."""
    return f"{GROUPS}.{trigger_key.replace('/', '.')}"


def trigger_consumer(trigger_key: str) -> str:
    """Durable consumer of a trigger."""
    return f"trigger.{trigger_key.replace('/', '.')}"


def sink_consumer(trigger_key: str) -> str:
    """Durable consumer of a trigger's dead letters that brings them to their sink."""
    return f"{SINK}{trigger_key.replace('/', '.')}"


def call_keys(function_key: str) -> str:
    """The keys of all calls of a function, and of their outcomes."""
    return f"{function_key.replace('/', '.')}.>"


def call_consumer(function_key: str) -> str:
    """Durable consumer of a function's calls."""
    return f"{_CALL}{function_key.replace('/', '.')}"


def callback_consumer(function_key: str) -> str:
    """Durable consumer of a function's callbacks."""
    return f"{_CALLBACK}{function_key.replace('/', '.')}"


def called_function(consumer: str) -> str:
    """The key of the function whose calls a durable consumer reads."""
    return consumer.removeprefix(_CALL).replace(".", "/", 1)


def addressed_key(trigger_key: str, mark: str) -> str:
    """Key of an event that is for one trigger alone, whatever its filters; ``mark`` tells two apart."""
    return f"{_TO}.{token(trigger_key)}.{mark}"


def addressed_keys(trigger_key: str) -> str:
    """The keys of all events that are for that trigger alone, as a consumer names them."""
    return f"{_TO}.{token(trigger_key)}.>"


def addressee(key: str) -> str | None:
    """The token of the trigger that a broker's record of this key is for alone; ``None``: for any trigger.

    One that is for a function by name has no trigger's token.
    """
    to, _, rest = key.partition(".")
    if to == _FUNCTION:
        return to
    return rest.partition(".")[0] if to == _TO else None


def direct_key(function: str, revision: str | None, mark: str) -> str:
    """Key of an event that is for a function of the broker's namespace by name, or for a revision of it."""
    return f"{_FUNCTION}.{function}.{revision or _ANY_REVISION}.{mark}"


def direct_to(key: str) -> tuple[str, str | None]:
    """The function, and the revision if one is meant, that :func:`direct_key` made ``key`` of.

    Raises ``ValueError`` for any other key.
    """
    _, function, revision, _ = key.split(".", 3)
    return function, None if revision == _ANY_REVISION else revision


def direct_trigger(function_key: str) -> str:
    """What stands for the key of a trigger where a function is meant by name."""
    namespace, name = function_key.split("/")
    return f"{namespace}/{_BY_NAME}{name}"


def meant_by_name(trigger_key: str) -> str | None:
    """The key of the function that :func:`direct_trigger` made it of; ``None``: it is a trigger's."""
    namespace, _, name = trigger_key.partition("/")
    return f"{namespace}/{name.removeprefix(_BY_NAME)}" if name.startswith(_BY_NAME) else None


def identity(source: str, event_id: str) -> str:
    """What makes two events the same one, as a short text: source and id (CloudEvents 1.0.2, ``id``)."""
    return hashlib.sha256(f"{len(source)}:{source}{event_id}".encode("utf-8", "surrogatepass")).hexdigest()
