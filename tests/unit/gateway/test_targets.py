from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from torpor.endpoint import Endpoint
from torpor.gateway.counters import Counters
from torpor.gateway.stats import ClusterStats, parse
from torpor.gateway.targets import Holding, HoldLimits, Targets

A, B, C = (Endpoint("127.0.0.1", port) for port in (1, 2, 3))


def targets(*endpoints: Endpoint) -> Targets:
    made = Targets()
    made.declare({"default/hello"})
    made.publish("default/hello", endpoints)
    return made


def test_the_least_loaded_is_next_and_equals_take_turns() -> None:
    made = targets(A, B, C)
    assert [made.pick("default/hello") for _ in range(6)] == [A, B, C, A, B, C]
    made.release("default/hello", B)
    assert made.pick("default/hello") == B
    made.release("default/hello", C)
    made.release("default/hello", C)
    assert [made.pick("default/hello") for _ in range(2)] == [C, C]


def test_what_is_avoided_is_not_picked() -> None:
    made = targets(A, B)
    assert made.pick("default/hello", {A}) == B
    assert made.pick("default/hello", {A, B}) is None


def test_publishing_says_what_was_withdrawn_and_keeps_the_load_of_the_rest() -> None:
    made = targets(A, B)
    assert made.pick("default/hello") == A
    assert list(made.publish("default/hello", [A, C])) == [B]
    assert [made.pick("default/hello") for _ in range(2)] == [C, A]
    made.release("default/hello", B)  # picked before it was withdrawn
    assert set(made.publish("default/hello", [])) == {A, C}
    assert made.endpoints("default/hello") == ()
    assert made.pick("default/hello") is None


def test_only_declared_functions_are_known() -> None:
    made = targets(A)
    assert list(made.declare({"default/other"})) == [A]
    assert "default/hello" not in made
    assert made.pick("default/hello") is None
    made.fail("default/hello", "broken")
    assert made.problem("default/hello") is None
    assert made.publish("default/hello", []) == []
    assert "default/hello" not in made


def test_an_instance_proves_that_the_function_starts() -> None:
    made = targets()
    made.fail("default/hello", "broken")
    assert made.problem("default/hello") == "broken"
    made.publish("default/hello", [])
    assert made.problem("default/hello") == "broken"
    made.publish("default/hello", [A])
    assert made.problem("default/hello") is None


@given(st.lists(st.tuples(st.sampled_from("pr"), st.sampled_from([A, B, C])), max_size=60))
def test_the_load_is_never_uneven_by_more_than_what_was_released(steps: list[tuple[str, Endpoint]]) -> None:
    made = targets(A, B, C)
    under_way = dict.fromkeys((A, B, C), 0)
    for step, endpoint in steps:
        if step == "r" and under_way[endpoint]:
            under_way[endpoint] -= 1
            made.release("default/hello", endpoint)
        elif step == "p":
            least = min(under_way.values())
            picked = made.pick("default/hello")
            assert picked is not None
            assert under_way[picked] == least
            under_way[picked] += 1


def test_holding_is_bounded_by_count_and_bytes() -> None:
    holding = Holding(HoldLimits(max_requests=2, max_bytes=100))
    assert holding.admit(60)
    assert not holding.admit(50)
    assert holding.admit(30)
    assert not holding.admit(0)
    assert not holding.grow(11)
    assert holding.grow(10)
    holding.leave(70)
    assert (holding.requests, holding.bytes) == (1, 30)
    assert holding.admit(70)


def test_a_counter_goes_on_over_restarts() -> None:
    counters = Counters()
    assert [counters.observe("a", value) for value in (0, 3, 5, 2, 2, 4, 0, 1)] == [0, 3, 5, 7, 7, 9, 9, 10]
    assert counters.total("a") == 10
    assert counters.total("b") == 0
    counters.forget("a")
    assert counters.observe("a", 1) == 1


@given(st.lists(st.integers(0, 5)))
def test_a_counter_never_falls(values: list[int]) -> None:
    counters = Counters()
    seen = [counters.observe("a", value) for value in values]
    assert seen == sorted(seen)


def test_statistics_of_functions_alone() -> None:
    document = (
        b'{"stats":[{"name":"cluster.default/hello.upstream_rq_active","value":3},'
        b'{"name":"cluster.default/hello.upstream_rq_total","value":9},'
        b'{"name":"cluster.torpor-ads.upstream_rq_total","value":1},'
        b'{"name":"cluster.api.upstream_rq_total","value":1},'
        b'{"name":"cluster.images/a.b.upstream_rq_other","value":1},'
        b'{"name":"server.uptime","value":1},{"histograms":{}}]}'
    )
    assert parse(document)["default/hello"] == ClusterStats(3, 9)
    assert "api" not in parse(document)
