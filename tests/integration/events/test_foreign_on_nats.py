"""What other programs write into a broker on NATS: it is delivered or a dead letter, then comes the next."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import orjson
import pytest

from tests.integration.events.process import until
from tests.unit.events.world import answer, event, trigger
from torpor.binding import decode
from torpor.clock import SystemClock
from torpor.errors import RecordTooLargeError
from torpor.events import jetstream_codec, names
from torpor.events.archive import Archive
from torpor.events.declared import Declared
from torpor.events.dispatcher import Dispatcher
from torpor.events.explain import Explainer
from torpor.events.intake import append_events
from torpor.events.jetstream import JetStreamLog
from torpor.events.letters import DeadLetters
from torpor.spec.history import Question
from torpor.spec.letters import LetterSelection
from torpor.spec.replays import Replay
from torpor.transport.message import decode_fields

if TYPE_CHECKING:
    from torpor.events.nats_server import NatsServer
    from torpor.transport import Response

FINE = b"ce-specversion: 1.0\r\nce-source: /other\r\nce-type: a\r\nce-partitionkey: k\r\n"
LARGE = b"x" * (8 * 1024 * 1024 - 300)
WRITTEN: dict[str, tuple[bytes, bytes]] = {
    "fine": (FINE + b"ce-id: fine\r\ncontent-type: text/plain\r\n", b"x"),
    "no-data": (FINE + b"ce-id: no-data\r\n", b""),
    "trace": (FINE + b"ce-id: trace\r\nce-traceparent: 00-a%0A\r\n", b"x"),
    "type": (FINE + b"ce-id: type\r\nce-datacontenttype: a/b%0D%0Ac: d\r\n", b"x"),
    "line-feed": (FINE + b"ce-id: line-feed\r\nce-a\nb: c\r\n", b"x"),
    "carriage-return": (FINE + b"ce-id: carriage-return\r\nce-a\rb: c\r\n", b"x"),
    "no-id": (FINE, b"x"),
    "large-head": (FINE + b"ce-big: " + 59_800 * b"x" + b"\r\n", b"x"),
    "large-head-beyond-ascii": (FINE + b"ce-big: " + 15_000 * "ü".encode() + b"\r\n", b"x"),
    "large-data": (FINE, LARGE),
    "valid-large-head": (FINE + b"ce-id: valid-large-head\r\nce-big: " + 59_700 * b"x" + b"\r\n", b"x"),
    "valid-large-data": (FINE + b"ce-id: valid-large-data\r\n", LARGE),
    "no-event": (b"", b"x"),
}


class _Functions:
    """Takes everything that is not large."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def send(
        self,
        function_key: str,
        fields: bytes,
        body: bytes,
        timeout_seconds: float,
    ) -> Response:
        [given] = decode(decode_fields(fields), body) or []
        if "large" in given.id:
            return answer(400)
        self.taken.append(given.id)
        return answer()


@pytest.mark.parametrize("ordering", ["none", "key"])
@pytest.mark.parametrize("case", WRITTEN)
def test_what_another_program_writes_is_delivered_or_a_dead_letter(
    case: str, ordering: Literal["none", "key"], nats: NatsServer
) -> None:
    head, payload = WRITTEN[case]
    broker = f"default/{case}-{ordering}"
    is_fine = case in {"fine", "no-data"}
    is_valid = is_fine or case.startswith("valid")

    async def run() -> None:
        log = await JetStreamLog.connect(nats.url, token=nats.token)
        clock, functions = SystemClock(), _Functions()
        dispatcher = Dispatcher(log, functions, clock)
        reading = trigger(broker=broker.removeprefix("default/"), ordering=ordering)
        await dispatcher.apply(Declared([reading], [broker]))
        tail = await log.tail(names.broker_stream(broker))
        subject = jetstream_codec.subject(jetstream_codec.quoted(names.broker_stream(broker)), "a")
        await _write(nats, subject, head, payload)
        await append_events(log, broker, [event("next", partitionkey="k")])

        async def ended() -> bool:
            [state] = (await dispatcher.states()).values()
            return "next" in functions.taken and state.pending == 0

        await until(ended)
        assert functions.taken == ([case, "next"] if is_fine else ["next"])
        seen = (await anext(tail)).event
        assert seen.data == (payload or None)
        await tail.aclose()

        dead = DeadLetters(log, dispatcher.intake, dispatcher.stats, dispatcher.recorder, dispatcher.route)
        letters = [each async for each in await dead.select(LetterSelection(brokers=(broker,)))]
        assert len(letters) == (not is_fine)
        for letter in letters:
            assert ("the function answered 400" if is_valid else "no valid CloudEvent") in letter.reason
            assert (letter.data_bytes < len(payload)) == ("not all of it is kept" in letter.reason)
            assert letter.data_bytes == len(payload) or "large" in case
        if seen.id:
            explainer = Explainer(log, clock, dispatcher.routes)
            [told] = (await explainer.explain(Question(id=seen.id, broker=broker))).items
            assert sum(step.what == "dead letter" for step in told.steps) == len(letters)

        now = datetime.now(UTC)
        archive = Archive(log, dispatcher.intake, dispatcher.recorder, dispatcher.routes, dispatcher.route)
        whole = Replay(since=now - timedelta(hours=1), until=now + timedelta(hours=1), run="a" * 32)
        if case == "valid-large-data":  # with its address it would be larger still
            with pytest.raises(RecordTooLargeError, match=case):
                await archive.replay(broker, whole)
        else:
            replayed = [each.id for each in (await archive.replay(broker, whole)).items]
            assert replayed == ([case, "next"] if is_valid else ["next"])
        await until(ended)
        await dispatcher.close()
        await log.close()

    asyncio.run(run())


async def _write(nats: NatsServer, subject: str, head: bytes, payload: bytes) -> None:
    """Write a message with any head at all, as no client does."""
    host, port = nats.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    options = {"auth_token": nats.token, "verbose": False, "headers": True, "protocol": 1}
    head = b"NATS/1.0\r\n%b\r\n" % head
    sizes = b"%d %d" % (len(head), len(head) + len(payload))
    writer.write(b"CONNECT %b\r\nHPUB %b %b\r\n" % (orjson.dumps(options), subject.encode(), sizes))
    writer.write(b"%b%b\r\nPING\r\n" % (head, payload))
    assert await reader.readline() == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()
