"""What the ingress does not take in, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torpor.problems import ProblemType


class RefusedError(Exception):
    """A request is refused; the text says why. ``allow`` names the methods that would not be."""

    def __init__(self, kind: ProblemType, detail: str, *, allow: str = "POST") -> None:
        super().__init__(detail)
        self.kind = kind
        self.allow = allow
