from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from xds.type.matcher.v3 import matcher_pb2

from torpor.endpoint import Endpoint
from torpor.gateway import names, snapshot
from torpor.gateway.routes import FunctionRoute, tables


def function(name: str, **facts: Any) -> FunctionRoute:
    made: dict[str, Any] = {
        "namespace": "default",
        "hosts": (),
        "paths": (),
        "methods": (),
        "max_body_bytes": 100,
        "timeout_seconds": 10.0,
        **facts,
    }
    return FunctionRoute(name=name, **made)


def configuration(*functions: FunctionRoute) -> Any:
    made = snapshot.route_configuration(tables(functions, parts=("events", "api"), domain="localhost"))
    parsed = route_pb2.RouteConfiguration()
    parsed.ParseFromString(made)
    return parsed


def routes(virtual_host: Any, prefix: str) -> list[Any]:
    on_match = virtual_host.matcher.matcher_tree.prefix_match_map.map[prefix]
    parsed = route_components_pb2.RouteList()
    assert on_match.action.typed_config.Unpack(parsed)
    return list(parsed.routes)


def number(message: Any, field: str) -> int:
    found: int = message.DESCRIPTOR.fields_by_name[field].number
    return found


def test_the_numbers_of_fields_are_the_descriptors() -> None:
    config, host, matcher = (
        route_pb2.RouteConfiguration,
        route_components_pb2.VirtualHost,
        matcher_pb2.Matcher,
    )
    assert number(config, "name") == snapshot.CONFIG_NAME
    assert number(config, "virtual_hosts") == snapshot.CONFIG_HOSTS
    assert number(config, "request_headers_to_add") == snapshot.CONFIG_ADDED
    assert number(config, "request_headers_to_remove") == snapshot.CONFIG_REMOVED
    assert number(config, "response_headers_to_remove") == snapshot.CONFIG_ANSWER_REMOVED
    assert number(config, "ignore_port_in_host_matching") == snapshot.CONFIG_IGNORE_PORT
    assert number(host, "matcher") == snapshot.HOST_MATCHER
    assert number(host, "retry_policy") == snapshot.HOST_RETRY
    assert number(matcher, "matcher_tree") == snapshot.MATCHER_TREE
    assert number(matcher.MatcherTree, "input") == snapshot.TREE_INPUT
    assert number(matcher.MatcherTree, "prefix_match_map") == snapshot.TREE_PREFIXES
    assert number(matcher.MatcherTree.MatchMap, "map") == snapshot.MAP_ENTRIES
    entry = matcher.MatcherTree.MatchMap.DESCRIPTOR.fields_by_name["map"].message_type
    assert entry.fields_by_name["key"].number == snapshot.ENTRY_KEY
    assert entry.fields_by_name["value"].number == snapshot.ENTRY_VALUE


def test_a_configuration_joined_from_bytes_is_whole() -> None:
    made = configuration(function("hello"), function("other", hosts=("o.example.com",)))
    assert made.name == names.PUBLIC_ROUTES
    assert made.ignore_port_in_host_matching
    assert [list(host.domains) for host in made.virtual_hosts] == [
        ["*"],
        ["hello.default.localhost"],
        ["other.default.localhost"],
        ["o.example.com"],
    ]
    never_seen = {"connect-failure", "reset-before-request", "refused-stream"}
    for host in made.virtual_hosts:
        assert set(host.retry_policy.retry_on.split(",")) == never_seen
    everywhere = made.virtual_hosts[0]
    assert not everywhere.routes
    assert "/function/hello" in everywhere.matcher.matcher_tree.prefix_match_map.map
    own = made.virtual_hosts[1]
    assert own.routes[-1].route.cluster == "default/hello"
    assert not own.HasField("matcher")


def test_the_routes_of_a_function() -> None:
    everywhere = configuration(function("hello", methods=("GET", "PUT"))).virtual_hosts[0]
    refuse_method, refuse_size, exact, below = routes(everywhere, "/function/hello")
    assert refuse_method.direct_response.status == 405
    assert refuse_method.response_headers_to_add[0].header.value == "GET, PUT"
    assert all(header.invert_match for header in refuse_method.match.headers)
    assert refuse_size.direct_response.status == 413
    assert refuse_size.match.headers[0].range_match.start == 101
    assert (exact.match.path, exact.route.prefix_rewrite) == ("/function/hello", "/")
    assert (below.match.prefix, below.route.prefix_rewrite) == ("/function/hello/", "/")
    for forward in (exact, below):
        assert forward.route.cluster == "default/hello"
        assert forward.route.timeout.ToTimedelta().total_seconds() == 0
        assert forward.route.idle_timeout.ToTimedelta().total_seconds() == 10 + names.HOLD_SECONDS + 5


def test_a_long_table_parses() -> None:
    made = configuration(
        *(function(f"function-{index}", paths=(f"/{'x' * index}",)) for index in range(1, 300))
    )
    assert len(made.virtual_hosts) == 300
    assert len(made.virtual_hosts[0].matcher.matcher_tree.prefix_match_map.map) > 900


def test_a_cluster_depends_on_its_name_alone() -> None:
    made = cluster_pb2.Cluster()
    made.ParseFromString(snapshot.cluster("default/hello"))
    assert made.name == "default/hello"
    assert made.type == cluster_pb2.Cluster.EDS
    assert made.circuit_breakers.thresholds[0].max_requests.value >= 1_000_000
    assert snapshot.cluster("default/hello") == snapshot.cluster("default/hello")


def test_endpoints_are_addresses_or_unix_sockets() -> None:
    made = endpoint_pb2.ClusterLoadAssignment()
    made.ParseFromString(
        snapshot.assignment("default/hello", [Endpoint("127.0.0.1", 80), Endpoint("/a/b", 0)])
    )
    first, second = (host.endpoint.address for host in made.endpoints[0].lb_endpoints)
    assert (first.socket_address.address, first.socket_address.port_value) == ("127.0.0.1", 80)
    assert second.pipe.path == "/a/b"
