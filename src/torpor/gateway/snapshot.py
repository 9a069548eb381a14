"""The route table and its endpoints as Envoy's resources, serialised. Pure.

A table of 10,000 functions is built from pieces that were serialised before: one piece for a function, joined
as bytes. That is what protobuf allows (a message's fields may come in any order and from anywhere), and it is
some twenty times faster than building the whole message again.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2, protocol_pb2
from envoy.config.core.v3 import extension_pb2 as base_extension_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.route.v3 import route_components_pb2 as route_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.matcher.v3 import http_inputs_pb2, string_pb2
from envoy.type.v3 import range_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from torpor.gateway import names
from torpor.gateway.routes import FunctionRoute, Missing, Rule, Table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from torpor.endpoint import Endpoint

_MAX = 2**63 - 1
_GRACE_SECONDS = 5  # Envoy gives up after the instance and the activator had the time to do it
_NO_LIMIT = UInt32Value(value=1_000_000)
_CONNECT_TIMEOUT_SECONDS = 2
_CACHED = 50_000
# Numbers of fields whose content is joined as bytes; a test compares them with the descriptors.
CONFIG_NAME, CONFIG_HOSTS, CONFIG_ADDED, CONFIG_REMOVED, CONFIG_IGNORE_PORT = 1, 2, 6, 8, 14
CONFIG_ANSWER_REMOVED = 5
HOST_MATCHER, HOST_RETRY = 21, 16
MATCHER_TREE, TREE_INPUT, TREE_PREFIXES, MAP_ENTRIES, ENTRY_KEY, ENTRY_VALUE = 2, 1, 3, 1, 1, 2


@lru_cache(maxsize=_CACHED)
def cluster(name: str) -> bytes:
    """The cluster of a function or of a part; all are alike, so that none ever changes."""
    ads = config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
    )
    http = http_protocol_options_pb2.HttpProtocolOptions(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=_duration(names.UPSTREAM_IDLE_SECONDS)
        ),
        explicit_http_config=http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
            http_protocol_options=protocol_pb2.Http1ProtocolOptions()
        ),
    )
    packed = Any()
    packed.Pack(http)
    return _bytes(
        cluster_pb2.Cluster(
            name=name,
            type=cluster_pb2.Cluster.EDS,
            eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads),
            connect_timeout=_duration(_CONNECT_TIMEOUT_SECONDS),
            load_balancing_policy=_least_request(),
            # A circuit breaker would refuse; instances and the activator let wait, within their own bounds.
            circuit_breakers=circuit_breaker_pb2.CircuitBreakers(
                thresholds=[
                    circuit_breaker_pb2.CircuitBreakers.Thresholds(
                        max_connections=_NO_LIMIT,
                        max_pending_requests=_NO_LIMIT,
                        max_requests=_NO_LIMIT,
                        max_retries=_NO_LIMIT,
                    )
                ]
            ),
            typed_extension_protocol_options={
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed,
            },
        )
    )


def assignment(name: str, endpoints: Iterable[Endpoint], otherwise: Endpoint | None = None) -> bytes:
    """The endpoints of a cluster; a host that begins with ``/`` is a unix socket.

    ``otherwise`` gets the requests while there are no endpoints, and those that could not connect to one.
    """
    levels = [list(endpoints)] + ([[otherwise]] if otherwise is not None else [])
    localities = [
        endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=map(_host, level), priority=priority)
        for priority, level in enumerate(filter(None, levels))
    ]
    return _bytes(endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=localities))


def _host(endpoint: Endpoint) -> endpoint_components_pb2.LbEndpoint:
    host = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=_address(endpoint))
    )
    if endpoint.instance:
        host.metadata.filter_metadata[names.METADATA]["instance"] = endpoint.instance
    return host


def route_configuration(tables: Iterable[Table]) -> bytes:
    """All tables as the public listener's one route configuration."""
    hosts = b"".join(_field(CONFIG_HOSTS, _virtual_host(table)) for table in tables)
    ignore_port = b"".join((_key(CONFIG_IGNORE_PORT, 0), b"\x01"))
    # Once for all, not once a route: each header of each route costs Envoy some kilobytes.
    function = _field(CONFIG_ADDED, _bytes(_header(names.FUNCTION_HEADER, "%UPSTREAM_CLUSTER%")))
    no_address = _field(CONFIG_REMOVED, b"x-envoy-external-address")
    # Which instance answered is for the platform's own parts to know.
    no_instance = _field(CONFIG_ANSWER_REMOVED, names.INSTANCE_HEADER.encode())
    name = _field(CONFIG_NAME, names.PUBLIC_ROUTES.encode())
    return b"".join((name, hosts, ignore_port, function, no_address, no_instance))


@lru_cache(maxsize=_CACHED)
def _virtual_host(table: Table) -> bytes:
    shell = _bytes(route_pb2.VirtualHost(name=table.name, domains=table.hosts))
    retry = _field(HOST_RETRY, _retry())
    if all(rule.prefix == "" for rule in table.rules):
        routes = route_pb2.VirtualHost(routes=[r for rule in table.rules for r in _routes(rule)])
        return shell + _bytes(routes) + retry
    entries = b"".join(_field(MAP_ENTRIES, _entry(chain)) for chain in table.chains())
    tree = _field(TREE_INPUT, _path_input()) + _field(TREE_PREFIXES, entries)
    return shell + _field(HOST_MATCHER, _field(MATCHER_TREE, tree)) + retry


@lru_cache(maxsize=_CACHED)
def _entry(chain: tuple[Rule, ...]) -> bytes:
    """One prefix of the map, with the routes to look at, in order."""
    action = Any()
    action.Pack(route_pb2.RouteList(routes=[r for rule in chain for r in _routes(rule)]))
    on_match = matcher_pb2.Matcher.OnMatch(
        action=extension_pb2.TypedExtensionConfig(name="routes", typed_config=action)
    )
    prefix = (chain[0].prefix or "/").encode()
    return _field(ENTRY_KEY, prefix) + _field(ENTRY_VALUE, _bytes(on_match))


def _routes(rule: Rule) -> list[route_pb2.Route]:
    target = rule.target
    if isinstance(target, Missing):
        return [route_pb2.Route(match=_below(rule.prefix), direct_response=_direct(target.status))]
    if isinstance(target, str):
        return [route_pb2.Route(match=_below(rule.prefix), route=_to(target, 0.0))]
    return [*_refusals(rule.prefix, target), *_forwards(rule, target)]


def _refusals(prefix: str, function: FunctionRoute) -> list[route_pb2.Route]:
    too_large = _below(prefix)
    too_large.headers.add(
        name="content-length", range_match=range_pb2.Int64Range(start=function.max_body_bytes + 1, end=_MAX)
    )
    refusals = [route_pb2.Route(match=too_large, direct_response=_direct(413))]
    if function.methods:
        other_method = _below(prefix)
        for method in function.methods:
            other_method.headers.add(
                name=":method", string_match=string_pb2.StringMatcher(exact=method), invert_match=True
            )
        allow = _header("allow", ", ".join(function.methods))
        refusals.insert(
            0,
            route_pb2.Route(
                match=other_method, direct_response=_direct(405), response_headers_to_add=[allow]
            ),
        )
    return refusals


def _forwards(rule: Rule, function: FunctionRoute) -> list[route_pb2.Route]:
    action = _to(function.key, function.timeout_seconds + names.HOLD_SECONDS + _GRACE_SECONDS)
    if not rule.strip:
        return [route_pb2.Route(match=_below(rule.prefix), route=action)]
    prefix = [_header(names.PREFIX_HEADER, rule.prefix)]
    action.prefix_rewrite = "/"
    # Two matches, since one for the path and what is below it would leave "//" where only "/" is wanted.
    return [
        route_pb2.Route(match=match, route=action, request_headers_to_add=prefix)
        for match in (route_pb2.RouteMatch(path=rule.prefix), route_pb2.RouteMatch(prefix=f"{rule.prefix}/"))
    ]


def _to(name: str, idle_seconds: float) -> route_pb2.RouteAction:
    # The instance ends a call that takes too long. Envoy only watches that something moves at all: a bound
    # on the whole would break off long streams. 0 is no bound.
    return route_pb2.RouteAction(cluster=name, timeout=_duration(0), idle_timeout=_duration(idle_seconds))


def _below(prefix: str) -> route_pb2.RouteMatch:
    if not prefix:
        return route_pb2.RouteMatch(prefix="/")
    return route_pb2.RouteMatch(path_separated_prefix=prefix)


def _direct(status: int) -> route_pb2.DirectResponseAction:
    return route_pb2.DirectResponseAction(status=status)


def _header(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


@lru_cache(maxsize=1)
def _retry() -> bytes:
    """Only what never reached an instance is sent again: through the activator, which knows of others, or
    holds it until there is one.
    """
    elsewhere = route_pb2.RetryPolicy.RetryPriority(name="envoy.retry_priorities.previous_priorities")
    elsewhere.typed_config.Pack(previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=1))
    return _bytes(
        route_pb2.RetryPolicy(
            retry_on=names.RETRY_ON,
            num_retries=UInt32Value(value=names.CONNECT_RETRIES),
            retry_priority=elsewhere,
        )
    )


@lru_cache(maxsize=1)
def _path_input() -> bytes:
    path = Any()
    path.Pack(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":path"))
    return _bytes(extension_pb2.TypedExtensionConfig(name="path", typed_config=path))


def _least_request() -> cluster_pb2.LoadBalancingPolicy:
    """Looking at all hosts was best of eight policies where instances let the rest wait."""
    packed = Any()
    packed.Pack(least_request_pb2.LeastRequest(selection_method=least_request_pb2.LeastRequest.FULL_SCAN))
    extension = base_extension_pb2.TypedExtensionConfig(
        name="envoy.load_balancing_policies.least_request", typed_config=packed
    )
    return cluster_pb2.LoadBalancingPolicy(
        policies=[cluster_pb2.LoadBalancingPolicy.Policy(typed_extension_config=extension)]
    )


def _address(endpoint: Endpoint) -> address_pb2.Address:
    if endpoint.host.startswith("/"):
        return address_pb2.Address(pipe=address_pb2.Pipe(path=endpoint.host))
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=endpoint.host, port_value=endpoint.port)
    )


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


# --- protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) ---------------------------


def _bytes(message: Message) -> bytes:
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field: a message, text or bytes."""
    return b"".join((_key(number, 2), _varint(len(content)), content))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
