"""Events on a real platform: no event is lost and no joined result doubled, whatever process is killed."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from tests.integration.local.conftest import until
from torpor.binding import WireEvent
from torpor.errors import TorporError
from torpor.spec.letters import LetterSelection
from torpor.spec.replays import Replay
from torpor.testing.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torpor.api.client import Client
    from torpor.spec.history import Step

PARTS = 120
START_SECONDS = 240.0  # a Kafka takes its time
CODE = """
import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from torpor import CloudEvent, function


@function(emits="part.made")
def split(data: dict) -> Iterator[dict]:
    for number in range(data["parts"]):
        yield {"number": number}


@function(emits="part.done")
async def work(data: dict) -> dict:
    await asyncio.sleep(0.05)
    return {"number": data["number"]}


@function(emits="all.done")
def collect(parts: list[dict]) -> dict:
    return {"numbers": sorted(part["number"] for part in parts)}


@function
def record(event: CloudEvent) -> None:
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write(f"{event.get_id()} {event.get_data()['numbers']}\\n")
"""
FUNCTION = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  source: {{handler: "main:{name}"}}
  env: [{{name: RECORD, value: "{record}"}}]
  containerConcurrency: 4
  scaling: {{maxScale: 3, target: 4, window: 2s, scaleToZeroGracePeriod: 0s}}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {{name: {name}}}
spec:
  filters: [{{exact: {{type: {type}}}}}]
  subscriber: {{function: {name}}}
  parallelism: 12
  delivery: {{retry: 20, backoffPolicy: linear, backoffDelay: 100ms}}
{join}"""
STEPS = (
    ("split", "parts.wanted", ""),
    ("work", "part.made", ""),
    ("collect", "part.done", "  join: {timeout: 5m}\n"),
    ("record", "all.done", ""),
)


class _FanOut:
    def __init__(self, platform: Running, client: Client, record: Path) -> None:
        self.platform = platform
        self.client = client
        self._record = record

    def start(self, event_id: str = "one") -> None:
        attributes = {
            "specversion": "1.0",
            "id": event_id,
            "source": "/test",
            "type": "parts.wanted",
            "datacontenttype": "application/json",
        }
        self.client.send([WireEvent(attributes, orjson.dumps({"parts": PARTS}))])

    def delivered(self, trigger: str) -> int:
        return next(one.delivered for one in self.client.triggers() if one.name == trigger)

    def in_the_middle(self) -> None:
        """Wait until some parts are done, and others are not."""
        until(lambda: PARTS > self.delivered("work") >= 10, "some parts done")

    def pid_of(self, part: str) -> int:
        return next(one.pid or 0 for one in self.client.status().parts if one.name == part)

    def results(self) -> list[str]:
        return self._record.read_text().splitlines() if self._record.exists() else []

    def check(self, groups: int = 1) -> None:
        """All is delivered in the end, and each group has one result that is whole."""
        until(lambda: len(set(self.results())) >= groups, f"{groups} results")
        until(self._idle, "nothing pending")
        numbers = str(list(range(PARTS)))
        # The recording handler may run twice after a crash; then it is given the very same event.
        assert [line.partition(" ")[2] for line in set(self.results())] == [numbers] * groups
        assert not any(one.dead_lettered for one in self.client.triggers())

    def _idle(self) -> bool:
        return all(one.ready and not one.pending for one in self.client.triggers())


@pytest.fixture
def fan_out(tmp_path: Path, broker: str) -> Iterator[_FanOut]:
    folder, record = tmp_path / "functions", tmp_path / "record.txt"
    folder.mkdir()
    (folder / "main.py").write_text(CODE)
    documents = [
        FUNCTION.format(name=name, type=type_, record=record, join=join) for name, type_, join in STEPS
    ]
    (folder / "function.yaml").write_text("---\n".join(documents))
    with (
        Running([folder], tmp_path / "run", broker=broker, start_seconds=START_SECONDS) as platform,
        platform.client() as client,
    ):
        yield _FanOut(platform, client, record)


@pytest.mark.parametrize("broker", ["nats", "kafka"], indirect=True)
def test_a_fan_out_is_split_worked_on_and_joined(fan_out: _FanOut) -> None:
    fan_out.start()
    fan_out.check()
    assert fan_out.delivered("work") == PARTS


def test_an_event_that_is_sent_twice_counts_once(fan_out: _FanOut) -> None:
    fan_out.start()
    fan_out.start()
    fan_out.check()
    assert fan_out.delivered("split") == 1


def _kill_instances(fan_out: _FanOut) -> None:
    for _ in range(3):
        until(lambda: fan_out.client.function("work").instances, "instances of work")
        for instance in fan_out.client.function("work").instances:
            if instance.pid is not None:
                _kill(instance.pid)


def _kill_broker(fan_out: _FanOut) -> None:
    _kill(fan_out.pid_of("nats"))


def _kill_dispatcher(fan_out: _FanOut) -> None:
    _kill(fan_out.pid_of("events"))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.mark.parametrize("kill", [_kill_instances, _kill_broker, _kill_dispatcher])
def test_nothing_is_lost_or_doubled_when_processes_are_killed(
    fan_out: _FanOut, kill: Callable[[_FanOut], None]
) -> None:
    fan_out.start("one")
    fan_out.in_the_middle()
    kill(fan_out)
    fan_out.check()


@pytest.mark.parametrize("broker", ["nats", "kafka"], indirect=True)
def test_events_outlive_the_platform(tmp_path: Path, fan_out: _FanOut, broker: str) -> None:
    fan_out.start()
    fan_out.in_the_middle()
    os.kill(fan_out.platform.pid, signal.SIGKILL)
    until(lambda: not fan_out.platform.census.left(), "no process left")
    running = Running([tmp_path / "functions"], tmp_path / "run", broker=broker, start_seconds=START_SECONDS)
    with running as platform, platform.client() as client:
        again = _FanOut(platform, client, tmp_path / "record.txt")
        again.check()


# --- looking into events ------------------------------------------------------------------------------------

PICKY = """
from pathlib import Path

from torpor import CloudEvent, function


@function(emits="order.shipped")
def ship(event: CloudEvent) -> dict:
    if not Path("@MENDED@").exists():
        raise ValueError("the warehouse is closed")
    return {"id": event.get_id()}
"""
SHIP = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: ship}
spec:
  source: {handler: "main:ship"}
  scaling: {window: 2s, scaleToZeroGracePeriod: 0s}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: ship}
spec:
  filters: [{exact: {type: order.paid}}]
  subscriber: {function: ship}
  delivery: {retry: 1, backoffDelay: 10ms}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: other}
spec:
  filters: [{prefix: {type: mail.}}]
  subscriber: {function: ship}
"""


def _order(event_id: str) -> WireEvent:
    return WireEvent({"specversion": "1.0", "id": event_id, "source": "/shop", "type": "order.paid"}, None)


def test_what_failed_is_explained_and_replayed_after_a_restart(tmp_path: Path) -> None:
    folder, mended = tmp_path / "functions", tmp_path / "mended"
    folder.mkdir()
    (folder / "main.py").write_text(PICKY.replace("@MENDED@", str(mended)))
    (folder / "function.yaml").write_text(SHIP)
    with Running([folder], tmp_path / "run") as platform, platform.client() as client:
        client.send([_order("1"), _order("2")])
        until(lambda: len(list(client.dead_letters())) == 2, "two dead letters")
        until(lambda: not client.function("ship").instances, "the function is at rest")
    with Running([folder], tmp_path / "run") as platform, platform.client() as client:
        [one] = client.explain("1").items
        assert [step.what for step in one.steps] == ["accepted", "delivery", "delivery", "dead letter"]
        assert [step.status for step in one.steps] == [None, 500, 500, None]
        verdicts = {each.trigger: (each.matches, each.attribute) for each in one.triggers}
        assert verdicts == {"default/ship": (True, "type"), "default/other": (False, "type")}
        letter = client.dead_letter(one.dead_letters[0])
        assert letter.code == 500
        mended.touch()
        [outcome] = client.replay([letter.id])
        assert outcome.outcome == "replayed"

        def answered() -> bool:
            return len(client.explain("1").items[0].replies) == 1

        until(answered, "a reply to the replayed event")
        [one] = client.explain("1").items
        assert one.dead_letters == ()
        assert one.steps[-1].text == "attempt 1 delivered, with 1 reply"
        [reply] = client.explain(one.replies[0].id).items
        assert reply.steps[0].text == "written as a reply at trigger default/ship to event '1'"
        assert [each.event_id for each in client.dead_letters()] == ["2"]
        assert client.explain("3").items == ()
        since = one.steps[0].at - timedelta(minutes=1)
        replay = Replay(since=since, until=datetime.now(UTC), run="a" * 32)
        page = client.replay_events(replay)
        assert [(each.id, each.triggers) for each in page.items] == [
            ("1", ("default/ship",)),
            ("2", ("default/ship",)),
        ]
        assert page.next_since is None
        until(lambda: client.explain("2").items[0].replies, "a reply to the event that was delivered again")


NOTED = """
import json
import os
from pathlib import Path

from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/")
async def note(request: Request) -> Response:
    names = ("ce-id", "prefer", "torpor-attempt", "torpor-instance")
    with Path("@NOTES@").open("a") as file:
        file.write(json.dumps({name: request.headers.get(name) for name in names}) + "\\n")
    if Path("@BROKEN@").exists():
        os._exit(1)
    return Response(status_code=204, headers={"torpor-instance": "a lie"})
"""
NOTE = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: note}
spec:
  scaling: {window: 2s, scaleToZeroGracePeriod: 0s}
"""
WAITING = """\
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: patient}
spec:
  filters: [{exact: {type: order.paid}}]
  subscriber: {function: note}
  delivery: {retry: 100, backoffPolicy: linear, backoffDelay: 10m}
"""


def test_a_function_gets_events_by_name_and_each_attempt_names_its_instance(tmp_path: Path) -> None:
    """Of an image that keeps no more than the HTTP contract, as it looks to the platform."""
    folder, notes, broken = tmp_path / "functions", tmp_path / "notes", tmp_path / "broken"
    folder.mkdir()
    (folder / "main.py").write_text(NOTED.replace("@NOTES@", str(notes)).replace("@BROKEN@", str(broken)))
    (folder / "function.yaml").write_text(NOTE + WAITING)
    with Running([folder], tmp_path / "run") as platform, platform.client() as client:
        since = datetime.now(UTC) - timedelta(minutes=1)
        broken.touch()
        client.send([_order("1")])
        until(lambda: client.triggers()[0].failed == 1, "an event that waits for its next attempt")
        wanted = Replay(
            since=since,
            until=datetime.now(UTC) + timedelta(minutes=1),
            function="default/note@note-00001",
            run="a" * 32,
        )
        with pytest.raises(TorporError, match="'note-00001', which serves, was expected, not 'note-00009'"):
            client.replay_events(wanted.model_copy(update={"function": "default/note@note-00009"}))
        [event] = client.replay_events(wanted).items
        assert event.triggers == ("default/function:note",)

        def attempts() -> list[Step]:
            [one] = client.explain("1").items
            return [step for step in one.steps if step.trigger == "default/function:note" and step.attempt]

        until(attempts, "a first attempt, at which the instance breaks off")
        broken.unlink()
        until(lambda: attempts()[-1].status == 204, "an attempt that the function takes")
        first, last = attempts()[0], attempts()[-1]
        assert (first.status, last.status) == (502, 204)
        assert None is not first.instance != last.instance
        assert last.instance in [each.id for each in client.function("note").instances]
        seen = [json.loads(line) for line in notes.read_text().splitlines()]
        assert {(each["ce-id"], each["prefer"], each["torpor-instance"]) for each in seen} == {
            ("1", "reply", None)
        }
        # The trigger goes, and the event that waited for it is still there for who asks.
        (folder / "function.yaml").write_text(NOTE)
        told = ".*; 1 event that waited for it can be had by `torpor events replay`, for a day"
        platform.wait_for("removed", "default/patient", told)
        anew = wanted.model_copy(update={"run": "b" * 32, "function": "default/note"})
        assert [each.id for each in client.replay_events(anew).items] == ["1"]


SLOW = """
import time

from torpor import function


@function
def slow(data: dict) -> None:
    time.sleep(0.2)
"""
HELD = """
import pathlib
import time

from torpor import function


@function
def slow(data: dict) -> None:
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.02)
"""
LAGGING = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: slow}
spec:
  source: {handler: "main:slow"}
  containerConcurrency: 1
  scaling:
    {metric: lag, target: 20, targetUtilizationPercentage: 100, maxScale: 3, window: 2s,
     scaleToZeroGracePeriod: 0s}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {name: slow}
spec:
  filters: [{exact: {type: work}}]
  subscriber: {function: slow}
  parallelism: 1
"""


@contextmanager
def _lagging(tmp_path: Path) -> Iterator[tuple[Running, Client]]:
    """A function that ends nothing before there is ``go``."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "main.py").write_text(HELD.format(go=str(tmp_path / "go")))
    (folder / "function.yaml").write_text(LAGGING)
    with Running([folder], tmp_path / "platform") as platform, platform.client() as client:
        yield platform, client


def test_what_waits_brings_instances_though_one_call_is_made_at_a_time(tmp_path: Path) -> None:
    with _lagging(tmp_path) as (_, client):
        client.send(
            [
                WireEvent({"specversion": "1.0", "id": str(number), "source": "/s", "type": "work"}, b"{}")
                for number in range(60)
            ]
        )
        until(lambda: client.function("slow").desired == 3, "an instance for each twenty")
        until(lambda: "waiting events" in client.function("slow").scaling.reason, "the reason")
        (tmp_path / "go").touch()
        until(lambda: client.triggers()[0].delivered == 60, "all of them")
        until(lambda: not client.function("slow").instances, "no instance at rest")


def test_calls_that_wait_bring_instances_as_events_do(tmp_path: Path) -> None:
    with _lagging(tmp_path) as (platform, client):
        event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "work", "data": {}}
        headers = {"content-type": "application/cloudevents+json"}
        for _ in range(60):
            url = f"{platform.url}/async-function/slow"
            assert httpx.post(url, json=event, headers=headers).status_code == 202
        until(lambda: "waiting events" in client.function("slow").scaling.reason, "the reason")
        until(lambda: client.function("slow").desired > 1, "more than one instance")
        (tmp_path / "go").touch()
        until(lambda: not client.function("slow").instances, "no instance at rest")


LIMITED = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {{name: slow}}
spec: {{source: {{handler: "main:slow"}}, containerConcurrency: 1, scaling: {{maxScale: 1}}}}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {{name: slow}}
spec:
  filters: [{{exact: {{type: work}}}}]
  subscriber: {{function: slow}}
  parallelism: 1
  backlog: {{limit: 20, onLimit: {on_limit}}}
"""


def _limited(folder: Path, on_limit: str) -> Path:
    folder.mkdir()
    (folder / "main.py").write_text(SLOW)
    (folder / "function.yaml").write_text(LIMITED.format(on_limit=on_limit))
    return folder


def test_producers_are_told_by_the_gateway_which_trigger_is_full(tmp_path: Path) -> None:
    folder = _limited(tmp_path / "slow", "reject")
    with Running([folder], tmp_path / "platform") as platform, platform.client() as client:
        with httpx.Client(base_url=platform.url) as producer:
            common = {"ce-specversion": "1.0", "ce-source": "/s", "ce-type": "work"}
            answers = [
                producer.post("/events/default/default", headers={**common, "ce-id": str(number)}, json={})
                for number in range(100)
            ]
        refused = [one for one in answers if one.status_code != 202]
        assert {one.status_code for one in refused} == {429}
        assert {one.headers["retry-after"] for one in refused} == {"1"}
        assert {one.headers["content-type"] for one in refused} == {"application/problem+json"}
        assert {one.json()["trigger"] for one in refused} == {"default/slow"}
        accepted = len(answers) - len(refused)
        until(lambda: client.triggers()[0].delivered == accepted, "all that was accepted")


def test_the_oldest_become_dead_letters_and_explain_says_why(tmp_path: Path) -> None:
    folder = _limited(tmp_path / "slow", "deadLetterOldest")
    with Running([folder], tmp_path / "platform") as platform, platform.client() as client:
        client.send(
            [
                WireEvent({"specversion": "1.0", "id": str(number), "source": "/s", "type": "work"}, b"{}")
                for number in range(200)
            ]
        )
        until(lambda: client.triggers()[0].dead_lettered, "some that are too many")
        until(lambda: not client.triggers()[0].pending, "nothing that waits")
        counts = client.triggers()[0]
        assert counts.delivered + counts.dead_lettered == 200
        [letter, *_] = client.dead_letters(LetterSelection())
        assert (letter.code, letter.attempts) == (429, 0)
        [explained] = client.explain(letter.event_id).items
        assert any("more than 20 events waited" in step.text for step in explained.steps)
