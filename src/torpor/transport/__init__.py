"""The one HTTP/1.1 client of the data path: pooled, bounded, and cheap enough for every event to pass it.

The activator and the dispatcher share it. It must not follow redirects, speak TLS, decode content or try
again by itself: whoever calls knows what may be sent twice.
"""

from __future__ import annotations

from torpor.transport.client import Client
from torpor.transport.exchange import Exchange
from torpor.transport.message import Head, Headers, Response, encode_fields

__all__ = ["Client", "Exchange", "Head", "Headers", "Response", "encode_fields"]
