"""What Google's Cloud Storage says over its XML API, by way of a server of S3.

The two are alike by design: paths, queries and documents are the same. What differs is how a caller says who
it is, and the names of headers; that is translated here. Who the caller is is not asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import httpx

from tests.integration.blobs.servers import BUCKET, S3Server
from torpor.serving import listen, serving

if TYPE_CHECKING:
    from pathlib import Path

    from torpor.serving import Receive, Scope, Send

_KEPT = ("content-type", "content-length", "last-modified", "etag")


class GoogleServer(S3Server):
    """A server of S3, and in front of it one that speaks as Google's does."""

    url = f"gs://{BUCKET}"
    secret = None

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._s3 = self.variables
        self._listener = listen("127.0.0.1", 0)
        base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        key = {"gcs_base_url": base, "disable_oauth": True}
        unused = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        self.variables = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps({**key, **unused})}
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start both."""
        self.variables, given = self._s3, self.variables
        await super().start()
        self.variables = given
        self._client = await self._stack.enter_async_context(httpx.AsyncClient(timeout=30))
        await self._stack.enter_async_context(serving(self._serve, self._listener, grace_seconds=1))

    async def close(self) -> None:
        """End both."""
        await self._stack.aclose()
        await super().close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {"x-amz-copy-source": given["x-goog-copy-source"]} if "x-goog-copy-source" in given else {}
        path, query = scope["raw_path"].decode(), scope["query_string"].decode()
        url = f"{self._s3['AWS_ENDPOINT']}{path}" + (f"?{query}" if query else "")
        signed = self._signed(scope["method"], url, headers)
        answer = await self._client.request(scope["method"], url, headers=signed, content=body)
        back = [(name.encode(), answer.headers[name].encode()) for name in _KEPT if name in answer.headers]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": back})
        await send({"type": "http.response.body", "body": answer.content})

    def _signed(self, method: str, url: str, headers: dict[str, str]) -> dict[str, str]:
        """The headers with a signature, version 4."""
        parts = urlsplit(url)
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        given = {
            **headers,
            "host": parts.netloc,
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
            "x-amz-date": now,
        }
        pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
        query = "&".join(sorted(f"{_quoted(name)}={_quoted(value)}" for name, _, value in pairs))
        lines = "".join(f"{name}:{given[name]}\n" for name in sorted(given))
        names = ";".join(sorted(given))
        path = quote(unquote(parts.path), safe="/-_.~")
        canonical = "\n".join((method, path, query, lines, names, "UNSIGNED-PAYLOAD"))
        scope = f"{now[:8]}/{self._s3['AWS_REGION']}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self._s3['AWS_SECRET_ACCESS_KEY']}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        credential = f"Credential={self._s3['AWS_ACCESS_KEY_ID']}/{scope}"
        given["authorization"] = (
            f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"
        )
        return given


def _quoted(text: str) -> str:
    return quote(unquote(text), safe="-_.~")
