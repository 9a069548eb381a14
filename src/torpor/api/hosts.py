"""Which ``Host`` a request may name, so that a web page can't reach a loopback port through a name of its
own.

DNS rebinding makes a browser take a page's own host name for an address on this machine; the request's
``Host`` still says that name, and is refused here. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_PORT = re.compile(r"[0-9]{1,5}\Z")


def is_allowed(host: str, allowed: Collection[str]) -> bool:
    """Whether ``host`` (the header, port and all) names the loopback interface or one of ``allowed``.

    An entry of ``allowed`` is a host name or IP address without a port; ``*.example.com`` stands for every
    name below it, and ``*`` for every host.
    """
    if "*" in allowed:
        return True
    name = host_name(host)
    if name is None:
        return False
    if name == "localhost" or name.endswith(".localhost") or _is_loopback(name):
        return True
    return any(name == entry or (entry.startswith("*.") and name.endswith(entry[1:])) for entry in allowed)


def host_name(host: str) -> str | None:
    """The name or address in a ``Host`` header, in lower case and without port, brackets or final dot.

    ``None`` when it has not the form that RFC 9110, section 7.2, gives it.
    """
    text = host.strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port.startswith(":") and _PORT.match(port[1:]))):
            return None
        return name
    name, colon, port = text.partition(":")
    if colon and not _PORT.match(port):
        return None
    return name.removesuffix(".") or None


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
