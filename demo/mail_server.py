"""A mail server as they are: slow, at times too busy, and with no mailbox for some addresses."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from aiosmtpd.smtp import SMTP

if TYPE_CHECKING:
    from types import TracebackType

    from aiosmtpd.smtp import Envelope, Session

NOBODY = "nobody-"
"""Addresses that begin so have no mailbox."""
_WORK_SECONDS = 0.03
_TOO_BUSY_ONE_IN = 5
_MOST_REFUSALS = 2


class MailServer:
    """Listens at ``address`` for as long as its block lasts.

    Of addresses, one in five is refused once or twice before its mail is taken; which ones does not change
    from run to run.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._server: asyncio.Server | None = None
        self._refusals: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        """How many mails each address has got."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, self._address, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _session(self) -> SMTP:
        return SMTP(self, enable_SMTPUTF8=True, hostname="mail.example.org")

    @property
    def port(self) -> int:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("the mail server is not up")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def refused(self) -> int:
        """How often a mail was refused that can be sent later."""
        return self._refusals.total()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        """Whether there is a mailbox."""
        if address.startswith(NOBODY):
            return "550 there is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take a mail, in its own time, or not yet."""
        await asyncio.sleep(_WORK_SECONDS)
        [address] = envelope.rcpt_tos
        if self._refusals[address] < _refusals(address):
            self._refusals[address] += 1
            return "451 too much to do, try again later"
        self.accepted[address] += 1
        return "250 OK"


def _refusals(address: str) -> int:
    """How often mail to ``address`` is refused before it is taken."""
    number = zlib.crc32(address.encode())
    return 0 if number % _TOO_BUSY_ONE_IN else 1 + number // _TOO_BUSY_ONE_IN % _MOST_REFUSALS
