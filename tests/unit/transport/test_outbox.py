from __future__ import annotations

import asyncio

from torpor.transport.outbox import Outbox


class Sent(asyncio.Transport):
    """A transport that says what was written to it."""

    def __init__(self, written: list[bytes]) -> None:
        super().__init__()
        self._written = written
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written.append(bytes(data))

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing


def test_what_is_ready_runs_first_and_then_all_is_written_in_its_order() -> None:
    async def play() -> None:
        written: list[bytes] = []
        one, other, outbox = Sent(written), Sent(written), Outbox()

        async def send(transport: Sent, data: bytes) -> None:
            outbox.write(transport, data)

        # The second has its turn after the first has asked for the end of that turn.
        await asyncio.gather(send(one, b"1"), send(other, b"2"))
        assert written in ([], [b"1", b"2"])
        await asyncio.sleep(0)
        assert written == [b"1", b"2"]

        outbox.write(one, b"3")  # and once more
        await asyncio.sleep(0)
        assert written == [b"1", b"2", b"3"]

    asyncio.run(play())


def test_what_is_closed_meanwhile_is_sent_nothing() -> None:
    async def play() -> None:
        written: list[bytes] = []
        one, other, outbox = Sent(written), Sent(written), Outbox()
        outbox.write(one, b"1")
        outbox.write(other, b"2")
        one.close()
        await asyncio.sleep(0)
        assert written == [b"2"]

    asyncio.run(play())
