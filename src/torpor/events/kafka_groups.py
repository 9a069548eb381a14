"""Appends of single records that many make at once, written together.

A message costs who writes it, the broker and everyone who reads it as much as dozens of records. So once
:data:`SINGLY` are under way by themselves, the next ones wait for each other, two groups at a time, until
none waits any more.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from torpor.errors import EventLogError
from torpor.events.kafka_codec import BATCH_RECORDS, Appended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torpor.events.kafka_index import Verdict

SINGLY = 32
_GROUPS = 2
_GROUP_BYTES = 2 * 1024 * 1024
"""Of a group's records: sizes count characters, of which each may be four bytes in the message."""
_WAITING_BYTES = 64 * 1024 * 1024
"""Of all that waits, as much as Kafka's own client would hold."""

Written = asyncio.Future[list["Verdict"]]


class Groups:
    """Writes what a stream is to append by ``write``, whose future has the outcome of each record."""

    def __init__(self, write: Callable[[Appended], Written]) -> None:
        self._write = write
        self._waiting: dict[Written, Appended] = {}
        self._waiting_bytes = 0
        self._singly = 0
        self._groups = 0
        self._sending = False

    def append(self, appended: Appended) -> Written:
        """Write it, with others or by itself. Who cancels the future before it is sent takes it back.

        Raises :class:`~torpor.errors.EventLogError` when too much waits already.
        """
        is_single = len(appended.heads) == 1 and appended.guard is None
        if not is_single or not (self._waiting or self._groups or self._singly >= SINGLY):
            writing = self._write(appended)
            self._singly += 1
            writing.add_done_callback(self._written_singly)
            return writing
        if self._waiting_bytes >= _WAITING_BYTES:
            raise EventLogError("too much waits for Kafka")
        written: Written = asyncio.get_running_loop().create_future()
        self._waiting[written] = appended
        self._waiting_bytes += appended.size
        written.add_done_callback(self._take_out)
        self._send_soon()
        return written

    def _take_out(self, written: Written) -> None:
        appended = self._waiting.pop(written, None)
        if appended is not None:
            self._waiting_bytes -= appended.size

    def _written_singly(self, _: Written) -> None:
        self._singly -= 1

    def _send_soon(self) -> None:
        """Send a group once all has run that is ready to run: it may have more to append."""
        if self._waiting and self._groups < _GROUPS and not self._sending:
            self._sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        group = self._next()
        if group:
            heads = [appended.heads[0] for appended in group.values()]
            records = [appended.record(0) for appended in group.values()]
            try:
                writing = self._write(Appended(heads, records.__getitem__))
            except (EventLogError, TypeError, ValueError) as error:
                writing = asyncio.get_running_loop().create_future()
                writing.set_exception(EventLogError(f"records can't be written: {error}"))
            self._groups += 1
            writing.add_done_callback(partial(self._written, list(group)))
        self._send_soon()

    def _next(self) -> dict[Written, Appended]:
        """Of what waits, as much as fits into a message."""
        group: dict[Written, Appended] = {}
        size = 0
        for written, appended in self._waiting.items():
            if written.done():
                continue  # who wanted it has just gone away
            size += appended.size
            if len(group) == BATCH_RECORDS or (group and size > _GROUP_BYTES):
                break
            group[written] = appended
        for written in group:
            self._take_out(written)
        return group

    def _written(self, group: Sequence[Written], writing: Written) -> None:
        self._groups -= 1
        error = writing.exception()
        for place, written in enumerate(group):
            if written.done():
                continue
            if error is None:
                written.set_result([writing.result()[place]])
            else:
                written.set_exception(error)
                written.exception()  # who has gone away need not see it
        self._send_soon()
