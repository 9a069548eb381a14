"""Where a function is mounted, as the nearest proxy says: what it cut off the path of a request.

ASGI calls it ``root_path``, and its ``path`` begins with it (https://asgi.readthedocs.io, "HTTP connection
scope"): Starlette routes by what comes after, and makes URLs of the whole.
"""

from __future__ import annotations

import re
from typing import Any

HEADER = b"x-forwarded-prefix"
_MAX_BYTES = 512
# What a path is made of without an escape. Not "//", which would begin the address of another host, and
# nothing that means something in HTML: pages of documentation link with it.
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9._~!$()*+,;=:@-]+)+")


def prefix_of(headers: dict[bytes, bytes]) -> str:
    """The prefix that the caller's path began with, or ``""``; what is not a plain path counts as none."""
    given = headers.get(HEADER)
    if given is None or len(given) > _MAX_BYTES or _PREFIX.fullmatch(given) is None:
        return ""
    return given.decode("ascii")


def apply(scope: Any, headers: dict[bytes, bytes]) -> None:
    """Let an app see where it is mounted; without the header nothing changes."""
    prefix = prefix_of(headers)
    if prefix and scope["path"].startswith("/"):
        scope["root_path"] = prefix
        scope["path"] = prefix + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = prefix.encode("ascii") + scope["raw_path"]
