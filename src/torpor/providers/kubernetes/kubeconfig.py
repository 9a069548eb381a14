"""What a kubeconfig says: the contexts that it names, and the way to the cluster of one.

The official package knows every way in which it can name credentials: certificates, tokens, programs to run.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml  # type: ignore[import-untyped]
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.aio.config.kube_config import ENV_KUBECONFIG_PATH_SEPARATOR, KubeConfigMerger

from torpor.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT = "~/.kube/config"
_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# What the package raises for a file that is no kubeconfig.
_WRONG = (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError)


class NoSuchContextError(ValueError):
    """A kubeconfig has no context of that name."""


@dataclass(frozen=True, slots=True)
class Contexts:
    """The contexts of a kubeconfig, and the one that is current, if any is."""

    names: tuple[str, ...]
    current: str | None


@dataclass(frozen=True, slots=True)
class Access:
    """The way to an API server: its URL, and what shows who asks."""

    server: str
    tls: ssl.SSLContext
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    server_name: str | None = None
    """The name in the server's certificate, where it is not that of the URL."""
    proxy: str | None = None


def files(kubeconfig: str) -> list[Path]:
    """The files that ``kubeconfig``, as of the variable ``KUBECONFIG``, names and that there are."""
    names = (kubeconfig or DEFAULT).split(ENV_KUBECONFIG_PATH_SEPARATOR)
    return [path for name in names if name and (path := Path(name).expanduser()).is_file()]


def contexts(kubeconfig: str) -> Contexts:
    """The contexts that ``kubeconfig`` names. Raises :class:`~torpor.errors.StartError` when it is wrong."""
    if not files(kubeconfig):
        return Contexts((), None)
    try:
        merged = KubeConfigMerger(_paths(kubeconfig)).config.value
        names = tuple(str(one["name"]) for one in merged["contexts"])
        return Contexts(names, merged.get("current-context") or None)
    except _WRONG as error:
        raise StartError(f"{_paths(kubeconfig)} is no kubeconfig: {error}") from error


def in_pod() -> bool:
    """Whether this is a pod with an account of its own."""
    return _TOKEN.exists()


async def load(kubeconfig: str | None = None, context: str | None = None) -> Configuration:
    """The configuration of the official client for the cluster of this pod, or of a kubeconfig's context.

    Raises :class:`~torpor.errors.StartError`, and :class:`NoSuchContextError`.
    """
    configuration = Configuration()
    # Go's clients don't ask of authorities what Python does since 3.13, and many clusters' don't have it.
    configuration.disable_strict_ssl_verification = True
    if kubeconfig is None and context is None and await asyncio.to_thread(in_pod):
        try:
            load_incluster_config(client_configuration=configuration)
        except _WRONG as error:
            raise StartError(f"there is no way to the cluster of this pod: {error}") from error
        return configuration
    known = await asyncio.to_thread(contexts, kubeconfig or "")
    if not known.names:
        raise StartError(
            f"there is no way to a cluster: {_paths(kubeconfig or '')} names no context; name a kubeconfig by"
            " KUBECONFIG"
        )
    chosen = context or known.current
    if chosen is None:
        raise NoSuchContextError(f"no context is current; there are {_listed(known.names)}")
    if chosen not in known.names:
        raise NoSuchContextError(no_such(chosen, known.names))
    with _Complaints() as complaints:
        try:
            await load_kube_config(
                config_file=_paths(kubeconfig or ""),
                context=chosen,
                client_configuration=configuration,
                persist_config=False,
            )
        except _WRONG as error:
            raise StartError(f"context {chosen!r} leads to no cluster: {error}") from error
    # The package says of a program for credentials that fails only in its log, and goes on without any.
    if complaints.said and not configuration.api_key.get("BearerToken") and not configuration.cert_file:
        raise StartError(f"there are no credentials for context {chosen!r}: {complaints.said}")
    return configuration


async def access(kubeconfig: str | None = None, context: str | None = None) -> Access:
    """The way that :func:`load` finds, for another client. Raises as it does."""
    configuration = await load(kubeconfig, context)
    headers = {}
    token = await configuration.get_api_key_with_prefix("BearerToken")
    if token:
        headers["authorization"] = token
    return Access(
        server=configuration.host.rstrip("/"),
        tls=await asyncio.to_thread(_tls, configuration),
        headers=headers,
        server_name=configuration.tls_server_name,
        proxy=configuration.proxy,
    )


def _tls(configuration: Configuration) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
        if configuration.cert_file:
            tls.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    except (OSError, ValueError) as error:
        raise StartError(f"the kubeconfig's certificates can't be used: {error}") from error
    if not configuration.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


def _paths(kubeconfig: str) -> str:
    return kubeconfig or str(Path(DEFAULT).expanduser())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)[:20])


def no_such(name: str, known: Sequence[str]) -> str:
    """That there is no context ``name`` among the ``known``, in words."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed(known)}"
    return f"there is no context {name!r}; {hint}"


class _Complaints(logging.Handler):
    """While entered, keeps what the package says of credentials instead of printing it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger("kubernetes.aio.config.kube_config")
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()

    def __enter__(self) -> Self:
        self._propagated, self._logger.propagate = self._logger.propagate, False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
