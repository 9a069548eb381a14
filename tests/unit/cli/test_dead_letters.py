"""``torpor dead-letters``: what is selected, shown, replayed and dropped, by the real API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from torpor.cli.pace import paced, parse_rate, steps
from torpor.cli.times import parse_time
from torpor.spec.letters import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterator

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def letter(number: int, **changes: Any) -> DeadLetter:
    one = DeadLetter(
        id=f"{number:028x}",
        broker="default/default",
        trigger="default/mails",
        function="default/mailer",
        at=START + timedelta(minutes=number),
        reason="the function answered 550, which is final",
        attempts=1,
        code=550,
        event_type="mail.wanted",
        event_source="/campaign",
        event_id=str(number),
        data_bytes=3,
        answer="no such\x1b box",
        event={"specversion": "1.0", "id": str(number), "data": {"to": "x"}},
    )
    return one.model_copy(update=changes)


@pytest.fixture
def letters(platform: Any) -> list[DeadLetter]:
    made = [
        letter(1),
        letter(2, trigger="shop/orders", function="shop/ship", event_type="order.paid"),
        letter(3),
    ]
    platform.backend.letters = {each.id: each for each in made}
    return made


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], [1, 2, 3]),
        (["--trigger", "mails"], [1, 3]),
        (["--trigger", "orders", "-n", "shop"], [2]),
        (["--trigger", "orders.shop", "--trigger", "mails"], [1, 2, 3]),
        (["--function", "mailer"], [1, 3]),
        (["--broker", "other"], []),
        (["--event", "3"], [3]),
        (["--type", "mail.*"], [1, 3]),
        (["--filter", "source=/campaign", "--type", "order.*"], [2]),
        (["--since", "2026-01-31T12:02:00Z"], [2, 3]),
        (["--since", "2026-01-31T12:02:00+00:00", "--until", "2026-01-31T12:03:00Z"], [2]),
        (["--limit", "1"], [1]),
    ],
)
@pytest.mark.usefixtures("letters")
def test_lists_what_is_selected(
    platform: Any, capsys: pytest.CaptureFixture[str], options: list[str], numbers: list[int]
) -> None:
    assert platform.run("dead-letters", "list", "-o", "json", *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["eventId"] for each in found] == [str(number) for number in numbers]
    assert not any(each["event"] for each in found)


@pytest.mark.usefixtures("letters")
def test_the_table_is_for_people(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert platform.run("dead-letters", "list", "--limit", "2") == 0
    captured = capsys.readouterr()
    first, second, third = captured.out.splitlines()
    assert first.split() == ["ID", "SINCE", "TRIGGER", "FUNCTION", "TYPE", "EVENT", "ATTEMPTS", "REASON"]
    assert "mails" in second
    assert "answered 550" in second
    assert "orders.shop" in third
    assert "more than 2" in captured.err
    platform.backend.letters = {}
    assert platform.run("dead-letters", "list") == 0
    assert capsys.readouterr().out == "There are no such dead letters.\n"


def test_shows_one_with_its_event(
    platform: Any, letters: list[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("dead-letters", "show", letters[0].id) == 0
    shown = capsys.readouterr().out
    assert "reason    the function answered 550, which is final\n" in shown
    assert "answer    no such\\x1b box\n" in shown
    assert '"to": "x"' in shown
    assert platform.run("dead-letters", "show", letters[0].id, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["code"] == 550
    assert platform.run("dead-letters", "show", "f" * 28) == 1
    assert "There is no dead letter" in capsys.readouterr().err


def test_replays_by_id_and_by_selection(
    platform: Any, letters: list[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("dead-letters", "replay", letters[2].id) == 0
    assert capsys.readouterr().out == "Replayed 1 dead letter.\n"
    assert platform.run("dead-letters", "replay", "--trigger", "mails", "--rate", "1000/s") == 0
    assert platform.backend.replayed == [letters[2].id, letters[0].id]
    assert list(platform.backend.letters) == [letters[1].id]
    capsys.readouterr()
    assert platform.run("dead-letters", "replay", "--all", "-o", "json") == 0
    [outcome] = json.loads(capsys.readouterr().out)
    assert (outcome["id"], outcome["outcome"]) == (letters[1].id, "replayed")
    assert platform.backend.letters == {}


@pytest.mark.parametrize("verb", [["replay"], ["drop", "--yes"]])
@pytest.mark.usefixtures("letters")
def test_who_interrupts_it_is_told_how_far_it_came(
    platform: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    def interrupted(parts: Any, *_: Any) -> Iterator[Any]:
        yield parts[0][:2]
        raise KeyboardInterrupt

    monkeypatch.setattr("torpor.cli.dead_letters.paced", interrupted)
    assert platform.run("dead-letters", *verb, "--all") == 1
    assert len(platform.backend.letters) == 1
    assert "2 dead letters done before that; ask again for the rest\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["replay"], "Replayed 1 dead letter; 2 more were replayed or dropped by somebody else meanwhile.\n"),
        (["drop", "--yes"], "Dropped 1 dead letter; 2 more were replayed or dropped by somebody else"),
        (["replay", "--dry-run"], "; nothing was changed; 2 more were replayed or dropped by somebody else"),
    ],
)
def test_what_somebody_else_took_meanwhile_is_said_and_is_no_failure(
    platform: Any,
    letters: list[DeadLetter],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    shown: str,
) -> None:
    def raced(parts: Any, *_: Any) -> Iterator[Any]:
        for each in letters[:2]:
            del platform.backend.letters[each.id]
        yield from parts

    monkeypatch.setattr("torpor.cli.dead_letters.paced", raced)
    assert platform.run("dead-letters", *arguments, "--all") == 0
    captured = capsys.readouterr()
    assert shown in captured.out
    assert captured.err == ""


def test_a_dry_run_says_what_would_happen(
    platform: Any, letters: list[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("dead-letters", "replay", "--all", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert f"{letters[1].id} would be replayed: event '2' of trigger shop/orders\n" in shown
    assert shown.endswith("3 dead letters would be replayed; nothing was changed.\n")
    assert platform.run("dead-letters", "drop", "--all", "--dry-run") == 0
    assert len(platform.backend.letters) == 3


def test_dropping_asks(
    platform: Any,
    letters: list[DeadLetter],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "n"

    monkeypatch.setattr("click.termui.visible_prompt_func", answer)
    assert platform.run("dead-letters", "drop", "--all") == 1
    assert len(platform.backend.letters) == 3
    said = "".join((*asked, capsys.readouterr().err))
    assert "Drop 3 dead letters for good?" in said
    assert "nothing was dropped; --yes drops without asking" in said
    assert platform.run("dead-letters", "drop", letters[0].id, "--yes") == 0
    assert "Dropped 1 dead letter.\n" in capsys.readouterr().out
    assert letters[0].id not in platform.backend.letters


def test_what_is_not_there_any_more_is_said(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert platform.run("dead-letters", "replay", "0" * 28) == 1
    captured = capsys.readouterr()
    assert captured.out == "Replayed 0 dead letters.\n"
    assert "1 dead letter of 1 can't be replayed" in captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay"], "IDs, an option that selects some, or --all was expected"),
        (["drop", "--yes"], "IDs, an option that selects some, or --all was expected"),
        (["replay", "--all", "--rate", "fast"], "'fast' is no rate: one such as 20/s"),
        (["list", "--since", "yesterday"], "'yesterday' is no time: a time such as 2026-01-31T12:00:00Z"),
        (["list", "--filter", "type"], "ATTRIBUTE=PATTERN"),
        (["list", "--trigger", "a/b"], "is no name"),
        (["list", "--event", ""], "--event is empty, a text of one or more characters was expected"),
        (["list", "--trigger", "t", "-n", "a/b"], "--trigger is 'a/b/t', NAMESPACE/NAME was expected"),
    ],
)
def test_wrong_usage_changes_nothing(
    platform: Any,
    letters: list[DeadLetter],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    assert platform.run("dead-letters", *arguments) == 2
    assert says in capsys.readouterr().err
    assert len(platform.backend.letters) == len(letters)


@pytest.mark.parametrize("verb", [["replay"], ["drop", "--yes"]])
@pytest.mark.parametrize("wrong", ["../x", "00", "g" * 28, "A" * 28])
def test_what_can_be_no_id_is_wrong_usage(
    platform: Any, capsys: pytest.CaptureFixture[str], verb: list[str], wrong: str
) -> None:
    assert platform.run("dead-letters", *verb, wrong) == 2
    assert f"'{wrong}' is no id of a dead letter: 28 digits and letters" in capsys.readouterr().err


# --- times and rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("-15m", 1e9 - 900),
        ("2h", 1e9 - 7200),
        ("-1w", 1e9 - 604_800),
        ("now", 1e9),
        ("2001-09-09T01:46:39Z", 1e9 - 1),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text, 1e9) == datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize("text", ["", "15", "-5y", "2026-13-01", "-999999999w", "soon"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text, 1e9)


@pytest.mark.parametrize(("text", "rate"), [("20/s", 20.0), ("20", 20.0), ("600/m", 10.0), ("1.8/h", 0.0005)])
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["0", "0/s", "-1", "1/d", "1e9", ""])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)


class _Clock:
    """Moves on when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, delay_seconds: float) -> None:
        self.at += delay_seconds


def test_a_rate_is_kept_evenly() -> None:
    clock = _Clock()
    begun = [clock.at - 100 for _ in paced(steps(list(range(10)), 4.0, 100), 4.0, "", clock=clock)]
    assert begun == pytest.approx([number / 4 for number in range(10)])
    assert [len(part) for part in steps(list(range(95)), 400.0, 100)] == [40, 40, 15]
    assert [len(part) for part in steps(list(range(250)), None, 100)] == [100, 100, 50]
    assert list(paced([], None, "")) == []
