from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from torpor.gateway.routes import FunctionRoute, Missing, Rule, Table, tables
from torpor.spec.models import Function, FunctionSpec, Http, Metadata

if TYPE_CHECKING:
    from torpor.gateway.routes import Target


def route(name: str, namespace: str = "default", **http: Any) -> FunctionRoute:
    function = Function(
        metadata=Metadata(name=name, namespace=namespace), spec=FunctionSpec(http=Http(**http))
    )
    return FunctionRoute.of(function)


def everywhere(*routes: FunctionRoute) -> Table:
    return tables(routes, parts=("api",), domain="localhost")[0]


def lookup(table: Table, path: str) -> Target | None:
    """What Envoy does: the longest prefix of bytes in the map, then its rules in order."""
    chains = {chain[0].prefix: chain for chain in table.chains()}
    longest = max((prefix for prefix in chains if path.startswith(prefix)), key=len, default=None)
    if longest is None:
        return None
    for rule in chains[longest]:
        if path == rule.prefix or path.startswith(f"{rule.prefix}/"):
            return rule.target
    return None


def plainly(table: Table, path: str) -> Target | None:
    """What is meant: the longest rule that covers the path."""
    covering = [rule for rule in table.rules if path == rule.prefix or path.startswith(f"{rule.prefix}/")]
    return max(covering, key=lambda rule: len(rule.prefix)).target if covering else None


def test_facts_of_a_function() -> None:
    found = route(
        "hello", "images", paths=("/a/",), hosts=("a.example.com",), methods=("GET",), max_body_bytes=5
    )
    assert found == FunctionRoute("hello", "images", ("a.example.com",), ("/a",), ("GET",), 5, 300.0)
    assert found.key == "images/hello"
    assert list(found.prefixes()) == ["/function/hello.images"]
    assert list(route("hello").prefixes()) == ["/function/hello.default", "/function/hello"]


def test_tables_of_hosts() -> None:
    hello = route("hello")
    both = route("both", hosts=("b.example.com", "a.example.com"), paths=("/x",))
    wide = route("wide", paths=("/w",))
    made = tables([wide, hello, both], parts=(), domain="example.org")
    assert [table.hosts for table in made] == [
        ("*",),
        ("both.default.example.org",),
        ("hello.default.example.org",),
        ("wide.default.example.org",),
        ("a.example.com",),
        ("b.example.com",),
    ]
    assert made[2].rules == (Rule("", hello),)
    assert made[4].rules == (Rule("/x", both), Rule("/w", wide))
    assert Rule("/w", wide) in made[0].rules
    assert Rule("/x", both) not in made[0].rules


def test_no_host_is_in_two_tables() -> None:
    hello = route("hello")
    thief = route("thief", hosts=("hello.default.localhost", "thief.default.localhost", "x.example.com"))
    second = route("second", hosts=("x.example.com",))
    made = tables([thief, second, hello], parts=(), domain="localhost")
    hosts = [host for table in made for host in table.hosts]
    assert len(hosts) == len(set(hosts))
    own = next(table for table in made if table.hosts == ("hello.default.localhost",))
    assert own.rules == (Rule("", hello),)
    shared = next(table for table in made if table.hosts == ("x.example.com",))
    assert shared.rules == (Rule("", second),)


def test_parts_that_are_not_there() -> None:
    table = everywhere()
    assert lookup(table, "/api/v1/functions") == "api"
    assert lookup(table, "/events/a/b") == Missing(503)
    assert lookup(table, "/async-function/hello") == Missing(503)
    assert lookup(table, "/ui") == Missing(404)
    assert lookup(table, "/other") is None


def test_functions_whose_names_begin_alike() -> None:
    short, long = route("hello"), route("hello-2")
    table = everywhere(short, long)
    assert lookup(table, "/function/hello") == short
    assert lookup(table, "/function/hello/2") == short
    assert lookup(table, "/function/hello-2") == long
    assert lookup(table, "/function/hello.default/x") == short
    for unknown in ("/function/hello-3", "/function/hello2", "/function/hell", "/function/hello.other"):
        assert lookup(table, unknown) in (None, Missing(404))


PATHS = st.lists(st.text("ab", min_size=1, max_size=2), max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(PATHS, max_size=6, unique=True), PATHS)
def test_the_longest_rule_that_covers_a_path_is_found(declared: list[str], path: str) -> None:
    routes = [route(string.ascii_lowercase[index], paths=(prefix,)) for index, prefix in enumerate(declared)]
    table = everywhere(*routes)
    assert lookup(table, path) == plainly(table, path)


@given(
    st.lists(PATHS, max_size=4, unique=True), st.sampled_from(["/function", "/api", "/api/v1", "/ui"]), PATHS
)
def test_the_platforms_own_paths_are_never_a_functions(declared: list[str], own: str, rest: str) -> None:
    routes = [route(string.ascii_lowercase[index], paths=(prefix,)) for index, prefix in enumerate(declared)]
    table = everywhere(*routes)
    for path in (own, own + rest, own + "x", own + "x" + rest):
        found, meant = lookup(table, path), plainly(table, path)
        nothing = (None, Missing(404))
        assert found == meant or (found in nothing and meant in nothing)


def test_the_order_of_declaration_does_not_matter() -> None:
    routes = [route("a", paths=("/x",)), route("b", paths=("/x",)), route("c", hosts=("h.example.com",))]
    forth = tables(routes, parts=("events",), domain="localhost")
    back = tables(reversed(routes), parts=("events",), domain="localhost")
    assert forth == back
    assert lookup(forth[0], "/x") == routes[0]
