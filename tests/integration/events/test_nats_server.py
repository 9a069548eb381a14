"""The supervised NATS server: its port over restarts, its token, and what it says when it can't start."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.events.process import until
from torpor.binding import WireEvent
from torpor.errors import EventLogError, StartError
from torpor.events import jetstream_consumer
from torpor.events.jetstream import JetStreamLog
from torpor.events.log import ConsumerSpec, Record, StreamSpec
from torpor.events.nats_server import NatsServer

if TYPE_CHECKING:
    from pathlib import Path


def _record(number: int) -> Record:
    event = WireEvent({"specversion": "1.0", "id": str(number), "source": "/", "type": "t"}, b"x")
    return Record("t", str(number), event)


def test_a_killed_server_comes_back_with_everything(tmp_path: Path) -> None:
    async def run() -> None:
        server = NatsServer(tmp_path)
        await server.start()
        log = await JetStreamLog.connect(server.url, token=server.token)
        try:
            url, pid = server.url, server.pid
            await log.ensure_stream(StreamSpec("s"))
            consumer = await log.consumer(ConsumerSpec("s", "c", ack_wait_seconds=60.0))
            fetching = asyncio.ensure_future(consumer.fetch(10))
            assert pid is not None
            assert await log.append("s", [_record(n) for n in range(10)]) == [True] * 10
            [first, *_] = await fetching
            os.kill(pid, signal.SIGKILL)
            # An append outlasts the outage, and so does a reader.
            assert await log.append("s", [_record(10)]) == [True]
            assert [stored.event.id async for stored in log.read("s", ">")] == [str(n) for n in range(11)]
            seen = {first.record.event.id}
            while "10" not in seen:
                seen |= {delivery.record.event.id for delivery in await consumer.fetch(20)}
            assert (server.url, server.health().restarts) == (url, 1)
            assert server.pid != pid
        finally:
            await log.close()
            await server.close()
        assert server.pid is None

    asyncio.run(run())


def test_a_reader_outlasts_its_pull_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_consumer, "_EXPIRES_SECONDS", 0.5)
    monkeypatch.setattr(jetstream_consumer, "_HEARTBEAT_SECONDS", 0.2)

    async def run() -> None:
        server = NatsServer(tmp_path)
        await server.start()
        log = await JetStreamLog.connect(server.url, token=server.token)
        try:
            await log.ensure_stream(StreamSpec("s"))
            consumer = await log.consumer(ConsumerSpec("s", "c"))
            for number in range(3):
                fetching = asyncio.ensure_future(consumer.fetch(5))
                ended = consumer._puller.ended

                async def expired(ended: int = ended) -> bool:
                    return consumer._puller.ended > ended

                await until(expired)
                assert consumer._puller.asked <= 5
                await log.append("s", [_record(number)])
                [delivery] = await fetching
                assert delivery.record.event.id == str(number)
        finally:
            await log.close()
            await server.close()

    asyncio.run(run())


def test_limits_of_streams_reserve_nothing(tmp_path: Path) -> None:
    """Many brokers that may hold 8 GiB each fit on any disk, as long as they don't."""

    async def run() -> None:
        server = NatsServer(tmp_path)
        await server.start()
        log = await JetStreamLog.connect(server.url, token=server.token)
        try:
            for number in range(100):
                await log.ensure_stream(StreamSpec(f"broker.n.b{number}", max_bytes=8 * 1024**3))
        finally:
            await log.close()
            await server.close()

    asyncio.run(run())


def test_only_who_knows_the_token_may_publish(tmp_path: Path) -> None:
    async def run() -> None:
        server = NatsServer(tmp_path)
        await server.start()
        try:
            assert (tmp_path / "nats.conf").stat().st_mode & 0o077 == 0
            with pytest.raises(EventLogError):
                await JetStreamLog.connect(server.url, token="guess", patience_seconds=1.0)
        finally:
            await server.close()

    asyncio.run(run())


def test_a_server_that_can_not_start_says_why(tmp_path: Path) -> None:
    async def run() -> None:
        (tmp_path / "jetstream").write_text("in the way")
        server = NatsServer(tmp_path)
        with pytest.raises(StartError, match=r"nats-server exited with status 1: .*Can't start JetStream"):
            await server.start()
        await server.close()
        blocked = NatsServer(tmp_path / "jetstream" / "below")
        with pytest.raises(StartError, match="can't be given the folder"):
            await blocked.start()

    asyncio.run(run())


def test_calls_fail_in_bounded_time_when_there_is_no_server(tmp_path: Path) -> None:
    async def run() -> None:
        server = NatsServer(tmp_path)
        await server.start()
        log = await JetStreamLog.connect(server.url, token=server.token, patience_seconds=0.5)
        await log.ensure_stream(StreamSpec("s"))
        await server.close()

        async def away() -> bool:
            return not log.connected

        await until(away)
        with pytest.raises(EventLogError, match="can't be reached"):
            await log.append("s", [_record(1)])
        with pytest.raises(EventLogError, match="can't be reached"):
            await log.append("s", [_record(1), _record(2)])
        with pytest.raises(EventLogError, match="can't be reached"):
            [stored async for stored in log.read("s", ">")]
        await log.close()

    asyncio.run(run())
