"""Every environment variable that Torpor reads, and the only place where it reads them.

Each field's alias is the variable's name and its description is its documentation: ``docs/settings.md`` is
made from them, and a test holds the two together.
"""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from torpor.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping

_Level = Annotated[str, StringConstraints(to_upper=True, pattern=r"^(?i:debug|info|warning|error)$")]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read ``environment`` (default: this process's); an empty value counts as not set.

        Raises :class:`~torpor.errors.StartError` that names each variable at fault.
        """
        source = os.environ if environment is None else environment
        try:
            return cls.model_validate({name: value for name, value in source.items() if value != ""})
        except ValidationError as error:
            faults = [
                f"{fault['loc'][0]}: {fault['msg']}, got {fault['input']!r}" for fault in error.errors()
            ]
            raise StartError("wrong environment: " + "; ".join(faults)) from None


class TracedSettings(_Settings):
    """What everything that exports traces reads: OpenTelemetry's own variables.

    It reads them itself as well, and those of the standard that are not here, such as headers.
    """

    otlp_endpoint: str = Field(
        "",
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Where spans go, by OTLP over HTTP; they are exported when this or the next is set.",
    )
    otlp_traces_endpoint: str = Field(
        "",
        alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        description="Where spans go, if not to the common endpoint.",
    )
    traces_sampler: str = Field(
        "parentbased_always_on",
        alias="OTEL_TRACES_SAMPLER",
        description="Which spans are made; a name that OpenTelemetry knows.",
    )
    traces_sampler_arg: str = Field(
        "",
        alias="OTEL_TRACES_SAMPLER_ARG",
        description="What the sampler takes, such as the share of traces of `parentbased_traceidratio`.",
    )
    otel_disabled: str = Field(
        "false",
        alias="OTEL_SDK_DISABLED",
        description="`true`: no spans, whatever else is set.",
    )

    @property
    def traced(self) -> bool:
        """Whether spans are exported."""
        there = bool(self.otlp_endpoint or self.otlp_traces_endpoint)
        return there and self.otel_disabled.strip().lower() != "true"

    def traces(self) -> dict[str, str]:
        """What has been set of it, by the variables' names: for others to read."""
        return {
            str(field.alias): getattr(self, name)
            for name, field in TracedSettings.model_fields.items()
            if name in self.model_fields_set
        }


class BlobsSettings(_Settings):
    """What the part that takes in and delivers events reads of large data."""

    claim_check_bytes: int = Field(
        256 * 1024,
        alias="TORPOR_CLAIM_CHECK_BYTES",
        ge=1024,
        le=4 * 1024 * 1024,
        description="Data of more bytes goes to the blob store, and the event names it (`dataref`).",
    )
    blobs_ttl_seconds: float = Field(
        7 * 86_400.0,
        alias="TORPOR_BLOBS_TTL_SECONDS",
        ge=0,
        description="Blobs that no event names are removed so long after they were stored; 0: never.",
    )


class RuntimeSettings(TracedSettings):
    """What a function's container reads."""

    port: int = Field(
        8080, alias="PORT", ge=1, le=65535, description="TCP port to serve on (Knative runtime contract)."
    )
    handler: str = Field(
        "main", alias="TORPOR_HANDLER", description="What a container serves: `module` or `module:handler`."
    )
    service: str = Field(
        "", alias="K_SERVICE", description="Name of the function (Knative runtime contract)."
    )
    revision: str = Field(
        "", alias="K_REVISION", description="Name of the revision (Knative runtime contract)."
    )
    configuration: str = Field(
        "", alias="K_CONFIGURATION", description="Name of the configuration (Knative runtime contract)."
    )
    namespace: str = Field("default", alias="TORPOR_NAMESPACE", description="Namespace of the function.")
    instance: str = Field(
        "", alias="TORPOR_INSTANCE", description="Name of this instance, for logs and metrics."
    )
    container_concurrency: int = Field(
        0,
        alias="TORPOR_CONTAINER_CONCURRENCY",
        ge=0,
        description="Calls served at once; the rest waits in order. 0: no limit.",
    )
    timeout_seconds: float = Field(
        300.0,
        alias="TORPOR_TIMEOUT_SECONDS",
        gt=0,
        le=3600,
        description="Time a call may take before its caller gets 504.",
    )
    drain_seconds: float = Field(
        30.0,
        alias="TORPOR_DRAIN_SECONDS",
        ge=0,
        description="Longest time from SIGTERM to the end of the process.",
    )
    max_body_bytes: int = Field(
        16 * 1024 * 1024,
        alias="TORPOR_MAX_BODY_BYTES",
        ge=1,
        description="Largest request body; a larger one gets 413.",
    )
    blobs_url: str = Field(
        "",
        alias="TORPOR_BLOBS_URL",
        description="Where blobs are kept, such as file:///var/lib/torpor/blobs.",
    )
    log_level: _Level = Field(
        "INFO", alias="TORPOR_LOG_LEVEL", description="Least severe level that is logged."
    )


class PlatformSettings(TracedSettings, BlobsSettings):
    """What the command line and the platform's own processes read."""

    context: str = Field(
        "local", alias="TORPOR_CONTEXT", description="Platform to talk to: 'local', `kube:NAME` or a URL."
    )
    kubeconfig: str = Field(
        "", alias="KUBECONFIG", description="Files that name clusters, for `kube:`; else ~/.kube/config."
    )
    cache_dir: Path = Field(
        Path("~/.cache/torpor").expanduser(),
        alias="TORPOR_CACHE_DIR",
        description="Where built environments of functions, and what the platform fetches, are kept.",
    )
    nats_token: str = Field(
        "", alias="TORPOR_NATS_TOKEN", description="What a NATS that `torpor up --broker` names knows it by."
    )
    kafka_options: str = Field(
        "",
        alias="TORPOR_KAFKA_OPTIONS",
        description="File of `name=value` lines with options of Kafka's client (librdkafka), for "
        "`torpor up --broker kafka://...`.",
    )
    kafka_home: Path | None = Field(
        None,
        alias="TORPOR_KAFKA_HOME",
        description="An unpacked Kafka for `torpor up --broker kafka`; by default it is fetched by Maven.",
    )
    log_level: _Level = Field(
        "INFO", alias="TORPOR_LOG_LEVEL", description="Least severe level that is logged."
    )


class ClusterSettings(_Settings):
    """What every part of the platform reads in a cluster."""

    namespace: str = Field(
        "torpor", alias="TORPOR_PLATFORM_NAMESPACE", description="Namespace that the platform itself is in."
    )
    identity: str = Field(
        "", alias="TORPOR_POD", description="Name of this pod; by default the name of the machine."
    )
    health_port: int = Field(
        8081, alias="TORPOR_HEALTH_PORT", ge=0, le=65535, description="TCP port of health and metrics."
    )
    kubeconfig: str = Field(
        "", alias="KUBECONFIG", description="File that names a cluster, where this is no pod of one."
    )
    log_level: _Level = Field(
        "INFO", alias="TORPOR_LOG_LEVEL", description="Least severe level that is logged."
    )


class ControllerSettings(ClusterSettings, TracedSettings):
    """What the controller reads beside; what is said of traces goes to functions, too."""

    url: str = Field(
        "http://localhost",
        alias="TORPOR_URL",
        description="Where callers reach the gateway; shown with functions.",
    )
    blobs_url: str = Field("", alias="TORPOR_BLOBS_URL", description="Where functions keep blobs.")
    kept_revisions: int = Field(
        5,
        alias="TORPOR_KEPT_REVISIONS",
        ge=0,
        le=100,
        description="Revisions of a function that are kept beside the one that serves.",
    )


class ListeningSettings(ClusterSettings):
    """What a part that others call reads beside."""

    host: str = Field("0.0.0.0", alias="TORPOR_HOST", description="Address that it listens on.")
    http_port: int = Field(
        8080, alias="TORPOR_HTTP_PORT", ge=0, le=65535, description="TCP port for those who call it."
    )


class GatewaySettings(ListeningSettings, TracedSettings):
    """What a gateway reads beside."""

    internal_port: int = Field(
        8082,
        alias="TORPOR_INTERNAL_PORT",
        ge=0,
        le=65535,
        description="TCP port for the platform's other parts, which name a function by a header.",
    )
    domain: str = Field(
        "localhost",
        alias="TORPOR_DOMAIN",
        description="Functions are also reached at the host `<name>.<namespace>.<domain>`.",
    )
    public_api: bool = Field(
        False, alias="TORPOR_PUBLIC_API", description="Whether callers reach `/api/v1` too."
    )
    workers: int = Field(
        2, alias="TORPOR_WORKERS", ge=1, le=64, description="Threads of Envoy that serve requests."
    )
    leave_seconds: float = Field(
        10.0,
        alias="TORPOR_LEAVE_SECONDS",
        ge=0,
        description="Time from SIGTERM in which callers may still find this pod.",
    )


class EventsSettings(ListeningSettings, BlobsSettings):
    """What takes in and delivers events reads beside."""

    broker_url: str = Field(
        "nats://127.0.0.1:4222",
        alias="TORPOR_BROKER_URL",
        description="Where events are kept: `nats://host:port`, or `kafka://host:port[,host:port][/prefix]`.",
    )
    nats_token: str = Field("", alias="TORPOR_NATS_TOKEN", description="What NATS knows the platform by.")
    nats_copies: int = Field(
        1,
        alias="TORPOR_NATS_COPIES",
        ge=1,
        le=5,
        description="On how many NATS servers of a cluster each stream is kept.",
    )
    kafka_options: str = Field(
        "",
        alias="TORPOR_KAFKA_OPTIONS",
        description="File of `name=value` lines with options of Kafka's client (librdkafka), "
        "such as `security.protocol` and `sasl.password`.",
    )
    gateway: str = Field(
        "",
        alias="TORPOR_GATEWAY",
        pattern=r"^([^:/]+:[0-9]{1,5})?$",
        description="Gateways' port for the platform's other parts, `host:port`; "
        "by default by the service `torpor-gateway-internal`.",
    )
    blobs_url: str = Field(
        "",
        alias="TORPOR_BLOBS_URL",
        description="Where functions reach blobs; by default by the service `torpor-api`.",
    )
    blobs_store: str = Field(
        "",
        alias="TORPOR_BLOBS_STORE",
        description="Where blobs are kept: `nats://host:port`, `s3://bucket/path`, `gs://bucket/path`, "
        "`az://container/path` or `file:///folder`; without it there are none. "
        "The store's own variables say who one is there.",
    )
    callbacks_refused: str = Field(
        "",
        alias="TORPOR_CALLBACKS_REFUSED",
        description="Networks that callbacks may not reach, CIDR blocks with commas between; "
        "by default those of loopback, link-local, multicast and unspecified addresses.",
    )
    leave_seconds: float = Field(
        5.0,
        alias="TORPOR_LEAVE_SECONDS",
        ge=0,
        description="Time from SIGTERM in which producers may still find this pod.",
    )
    finish_seconds: float = Field(
        30.0,
        alias="TORPOR_FINISH_SECONDS",
        ge=0,
        description="Time from SIGTERM that deliveries under way have.",
    )

    @field_validator("callbacks_refused")
    @classmethod
    def _networks(cls, value: str) -> str:
        for block in filter(None, value.split(",")):
            ip_network(block.strip())
        return value


class ApiSettings(ListeningSettings):
    """What the API reads beside."""

    blobs_port: int = Field(
        8082,
        alias="TORPOR_BLOBS_PORT",
        ge=0,
        le=65535,
        description="TCP port of blobs, for functions and the platform's other parts.",
    )
    url: str = Field(
        "http://localhost",
        alias="TORPOR_URL",
        description="Where callers reach the gateway; shown with functions.",
    )
    blobs_url: str = Field(
        "",
        alias="TORPOR_BLOBS_URL",
        description="Where functions reach blobs; by default by the service `torpor-api`.",
    )
    blobs_store: str = Field(
        "",
        alias="TORPOR_BLOBS_STORE",
        description="Where blobs are kept: `nats://host:port`, `s3://bucket/path`, `gs://bucket/path`, "
        "`az://container/path` or `file:///folder`; without it there are none. "
        "The store's own variables say who one is there.",
    )
    nats_token: str = Field("", alias="TORPOR_NATS_TOKEN", description="What NATS knows the platform by.")
    nats_copies: int = Field(
        1,
        alias="TORPOR_NATS_COPIES",
        ge=1,
        le=5,
        description="On how many NATS servers of a cluster each stream is kept.",
    )


# What a function's process needs of the machine, and nothing else of the platform's environment.
_PASSED_ON = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "TORPOR_LOG_LEVEL"),
    )
)
_PASSED_ON_PREFIXES = ("LC_", "OTEL_")


def passed_on(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The part of ``environment`` (default: this process's) that functions run with."""
    source = os.environ if environment is None else environment
    return {
        name: value
        for name, value in source.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


def replace_environment(variables: Mapping[str, str]) -> None:
    """Make ``variables`` the environment of this process, as a function's does after its fork."""
    os.environ.clear()
    os.environ.update(variables)


def leave_forks_alone() -> None:
    """Keep gRPC, imported later, from handling forks: ours run another program at once, and it would warn
    of them.
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
