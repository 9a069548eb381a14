"""Requests that can't be served as they are, each with the problem that its caller is told."""

from __future__ import annotations

import math
from typing import Any

from torpor.errors import TorporError
from torpor.problems import ProblemType


class RefusalError(TorporError):
    """A request is refused; ``detail`` says what was wrong and what was expected, in words for its caller."""

    def __init__(
        self,
        problem_type: ProblemType,
        detail: str,
        extras: dict[str, Any] | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.problem_type = problem_type
        self.detail = detail
        self.extras = extras
        self.headers = headers


class RejectError(RefusalError):
    """Raise this in a handler for what it will never be able to do, however often it is tried.

    The caller gets 422 with ``reason`` as its detail. An event is not delivered again: it becomes a dead
    letter at once, and says why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(ProblemType.REJECTED, reason)


class RetryError(RefusalError):
    """Raise this in a handler for what may go well later, when whatever it needs is there again.

    The caller gets 503 with ``reason`` as its detail and, with ``after_seconds``, a ``Retry-After``. An event
    is delivered again by its trigger's schedule, but not before that time. Any other error that a handler
    raises is tried again as well, and is logged as a failure with its traceback.
    """

    def __init__(self, reason: str, *, after_seconds: float | None = None) -> None:
        wait = () if after_seconds is None else ((b"retry-after", b"%d" % max(0, math.ceil(after_seconds))),)
        super().__init__(ProblemType.TRY_AGAIN, reason, headers=wait)


class InvalidReplyError(TorporError):
    """What a handler gave back can't be sent; the text is for its author's log."""
