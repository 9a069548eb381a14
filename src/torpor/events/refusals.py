"""What the ingress does not take in, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torpor.problems import ProblemType


class RefusedError(Exception):
    """A request is refused; the text says why. ``allow`` names the methods that would not be; ``extras`` are
    further members of the problem document; ``retry_after_seconds`` is when to try again, if that is known.
    """

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        allow: str = "POST",
        extras: dict[str, Any] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.allow = allow
        self.extras = extras
        self.retry_after_seconds = retry_after_seconds
