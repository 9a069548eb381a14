"""Which broker a URL means, and the file of options of Kafka's client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from torpor.errors import StartError
from torpor.events.brokers import Broker, connect, read_options
from torpor.events.memory import MemoryLog
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("nats://127.0.0.1:4222", "nats"),
        ("nats://a:4222,b:4222", "nats"),
        ("kafka://a:9092,b:9092", "kafka"),
        ("kafka://a:9092/torpor-2", "kafka"),
        ("memory://", "memory"),
    ],
)
def test_urls_of_brokers(url: str, scheme: str) -> None:
    assert Broker(url).scheme == scheme


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "was expected"),
        ("a:9092", "was expected"),
        ("amqp://a:5672", "was expected"),
        ("kafka://a", "was expected"),
        ("kafka://user:secret@a:9092", "was expected"),
        ("kafka://a:9092/Bad_Prefix", "the prefix 'Bad_Prefix'"),
        ("memory://x", "was expected"),
        ("nats://", "was expected"),
    ],
)
def test_what_is_no_broker_is_refused(url: str, said: str) -> None:
    with pytest.raises(StartError, match=said):
        Broker(url)


def test_secrets_are_not_shown() -> None:
    with pytest.raises(StartError) as raised:
        Broker("kafka://user:secret-1@a:9092")
    assert "secret-1" not in str(raised.value)
    broker = Broker("kafka://a:9092", "token-1", {"sasl.password": "secret-1"})
    assert "token-1" not in repr(broker)
    assert "secret-1" not in repr(broker)


def test_memory_is_a_log() -> None:
    async def run() -> None:
        log = await connect(Broker("memory://"), MovableClock())
        assert isinstance(log, MemoryLog)
        assert log.connected

    asyncio.run(run())


def test_options_are_read(tmp_path: Path) -> None:
    path = tmp_path / "options"
    path.write_text("# how\n\n sasl.mechanism = PLAIN\nsasl.password=a=b#c\n")
    assert asyncio.run(read_options(str(path))) == {"sasl.mechanism": "PLAIN", "sasl.password": "a=b#c"}
    assert asyncio.run(read_options("")) == {}


def test_options_that_are_wrong_are_said_without_their_text(tmp_path: Path) -> None:
    path = tmp_path / "options"
    path.write_text("a=b\nsecret\n")
    with pytest.raises(StartError, match=r"options:2: name=value was expected") as raised:
        asyncio.run(read_options(str(path)))
    assert "secret" not in str(raised.value)
    with pytest.raises(StartError, match="can't be read"):
        asyncio.run(read_options(str(tmp_path / "none")))
