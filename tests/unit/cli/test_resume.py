"""What a person watches goes on after it broke off."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from torpor.cli.resume import resumed
from torpor.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

AWAY = UnreachableError("it ended the connection")
BUSY = RefusedError(503, "Unavailable", "the events process does not answer")
GONE = RefusedError(404, "There is no such broker", "There is no broker 'default/default'.")


class Clock:
    """One whose time passes by sleeping, and by :attr:`now`."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.at

    monotonic = now

    async def sleep(self, delay_seconds: float) -> None:
        self.slept.append(delay_seconds)
        self.at += delay_seconds


class Source:
    """Each opening takes the next of ``turns``: an error instead of a stream, or what the stream has.

    A stream holds for ``holds_seconds``, and ends by the error that is last in it, or by itself.
    """

    def __init__(self, *turns: Exception | list[str | Exception], holds_seconds: float = 0.0) -> None:
        self.turns = list(turns)
        self.clock = Clock()
        self.holds_seconds = holds_seconds
        self.told: list[str] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[Iterator[str]]:
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        yield self._items(turn)

    def _items(self, turn: list[str | Exception]) -> Iterator[str]:
        for item in turn:
            if isinstance(item, Exception):
                raise item
            yield item
        self.clock.at += self.holds_seconds

    def seen(self, expected: int) -> list[str]:
        stream = resumed(self.open, self.told.append, begun="Watching.", clock=self.clock)
        return [next(stream) for _ in range(expected)]


@pytest.mark.parametrize("ending", [[AWAY], []], ids=["broken off", "ended in order"])
def test_it_goes_on_and_says_so(ending: list[str | Exception]) -> None:
    source = Source(["1", *ending], BUSY, AWAY, ["2"])
    assert source.seen(2) == ["1", "2"]
    begun, broken, again = source.told
    assert begun == "Watching."
    assert broken.startswith("The stream broke off: ")
    assert again == "The stream goes on; what came in between may be missing."


def test_each_pause_is_longer_up_to_five_seconds() -> None:
    source = Source([AWAY], *[AWAY] * 7, ["1"])
    assert source.seen(1) == ["1"]
    assert source.clock.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_stream_that_breaks_off_at_once_again_and_again_is_not_opened_in_a_hurry() -> None:
    source = Source([], [], [], ["1"])
    assert source.seen(1) == ["1"]
    assert source.clock.slept == [0.1, 0.2, 0.4]


def test_one_that_held_for_a_while_is_opened_again_soon() -> None:
    source = Source(["1"], ["2"], ["3"], holds_seconds=31.0)
    assert source.seen(3) == ["1", "2", "3"]
    assert source.clock.slept == [0.1, 0.1]


@pytest.mark.parametrize("trouble", [AWAY, BUSY, GONE])
def test_what_can_t_be_opened_at_first_is_an_error_at_once(trouble: Exception) -> None:
    source = Source(trouble)
    with pytest.raises(type(trouble)):
        source.seen(1)
    assert (source.told, source.clock.slept) == ([], [])


def test_what_is_gone_by_now_is_an_error_too() -> None:
    source = Source(["1", AWAY], GONE)
    with pytest.raises(RefusedError):
        source.seen(2)
