"""Dead letters: events that could not be delivered, with why. Pure.

Source: Knative's delivery contract (extensions ``knativeerrordest``, ``knativeerrorcode`` and
``knativeerrordata``, the last one base64 of at most 1,024 characters). ``torportrigger``, ``torporattempts``
and ``torporerror`` say the rest. Without these attributes it is the event as it was delivered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from torpor.binding import USUAL_NAMES, WireEvent, encode_structured
from torpor.events.log import Record
from torpor.events.names import token
from torpor.spec import selectors
from torpor.spec.letters import ID_DIGITS, DeadLetter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.events.log import Stored
    from torpor.spec.letters import LetterSelection

ADDED_BYTES = 8 * 1024
"""What a dead letter has more than its event, at most, as headers have it: events leave room for it."""
_MAX_ERROR_DATA = 1024
_MAX_REASON = 512
_MAX_SALVAGED = 200
_FUNCTION = "/function/"
_KEY = re.compile(rf"([0-9a-f]{{{ID_DIGITS // 2}}})\.([0-9a-f]{{{ID_DIGITS // 2}}})\.")
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
    letter = WireEvent({**original(event).attributes, **extensions}, event.data)
    return Record(f"{key_of(found)[:-1]}{token(event.type)}", found, letter)


def salvaged(event: WireEvent) -> WireEvent:
    """What can be kept of an event that is not valid: its data, and of the usual attributes so much as a log
    surely takes.
    """
    attributes = {
        name: _printable(value)[:_MAX_SALVAGED]
        for name, value in event.attributes.items()
        if name in USUAL_NAMES
    }
    return WireEvent(attributes, event.data)


def reduced(letter: Record, why: str) -> Record:
    """The dead letter without what no log takes; ``why`` says what was too large."""
    event = salvaged(letter.event)
    added = {name: value for name, value in letter.event.attributes.items() if name in _ADDED}
    reason = _printable(f"{added['torporerror'][: _MAX_REASON // 2]}; not all of it is kept: {why}")
    return letter._replace(event=WireEvent({**event.attributes, **added, "torporerror": reason}, None))


def letter_of(trigger_key: str, source: str, event_id: str, sequence: int) -> str:
    """The id of the dead letter of an event that was delivered by the record of that sequence."""
    return _digest(trigger_key) + _digest("\0".join((trigger_key, source, event_id, str(sequence))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[: ID_DIGITS // 2]


def letter_id(key: str) -> str:
    """The id of the dead letter of this key; its first half is the trigger's alone.

    Empty for a key that no dead letter has.
    """
    found = _KEY.match(key)
    return "".join(found.groups()) if found else ""


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
    return DeadLetter(
        id=letter_id(stored.key),
        broker=broker_key,
        trigger=attributes.get("torportrigger", ""),
        function=f"{namespace}/{name}",
        at=datetime.fromtimestamp(stored.stored_at, UTC),
        reason=attributes.get("torporerror", ""),
        attempts=_number(attributes.get("torporattempts", "")) or 0,
        code=_number(attributes.get("knativeerrorcode", "")),
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
            letter_id(stored.key) != ""  # else another program wrote it
            and since <= stored.stored_at < until
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


def _number(text: str) -> int | None:
    return int(text[:9]) if text.isascii() and text.isdigit() else None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_MAX_REASON]
