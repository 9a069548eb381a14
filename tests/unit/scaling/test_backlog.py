"""Functions that are scaled by the events that wait for them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.errors import EventLogError, GatewayError
from torpor.scaling.backlog import Backlog, BacklogLoads, backlogs, called_by, calls_of, queues
from torpor.scaling.backlog import decode as decode_backlogs
from torpor.scaling.backlog import encode as encode_backlogs
from torpor.scaling.kpa import Rules
from torpor.scaling.load import Load, decode, encode
from torpor.scaling.scaler import Scaler
from torpor.spec.models import FunctionSpec, Scaling
from torpor.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import Mapping

TICK = 0.5


def _scaler(**scaling: object) -> Scaler:
    spec = FunctionSpec(scaling=Scaling.model_validate({"metric": "lag", "window": "2s", **scaling}))
    return Scaler(Rules.of(spec), TICK, 0.0)


def test_what_waits_is_shared_out_and_kept_for() -> None:
    scaler = _scaler(target=10, targetUtilizationPercentage=100, maxScale=8, scaleToZeroGracePeriod="0s")
    now, seen = 0.0, []
    # 60 events wait, then 25, then none: 6 instances for 10 each, and none once a window has passed.
    for backlog in [60] * 6 + [25] * 12 + [0] * 12:
        now += TICK
        seen.append(scaler.sample(now, Load(1.0 if backlog else 0.0, 100, backlog), scaler.replicas))
    assert seen[5] == 6
    assert max(seen) == 6
    assert seen[17] == 3
    assert seen[-1] == 0
    assert "waiting events" in scaler.decision.reason or scaler.decision.reason == "no requests"


def test_other_metrics_do_not_look_at_what_waits() -> None:
    scaler = Scaler(Rules.of(FunctionSpec()), TICK, 0.0)
    assert scaler.sample(TICK, Load(0.0, 0, 1_000), 0) == 0


def test_by_default_an_instance_bears_a_hundred() -> None:
    spec = FunctionSpec(container_concurrency=2, scaling=Scaling(metric="lag"))
    assert spec.target == 100


def test_the_largest_number_counts_and_triggers_of_a_function_add_up() -> None:
    told = [
        {"t": Backlog(3, 9.0), "u": Backlog(1, 2.0)},
        {"t": Backlog(5, 8.0), "w": Backlog(0)},
        {"gone": Backlog(7)},
    ]
    functions = {"t": "f", "u": "f", "v": "g", "w": "h"}
    assert backlogs(told, functions) == {"f": Backlog(6, 9.0), "h": Backlog(0)}


def test_only_queues_of_functions_that_want_it_are_asked_for() -> None:
    triggers = {"n/t": "n/f", "n/u": "n/f", "n/v": "n/g", "n/w": "n/h"}
    found = queues(["n/f", "n/h"], triggers)
    calls = {calls_of("n/f"): "n/f", calls_of("n/h"): "n/h"}
    assert found == {"n/t": "n/f", "n/u": "n/f", "n/w": "n/h", **calls}
    assert [called_by(queue) for queue in found] == [
        function if queue in calls else None for queue, function in found.items()
    ]


def test_what_is_told_is_understood() -> None:
    told = {"default/t": Backlog(3, 1.5), "default/u": Backlog(0)}
    assert decode_backlogs(encode_backlogs(told)) == told
    for wrong in (b"[]", b"{", b'{"t": 3}', b'{"t": {"events": null}}'):
        with pytest.raises(ValueError, match=r"backlogs|JSON|expected|unexpected"):
            decode_backlogs(wrong)


Told = list["Mapping[str, Backlog] | Exception"]


class _Loads:
    """Loads of which ``told`` are the backlogs, one after the other."""

    def __init__(self, told: Told, lagging: Mapping[str, bool]) -> None:
        self.clock = MovableClock()
        self.lagging = dict(lagging)
        self.asked: list[Mapping[str, bool]] = []
        self._told = told
        self._loads = BacklogLoads(self.clock, self._observe, lambda: dict(self.lagging), self._ask)

    async def _observe(self) -> Mapping[str, Load]:
        return {"f": Load(1.0, 10), "h": Load(2.0, 20)}

    async def _ask(self, lagging: Mapping[str, bool]) -> Mapping[str, Backlog]:
        self.asked.append(lagging)
        answer = self._told.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def observe(self, seconds: float = 0.5) -> Mapping[str, Load]:
        await self.clock.advance(seconds)
        return await self._loads.observe()


def test_what_is_known_last_stands_while_nobody_tells(caplog: pytest.LogCaptureFixture) -> None:
    told: Told = [{"f": Backlog(4, 2.0), "g": Backlog(9)}, EventLogError("away"), EventLogError("away"), {}]

    async def run() -> None:
        loads = _Loads(told, {"f": True, "i": False})
        known = {"f": Load(1.0, 10, 4, 2.0), "h": Load(2.0, 20)}
        assert await loads.observe() == known
        assert await loads.observe() == known
        assert await loads.observe() == known
        assert await loads.observe() == {"f": Load(1.0, 10, 0), "h": Load(2.0, 20)}

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert caplog.text.count("away") == 1


def test_while_nothing_waits_it_is_asked_for_seldom() -> None:
    async def run() -> None:
        loads = _Loads([{"f": Backlog(0)}, {"f": Backlog(3)}, {}, {}, {}], {"f": False})
        for _ in range(4):  # at 0.5, 1.0, 1.5 and 2.0 seconds
            assert (await loads.observe())["f"].backlog == 0
        assert len(loads.asked) == 1
        assert (await loads.observe())["f"].backlog == 3
        await loads.observe()
        assert len(loads.asked) == 3
        await loads.observe()
        assert len(loads.asked) == 3
        loads.lagging["g"] = True  # another is awake now
        await loads.observe()
        assert loads.asked[-1] == {"f": False, "g": True}

    asyncio.run(run())


def test_nobody_is_asked_where_no_function_wants_it() -> None:
    async def observe() -> Mapping[str, Load]:
        raise GatewayError("no gateway")

    async def ask(_: Mapping[str, bool]) -> Mapping[str, Backlog]:
        raise AssertionError

    async def run() -> None:
        with pytest.raises(GatewayError):
            await BacklogLoads(MovableClock(), observe, lambda: {"f": True}, ask).observe()
        loads = _Loads([], {})
        assert await loads.observe() == {"f": Load(1.0, 10), "h": Load(2.0, 20)}
        assert loads.asked == []

    asyncio.run(run())


# --- by age -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(0.0, 0, 40, 0.0), 40.0),
        (Load(0.0, 0, 40, 10.0), 40.0),
        (Load(0.0, 0, 40, 25.0), 100.0),
        (Load(0.0, 0, 0, 1e9), 0.0),
    ],
)
def test_each_event_counts_as_often_as_the_oldest_has_waited_the_target_age(
    load: Load, expected: float
) -> None:
    scaling = Scaling.model_validate({"metric": "lag", "targetAge": "10s"})
    assert Rules.of(FunctionSpec(scaling=scaling)).lag(load) == expected
    assert Rules.of(FunctionSpec(scaling=Scaling(metric="lag"))).lag(load) == load.backlog


class _Queue:
    """Events come evenly; an instance takes two a second, ten seconds after it is wanted."""

    def __init__(self, **scaling: object) -> None:
        spec = {
            "metric": "lag",
            "targetUtilizationPercentage": 100,
            "target": 1000,
            "maxScale": 100,
            **scaling,
        }
        self.scaler = Scaler(Rules.of(FunctionSpec(scaling=Scaling.model_validate(spec))), TICK, 0.0)
        self.now = 0.0
        self.came: deque[float] = deque()
        self.starting: deque[tuple[float, int]] = deque([(0.0, 1)])
        self.ready = 1
        self.due = self.able = 0.0
        self.history: list[tuple[int, float]] = []
        """How many instances there were, and for how long the oldest had waited."""

    def run(self, seconds: float, rate: float) -> None:
        for _ in range(int(seconds / TICK)):
            self.now += TICK
            self.due += rate * TICK
            for _ in range(int(self.due)):
                self.came.append(self.now)
            self.due %= 1
            self.able = min(self.able + 2 * TICK * self.ready, 2.0 * self.ready)
            while self.came and self.able >= 1:
                self.came.popleft()
                self.able -= 1
            age = self.now - self.came[0] if self.came else 0.0
            wanted = self.scaler.sample(self.now, Load(0.0, 0, len(self.came), age), self.ready)
            if wanted <= self.ready:
                self.ready = wanted
                self.starting.clear()
            self.starting.append((self.now + 10.0, wanted))
            while self.starting and self.starting[0][0] <= self.now:
                self.ready = max(self.ready, min(self.starting.popleft()[1], wanted))
            self.history.append((self.ready, age))


@pytest.mark.parametrize("rate", [5.0, 10.0, 40.0])
def test_the_oldest_is_not_left_to_wait_where_a_target_age_is_given(rate: float) -> None:
    plain, aged = _Queue(), _Queue(targetAge="10s")
    for queue in (plain, aged):
        queue.run(3600.0, rate)
    last = len(aged.history) // 2
    worst = max(age for _, age in aged.history[last:])
    assert worst < max(age for _, age in plain.history[last:]) / 2
    instances = [ready for ready, _ in aged.history[last:]]
    # What it takes is rate / 2: it neither starves nor swings from one end to the other.
    assert max(instances) <= 2 * rate / 2 + 2
    assert sum(instances) / len(instances) < 1.5 * rate / 2 + 1
    aged.run(1200.0, 0.0)
    assert not aged.came
    assert aged.scaler.replicas == 0


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.floats(0.0, 1e7)), min_size=1, max_size=40),
    st.floats(0.1, 86_400.0),
)
def test_by_age_there_are_never_fewer_and_never_more_than_the_most(
    samples: list[tuple[int, float]], target_age: float
) -> None:
    scaling = {"metric": "lag", "target": 10, "maxScale": 30, "window": "2s"}
    plain = Scaler(Rules.of(FunctionSpec(scaling=Scaling.model_validate(scaling))), TICK, 0.0)
    rules = Rules.of(FunctionSpec(scaling=Scaling.model_validate(scaling)))
    aged = Scaler(replace(rules, target_age_seconds=target_age), TICK, 0.0)
    for number, (events, age) in enumerate(samples, start=1):
        load = Load(0.0, 0, events, age)
        fewer, more = plain.sample(number * TICK, load, 5), aged.sample(number * TICK, load, 5)
        assert fewer <= more <= 30


def test_gateways_tell_nothing_of_it() -> None:
    assert decode(encode({"f": Load(1.5, 3, 7)})) == {"f": Load(1.5, 3, 0)}
