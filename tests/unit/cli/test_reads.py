"""``list``, ``describe`` and ``logs``: what they show of a platform."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from torpor import cli
from torpor.api.client import Client
from torpor.spec.models import Filter
from torpor.spec.status import InstanceStatus, LogLine, ScalingStatus, ScheduleStatus, TriggerStatus
from torpor.testing.backend import EPOCH, function_status

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCE = InstanceStatus(
    id="hello-00001-abcdef",
    revision="hello-00001",
    state="ready",
    endpoint="127.0.0.1:4000",
    pid=4711,
    started_at=EPOCH,
    ready_at=EPOCH + timedelta(milliseconds=12),
    memory_bytes=5 * 1024 * 1024,
)
TRIGGER = TriggerStatus(
    name="greetings", namespace="default", broker="default", function="hello", delivered=7, dead_lettered=1
)


def test_list_shows_functions_in_a_table(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.add(
        function_status("hello", instances=(INSTANCE,), desired=1), function_status("b", "images")
    )
    assert platform.run("list") == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["NAME", "NAMESPACE", "READY", "INSTANCES"]
    assert first.split()[:5] == ["hello", "default", "yes", "1/1", "0"]
    assert second.split()[:4] == ["b", "images", "yes", "0/0"]


def test_list_narrows_to_a_namespace(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.add(function_status("hello"), function_status("b", "images"))
    assert platform.run("list", "-n", "images", "-o", "json") == 0
    assert [item["name"] for item in json.loads(capsys.readouterr().out)] == ["b"]
    assert platform.run("list", "-n", "none") == 0
    assert capsys.readouterr().out == "There are no functions in none.\n"


@pytest.mark.parametrize(("kind", "name"), [("triggers", "greetings"), ("brokers", "default")])
def test_list_shows_triggers_and_brokers(
    platform: Any, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    platform.backend.trigger_list = [TRIGGER]
    assert platform.run("list", kind) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == [name, "default"]


SCHEDULE = ScheduleStatus(
    name="nightly",
    namespace="default",
    cron="30 2 * * *",
    time_zone="Europe/Berlin",
    broker="default",
    event_type="nightly.fired",
    missed_policy="run-once",
    jitter_seconds=90,
    fired=3,
    missed=1,
    last=datetime(2026, 1, 1, 1, 30, tzinfo=UTC),
    next=datetime(2026, 1, 2, 1, 30, tzinfo=UTC),
    late_seconds=0.0125,
)


def test_list_shows_schedules(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.schedule_list = [SCHEDULE]
    assert platform.run("list", "schedules") == 0
    line = capsys.readouterr().out.splitlines()[1]
    for part in ("nightly", "30 2 * * *", "Europe/Berlin", "2026-01-01 01:30:00Z", "2026-01-02 01:30:00Z"):
        assert part in line


def test_describe_shows_a_schedule(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.schedule_list = [SCHEDULE]
    assert platform.run("describe", "schedule/nightly") == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["Last firing"].strip() == "2026-01-01 01:30:00Z, 0.013 s late"
    assert lines["Next firing"].strip() == "2026-01-02 01:30:00Z"
    assert lines["Jitter"].strip() == "up to 1m 30s"
    assert (lines["Fired"].strip(), lines["Missed"].strip()) == ("3", "1")
    assert platform.run("describe", "schedule/nightly", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["missedPolicy"] == "run-once"
    assert platform.run("describe", "schedule/nightli") == 1
    assert "did you mean 'nightly'?" in capsys.readouterr().err


def test_describe_shows_all_there_is_to_say(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.trigger_list = [
        TRIGGER,
        TRIGGER.model_copy(update={"function": "other", "name": "others"}),
    ]
    scaling = ScalingStatus(
        min_scale=0, max_scale=5, metric="concurrency", target=6, observed=3.5, reason="3.5 of 6"
    )
    platform.backend.add(
        function_status(
            "hello", instances=(INSTANCE,), desired=1, start_method="fork", scaling=scaling, restarts=2
        )
    )
    assert platform.run("describe", "hello") == 0
    shown = capsys.readouterr().out
    lines = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line[:14])
    assert lines["Start method"].strip() == "fork"
    assert lines["Scaling"].strip() == "0 to 5 for 6 concurrency each, 3.5 observed"
    assert lines["Desired"].strip() == "1: 3.5 of 6"
    assert lines["Restarts"].strip() == "2"
    for part in ("hello-00001-abcdef", "4711", "5.0 MiB", "12 ms", "127.0.0.1:4000", "greetings"):
        assert part in shown
    assert "others" not in shown
    assert platform.run("describe", "function/hello") == 0
    assert "Name:         hello\n" in capsys.readouterr().out


def test_describe_shows_what_reaches_a_function(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.trigger_list = [
        TRIGGER.model_copy(update={"filters": (Filter(prefix={"type": "image."}),), "pending": 12}),
        TRIGGER.model_copy(update={"name": "all", "ready": False, "reason": "the broker is away"}),
    ]
    platform.backend.add(function_status("hello"))
    assert platform.run("describe", "hello") == 0
    *_, head, other, first = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["NAME", "BROKER", "FILTERS", "READY"]
    assert first.split() == ["greetings", "default", "type=image.*", "yes", "7", "0", "0", "1", "12", "-"]
    assert " every event " in other
    assert other.endswith("the broker is away")


def test_describe_says_what_is_wrong(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.add(
        function_status("hello", ready=False, reason="main.py has no handler", revision=None)
    )
    assert platform.run("describe", "hello.default") == 0
    shown = capsys.readouterr().out
    assert "Problem:      main.py has no handler\n" in shown
    assert "Instances:    none: at rest\n" in shown


def test_describe_gives_json_with_the_triggers(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.trigger_list = [TRIGGER]
    platform.backend.add(function_status("hello"))
    assert platform.run("describe", "hello", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "hello"
    assert document["triggers"][0]["deadLettered"] == 1


def test_what_is_not_there_is_said_in_the_platform_s_words(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.backend.add(function_status("hello"))
    for verb in ("describe", "logs"):
        assert platform.run(verb, "helo") == 1
        assert "There is no function 'default/helo'. Did you mean 'default/hello'?" in capsys.readouterr().err


def test_logs_shows_the_last_lines(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.add(function_status("hello", "images"))
    for number in range(5):
        platform.backend.write("images/hello", f"line {number}", instance="one")
    assert platform.run("logs", "hello", "-n", "images", "--tail", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[1:] for line in lines] == [["one", "line 3"], ["one", "line 4"]]
    assert platform.run("logs", "hello.images", "--tail", "1", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["text"] == "line 4"


def test_following_a_log_ends_with_ctrl_c_and_is_no_failure(
    platform: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def logs(*_: object, follow: bool, **__: object) -> Iterator[LogLine]:
        assert follow
        yield LogLine(time=EPOCH, instance="one", stream="stderr", text="line")
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "logs", logs)
    assert platform.run("logs", "-f", "hello") == 0
    assert capsys.readouterr().out.endswith(" one ! line\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["describe", "a.b", "-n", "c"], "'a.b' is in 'b', and -n names 'c'"),
        (["describe", "a/b"], "NAME or NAME.NAMESPACE was expected"),
        (["describe", "a."], "NAME or NAME.NAMESPACE was expected"),
        (["--context", "prod", "list"], "'prod' names no platform"),
        (["list", "--context", "prod"], "'prod' names no platform"),
        (["logs", "a", "--tail", "-1"], "--tail"),
        (["list", "functoins"], "functoins"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    assert words in capsys.readouterr().err


def test_no_platform_is_1_and_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert cli.run(["--context", url, "list"]) == 1
    assert f"no platform answers at {url}; start one with 'torpor up'" in capsys.readouterr().err
