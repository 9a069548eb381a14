"""The last lines of each function."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from torpor.local.logs import MAX_LINES, MAX_UNREAD, LogBook
from torpor.spec.status import LogLine


def _line(text: str) -> LogLine:
    return LogLine(time=datetime(2026, 1, 1, tzinfo=UTC), instance="a", stream="stdout", text=text)


def test_the_last_lines_are_kept_and_no_more() -> None:
    async def main() -> None:
        book = LogBook()
        for number in range(MAX_LINES + 5):
            book.add("default/f", _line(str(number)))
        kept = [line.text async for line in book.read("default/f", tail=MAX_LINES * 2, follow=False)]
        assert kept[0] == "5"
        assert len(kept) == MAX_LINES
        assert [line.text async for line in book.read("default/f", tail=1, follow=False)] == [kept[-1]]
        assert [line async for line in book.read("default/f", tail=0, follow=False)] == []

    asyncio.run(main())


def test_a_follower_gets_each_new_line_of_its_function_alone() -> None:
    async def main() -> None:
        book = LogBook()
        book.add("default/f", _line("before"))
        lines = book.read("default/f", tail=10, follow=True)
        assert (await anext(lines)).text == "before"
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        book.add("default/other", _line("not mine"))
        book.add("default/f", _line("after"))
        assert (await waiting).text == "after"

    asyncio.run(main())


def test_a_follower_that_does_not_read_loses_the_oldest_lines() -> None:
    async def main() -> None:
        book = LogBook()
        lines = book.read("default/f", tail=0, follow=True)
        first = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        for number in range(MAX_UNREAD + 3):
            book.add("default/f", _line(str(number)))
        # The first is taken when the follower wakes: by then the deque holds the last MAX_UNREAD.
        assert (await first).text == "3"

    asyncio.run(main())


def test_forgotten_lines_are_gone() -> None:
    async def main() -> None:
        book = LogBook()
        book.add("default/f", _line("x"))
        book.forget("default/f")
        assert [line async for line in book.read("default/f", tail=5, follow=False)] == []

    asyncio.run(main())
