"""``torpor explain``: what is shown of what the platform knows of an event."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from torpor.spec.history import Explanation, GroupStanding, Reply, Standing, Step
from torpor.spec.view import MAX_ATTRIBUTE_BYTES

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def explanation(source: str = "/s", **changes: Any) -> Explanation:
    delivery = Step(
        at=AT,
        what="delivery",
        trigger="shop/ship",
        text="attempt 2 given up: the function answered 400, which is final",
        attempt=2,
        status=400,
        instance="ship-00001-x",
        duration_seconds=0.0251,
    )
    one = Explanation(
        broker="shop/default",
        id="1",
        source=source,
        type="order.paid",
        kept=True,
        steps=(Step(at=AT, what="accepted", text="sent by a producer"), delivery),
        triggers=(
            Standing(
                trigger="shop/ship", function="shop/ship", matches=True, reason="type is right", state="late"
            ),
            Standing(trigger="shop/b", function="shop/b", matches=False, reason="type is\x1b", state="past"),
            Standing(trigger="shop/c", function="shop/c", matches=None, reason="gone", state="nothing"),
        ),
    )
    return one.model_copy(update=changes)


def test_one_event_is_told(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.explanations = [
        explanation(
            groups=(
                GroupStanding(
                    trigger="shop/j",
                    group="g",
                    size=40,
                    present=20,
                    missing=tuple(range(20, 40)),
                    state="waits",
                ),
            ),
            replies=tuple(Reply(id=f"1.x/{index}", source="/f", type="done") for index in range(2)),
            replies_total=30,
            dead_letters=("d" * 28,),
        )
    ]
    assert platform.run("explain", "1") == 0
    shown = capsys.readouterr().out
    for text in (
        "1 of /s in default.shop\ntype order.paid, 2026-01-31\n",
        "ship.shop  ship-00001-x  400     25 ms",
        "attempt 2 given up: the function answered 400, which is final",
        "ship.shop  yes      type is right",
        "b.shop     no       type is\\x1b",
        "c.shop     -        gone",
        "group g at j.shop: 20 of 40 parts; missing: 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, ...; waits",
        "reply 1.x/0, type done; torpor explain '1.x/0'",
        "and 20 more replies",
        f"torpor dead-letters show {'d' * 28}",
    ):
        assert text in shown
    assert "\\n" not in shown
    assert "\n\nreply 1.x/0" in shown
    assert "'1.x/0'\nreply 1.x/1" in shown


def test_an_event_can_be_asked_for_by_the_longest_id_that_is_taken(platform: Any) -> None:
    """In an address each of its bytes may take three characters."""
    longest = "é" * (MAX_ATTRIBUTE_BYTES // 2)
    platform.backend.explanations = [explanation(id=longest)]
    assert platform.run("explain", longest, "--source", "/s") == 0
    assert platform.run("dead-letters", "list", "--event", longest) == 0


def test_more_than_can_be_asked_for_is_said(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert platform.run("dead-letters", "list", *(["--event", "x" * 16_384] * 5)) == 1
    assert "so much can't be asked for at once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["", "--broker", "b"], "EVENT-ID is empty, a text of one or more characters was expected"),
        (["x" * 100_000], "EVENT-ID has 100000 characters, at most 16384 were expected"),
        (["1", "--source", ""], "--source is empty, a text of one or more characters was expected"),
    ],
)
def test_what_no_event_has_is_refused_by_the_name_it_has_on_the_command_line(
    platform: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert platform.run("explain", *arguments) == 2
    assert says in capsys.readouterr().err


def test_a_long_id_that_nobody_knows_is_shown_in_short(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("explain", "x" * 5000, "--source", "y" * 5000) == 1
    said = capsys.readouterr().err
    assert f"there is no event '{'x' * 76}... of source '{'y' * 76}... in the brokers" in said


def test_the_way_to_a_sink_is_named_after_its_trigger(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one = explanation()
    sunk = one.steps[1].model_copy(update={"trigger": "shop/ship sink"})
    platform.backend.explanations = [one.model_copy(update={"steps": (one.steps[0], sunk)})]
    assert platform.run("explain", "1") == 0
    assert " ship.shop sink  ship-00001-x  400 " in capsys.readouterr().out


def test_a_trigger_that_is_there_no_more_is_named(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    one = explanation()
    steps = [
        one.steps[1].model_copy(update={"trigger": trigger})
        for trigger in ("shop/ship", "shop/gone", "shop/gone sink", "shop/function:ship")
    ]
    platform.backend.explanations = [one.model_copy(update={"steps": tuple(steps)})]
    assert platform.run("explain", "1") == 0
    shown = capsys.readouterr().out
    assert shown.count("any more, or reads another broker") == 1
    assert "\ntrigger gone.shop is not declared any more, or reads another broker: " in shown


def test_a_call_that_nobody_waits_for_is_told(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    steps = (
        Step(at=AT, what="accepted", text="sent by a caller that does not wait"),
        Step(
            at=AT, what="delivery", trigger="shop/ship", text="attempt 1 delivered", instance="ship-00001-x"
        ),
        Step(at=AT, what="delivery", trigger="callback", text="attempt 1 delivered"),
    )
    call = explanation(broker="calls", id="shop.ship.1", kept=False, steps=steps, triggers=())
    platform.backend.explanations = [call]
    assert platform.run("explain", "shop.ship.1") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("shop.ship.1 of /s in calls\ntype order.paid, 2026-01-31\n")
    assert "ship.shop  ship-00001-x" in shown
    assert "callback" in shown
    assert shown.endswith("\ntorpor calls show shop.ship.1\n")


def test_times_of_several_days_are_told_with_their_days(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    one = explanation()
    [accepted, delivery] = one.steps
    platform.backend.explanations = [one]
    assert platform.run("explain", "1") == 0
    assert "\ntype order.paid, 2026-01-31\n" in capsys.readouterr().out
    later = delivery.model_copy(update={"at": AT + timedelta(days=2)})
    platform.backend.explanations = [one.model_copy(update={"steps": (accepted, later)})]
    assert platform.run("explain", "1") == 0
    shown = capsys.readouterr().out
    assert "\n2026-01-31 " in shown
    assert "\n2026-02-02 " in shown


def test_json_has_all_of_it(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.explanations = [explanation(), explanation("/other")]
    assert platform.run("explain", "1", "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [item["source"] for item in document["items"]] == ["/s", "/other"]
    assert document["items"][0]["steps"][1]["durationSeconds"] == 0.0251


def test_several_events_of_one_id_are_listed(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.explanations = [explanation(), explanation("/other", kept=False)]
    assert platform.run("explain", "1") == 0
    captured = capsys.readouterr()
    assert (
        "1 of /other in default.shop\ntype order.paid, 2026-01-31; the broker does not have it any more\n"
        in captured.out
    )
    assert "2 events have the id '1'; --source and --broker choose one." in captured.err
    assert platform.run("explain", "1", "--source", "/other", "--broker", "default.shop") == 0
    captured = capsys.readouterr()
    assert "of /s " not in captured.out
    assert captured.err == ""


def test_an_unknown_event_is_an_error_that_says_where_it_was_looked_for(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("explain", "2", "--source", "/s") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there is no event '2' of source '/s' in the brokers that were looked at (default)" in captured.err
    assert "the records there go back to 20" in captured.err
    assert platform.run("explain", "1", "-o", "json") == 1
    assert json.loads(capsys.readouterr().out)["items"] == []
