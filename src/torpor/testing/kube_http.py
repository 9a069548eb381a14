"""The API server in memory on a real port, with a service proxy, for tests of what talks to one over HTTP.

It does of the proxy what clients notice: who asks is found out and not handed on, the path is what comes
after ``proxy``, and what can't be reached is answered for with a ``Status``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from torpor.providers.kubernetes.kube import Call
from torpor.serving import answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torpor.serving import Receive, Scope, Send
    from torpor.testing.kube import ApiServer

_PROXY = re.compile(r"/api/v1/namespaces/([^/]+)/services/http:([^:/]+):80/proxy(/.*)")
_KEPT = (b"authorization", b"x-forwarded-uri")


@dataclass
class HttpApiServer:
    """An ASGI application. ``services`` are what the proxy leads to, by ``namespace/name``.

    Only ``token`` is let in; ``forbids`` says for a method and a path whether it is not allowed.
    """

    server: ApiServer
    token: str
    services: dict[str, Any] = field(default_factory=dict)
    forbids: Callable[[str, str], bool] = lambda _method, _path: False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        method, path = scope["method"], scope["path"]
        if dict(scope["headers"]).get(b"authorization") != f"Bearer {self.token}".encode():
            await _refuse(send, 401, "Unauthorized", "Unauthorized")
        elif self.forbids(method, path):
            await _refuse(
                send, 403, "Forbidden", f'"{path}" is forbidden: User "somebody" cannot {method} it'
            )
        elif (proxied := _PROXY.fullmatch(path)) is not None:
            await self._proxy(proxied, scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _proxy(self, proxied: re.Match[str], scope: Scope, receive: Receive, send: Send) -> None:
        app = self.services.get(f"{proxied[1]}/{proxied[2]}")
        if app is None:
            await _refuse(send, 404, "NotFound", f'services "{proxied[2]}" not found')
            return
        headers = [pair for pair in scope["headers"] if pair[0] not in _KEPT]
        headers.append((b"x-forwarded-uri", scope["path"].encode()))
        path = proxied[3]
        await app({**scope, "path": path, "raw_path": path.encode(), "headers": headers}, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = dict(parse_qsl(scope["query_string"].decode()))
        headers = dict(scope["headers"])
        body = await _body(receive)
        call = Call(
            scope["method"],
            scope["path"],
            query,
            orjson.loads(body) if body else None,
            headers.get(b"content-type", b"application/json").decode(),
        )
        if query.get("watch"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for line in self.server.watch(call):
                await send({"type": "http.response.body", "body": line + b"\n", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        status, content = self.server.answer(call)
        await answer(send, status, b"application/json", content)


async def _body(receive: Receive) -> bytes:
    parts: bytes = b""
    while True:
        message = await receive()
        parts += message.get("body", b"")
        if not message.get("more_body", False):
            return parts


async def _refuse(send: Send, status: int, reason: str, message: str) -> None:
    document: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    document |= {"code": status, "reason": reason, "message": message}
    await answer(send, status, b"application/json", orjson.dumps(document))
