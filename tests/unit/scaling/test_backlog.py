"""Functions that are scaled by the events that wait for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from torpor.errors import EventLogError, GatewayError
from torpor.scaling.backlog import BacklogLoads, backlogs
from torpor.scaling.kpa import Rules
from torpor.scaling.load import Load, decode, encode
from torpor.scaling.scaler import Scaler
from torpor.spec.models import FunctionSpec, Scaling

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
    told = [{"t": 3, "u": 1}, {"t": 5}, {"gone": 7}]
    assert backlogs(told, {"t": "f", "u": "f", "v": "g"}) == {"f": 6}


def test_what_is_known_last_stands_while_nobody_tells(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Mapping[str, int] | Exception] = [
        {"f": 4, "g": 9},
        EventLogError("away"),
        EventLogError("away"),
        {},
    ]

    async def observe() -> Mapping[str, Load]:
        return {"f": Load(1.0, 10), "h": Load(2.0, 20)}

    async def ask() -> Mapping[str, int]:
        answer = told.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run() -> None:
        loads = BacklogLoads(observe, lambda: ["f", "i"], ask)
        known = {"f": Load(1.0, 10, 4), "h": Load(2.0, 20)}
        assert await loads.observe() == known
        assert await loads.observe() == known
        assert await loads.observe() == known
        assert await loads.observe() == {"f": Load(1.0, 10, 0), "h": Load(2.0, 20)}

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert caplog.text.count("away") == 1


def test_nobody_is_asked_where_no_function_wants_it() -> None:
    async def observe() -> Mapping[str, Load]:
        raise GatewayError("no gateway")

    async def ask() -> Mapping[str, int]:
        raise AssertionError

    async def run() -> None:
        with pytest.raises(GatewayError):
            await BacklogLoads(observe, lambda: ["f"], ask).observe()

        async def none() -> Mapping[str, Load]:
            return {}

        assert await BacklogLoads(none, list, ask).observe() == {}

    asyncio.run(run())


def test_gateways_tell_nothing_of_it() -> None:
    assert decode(encode({"f": Load(1.5, 3, 7)})) == {"f": Load(1.5, 3, 0)}
