"""What is tried, and what is measured of it: memory in MiB, time in seconds."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks.scale.rig import trigger
from torpor.binding import WireEvent
from torpor.spec.models import Join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scale.rig import Rig

_REST_SECONDS = 5.0
_SAMPLE_SECONDS = 1.0
_WEEK_SECONDS = 7 * 86_400.0
_SHORT_SECONDS = 1.0
Found = dict[str, Any]


def _event(event_id: str, kind: str, data: bytes, **place: str) -> WireEvent:
    attributes = {"specversion": "1.0", "id": event_id, "source": "/bench", "type": kind}
    return WireEvent({**attributes, "datacontenttype": "text/plain", **place}, data)


async def backlog(rig: Rig, events: int, deliver: int) -> Found:
    """Events that wait while nobody takes them, of which some or all are delivered then."""
    take = trigger("take", "take", parallelism=128)
    await rig.start(take)
    empty = rig.rss_mib()
    await rig.kill()
    began = time.time()
    await rig.publish(_event(str(number), "take", b"x" * 100) for number in range(events))
    filled_seconds = time.time() - began
    rig.functions.reset(is_open=False)
    began = await rig.start(take)
    declared = time.time()
    await rig.until_calls(1)
    start_cpu = rig.cpu_seconds()
    await asyncio.sleep(_REST_SECONDS)
    waiting = rig.rss_mib()
    opened, cpu = time.time(), rig.cpu_seconds()
    rig.functions.open()
    samples = [(rig.functions.calls, waiting)]
    while samples[-1][0] < deliver:
        await asyncio.sleep(_SAMPLE_SECONDS)
        samples.append((rig.functions.calls, rig.rss_mib()))
    drained_seconds, cpu = time.time() - opened, rig.cpu_seconds() - cpu
    calls, drained = samples[-1]
    if deliver == events:
        await rig.until_pending("take", 0)
    return {
        "events": events,
        "filled_seconds": filled_seconds,
        "rss_empty_mib": empty,
        "rss_waiting_mib": waiting,
        "start_to_declared_seconds": declared - began,
        "start_to_first_delivery_seconds": rig.functions.first - began,
        "declared_to_first_delivery_seconds": rig.functions.first - declared,
        "start_cpu_seconds": start_cpu,
        "delivered": calls,
        "delivered_per_second": calls / drained_seconds,
        "cpu_micros_a_delivery": cpu / calls * 1e6,
        "rss_delivered_mib": drained,
        "rss_peak_mib": rig.peak_mib(),
        "slope_bytes_an_event": _slope(samples[len(samples) // 2 :]) * 2**20,
        "faults": max(0, deliver - rig.functions.calls),
        "broker_rss_mib": rig.broker_mib(),
    }


def _slope(samples: list[tuple[int, float]]) -> float:
    """The straight line nearest to ``samples``: by how much the second grows with the first."""
    count = len(samples)
    x, y = sum(each[0] for each in samples) / count, sum(each[1] for each in samples) / count
    below = sum((each[0] - x) ** 2 for each in samples)
    return sum((each[0] - x) * (each[1] - y) for each in samples) / below if below else 0.0


def _parts(groups: range, index: int) -> Iterator[WireEvent]:
    for number in groups:
        yield _event(
            f"{number}/{index}",
            "part",
            b"x" * 100,
            fanoutid=f"g{number}",
            fanoutindex=str(index),
            fanoutsize="2",
        )


async def groups(rig: Rig, count: int) -> Found:
    """Groups of two: opened, over a crash, then half of them closed and the other half out of time.

    They are taken up once one that was whole after the crash has its result.
    """
    patient = trigger("part", "join", Join(timeout_seconds=_WEEK_SECONDS))
    hasty = trigger("part", "join", Join(timeout_seconds=_SHORT_SECONDS))
    await rig.start(patient)
    empty = rig.rss_mib()
    began = time.time()
    await rig.publish(_parts(range(count), 0))
    opened = await rig.until_pending("part", count) - began
    open_mib, opened_cpu = rig.rss_mib(), rig.cpu_seconds()
    await rig.kill()
    rig.functions.reset(is_open=True)
    await rig.publish(_parts(range(1), 1))
    began = await rig.start(patient)
    declared = time.time() - began
    taken_up = await rig.until_calls(1) - began
    again_mib, taken_up_cpu = rig.rss_mib(), rig.cpu_seconds()
    began, half = time.time(), count // 2
    await rig.publish(_parts(range(1, half), 1))
    await rig.until_calls(half)
    closed = await rig.until_pending("part", count - half) - began
    closed_cpu = rig.cpu_seconds()
    began = time.time()
    await rig.declare(hasty)
    expired = await rig.until_pending("part", 0) - began
    expired_cpu = rig.cpu_seconds()
    results, letters = await rig.results("part.joined"), await rig.dead()
    return {
        "groups": count,
        "rss_empty_mib": empty,
        "opened_seconds": opened,
        "opened_cpu_seconds": opened_cpu,
        "rss_open_mib": open_mib,
        "start_to_declared_seconds": declared,
        "start_to_taken_up_seconds": taken_up,
        "taken_up_cpu_seconds": taken_up_cpu,
        "rss_taken_up_mib": again_mib,
        "half_closed_seconds": closed,
        "half_closed_cpu_seconds": closed_cpu - taken_up_cpu,
        "half_expired_seconds": expired,
        "half_expired_cpu_seconds": expired_cpu - closed_cpu,
        "rss_peak_mib": rig.peak_mib(),
        "results": results[0],
        "dead_letters": letters[0],
        "faults": _faults(results, half) + _faults(letters, count - half),
        "broker_rss_mib": rig.broker_mib(),
    }


async def large(rig: Rig, parts: int) -> Found:
    """One group, by way of a function that makes it."""
    await rig.start(trigger("start", "split"), trigger("part", "join", Join()))
    empty = rig.rss_mib()
    rig.functions.reset(is_open=True)
    began = time.time()
    await rig.publish([_event("g", "start", b"%d part" % parts)])
    joined = await rig.until_calls(2) - began
    done = await rig.until_pending("part", 0) - began
    results = await rig.results("part.joined")
    return {
        "parts": parts,
        "rss_empty_mib": empty,
        "joined_seconds": joined,
        "done_seconds": done,
        "rss_peak_mib": rig.peak_mib(),
        "results": results[0],
        "faults": _faults(results, 1),
    }


async def nested(rig: Rig, count: int) -> Found:
    """A group of groups."""
    inner, outer = trigger("part", "join", Join()), trigger("part.joined", "join", Join())
    await rig.start(trigger("outer", "split"), trigger("inner", "split"), inner, outer)
    rig.functions.reset(is_open=True)
    began = time.time()
    await rig.publish([_event("g", "outer", b"%d inner %d part" % (count, count))])
    joined = await rig.until_calls(2 * count + 2) - began
    await rig.until_pending("part-joined", 0)
    between, results = await rig.results("part.joined"), await rig.results("part.joined.joined")
    return {
        "groups_in_a_group": count,
        "parts": count * count,
        "joined_seconds": joined,
        "rss_peak_mib": rig.peak_mib(),
        "results": results[0],
        "faults": _faults(between, count) + _faults(results, 1),
    }


def _faults(found: tuple[int, int], wanted: int) -> int:
    """How many results are missing or there twice."""
    records, different = found
    return abs(wanted - different) + records - different
