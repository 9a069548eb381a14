"""Routes that several functions declare: the first by name has them, and the others are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor.controller.claims import Claims, Route
from torpor.gateway.routes import FunctionRoute, tables

A, B = ("", "/a"), ("x.org", "/")


def test_the_first_by_name_has_it_whoever_came_first() -> None:
    told: list[str] = []
    claims = Claims(told.append)
    claims.set("n/g", [A, B])
    assert (list(claims.taken("n/g")), told) == ([], [])
    claims.set("n/f", [A])
    assert (list(claims.taken("n/g")), list(claims.taken("n/f"))) == ([(A, "n/f")], [])
    assert told == ["n/g"]
    claims.set("n/f", [B])
    assert list(claims.taken("n/g")) == [(B, "n/f")]
    claims.forget("n/f")
    assert list(claims.taken("n/g")) == []
    assert told == ["n/g"] * 3


_NAMES = st.sampled_from(["e", "f", "g"])
_ROUTES = st.frozensets(st.sampled_from(["/a", "/b", "/c"]), max_size=2)


@given(st.lists(st.tuples(_NAMES, _ROUTES), max_size=12))
def test_it_agrees_with_the_gateway_and_tells_everyone_concerned(
    steps: list[tuple[str, frozenset[str]]],
) -> None:
    declared: dict[str, frozenset[str]] = {}
    shown: dict[str, list[tuple[Route, str]]] = {}
    told: set[str] = set()
    claims = Claims(told.add)
    for name, paths in steps:
        key = f"n/{name}"
        told.clear()
        declared[key] = paths
        claims.set(key, [("", path) for path in paths])
        now = {one: list(claims.taken(one)) for one in declared}
        assert {one for one in now if now[one] != shown.get(one, [])} <= told | {key}
        shown = now
        routes = [FunctionRoute(one[2:], "n", (), tuple(its), (), 1, 1.0) for one, its in declared.items()]
        everywhere = next(iter(tables(routes, parts=(), domain="d")))
        has = {rule.prefix: rule.target for rule in everywhere.rules}
        for one, its in declared.items():
            lost = {path for (_, path), _ in now[one]}
            for path in its:
                owner = has[path]
                assert isinstance(owner, FunctionRoute)
                assert (owner.key == one) == (path not in lost)
