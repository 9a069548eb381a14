"""Reading a request's body, never more of it than is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torpor.problems import ProblemType
from torpor.runtime.refusals import RefusalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Receive = Callable[[], Awaitable[dict[str, Any]]]


class GoneError(Exception):
    """The caller went away before its request was here."""


def too_large(max_bytes: int) -> RefusalError:
    """What a caller is told whose body is over the limit."""
    return RefusalError(ProblemType.TOO_LARGE, f"The body is larger than {max_bytes} bytes.")


def check_length(headers: Mapping[bytes, bytes], max_bytes: int) -> None:
    """Refuse a body that says it is too large before any of it is read. Raises :class:`RefusalError`."""
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and (len(length) > 18 or int(length) > max_bytes):
        raise too_large(max_bytes)


async def read(receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises :class:`RefusalError` or :class:`GoneError`."""
    return await rest(await receive(), receive, max_bytes)


async def rest(message: dict[str, Any], receive: Receive, max_bytes: int) -> bytes:
    """The whole body, of which ``message`` is the first part. Raises as :func:`read` does."""
    chunks: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise GoneError
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise too_large(max_bytes)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
