"""The decision, as a table and by what must always hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.scaling.kpa import Decision, Observed, Rules, State, decide
from torpor.spec.models import FunctionSpec, Scaling

RULES = Rules(
    metric="concurrency",
    target=10.0,
    min_scale=0,
    max_scale=1000,
    initial_scale=0,
    window_seconds=60.0,
    panic_window_seconds=6.0,
    panic_threshold=2.0,
    scale_down_delay_seconds=0.0,
    grace_seconds=30.0,
)
NOW = 1000.0


def at(stable: float, panic: float, ready: int, idle_seconds: float = 0.0) -> Observed:
    return Observed(stable, panic, ready, NOW - idle_seconds)


@pytest.mark.parametrize(
    ("observed", "replicas", "panicking"),
    [
        (at(100, 100, 10), 10, False),
        (at(101, 100, 10), 11, False),
        (at(100.0000001, 100, 10), 10, False),  # rounding costs no instance
        (at(90, 90, 10), 9, False),
        (at(10, 10, 10), 5, False),  # at most halved at once: max-scale-down-rate
        (at(1, 1, 3), 1, False),
        (at(100, 199, 10), 20, True),  # 19.9 rounds up to twice what is ready
        (at(100, 190, 10), 10, False),
        (at(100, 210, 10), 21, True),
        (at(300, 210, 10), 30, True),  # the stable window may need more than the panic window
        (at(0, 64, 0), 7, True),  # requests that are held at zero
        (at(0, 5, 0), 1, False),  # one instance is enough
        (at(20_000, 20_000, 1), 1000, True),  # a thousandfold at once: max-scale-up-rate
        (at(0, 0, 1, idle_seconds=0), 1, False),
        (at(0, 0, 1, idle_seconds=60), 1, False),
        (at(0, 0, 1, idle_seconds=89.9), 1, False),
        (at(0, 0, 1, idle_seconds=90), 0, False),
        (at(0, 0, 4, idle_seconds=90), 2, False),
        (at(0.01, 0, 1, idle_seconds=90), 1, False),
    ],
)
def test_one_decision(observed: Observed, replicas: int, panicking: bool) -> None:
    _, decision = decide(RULES, State(), observed, NOW)
    assert (decision.replicas, decision.panicking) == (replicas, panicking)
    assert decision.observed == observed.stable
    assert decision.reason


@pytest.mark.parametrize(
    ("rules", "observed", "replicas", "reason"),
    [
        (replace(RULES, min_scale=2), at(0, 0, 2, 500), 2, "minScale"),
        (replace(RULES, max_scale=3), at(900, 900, 3), 3, "maxScale"),
        (replace(RULES, initial_scale=4), at(0, 0, 3, 500), 4, "initialScale"),
        (replace(RULES, initial_scale=4), at(0, 0, 4, 500), 2, "0 concurrent requests over 60 s"),
        (replace(RULES, metric="rps"), at(25, 25, 3), 3, "25 requests per second"),
        (RULES, at(0, 0, 1, 70), 1, "stays for 20 s"),
        (RULES, at(0, 0, 1, 90), 0, "no requests"),
    ],
)
def test_bounds_and_reasons(rules: Rules, observed: Observed, replicas: int, reason: str) -> None:
    _, decision = decide(rules, State(), observed, NOW)
    assert decision.replicas == replicas
    assert reason in decision.reason


def walk(rules: Rules, steps: list[tuple[float, Observed]]) -> list[Decision]:
    state, decisions = State(), []
    for now, observed in steps:
        state, decision = decide(rules, state, replace(observed, active_at=now), now)
        decisions.append(decision)
    return decisions


def test_panic_holds_the_most_for_a_stable_window_after_the_last_crossing() -> None:
    decisions = walk(
        RULES,
        [
            (0.0, at(100, 100, 10)),
            (2.0, at(150, 300, 10)),  # crosses: thrice what is ready
            (4.0, at(150, 150, 30)),
            (30.0, at(400, 650, 30)),  # crosses again, and from here the window counts
            (60.0, at(20, 20, 65)),
            (90.0, at(20, 20, 65)),  # 60 s after, not yet more than a window
            (90.1, at(20, 20, 65)),  # over: at most halved
        ],
    )
    assert [decision.replicas for decision in decisions] == [10, 30, 30, 65, 65, 65, 32]
    assert [decision.panicking for decision in decisions] == [False, True, True, True, True, True, False]


def test_fewer_instances_wait_for_the_delay_and_more_do_not() -> None:
    rules = replace(RULES, scale_down_delay_seconds=20.0)
    decisions = walk(
        rules,
        [
            (0.0, at(100, 100, 10)),
            (5.0, at(60, 60, 10)),
            (10.0, at(80, 80, 10)),
            (19.9, at(60, 60, 10)),  # the ten were 19.9 s ago
            (20.0, at(60, 60, 10)),  # they are out, the eight are not
            (25.0, at(110, 110, 10)),
            (30.0, at(60, 60, 10)),
            (45.0, at(60, 60, 11)),
        ],
    )
    assert [decision.replicas for decision in decisions] == [10, 10, 10, 10, 8, 11, 11, 6]
    assert "scaleDownDelay" in decisions[1].reason


def test_the_initial_scale_holds_until_it_is_reached_once() -> None:
    rules = replace(RULES, initial_scale=6)
    decisions = walk(rules, [(t, at(10, 10, ready)) for t, ready in enumerate([0, 3, 6, 3, 1])])
    assert [decision.replicas for decision in decisions] == [6, 6, 3, 1, 1]


def test_rules_come_from_what_is_declared() -> None:
    scaling = Scaling(window_seconds=20.0, target_utilization_percentage=50.0, target=30.0)
    assert Rules.of(FunctionSpec(scaling=scaling)).target == 15.0
    assert Rules.of(FunctionSpec(scaling=scaling, container_concurrency=4)).target == 2.0
    rules = Rules.of(FunctionSpec(scaling=scaling))
    assert (rules.window_seconds, rules.panic_window_seconds, rules.panic_threshold) == (20.0, 2.0, 2.0)
    assert Rules.of(FunctionSpec(scaling=Scaling(metric="rps"))).target == 140.0


rules_ = st.builds(
    lambda low, span, initial, delay, grace, target: replace(
        RULES,
        min_scale=low,
        max_scale=max(1, low + span),
        initial_scale=min(initial, max(1, low + span)),
        scale_down_delay_seconds=delay,
        grace_seconds=grace,
        target=target,
    ),
    st.integers(0, 5),
    st.integers(0, 100),
    st.integers(0, 10),
    st.sampled_from([0.0, 5.0, 60.0]),
    st.sampled_from([0.0, 30.0]),
    st.floats(0.01, 200),
)
loads = st.floats(0, 5000)


@given(rules_, st.lists(st.tuples(st.floats(0, 100), loads, loads, st.integers(0, 100), st.booleans())))
def test_whatever_happens_the_bounds_hold(
    rules: Rules, steps: list[tuple[float, float, float, int, bool]]
) -> None:
    state, now, active_at, before = State(), 0.0, 0.0, 0
    for delay, stable, panic, ready, active in steps:
        now += delay
        if active:
            active_at = now
        state, decision = decide(rules, state, Observed(stable, panic, ready, active_at), now)
        assert rules.min_scale <= decision.replicas <= rules.max_scale
        if decision.replicas == 0:
            assert now - active_at >= rules.window_seconds + rules.grace_seconds
        if decision.panicking and state.panic_most > before:
            before = state.panic_most
        if decision.panicking:
            assert decision.replicas >= min(before, rules.max_scale)
        else:
            before = 0
        assert len(state.recent) <= len(steps)
        assert list(state.recent) == sorted(state.recent, key=lambda entry: (entry[0], -entry[1]))


@given(rules_, loads, loads, loads, loads, st.integers(0, 100))
def test_more_load_never_needs_fewer_instances(
    rules: Rules, stable: float, panic: float, more_stable: float, more_panic: float, ready: int
) -> None:
    less = decide(rules, State(), Observed(stable, panic, ready, NOW), NOW)[1]
    more = decide(rules, State(), Observed(stable + more_stable, panic + more_panic, ready, NOW), NOW)[1]
    assert more.replicas >= less.replicas


@given(rules_, loads, loads, st.integers(0, 1000), st.integers(0, 1000))
def test_the_number_moves_within_the_rates(
    rules: Rules, stable: float, panic: float, ready: int, idle_seconds: int
) -> None:
    replicas = decide(rules, State(), at(stable, panic, ready, idle_seconds), NOW)[1].replicas
    assert replicas >= min(max(1, ready) // 2, rules.max_scale)
    assert replicas <= max(1000 * max(1, ready), rules.min_scale, rules.initial_scale)
