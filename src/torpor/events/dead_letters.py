"""Dead letters: events that could not be delivered, with why. Pure.

Source: Knative's delivery contract (extensions ``knativeerrordest``, ``knativeerrorcode`` and
``knativeerrordata``, the last one base64 of at most 1,024 characters). ``torportrigger``, ``torporattempts``
and ``torporerror`` say the rest. Without these attributes it is the event as it was delivered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from torpor.binding import WireEvent, encode_structured
from torpor.events.log import Record
from torpor.events.names import token
from torpor.spec import selectors
from torpor.spec.letters import ID_DIGITS, DeadLetter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.events.log import Stored
    from torpor.spec.letters import LetterSelection

_MAX_ERROR_DATA = 1024
_MAX_REASON = 512
_FUNCTION = "/function/"
_ADDED = (
    "knativeerrordest",
    "knativeerrorcode",
    "knativeerrordata",
    "torportrigger",
    "torporattempts",
    "torporerror",
)


def dead_letters(
    events: Sequence[WireEvent],
    *,
    trigger_key: str,
    function_key: str,
    sequence: int,
    attempt: int,
    reason: str,
    code: int | None,
    data: bytes,
) -> list[Record]:
    """The records for a broker's stream of dead letters.

    ``sequence`` is that of the record which was delivered: delivered again, it makes the same dead letters;
    an event that was replayed makes others.
    """
    namespace, name = function_key.split("/")
    extensions = {
        "knativeerrordest": f"{_FUNCTION}{name}.{namespace}",
        "torportrigger": trigger_key,
        "torporattempts": str(attempt),
        "torporerror": _printable(reason),
    }
    if code is not None:
        extensions["knativeerrorcode"] = str(code)
    if data:
        extensions["knativeerrordata"] = base64.b64encode(data[: _MAX_ERROR_DATA * 3 // 4]).decode()
    return [_record(event, extensions, trigger_key, sequence) for event in events]


def _record(event: WireEvent, extensions: dict[str, str], trigger_key: str, sequence: int) -> Record:
    found = letter_of(trigger_key, event.source, event.id, sequence)
    letter = WireEvent({**event.attributes, **extensions}, event.data)
    return Record(f"{key_of(found)[:-1]}{token(event.type)}", found, letter)


def letter_of(trigger_key: str, source: str, event_id: str, sequence: int) -> str:
    """The id of the dead letter of an event that was delivered by the record of that sequence."""
    return _digest(trigger_key) + _digest("\0".join((trigger_key, source, event_id, str(sequence))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: ID_DIGITS // 2]


def letter_id(key: str) -> str:
    """The id of the dead letter of this key; its first half is the trigger's alone."""
    mark, rest, _ = key.split(".", 2)
    return mark + rest


def trigger_mark(letter_id: str) -> str:
    """The part of a dead letter's id that all those of its trigger share."""
    return letter_id[: ID_DIGITS // 2]


def key_of(letter_id: str) -> str:
    """The keys of the dead letter of this id, of which there is one at most."""
    half = ID_DIGITS // 2
    return f"{letter_id[:half]}.{letter_id[half:]}.>"


def keys_of(trigger_key: str) -> str:
    """The keys of a trigger's dead letters, as a consumer names them."""
    return f"{_digest(trigger_key)}.>"


def original(letter: WireEvent) -> WireEvent:
    """The event as it was delivered."""
    attributes = {name: value for name, value in letter.attributes.items() if name not in _ADDED}
    return WireEvent(attributes, letter.data)


def view(stored: Stored, broker_key: str, *, whole: bool = False) -> DeadLetter:
    """What is shown of a dead letter; with its event if ``whole``."""
    letter = stored.event
    attributes = letter.attributes
    name, _, namespace = attributes.get("knativeerrordest", "").removeprefix(_FUNCTION).rpartition(".")
    code = attributes.get("knativeerrorcode", "")
    return DeadLetter(
        id=letter_id(stored.key),
        broker=broker_key,
        trigger=attributes.get("torportrigger", ""),
        function=f"{namespace}/{name}",
        at=datetime.fromtimestamp(stored.stored_at, UTC),
        reason=attributes.get("torporerror", ""),
        attempts=int(attributes.get("torporattempts", "0")),
        code=int(code) if code else None,
        event_type=letter.type,
        event_source=letter.source,
        event_id=letter.id,
        data_bytes=len(letter.data or b""),
        answer=_answer(attributes.get("knativeerrordata", "")) if whole else None,
        event=orjson.loads(encode_structured(original(letter))) if whole else None,
    )


def chooser(selection: LetterSelection) -> Callable[[Stored], bool]:
    """Whether a stored dead letter is one of ``selection``, but for its broker.

    Raises :class:`ValueError` for a wrong condition.
    """
    conditions = selectors.parse(selection.filters)
    since = selection.since.timestamp() if selection.since is not None else 0.0
    until = selection.until.timestamp() if selection.until is not None else float("inf")
    triggers, event_ids = frozenset(selection.triggers), frozenset(selection.event_ids)
    destinations = {f"{_FUNCTION}{'.'.join(reversed(key.split('/')))}" for key in selection.functions}

    def chosen(stored: Stored) -> bool:
        attributes = stored.event.attributes
        return (
            since <= stored.stored_at < until
            and (not triggers or attributes.get("torportrigger") in triggers)
            and (not destinations or attributes.get("knativeerrordest") in destinations)
            and (not event_ids or stored.event.id in event_ids)
            and all(condition.matches(attributes) for condition in conditions)
        )

    return chosen


def _answer(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode("utf-8", "replace")
    except (ValueError, binascii.Error):
        return ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_MAX_REASON]
