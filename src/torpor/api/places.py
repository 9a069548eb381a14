"""Where a platform is, and the way to it: what a context names.

``local`` and a URL lead to a gateway, which serves everything. ``kube:NAME`` leads through the API server of
a cluster, with the user's own credentials for it: its service proxy reaches the platform's services, so that
nothing has to be open to the outside, and Kubernetes decides who may.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import orjson

from torpor.errors import ApiError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

LOCAL_URL = "http://127.0.0.1:8080"
KUBE = "kube:"
NAMESPACE = "torpor"
"""Where a platform is in a cluster, unless its namespace is named."""
API_SERVICE = "http:torpor-api:80"
GATEWAY_SERVICE = "http:torpor-gateway:80"
_CURRENT = ("", ".")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_MAX_STATUS_BYTES = 64 * 1024
# What the API server takes for itself and never hands on: who asks, and for whom.
_KEPT_HEADERS = re.compile(r"authorization\Z|impersonate-", re.IGNORECASE)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that a platform is in: a context of the kubeconfig, ``None`` for that of this pod, and the
    platform's namespace.
    """

    kubeconfig: str
    context: str | None
    namespace: str

    @property
    def name(self) -> str:
        """How it is called to people."""
        return "this pod's cluster" if self.context is None else f"context {self.context!r}"

    @property
    def told(self) -> str:
        """How the command line names it."""
        namespace = "" if self.namespace == NAMESPACE else f"/{self.namespace}"
        return f"{KUBE}{self.context or ''}{namespace}"


@dataclass(frozen=True, slots=True)
class Place:
    """A platform, and the way to it."""

    name: str
    """What people are told that it is."""
    api: str
    """URL below which the REST API is."""
    gateway: str
    """URL below which functions are called and events are sent."""
    local: bool = False
    """Whether it is on this machine."""
    cluster: Cluster | None = None
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    """How an HTTP client has to be made."""
    server_name: str | None = None
    """The name in the server's certificate, where it is not that of the URL."""

    def kept(self, header: str) -> bool:
        """Whether ``header`` would not get to a function, but be taken on the way."""
        return self.cluster is not None and _KEPT_HEADERS.match(header) is not None

    def unreachable(self, error: httpx.ConnectError) -> UnreachableError:
        """The error for a connection that could not be made."""
        if self.cluster is not None:
            server = urlsplit(self.api)
            where = f"{server.scheme}://{server.netloc}, the API server of {self.cluster.name},"
            return UnreachableError(f"{where} can't be reached: {error}")
        hint = "start one with 'torpor up', or name another with --context"
        return UnreachableError(f"no platform answers at {self.name}; {hint}")

    def answered(self, response: httpx.Response) -> bool:
        """Whether ``response`` is the platform's own, which has an id of the request, whatever it is."""
        return self.cluster is None or "x-request-id" in response.headers

    def refusal(self, response: httpx.Response) -> ApiError | None:
        """What an answer means that came not from the platform but from the API server before it.

        ``None`` for any other answer. The body of ``response`` has been read.
        """
        if self.cluster is None or response.is_success or self.answered(response):
            return None
        status = _status(response)
        if status is None and response.status_code != 401:
            return None
        message = str((status or {}).get("message") or "")
        return _refusal(self.cluster, response, message)


def _status(response: httpx.Response) -> dict[str, Any] | None:
    """The ``Status`` of the Kubernetes API that an answer is."""
    if len(response.content) > _MAX_STATUS_BYTES:
        return None
    with contextlib.suppress(orjson.JSONDecodeError):
        document = orjson.loads(response.content)
        if isinstance(document, dict) and document.get("kind") == "Status" and document.get("code"):
            return document
    return None


def _refusal(cluster: Cluster, response: httpx.Response, message: str) -> ApiError:
    service = "torpor-gateway" if GATEWAY_SERVICE in response.url.path else "torpor-api"
    where = f"namespace {cluster.namespace!r} of {cluster.name}"
    status = response.status_code
    if status == 401:
        detail = f"{cluster.name} does not know you: your credentials are missing or have expired"
        return RefusedError(status, "Unauthorized", detail)
    if status == 403:
        verb = _VERBS.get(response.request.method, "get")
        right = f"you need the right to {verb} 'services/proxy' of 'http:{service}:80' in {where}"
        return RefusedError(status, "Forbidden", f"{right}: {message}")
    if status == 404:
        advice = f"name another as {KUBE}NAME/NAMESPACE, or install Torpor's chart"
        return UnreachableError(f"there is no platform in {where}: it has no service {service!r}; {advice}")
    if status in (502, 503, 504):
        return UnreachableError(f"the platform in {where} does not answer: {message}")
    return RefusedError(status, f"The API server answered {status}", message)


# --- finding it -------------------------------------------------------------------------------------------


def is_cluster(context: str) -> bool:
    """Whether ``context`` names a platform in a cluster."""
    return context.startswith(KUBE)


def find(context: str, kubeconfig: str = "") -> Place:
    """The platform that ``context`` names: ``local``, ``kube:NAME``, ``kube:NAME/NAMESPACE``, or a URL.

    Not to be called on a running loop. Raises :class:`ValueError` for what names none, and
    :class:`~torpor.errors.StartError` for a kubeconfig that leads nowhere.
    """
    if is_cluster(context):
        return _in_cluster(cluster(context, kubeconfig))
    if context == "local":
        return _at(LOCAL_URL)
    with contextlib.suppress(ValueError):
        parts = urlsplit(context)
        if parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment:
            return _at(context.rstrip("/"))
    raise ValueError(
        f"{context!r} names no platform; 'local', 'kube:NAME' or a URL such as {LOCAL_URL} was expected"
    )


def cluster(context: str, kubeconfig: str = "") -> Cluster:
    """The cluster that ``context``, which begins with ``kube:``, names. Raises as :func:`find` does."""
    from torpor.providers.kubernetes import kubeconfig as files  # noqa: PLC0415 - it takes half a second

    known = files.contexts(kubeconfig)
    name, namespace = split(context.removeprefix(KUBE), known.names)
    if not _NAMESPACE.match(namespace):
        raise ValueError(f"{namespace!r} is no namespace; kube:NAME/NAMESPACE was expected")
    if name in _CURRENT:
        current = None if not known.names and not kubeconfig and files.in_pod() else known.current
        if current is None and known.names:
            raise ValueError("no context is current in the kubeconfig; kube:NAME was expected")
        return Cluster(kubeconfig, current, namespace)
    if known.names and name not in known.names:
        raise files.NoSuchContextError(files.no_such(name, known.names))
    return Cluster(kubeconfig, name, namespace)


def split(text: str, known: Sequence[str]) -> tuple[str, str]:
    """The context and the namespace that ``NAME`` or ``NAME/NAMESPACE`` names.

    A ``known`` name may have a slash in it, and is then taken for the whole.
    """
    if text in known or "/" not in text:
        return text, NAMESPACE
    name, _, namespace = text.rpartition("/")
    return name, namespace


def _at(url: str) -> Place:
    local = _is_local(url)
    # A proxy has no business between this machine and itself.
    return Place(url, url, url, local=local, options={"trust_env": not local})


def _in_cluster(cluster: Cluster) -> Place:
    from torpor.providers.kubernetes.kubeconfig import access  # noqa: PLC0415

    way = asyncio.run(access(cluster.kubeconfig or None, cluster.context))
    services = f"{way.server}/api/v1/namespaces/{quote(cluster.namespace)}/services"
    options: dict[str, Any] = {"verify": way.tls, "trust_env": not _is_local(way.server)}
    if way.proxy:
        options["proxy"] = way.proxy
    return Place(
        name=f"{cluster.name}, namespace {cluster.namespace!r}",
        api=f"{services}/{API_SERVICE}/proxy",
        gateway=f"{services}/{GATEWAY_SERVICE}/proxy",
        cluster=cluster,
        options={**options, "headers": way.headers},
        server_name=way.server_name,
    )


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
