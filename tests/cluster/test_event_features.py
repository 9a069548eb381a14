"""Each feature of events once, on each broker: in the events pods, as `torpor up` has it on a laptop."""

from __future__ import annotations

import asyncio
import itertools
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.brokers import on_kafka, on_nats
from tests.cluster.commands import Commands
from tests.cluster.eventing import Events, Reader, event
from tests.cluster.platform import Platform, is_ready, until
from tests.cluster.settings import ROOT
from tests.integration.conftest import running
from torpor.api.client import Client
from torpor.api.places import find as find_place
from torpor.binding import encode_structured
from torpor.events.kafka_server import install
from torpor.settings import PlatformSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.clusters import Cluster
    from torpor.events.brokers import Broker

PROBE = ROOT / "tests" / "cluster" / "probe"
QUICK = {"window": "1s", "scaleToZeroGracePeriod": "0s"}
AWAKE = {"minScale": 1, "maxScale": 1}
LAG = {**QUICK, "metric": "lag", "target": 1, "maxScale": 3}
KEYS = "abcd"


def function(name: str, image: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Function", "metadata": {"name": name}, "spec": {"image": image, **spec}}


def trigger(name: str, function: str = "probe", **spec: Any) -> dict[str, Any]:
    """A trigger that gets the events whose type is its name."""
    spec = {"filters": [{"exact": {"type": name}}], "subscriber": {"function": function}, **spec}
    return {"kind": "Trigger", "metadata": {"name": name}, "spec": spec}


TRIGGERS = (
    trigger("note"),
    trigger("by-data", filters=[{"exact": {"data.order.country": "de"}}]),
    trigger("by-sql", filters=[{"sql": "EXISTS tenant AND INT(hop) < 10"}]),
    trigger("retried", delivery={"retry": 3, "backoffDelay": "10ms", "timeout": "2s"}),
    trigger("lost", delivery={"retry": 1, "backoffDelay": "10ms", "deadLetterSink": {"function": "probe"}}),
    # Of one worker, so that what is sent together is together.
    trigger("batched", "gather", batch={"size": 4, "wait": "5s"}, delivery={"retry": 1}, parallelism=1),
    trigger("ordered", ordering="key"),
    trigger("whole", "gather", join={"timeout": "5m"}),
    trigger("late", "gather", join={"timeout": "1s", "onTimeout": "partial"}),
    trigger("never", "gather", join={"timeout": "1s"}),
    trigger("many", "lagging", parallelism=8),
    trigger("large", "gather"),
)
TICKS = {"cron": "* * * * * *", "event": {"type": "tick"}, "broker": "clock"}


@pytest.fixture(scope="module", params=["nats", "kafka"])
def broker(
    request: pytest.FixtureRequest,
    platform: Platform,
    platform_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Broker]:
    if request.param == "nats":
        yield on_nats(platform)
        return
    libraries = asyncio.run(install(PlatformSettings.from_environment().cache_dir))
    with on_kafka(platform, platform_image, tmp_path_factory.mktemp("kafka"), libraries) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def images(cluster: Cluster) -> dict[str, str]:
    return cluster.build(PROBE)


@pytest.fixture(scope="module")
def events(
    broker: Broker, platform: Platform, images: dict[str, str], kubeconfig: Path, module_namespace: str
) -> Iterator[Events]:
    reader = Reader(broker)
    place = find_place("kube:", str(kubeconfig))
    with running(reader), Client(place) as client:
        made = Events(platform, module_namespace, Commands(kubeconfig), client, reader)
        functions = (
            function("probe", images["probe"], scaling=AWAKE),
            function("gather", images["gather"], scaling=AWAKE),
            function("lagging", images["probe"], scaling=LAG, containerConcurrency=1),
        )
        until(lambda: sum(map(is_ready, platform.parts("events"))) >= 2, "two events pods")
        ticks = {"kind": "Schedule", "metadata": {"name": "ticks"}, "spec": TICKS}
        made.declare([*functions, *TRIGGERS, ticks])
        yield made


# --- in -----------------------------------------------------------------------------------------------------


def test_events_are_sent_and_watched(events: Events) -> None:
    """One event of arguments, and a file with one a line, as those who tail see them."""
    where = ("--namespace", events.namespace)
    with events.client.tail("default", events.namespace, filters=["type=note*"]) as seen:
        events.torpor.good("events", "send", "note", "--id", "n-0", "--data", "{}", *where)
        lines = [encode_structured(event("note", f"n-{number}", {})).decode() for number in (1, 2)]
        events.torpor.good("events", "send", "--events", "-", *where, text="\n".join(lines))
        tailed = [each.id for each in itertools.islice((one for one in seen if one.type == "note"), 3)]
    assert tailed == ["n-0", "n-1", "n-2"]
    assert [each["prefer"] for each in events.replies("note.seen", 3)] == ["reply"] * 3


def test_what_is_no_event_is_refused_and_what_comes_again_is_kept_once(events: Events) -> None:
    good = encode_structured(event("plain", "p", {}))
    large = encode_structured(event("plain", "q", {}, more="x" * 20_000))
    with events.platform.reachable() as gateway:
        url = f"{gateway}/events/{events.namespace}"
        assert post(f"{url}/default", b"{rubbish") == 400
        assert post(f"{url}/default", b"{}", "text/plain") == 415
        assert post(f"{url}/default", large) == 413
        assert post(f"{url}/elsewhere", good) == 404
        assert [post(f"{url}/default", good) for _ in range(2)] == [202, 202]
    assert [each.id for each in events.kept("plain")] == ["p"]


def post(url: str, body: bytes, kind: str = "application/cloudevents+json") -> int:
    """The status that an event gets."""
    request = urllib.request.Request(url, body, {"content-type": kind}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


# --- delivery -----------------------------------------------------------------------------------------------


def test_filters_choose_and_say_why(events: Events) -> None:
    [by_data] = events.send("order", {"order": {"country": "de"}}, tenant="a", hop="10")
    [by_sql] = events.send("order", {"order": {"country": "fr"}}, tenant="a", hop="9")
    assert len(events.replies("order.seen", 2)) == 2

    def matches(name: str) -> set[str]:
        standings = events.explained(name).triggers
        return {one.trigger.partition("/")[2] for one in standings if one.matches}

    assert matches(by_data) == {"by-data"}
    assert matches(by_sql) == {"by-sql"}


def test_what_fails_is_tried_again(events: Events) -> None:
    """After as long as the function says, and when it does not answer in time."""
    asked = {"status": 503, "headers": {"retry-after": "1"}}
    [waits, hangs] = events.send("retried", {"answers": [asked]}, {"answers": [{"seconds": 30}]})
    assert {each["torpor-attempt"] for each in events.replies("retried.seen", 2)} == {"2"}
    assert events.statuses(waits) == [503, 200]
    first = next(step for step in events.explained(waits).steps if step.what == "delivery")
    assert (first.delay_seconds or 0) >= 1
    assert len(events.statuses(hangs)) == 2
    assert events.statuses(hangs)[-1] == 200


def test_a_dead_letter_goes_to_its_sink_and_is_replayed_or_dropped(events: Events) -> None:
    fails = {"answers": [{"status": 500}] * 2}
    [one, other] = events.send("lost", fails, {"answers": [{"status": 400}]})
    until(lambda: len(events.letters("lost")) == 2, "two dead letters")
    causes = {letter.event_id: (letter.code, letter.attempts) for letter in events.letters("lost")}
    assert causes == {one: (500, 2), other: (400, 1)}
    sunk = events.replies("lost.seen", 2)
    assert {each["ce-torportrigger"] for each in sunk} == {f"{events.namespace}/lost"}

    torpor, where = events.torpor, ("--namespace", events.namespace)
    listed = torpor.good("dead-letters", "list", "--trigger", "lost", *where, "-o", "json").document
    letters = {each["eventId"]: each["id"] for each in listed}
    shown = torpor.good("dead-letters", "show", letters[one], "-o", "json").document
    assert shown["event"]["data"] == fails
    torpor.good("dead-letters", "drop", letters[other], "--yes")
    torpor.good("dead-letters", "replay", letters[one])
    until(lambda: events.statuses(one)[2:] == [500, 500], "a delivery anew, and its end")
    until(lambda: [each.event_id for each in events.letters("lost")] == [one], "another dead letter")
    assert events.letters("lost")[0].id != letters[one]
    steps = events.explained(other).steps
    mine = [step.what for step in steps if step.trigger == f"{events.namespace}/lost"]
    assert mine[:2] == ["delivery", "dead letter"]


def test_a_batch_fails_in_part(events: Events) -> None:
    parts = [{"number": number, "failed": number == 2} for number in range(4)]
    ids = events.send("batched", *parts)
    until(lambda: (0, 1, 3) in gathered(events), "those that did not fail")
    until(lambda: bool(events.letters("batched")), "a dead letter")
    assert [letter.event_id for letter in events.letters("batched")] == [ids[2]]


def test_events_that_were_delivered_are_delivered_again(events: Events) -> None:
    [name] = events.send("note", {})
    until(lambda: events.statuses(name) == [200], "a delivery")
    asked = ("events", "replay", "--from", "-1h", "--filter", "type=note")
    where = ("--namespace", events.namespace, "--broker", f"default.{events.namespace}", "-o", "json")
    would = events.torpor.good(*asked, *where, "--dry-run").document
    assert name in {each["id"] for each in would}
    assert events.statuses(name) == [200]
    events.torpor.good(*asked, *where)
    until(lambda: events.statuses(name) == [200, 200], "a second delivery")
    assert len([each for each in events.kept("note.seen") if each.attributes["subject"] == name]) == 1


def test_events_of_a_key_keep_their_order_when_their_worker_is_killed(events: Events) -> None:
    """The second of each key hangs until then: it comes again as another attempt, and the others after it."""
    until(lambda: sum(map(is_ready, events.platform.parts("events"))) >= 2, "two events pods")
    hangs = {"answers": [{"seconds": 30}]}
    sent = {key: events.send("ordered", {}, hangs, *[{}] * 6, partitionkey=key) for key in KEYS}
    until(lambda: len(events.kept("ordered.seen")) == len(KEYS), "the first of each key")
    events.platform.kill_leader("events")
    assert len(events.kept("ordered.seen")) == len(KEYS)
    until(lambda: len(events.kept("ordered.seen")) == sum(map(len, sent.values())), "all of them")
    seen = [each.attributes["subject"] for each in events.kept("ordered.seen")]
    for names in sent.values():
        assert [name for name in seen if name in names] == names


# --- groups, backlogs and large data ------------------------------------------------------------------------


def send_parts(events: Events, kind: str, *indexes: int) -> list[str]:
    """Send these of a group's three parts."""
    group = {"fanoutid": kind, "fanoutsize": "3"}
    return [events.send(kind, {"number": index}, fanoutindex=str(index), **group)[0] for index in indexes]


def gathered(events: Events) -> list[tuple[int, ...]]:
    """The numbers that came together, call by call."""
    return [tuple(each["numbers"]) for each in events.replies("gathered", 1)]


def test_a_group_is_joined_whole_or_ends_in_time(events: Events) -> None:
    send_parts(events, "whole", 2, 0, 1)
    send_parts(events, "late", 2, 0)
    lost = send_parts(events, "never", 1, 2)
    until(lambda: {(0, 1, 2), (0, 2)} <= set(gathered(events)), "a whole group, and a part of one")
    until(lambda: len(events.letters("never")) == 2, "dead letters of the third's parts")
    assert {letter.event_id for letter in events.letters("never")} == set(lost)
    assert len(gathered(events)) == len(set(gathered(events)))


def test_a_backlog_wakes_instances_and_lets_them_go(events: Events) -> None:
    def instances() -> int:
        return len(events.platform.instances(events.namespace, "lagging"))

    until(lambda: instances() == 0, "none at first")
    events.send("many", *({"answers": [{"seconds": 2}]} for _ in range(9)))
    until(lambda: instances() == 3, "three instances")
    assert len(events.replies("many.seen", 9)) == 9
    until(lambda: instances() == 0, "none at the end")


def test_large_data_goes_by_a_blob(events: Events) -> None:
    letters = 300 * 1024
    [name] = events.send("large", {"number": 77, "text": "x" * letters})
    until(lambda: any(each["letters"] == letters for each in events.replies("gathered", 1)), "its reply")
    [kept] = events.kept("large")
    assert kept.id == name
    assert kept.data is None
    assert "/blobs/" in kept.attributes["dataref"]


def test_a_schedule_fires_once_among_the_pods(events: Events) -> None:
    """Each second one event, and the resource says so: each minute, so this comes last."""

    def status() -> dict[str, Any]:
        found: dict[str, Any] = events.platform.cluster.get("schedule", "ticks", "-n", events.namespace)
        return dict(found.get("status", {}))

    until(lambda: {"lastFiringTime", "nextFiringTime"} <= status().keys(), "the firings in the status")
    assert [one["status"] for one in status()["conditions"]] == ["True"]
    times = [each.attributes["time"] for each in events.kept("tick", "clock")]
    assert times == sorted(set(times))
    assert len(times) > 10
