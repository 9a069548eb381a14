"""A function's days in milliseconds: traffic in, number of instances out, with no clock but the one here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.scaling.kpa import Rules
from torpor.scaling.load import Load
from torpor.scaling.scaler import Scaler
from torpor.spec.models import FunctionSpec, Scaling

TICK_SECONDS = 0.5
HOUR = 3600.0


@dataclass
class Simulation:
    """One function. Instances are ready ``start_ticks`` after they are desired, and end at once."""

    scaler: Scaler
    start_ticks: int = 1
    now: float = 0.0
    total: int = 0
    ready: int = 0
    replicas: int = 0
    history: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, **scaling: object) -> Simulation:
        spec = FunctionSpec(scaling=Scaling.model_validate(scaling), container_concurrency=10)
        return cls(Scaler(Rules.of(spec), TICK_SECONDS, 0.0))

    def run(self, seconds: float, rate: float, duration_seconds: float) -> None:
        """Let ``rate`` requests come a second, evenly, each of which takes ``duration_seconds``."""
        end = self.now + seconds
        due = 0.0
        while self.now < end - 1e-9:
            due += rate * TICK_SECONDS
            arrived, due = int(due), due - int(due)
            if self.replicas == 0 and arrived == 0:
                self.now += TICK_SECONDS  # at rest nobody looks
                continue
            if self.replicas == 0:
                self.replicas = self.scaler.wake(self.now)
            self.total += arrived
            # A gauge sees a request with the likelihood that it is under way at that moment.
            under_way = math.floor(rate * duration_seconds)
            self.replicas = self.scaler.sample(self.now, Load(float(under_way), self.total), self.ready)
            self.history.append(self.replicas)
            self.ready = self.replicas
            self.now += TICK_SECONDS


def test_a_function_wakes_works_and_goes_back_to_rest() -> None:
    simulation = Simulation.of(window_seconds=60.0, scale_to_zero_grace_period_seconds=30.0)
    simulation.run(300, rate=100, duration_seconds=0.5)  # 50 under way, 7 an instance
    assert simulation.replicas == math.ceil(50 / 7)
    simulation.run(89, rate=0, duration_seconds=0.5)
    assert simulation.replicas == 1
    simulation.run(3, rate=0, duration_seconds=0.5)
    assert simulation.replicas == 0


def test_short_and_rare_requests_keep_it_awake_though_the_gauge_never_sees_them() -> None:
    simulation = Simulation.of(window_seconds=10.0, scale_to_zero_grace_period_seconds=0.0)
    simulation.run(HOUR, rate=1 / 9, duration_seconds=0.005)
    assert set(simulation.history) == {1}
    simulation.run(21, rate=0, duration_seconds=0)
    assert simulation.replicas == 0


def test_a_burst_is_met_within_the_panic_window_and_then_left_slowly() -> None:
    simulation = Simulation.of(window_seconds=60.0)
    simulation.run(120, rate=10, duration_seconds=0.5)
    assert simulation.replicas == 1
    simulation.run(6, rate=400, duration_seconds=0.5)
    assert simulation.replicas >= 25
    assert simulation.scaler.decision.panicking
    simulation.run(50, rate=10, duration_seconds=0.5)
    assert simulation.replicas >= 25
    simulation.run(120, rate=10, duration_seconds=0.5)
    assert simulation.replicas == 1


def test_requests_per_second() -> None:
    simulation = Simulation.of(metric="rps", target=50.0, target_utilization_percentage=100.0)
    simulation.run(180, rate=220, duration_seconds=0.001)
    assert simulation.replicas == 5


def test_rules_that_change_apply_from_the_next_sample() -> None:
    simulation = Simulation.of(window_seconds=60.0)
    simulation.run(120, rate=100, duration_seconds=0.5)
    spec = FunctionSpec(scaling=Scaling(max_scale=3), container_concurrency=10)
    assert simulation.scaler.follow(Rules.of(spec), simulation.now) == 3
    simulation.run(2, rate=100, duration_seconds=0.5)
    assert simulation.replicas == 3
    wider = FunctionSpec(scaling=Scaling(window_seconds=5.0, initial_scale=9), container_concurrency=10)
    assert simulation.scaler.follow(Rules.of(wider), simulation.now) == 9


def test_a_data_path_that_starts_anew_counts_from_nothing() -> None:
    scaler = Scaler(Rules.of(FunctionSpec()), TICK_SECONDS, 0.0)
    scaler.wake(0.0)
    scaler.sample(0.0, Load(0, 900), 1)
    assert scaler.sample(80.0, Load(0, 3), 1) == 1  # three requests since it is back
    assert scaler.sample(169.0, Load(0, 3), 1) == 1
    assert scaler.sample(171.0, None, 1) == 0


def test_days_pass_in_no_time() -> None:
    simulation = Simulation.of(window_seconds=60.0)
    for _ in range(24):
        simulation.run(50 * 60, rate=0, duration_seconds=0)
        simulation.run(10 * 60, rate=50, duration_seconds=0.5)
    assert simulation.now == 24 * HOUR
    assert max(simulation.history) <= 8
    assert simulation.replicas >= 1


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(1, 60), st.floats(0, 200), st.floats(0, 2)), max_size=8),
    st.sampled_from([1.0, 3.0, 20.0]),
    st.sampled_from([0.0, 5.0]),
)
def test_it_always_comes_to_rest_and_no_sooner_than_declared(
    phases: list[tuple[float, float, float]], window_seconds: float, grace_seconds: float
) -> None:
    simulation = Simulation.of(
        window_seconds=window_seconds, scale_to_zero_grace_period_seconds=grace_seconds, max_scale=20
    )
    for seconds, rate, duration_seconds in phases:
        simulation.run(seconds, rate, duration_seconds)
        assert 0 <= simulation.replicas <= 20
    # A panic ends a window after its last crossing; from twenty it takes five halvings to one.
    simulation.run(3 * window_seconds + grace_seconds + 10, rate=0, duration_seconds=0)
    assert simulation.replicas == 0
