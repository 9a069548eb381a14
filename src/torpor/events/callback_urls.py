"""Which callbacks are allowed: the form of their URLs, and the networks that they may not reach. Pure.

Whoever may call a function can name a URL that the platform then calls from within its own network. So
addresses that are nobody's service to others (the process' own machine, and link-local ones, where clouds
tell machines their credentials) are refused by default, after the name was looked up and before anything is
sent.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ipaddress import IPv4Network
    from urllib.parse import SplitResult

MAX_URL_LENGTH = 2048
LOOPBACK = "127.0.0.0/8,::1/128"
REFUSED_ON_A_LAPTOP = "0.0.0.0/8,169.254.0.0/16,224.0.0.0/3,::/128,fe80::/10,ff00::/8,fd00:ec2::254/128"
REFUSED = f"{LOOPBACK},{REFUSED_ON_A_LAPTOP}"
"""Loopback, unspecified, link-local, multicast and reserved addresses, and a cloud's metadata service."""
_EXPECTED = "an absolute http or https URL was expected"
_NAT64 = IPv6Network("64:ff9b::/96")


class Networks:
    """Networks, as a text of CIDR blocks with commas between. Raises ``ValueError`` for anything else."""

    def __init__(self, text: str) -> None:
        self._blocks: list[IPv4Network | IPv6Network] = [
            ip_network(block.strip()) for block in text.split(",") if block.strip()
        ]

    def __contains__(self, address: str) -> bool:
        """Whether ``address``, or the IPv4 address within it, is in one of them."""
        given = ip_address(address.partition("%")[0])
        return any(each in block for each in _forms(given) for block in self._blocks)


def _forms(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    if not isinstance(address, IPv6Address):
        return [address]
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address in _NAT64:
        embedded = IPv4Address(int(address) & 0xFFFFFFFF)
    return [address] if embedded is None else [address, embedded]


def problem_of(url: str, refused: Networks) -> str | None:
    """Why ``url`` can be no callback's, as far as the text says it; ``None`` if it can.

    Where a name leads is looked up when the callback is made.
    """
    if len(url) > MAX_URL_LENGTH:
        return f"has {len(url)} characters, at most {MAX_URL_LENGTH} were expected"
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return f"has characters that must be percent-encoded, {_EXPECTED}"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is no URL ({error}), {_EXPECTED}"
    return _problem_of(parts, refused)


def _problem_of(parts: SplitResult, refused: Networks) -> str | None:
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        return f"is {shown(parts.geturl())!r}, {_EXPECTED}"
    if "@" in parts.netloc:
        return "has a user or a password, which would be kept and shown; put a secret into the query instead"
    if parts.fragment:
        return "has a fragment, which is never sent"
    try:
        forbidden = host in refused
    except ValueError:  # it is a name
        try:
            host.encode("idna")
        except UnicodeError as error:
            return f"has the host {host[:100]!r}, which can be no name: {error}"
        return None
    return f"leads to {host}, where callbacks may not go" if forbidden else None


def shown(url: str) -> str:
    """``url`` for people and logs: without its query, where secrets are."""
    return url.partition("?")[0][:200]
