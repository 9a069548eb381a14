"""Act three: one event becomes hundreds of mails, through a server that is slow, busy, and refuses some."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from demo.errors import DemoError
from demo.mail_server import NOBODY, MailServer
from demo.report import MessagingReport
from torpor.binding import WireEvent
from torpor.spec.letters import LetterSelection

if TYPE_CHECKING:
    from collections.abc import Callable

    from demo.stage import Stage
    from torpor.api.client import Client
    from torpor.clock import Clock
    from torpor.spec.letters import DeadLetter

_MAILER = "mailer"
_TRIGGER = "send-mails"
_ORDINARY, _INTERNATIONAL, _UNKNOWN = 488, 7, 5
_LOOK_SECONDS = 0.2
_TIMEOUT_SECONDS = 180.0
_TEXT = "Dear $name,\n\nthis is what is new.\n"


@dataclass(slots=True)
class MailAct:
    """Measures the act while it runs."""

    stage: Stage
    clock: Clock
    say: Callable[[str], None]
    _recipients: list[dict[str, str]] = field(default_factory=lambda: list(_everybody()))

    async def run(self) -> MessagingReport:
        """Send a campaign, look at what could not be sent, mend it, and send that again."""
        async with MailServer(self.stage.host) as server:
            await self._declare(SMTP_HOST=self.stage.host, SMTP_PORT=str(server.port))
            with self.stage.client() as client:
                return await self._play(client, server)

    async def _play(self, client: Client, server: MailServer) -> MessagingReport:
        started = self.clock.monotonic()
        good = {one["address"] for one in self._recipients if not one["address"].startswith(NOBODY)}
        self.say(f"one event asks for {len(self._recipients)} mails")
        await asyncio.to_thread(client.send, [_campaign(self._recipients)])
        stuck = await self._settled(client, server, _ORDINARY, _INTERNATIONAL + _UNKNOWN)
        self.say(
            f"{server.accepted.total()} sent, {server.refused} put off by the server and sent later, "
            f"{len(stuck)} dead letters; now the mailer is mended, and they are replayed"
        )
        await self._declare(INTERNATIONAL="yes")
        replayed = await asyncio.to_thread(client.replay, [letter.id for letter in stuck])
        left = await self._settled(client, server, len(good), _UNKNOWN)
        self.say(f"{len(left)} have no mailbox, and are dropped: {left[0].reason}")
        await asyncio.to_thread(client.drop, [letter.id for letter in left])
        [trigger] = [one for one in await asyncio.to_thread(client.triggers) if one.name == _TRIGGER]
        sent = server.accepted
        return MessagingReport(
            wanted=len(good),
            sent=sent.total(),
            duplicates=sent.total() - len(sent),
            refused=server.refused,
            retried=trigger.redelivered,
            dead_lettered=trigger.dead_lettered,
            replayed=sum(one.outcome == "replayed" for one in replayed),
            lost=len(good - sent.keys()),
            wall_seconds=round(self.clock.monotonic() - started, 3),
        )

    async def _declare(self, **variables: str) -> None:
        """Give the mailer other environment variables, as a person with an editor would."""

        def edit(spec: dict[str, Any]) -> None:
            for variable in spec["env"]:
                variable["value"] = variables.get(variable["name"], variable["value"])

        await asyncio.to_thread(self.stage.change, _MAILER, edit)

    async def _settled(self, client: Client, server: MailServer, sent: int, dead: int) -> list[DeadLetter]:
        """The dead letters, once so many mails were sent and there are so many of those."""
        chosen = LetterSelection(triggers=(f"default/{_TRIGGER}",))
        deadline = self.clock.monotonic() + _TIMEOUT_SECONDS
        while True:
            letters = await asyncio.to_thread(lambda: list(client.dead_letters(chosen)))
            if server.accepted.total() >= sent and len(letters) >= dead:
                return letters
            if self.clock.monotonic() > deadline:
                raise DemoError(
                    f"{server.accepted.total()} mails were sent and {len(letters)} became dead letters "
                    f"within {_TIMEOUT_SECONDS:g} seconds, {sent} and {dead} were expected"
                )
            await self.clock.sleep(_LOOK_SECONDS)


def _everybody() -> list[dict[str, str]]:
    """Who gets a mail: most by an ordinary address, some beyond ASCII, some that do not exist."""
    ordinary = [f"reader-{number:03}" for number in range(_ORDINARY)]
    international = [f"lesér-{number}" for number in range(_INTERNATIONAL)]
    unknown = [f"{NOBODY}{number}" for number in range(_UNKNOWN)]
    people = [*ordinary, *international, *unknown]
    return [{"address": f"{name}@example.org", "name": name.capitalize()} for name in people]


def _campaign(recipients: list[dict[str, str]]) -> WireEvent:
    data = {"subject": "News for $name", "text": _TEXT, "recipients": recipients}
    attributes = {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/demo",
        "type": "campaign.requested",
        "datacontenttype": "application/json",
    }
    return WireEvent(attributes, orjson.dumps(data))
