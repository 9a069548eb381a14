"""What Envoy starts with: listeners, where its configuration comes from, what it answers by itself. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torpor.gateway import names
from torpor.problems import CONTENT_TYPE, ProblemType

if TYPE_CHECKING:
    from pathlib import Path

    from torpor.endpoint import Endpoint

_EXT = "type.googleapis.com/envoy.extensions."
_HCM = _EXT + "filters.network.http_connection_manager.v3.HttpConnectionManager"
_PRIORITIES = _EXT + "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_ADS = "torpor-ads"
_ODCDS_TIMEOUT = "5s"
_HEADERS_TIMEOUT = "30s"
_MAX_HEADERS_KIB = 60
_STREAM_IDLE = "365s"
_MAX_CONNECTIONS = 20_000
_SHOWN = 300  # characters of what a caller asked for, in the answer to it
_STATS = ("upstream_rq_active", "upstream_rq_total", "downstream_rq_active", "downstream_rq_total")


@dataclass(frozen=True, slots=True)
class Paths:
    """The unix sockets between Envoy and this process."""

    ads: Path
    admin: Path
    activator: Path


def bootstrap(public: Endpoint, internal: Endpoint, paths: Paths, *, node: str) -> dict[str, Any]:
    """The document that Envoy is started with. Port 0 lets Envoy choose."""
    return {
        "node": {"id": node, "cluster": "torpor"},
        "admin": {"address": {"pipe": {"path": str(paths.admin), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": _ADS}}],
            }
        },
        "static_resources": {
            "clusters": [_ads_cluster(paths.ads)],
            "listeners": [
                _listener(names.PUBLIC_LISTENER, public, _public_manager()),
                _listener(names.INTERNAL_LISTENER, internal, _internal_manager()),
            ],
        },
        # Unfiltered, the statistics of 1,000 clusters cost ten times as much to read.
        "stats_config": {
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [{"suffix": f".{stat}"} for stat in _STATS],
                }
            }
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _EXT
                        + "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _MAX_CONNECTIONS,
                    },
                }
            ]
        },
    }


def _ads_cluster(path: Path) -> dict[str, Any]:
    return {
        "name": _ADS,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _EXT + "upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": _ADS,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(path)}}}}]},
            ],
        },
    }


def _listener(name: str, endpoint: Endpoint, manager: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}},
        # With it a second gateway could take the same port, and each would get some of the connections.
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _manager(name: str) -> dict[str, Any]:
    return {
        "@type": _HCM,
        "stat_prefix": name,
        "codec_type": "AUTO",
        "request_headers_timeout": _HEADERS_TIMEOUT,
        "stream_idle_timeout": _STREAM_IDLE,
        "max_request_headers_kb": _MAX_HEADERS_KIB,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": {"allow_connect": True},
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "server_name": "torpor",
        "always_set_request_id_in_response": True,
        "preserve_external_request_id": True,
        "local_reply_config": local_replies(internal=name == names.INTERNAL_LISTENER),
        "http_filters": [
            {
                "name": "envoy.filters.http.on_demand",
                "typed_config": {
                    "@type": _EXT + "filters.http.on_demand.v3.OnDemand",
                    "odcds": {
                        "source": {"ads": {}, "resource_api_version": "V3"},
                        "timeout": _ODCDS_TIMEOUT,
                    },
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": _EXT + "filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
    }


def _public_manager() -> dict[str, Any]:
    return {
        **_manager(names.PUBLIC_LISTENER),
        # A caller that speaks HTTP/1.0 may leave out the host; then it is no function's own.
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost"},
        "use_remote_address": True,  # who calls is who connects: x-forwarded-for gets that address
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        # What only the platform may say is taken off before anything looks at it.
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {
                    "@type": _EXT + "http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    "mutations": [
                        {
                            "remove_on_match": {
                                "key_matcher": {"prefix": names.OWN_HEADERS, "ignore_case": True}
                            }
                        },
                        {"remove": names.PREFIX_HEADER},
                        {
                            "append": {
                                "header": {"key": "x-forwarded-host", "value": "%REQ(:AUTHORITY)%"},
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }
                        },
                    ],
                },
            }
        ],
        "rds": {
            "route_config_name": names.PUBLIC_ROUTES,
            "config_source": {"ads": {}, "resource_api_version": "V3"},
        },
    }


def _internal_manager() -> dict[str, Any]:
    return {
        **_manager(names.INTERNAL_LISTENER),
        "route_config": {
            "name": names.INTERNAL_LISTENER,
            "virtual_hosts": [
                {
                    "name": names.INTERNAL_LISTENER,
                    "domains": ["*"],
                    "retry_policy": {
                        "retry_on": names.RETRY_ON,
                        "num_retries": names.CONNECT_RETRIES,
                        "retry_priority": {
                            "name": "envoy.retry_priorities.previous_priorities",
                            "typed_config": {"@type": _PRIORITIES, "update_frequency": 1},
                        },
                    },
                    "routes": [
                        {
                            "match": {
                                "prefix": "/",  # and a key, so that only functions are reached
                                "headers": [
                                    {"name": names.FUNCTION_HEADER, "string_match": {"contains": "/"}}
                                ],
                            },
                            # The dispatcher has time-outs of its own.
                            "route": {
                                "cluster_header": names.FUNCTION_HEADER,
                                "timeout": "0s",
                                "idle_timeout": "0s",
                            },
                            # Of the activator it says nothing: that has written it by itself.
                            "response_headers_to_add": [
                                {
                                    "header": {
                                        "key": names.INSTANCE_HEADER,
                                        "value": f"%UPSTREAM_METADATA({names.METADATA}:instance)%",
                                    },
                                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                                }
                            ],
                        }
                    ],
                }
            ],
        },
    }


# --- what Envoy answers by itself -------------------------------------------------------------------------


def local_replies(*, internal: bool) -> dict[str, Any]:
    """Envoy's own answers as problem documents; the first rule that fits is taken."""
    unknown = ProblemType.UNKNOWN_FUNCTION
    called = f"%REQ({names.FUNCTION_HEADER}):{_SHOWN}%" if internal else f"%PATH(NQ:PATH):{_SHOWN}%"
    nobody = f"No function is called that: {called}"
    broken = _flags("UC", "UR", "UPE")
    to_the_platform = {"or_filter": {"filters": [_path("/events/"), _path("/async-function/")]}}
    below_function = {"and_filter": {"filters": [_status(404), _path("/function/")]}}
    return {
        "mappers": [
            _mapper(unknown, _status(404) if internal else below_function, nobody),
            _mapper(unknown, _flags("NC"), nobody),
            _mapper(ProblemType.NOT_FOUND, _status(404), "Functions are below /function/<name>."),
            _mapper(ProblemType.METHOD_NOT_ALLOWED, _status(405), "The header 'allow' says which it takes."),
            _mapper(
                ProblemType.REQUEST_TIMEOUT, _status(408), "The request did not come to its end in time."
            ),
            _mapper(
                ProblemType.TOO_LARGE, _status(413), "The request's body is larger than the function takes."
            ),
            _mapper(
                ProblemType.HEADERS_TOO_LARGE,
                _status(431),
                f"The request's headers are larger than {_MAX_HEADERS_KIB} KiB.",
            ),
            _mapper(ProblemType.OVERLOADED, _flags("UO"), "Too many requests are under way.", retry_after=1),
            _mapper(
                ProblemType.UNAVAILABLE,
                {"and_filter": {"filters": [broken, to_the_platform]}},
                "What was to answer this ended before it did; send it again.",
                retry_after=1,
            ),
            _mapper(
                ProblemType.UPSTREAM_BROKEN,
                broken,
                "The connection to the instance ended before it answered.",
            ),
            _mapper(
                ProblemType.TIMED_OUT,
                _status(504),
                "Nothing came from the function for as long as it may take.",
            ),
            _mapper(
                ProblemType.UNAVAILABLE,
                _status(503),
                "What would answer this can't be reached at the moment.",
                retry_after=1,
            ),
            _mapper(ProblemType.MALFORMED_REQUEST, _status(400), "The request breaks the rules of HTTP."),
        ]
    }


def _mapper(
    kind: ProblemType, condition: dict[str, Any], detail: str, *, retry_after: int | None = None
) -> dict[str, Any]:
    mapper: dict[str, Any] = {
        "filter": condition,
        "status_code": kind.status,
        "body_format_override": {
            "json_format": {
                "type": kind.uri,
                "title": kind.title,
                "status": kind.status,
                "detail": detail,
                "requestId": "%REQ(X-REQUEST-ID)%",
            },
            "content_type": CONTENT_TYPE.decode(),
            "omit_empty_values": True,
        },
    }
    if retry_after is not None:
        mapper["headers_to_add"] = [{"header": {"key": "retry-after", "value": str(retry_after)}}]
    return mapper


def _status(status: int) -> dict[str, Any]:
    comparison = {"op": "EQ", "value": {"default_value": status, "runtime_key": f"torpor.status.{status}"}}
    return {"status_code_filter": {"comparison": comparison}}


def _flags(*flags: str) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": list(flags)}}


def _path(prefix: str) -> dict[str, Any]:
    return {"header_filter": {"header": {"name": ":path", "string_match": {"prefix": prefix}}}}
