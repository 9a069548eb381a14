"""A platform for the verbs to talk to: the real API on a fake backend, and a gateway that answers as told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request, Response

from torpor import cli
from torpor.api.app import ApiOptions, create
from torpor.binding import WireEvent, decode
from torpor.testing.backend import FakeBackend
from torpor.testing.kube import ApiServer
from torpor.testing.kube_http import HttpApiServer
from torpor.testing.served import Served, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Platform:
    """What was asked of it, and what it is to answer."""

    backend: FakeBackend
    served: Served = field(init=False)
    calls: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[], Response] = Response
    batches: list[tuple[str, list[WireEvent]]] = field(default_factory=list)
    refusal: Response | None = None
    """What it answers to who sends events, once it took ``accepts`` batches."""
    accepts: int = 0
    context: str = ""

    def run(self, *arguments: str) -> int:
        """The exit code of ``torpor`` with ``arguments``, in this platform's context."""
        return cli.run(["--context", self.context or self.served.url, *arguments])


@dataclass
class Cluster:
    """An API server on a real port, with a platform behind its service proxy, and the kubeconfig to it."""

    platform: Platform
    api: HttpApiServer
    served: Served
    kubeconfig: Path

    @property
    def server(self) -> ApiServer:
        """What it keeps."""
        return self.api.server

    def run(self, *arguments: str) -> int:
        """The exit code of ``torpor`` with ``arguments``, in this cluster's context."""
        return self.platform.run(*arguments)


@pytest.fixture
def platform() -> Iterator[Platform]:
    app, running = _platform()
    with served(app) as where:
        running.served = where
        yield running


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    app, running = _platform()
    services = {"torpor/torpor-api": app, "torpor/torpor-gateway": app}
    api = HttpApiServer(ApiServer(), "secret", services)
    with served(api) as where:
        running.served, running.context = where, "kube:prod"
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(where.url)))
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield Cluster(running, api, where, kubeconfig)
        where.run(api.server.disconnect)


def _kubeconfig(url: str) -> dict[str, Any]:
    context = {"cluster": "here", "user": "me"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
        "contexts": [{"name": "prod", "context": context}, {"name": "a/b", "context": context}],
        "current-context": "prod",
    }


def _platform() -> tuple[FastAPI, Platform]:
    backend = FakeBackend()
    app = create(backend, ApiOptions(max_body_bytes=16 * 1024 * 1024))

    async def function(request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        running.calls.append((request.method, target, dict(request.headers), await request.body()))
        return running.answer()

    async def events(request: Request) -> Response:
        if running.refusal is not None and len(running.batches) >= running.accepts:
            return running.refusal
        decoded = decode(request.headers.raw, await request.body())
        assert decoded is not None
        running.batches.append((request.url.path, decoded))
        return Response(status_code=202)

    app.add_api_route("/function/{rest:path}", function, methods=["GET", "POST", "PUT", "DELETE"])
    app.add_api_route("/events/{rest:path}", events, methods=["POST"])
    running = Platform(backend)
    return app, running


def problem(slug: str, status: int, title: str, detail: str) -> Response:
    """An answer as the platform gives it when it can't."""
    document: dict[str, Any] = {
        "type": f"https://torpor.dev/problems/{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "requestId": "r-1",
    }
    return Response(json.dumps(document), status, media_type="application/problem+json")


@pytest.fixture
def make_problem() -> Callable[[str, int, str, str], Response]:
    return problem
