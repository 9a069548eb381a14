"""Lines from the standard output and error of a process."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINE_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_LAST_READS = 16


class LineSplitter:
    """Cuts bytes into lines of at most ``MAX_LINE_BYTES``; a longer one comes as several."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        texts = []
        for line in lines:
            texts.extend(self._pieces(line.removesuffix(b"\r")))
        while len(self._rest) > MAX_LINE_BYTES:
            texts.append(_text(self._rest[:MAX_LINE_BYTES]))
            self._rest = self._rest[MAX_LINE_BYTES:]
        return texts

    def end(self) -> list[str]:
        """What is left when there is no more."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []

    @staticmethod
    def _pieces(line: bytes) -> list[str]:
        if len(line) <= MAX_LINE_BYTES:
            return [_text(line)]
        return [_text(line[at : at + MAX_LINE_BYTES]) for at in range(0, len(line), MAX_LINE_BYTES)]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


class Output:
    """Reads a pipe on the running loop and calls ``on_line`` for each line. It owns ``descriptor``."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_line = on_line
        self._splitter = LineSplitter()
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self._read)

    def finish(self) -> None:
        """Read what the pipe still holds, without waiting, and close it: whoever wrote to it has ended."""
        for _ in range(_LAST_READS):
            if not self._open or not self._read():
                break
        self._close()

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        self._emit(self._splitter.feed(data))
        if not data:
            self._close()
        return bool(data)

    def _close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._emit(self._splitter.end())

    def _emit(self, lines: list[str]) -> None:
        for line in lines:
            self._on_line(line)
