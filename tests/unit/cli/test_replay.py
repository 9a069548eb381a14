"""``torpor events replay``, by the real API on a fake platform."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from torpor.spec.replays import ReplayedEvent
from torpor.testing.backend import function_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
RANGE = ("--from", "2026-01-31T12:00:00Z", "--to", "2026-02-01T00:00:00Z")


def fill(platform: Any, events: int = 250) -> None:
    platform.backend.archived = [
        ReplayedEvent(
            id=str(number),
            source="/s",
            type="ab"[number % 2],
            at=START + timedelta(seconds=number),
            triggers=("default/t", "shop/u"),
        )
        for number in range(events)
    ]


def ids(platform: Any) -> list[str]:
    return [event_id for _, event_id in platform.backend.again]


def test_all_of_it_is_replayed_in_pages(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill(platform)
    assert platform.run("events", "replay", *RANGE) == 0
    assert capsys.readouterr().out == "Replayed 250 events.\n"
    assert ids(platform) == [str(number) for number in range(250)]


def test_who_interrupts_it_is_told_how_far_it_came(
    platform: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(platform)

    def interrupted(parts: Any, *_: Any) -> Iterator[Any]:
        yield parts[0]
        raise KeyboardInterrupt

    monkeypatch.setattr("torpor.cli.replay.paced", interrupted)
    assert platform.run("events", "replay", *RANGE) == 1
    done = ids(platform)
    assert 0 < len(done) < 250
    start = (START + timedelta(seconds=len(done) - 1)).isoformat()
    assert (
        f"{len(done)} of 250 events were replayed; asked for again, they are replayed again; "
        f"go on with --from {start}, which has the last of them once more\n" in capsys.readouterr().err
    )


def test_a_part_of_it_at_a_rate(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill(platform)
    times = ("--from", "2026-01-31T12:00:10Z", "--to", "2026-01-31T12:00:20Z")
    assert (
        platform.run("events", "replay", *times, "--filter", "type=a", "--rate", "1000/s", "-o", "json") == 0
    )
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == ids(platform)
    assert ids(platform) == ["10", "12", "14", "16", "18"]


def test_a_dry_run_says_what_goes_where(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill(platform, 2)
    assert platform.run("events", "replay", *RANGE, "--dry-run") == 0
    first, _, last = capsys.readouterr().out.splitlines()
    assert first.endswith(" a /s 0 -> t, u.shop")
    assert last == "2 events would be delivered again; nothing was changed."
    assert ids(platform) == []


def test_a_dry_run_of_many_shows_some(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill(platform)
    assert platform.run("events", "replay", *RANGE, "--dry-run") == 0
    *shown, more, last = capsys.readouterr().out.splitlines()
    assert (len(shown), more) == (100, "... and 150 more, which -o json tells")
    assert last == "250 events would be delivered again; nothing was changed."
    assert platform.run("events", "replay", *RANGE, "--dry-run", "-o", "json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 250
    assert platform.run("events", "replay", *RANGE, "--filter", "type=z", "--dry-run", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert ids(platform) == []


def test_to_a_function_or_its_revision(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill(platform, 2)
    platform.backend.add(
        function_status("hello", revision="hello-00002"), function_status("hello", namespace="shop")
    )
    for name, says in (
        ("helo", "There is no function 'default/helo'. Did you mean 'default/hello'?"),
        ("hello@hello-00001", "'hello-00002', which serves, was expected, not 'hello-00001'"),
        ("hello.shop", "function 'hello.shop' is not in the broker's namespace, 'default'"),
        ("hello@", "'' is no revision"),
        ("@x", "'' is no name"),
    ):
        assert platform.run("events", "replay", *RANGE, "--to-function", name) != 0
        assert says in capsys.readouterr().err
    assert ids(platform) == []
    assert platform.run("events", "replay", *RANGE, "--to-function", "hello@hello-00002") == 0
    assert ids(platform) == ["0", "1"]


def test_wrong_usage_changes_nothing(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fill(platform, 2)
    for arguments, says in (
        ((), "Missing option '--from'"),
        (("--from", "x"), "'x' is no time"),
        (("--from", "2026-01-31T12:00:00Z", "--to", "2026-01-31T11:00:00Z"), "--to is not after --from"),
        ((*RANGE, "--filter", "x"), "ATTRIBUTE=PATTERN"),
    ):
        assert platform.run("events", "replay", *arguments) == 2
        assert says in capsys.readouterr().err
    assert platform.run("events", "replay", *RANGE, "--broker", "other") == 1
    assert "There is no broker 'default/other'" in capsys.readouterr().err
    assert ids(platform) == []


def test_a_function_that_can_be_none_is_wrong_usage(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--from", "2026-01-01T00:00:00Z", "-n", "a/b", "--to-function", "x")
    assert platform.run("events", "replay", *given) == 2
    assert "--to-function is 'a/b/x', NAMESPACE/NAME or NAMESPACE/NAME@REV" in capsys.readouterr().err
