"""Requests that can't be served as they are, each with the problem that its caller is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torpor.errors import TorporError

if TYPE_CHECKING:
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


class InvalidReplyError(TorporError):
    """What a handler gave back can't be sent; the text is for its author's log."""
