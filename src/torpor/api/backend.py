"""What the API asks of a running platform, the same in every place that a platform runs.

Resources are named by their key, ``namespace/name``. Any call may raise a
:class:`~torpor.errors.TorporError`; the API answers 503 with its text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from torpor.binding import WireEvent
    from torpor.blobs import OpenBlob
    from torpor.spec.calls import CallPage, CallSelection, CallStatus
    from torpor.spec.history import Answer, Question
    from torpor.spec.letters import DeadLetter, LetterAction, LetterOutcome, LetterSelection
    from torpor.spec.replays import Replay, ReplayPage
    from torpor.spec.status import (
        BrokerStatus,
        FunctionStatus,
        LogLine,
        PlatformStatus,
        ScheduleStatus,
        TriggerStatus,
    )


class Backend(Protocol):
    """A running platform."""

    async def functions(self) -> Sequence[FunctionStatus]:
        """Every declared function."""
        ...

    async def function(self, key: str) -> FunctionStatus | None:
        """The function of this key with all there is to say of it, or ``None``."""
        ...

    async def triggers(self) -> Sequence[TriggerStatus]:
        """Every declared trigger, with its counters."""
        ...

    async def schedules(self) -> Sequence[ScheduleStatus]:
        """Every declared schedule, with its counters."""
        ...

    async def brokers(self) -> Sequence[BrokerStatus]:
        """Every broker, with its counters."""
        ...

    async def status(self) -> PlatformStatus:
        """The platform itself: its parts and their health, and the faults of the last reload."""
        ...

    def logs(self, key: str, *, tail: int, follow: bool) -> AsyncIterator[LogLine]:
        """The last ``tail`` lines that the function's instances wrote; with ``follow`` then each new one.

        Asked only for functions that there are.
        """
        ...

    async def tail(self, broker: str) -> AsyncIterator[WireEvent]:
        """Each event that the broker of this key takes in from the return of this call on.

        Asked only for brokers that there are. A reader that falls behind may lose events; the platform
        never waits.
        """
        ...

    async def dead_letters(self, selection: LetterSelection) -> AsyncIterator[DeadLetter]:
        """The dead letters of ``selection``, whose filters are right; broker by broker, the oldest first."""
        ...

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        """The dead letter of this id with all there is to say of it, or ``None``."""
        ...

    async def replay(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Deliver dead letters again, each to the trigger that had failed with it; one outcome for each id.

        It is safe to call again: what was replayed is not there any more.
        """
        ...

    async def drop(self, action: LetterAction) -> Sequence[LetterOutcome]:
        """Remove dead letters for good; one outcome for each id."""
        ...

    async def replay_events(self, broker: str, replay: Replay) -> ReplayPage:
        """Deliver a page of the events again that the broker of this key still has.

        Asked only for brokers that there are, with filters that are right. It is safe to call again.
        """
        ...

    async def explain(self, question: Question) -> Answer:
        """What happened to the events of an id."""
        ...

    async def call(self, call_id: str) -> CallStatus | None:
        """How far the call of this id is that nobody waits for, and what came of it; ``None``: not known."""
        ...

    async def calls(self, selection: CallSelection) -> CallPage:
        """A page of the calls that are known and that nobody waits for, the newest first."""
        ...

    async def put_blob(self, chunks: AsyncIterator[bytes], content_type: str | None) -> str:
        """Store a blob and return its reference: a URL, fit to be an event's ``dataref``, that ends in its
        name.

        The same bytes have the same name, of letters, digits, ``.``, ``_`` and ``-``.

        An error of ``chunks`` ends the upload, leaves nothing behind and is passed on.
        """
        ...

    async def get_blob(self, name: str) -> OpenBlob:
        """The blob of this name: the last segment of its reference.

        Raises :class:`~torpor.errors.BlobNotFoundError`.
        """
        ...
