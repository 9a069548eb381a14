"""``torpor events``: what is sent, and what is shown of what goes by."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Response

from torpor import cli
from torpor.binding import WireEvent, encode_structured
from torpor.cli.eventfile import MAX_DOCUMENT_BYTES
from torpor.errors import EventLogError

if TYPE_CHECKING:
    from pathlib import Path

MakeProblem = Callable[[str, int, str, str], Response]


def event(index: int, **attributes: str) -> WireEvent:
    return WireEvent(
        {"specversion": "1.0", "id": str(index), "source": "/a", "type": "b.c", **attributes}, None
    )


def test_one_event_is_made_of_its_parts(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "--source",
        "/me",
        "--subject",
        "it",
        "--id",
        "7",
        "-a",
        "partitionkey=k",
        "--data",
        '{"n": 1}',
    )
    assert platform.run("events", "send", "name.given", *arguments) == 0
    assert capsys.readouterr().out == "Sent 1 event to default, id 7.\n"
    [(path, [sent])] = platform.batches
    assert path == "/events/default/default"
    time = sent.attributes.pop("time")
    assert time.endswith("Z")
    assert sent.attributes == {
        "specversion": "1.0",
        "id": "7",
        "source": "/me",
        "type": "name.given",
        "subject": "it",
        "partitionkey": "k",
        "datacontenttype": "application/json",
    }
    assert json.loads(sent.data) == {"n": 1}


def test_it_needs_no_more_than_a_type(platform: Any) -> None:
    for _ in range(2):
        assert platform.run("events", "send", "--type", "name.given", "--broker", "work.images") == 0
    [(path, [first]), (_, [second])] = platform.batches
    assert path == "/events/images/work"
    assert first.data is None
    assert first.source == "/torpor/cli"
    assert first.id != second.id


def test_data_can_be_a_file(platform: Any, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\x00")
    assert platform.run("events", "send", "image.uploaded", "--file", str(picture)) == 0
    [(_, [sent])] = platform.batches
    assert (sent.data, sent.attributes["datacontenttype"]) == (b"\x89PNG\x00", "image/png")


def test_whole_events_are_sent_from_a_file_in_batches(
    platform: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(encode_structured(event(index)) for index in range(150)))
    assert platform.run("events", "send", "-f", str(file)) == 0
    assert capsys.readouterr().out == "Sent 150 events to default.\n"
    assert [len(batch) for _, batch in platform.batches] == [100, 50]
    assert [sent for _, batch in platform.batches for sent in batch] == [event(index) for index in range(150)]


def test_whole_events_are_read_from_stdin(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encode_structured(event(1)))))
    assert platform.run("events", "send", "-f", "-") == 0
    assert platform.batches == [("/events/default/default", [event(1)])]


def test_a_wrong_line_ends_it_and_says_how_many_went_before(
    platform: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(encode_structured(event(0)) + b"\n{}")
    assert platform.run("events", "send", "-f", str(file)) == 2
    assert "line 2: attribute 'specversion' is missing" in (said := capsys.readouterr().err)
    assert "1 event before went out" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there is no event in it"),
        (b"\n \n", "there is no event in it"),
        (b"[]", "there is no event in it"),
        (
            encode_structured(event(0)) + b'\n{"id": \n' + encode_structured(event(1)),
            "line 2: the body is not",
        ),
        (
            b"[%b, {}]" % encode_structured(event(0)),
            "event 2 of the batch: attribute 'specversion' is missing",
        ),
        (b"\xff\xfe\n", "line 1: the body has the byte 0xff, UTF-8 text was expected"),
        (b'"%b' % (b"x" * MAX_DOCUMENT_BYTES), f"line 1: has more than {MAX_DOCUMENT_BYTES} bytes"),
    ],
    ids=["empty", "blank", "no event", "broken in the middle", "array", "no UTF-8", "a huge line"],
)
def test_odd_files_are_refused(
    platform: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    file = tmp_path / "events"
    file.write_bytes(content)
    assert platform.run("events", "send", "-f", str(file)) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["-f", "-"], ["a", "--file", "-"]])
def test_a_stdin_that_is_closed_is_said(
    platform: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert platform.run("events", "send", *arguments) == 2
    assert "stdin is closed; something to read was expected" in capsys.readouterr().err
    assert platform.batches == []


def test_an_event_that_is_too_large_is_named(
    platform: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_problem: MakeProblem
) -> None:
    file = tmp_path / "events.ndjson"
    large = event(100)._replace(data=b'"%b"' % (b"x" * 5_000_000))
    file.write_bytes(b"\n".join(encode_structured(each) for each in (*map(event, range(100)), large)))
    platform.accepts = 1
    platform.refusal = make_problem("too-large", 413, "Too large", "The body has more than 4 bytes.")
    assert platform.run("events", "send", "-f", str(file)) == 2
    said = capsys.readouterr().err
    assert "event '100', the 101. of the file, is refused: The body has more than 4 bytes." in said
    assert "100 events before went out" in said
    assert "go on with" not in said


def test_what_went_out_before_a_refusal_is_said(
    platform: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_problem: MakeProblem
) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"\n".join(encode_structured(event(number)) for number in range(150)))
    refusal = make_problem("unavailable", 503, "Away", "The broker is away.")
    platform.accepts = 1
    platform.refusal = refusal
    assert platform.run("events", "send", "-f", str(file)) == 1
    said = capsys.readouterr().err
    assert "100 events went out before; go on with id '100'\n" in said
    assert "The broker is away." in said


def test_a_refusal_is_said_in_the_platform_s_words(
    platform: Any, make_problem: MakeProblem, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.refusal = make_problem(
        "unknown-broker", 404, "There is no such broker", "There is no broker 'a/b'."
    )
    assert platform.run("events", "send", "name.given", "--broker", "b.a") == 1
    assert "There is no broker 'a/b'." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a TYPE, or -f with a file of events, was expected"),
        (["a", "--type", "b"], "the type is given twice"),
        (["a", "--data", "no JSON"], "--data is not JSON"),
        (["a", "--data", "1", "--file", __file__], "one of them was expected"),
        (["a", "-a", "partitionkey"], "NAME=VALUE was expected"),
        (["a", "-a", "Key=1"], "not of lower-case letters and digits"),
        (["-f", __file__, "--data", "1"], "nothing else of an event can be given with it"),
        (["-f", __file__, "--id", ""], "nothing else of an event can be given with it"),
        (["-f", "/does/not/exist"], "/does/not/exist"),
        (["a", "--id", ""], "attribute 'id' is empty, a text of one or more characters was expected"),
        (["a", "--source", ""], "attribute 'source' is empty, a text"),
        (["a", "--subject", ""], "attribute 'subject' is empty"),
        (["--type", ""], "attribute 'type' is empty, a text"),
        ([""], "attribute 'type' is empty, a text"),
        (["", "--type", "b"], "the type is given twice"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["events", "send", *arguments]) == 2
    assert words in capsys.readouterr().err


def tail(platform: Any, events: list[WireEvent], *arguments: str) -> int:
    """Run ``events tail`` while ``events`` are published."""

    def publish() -> None:
        platform.served.wait_until(lambda: platform.backend.tailing() == 1)
        for one in events:
            platform.served.run(lambda one=one: platform.backend.publish("default/default", one))

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        return int(platform.run("events", "tail", *arguments))
    finally:
        publisher.join()


def test_events_are_shown_as_they_go_by(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        event(1, subject="s").replace(data=b'{"n":1}', datacontenttype="application/json"),
        event(2),
        event(3).replace(data=b"\x00\x01", datacontenttype="image/png"),
        event(4).replace(data=b'"%s"' % (b"x" * 500)),
        event(5, torporreplay="true", subject="s"),
    ]
    assert tail(platform, events, "--count", "5") == 0
    captured = capsys.readouterr()
    assert captured.err == "Watching default; Ctrl-C ends it.\n"
    lines = captured.out.splitlines()
    assert lines[:6] == [
        "b.c /a 1 subject=s",
        '    {"n":1}',
        "b.c /a 2",
        "    no data",
        "b.c /a 3",
        "    2 bytes of image/png",
    ]
    assert lines[7].endswith("x...")
    assert lines[8] == "b.c /a 5 (replayed) subject=s"


def test_json_is_one_event_a_line_and_filters_narrow(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [event(1, type="x.y"), event(2)]
    assert tail(platform, events, "--filter", "type=b.*", "--count", "1", "-o", "json") == 0
    captured = capsys.readouterr()
    assert captured.out.encode() == encode_structured(event(2)) + b"\n"
    assert captured.err == ""


def test_a_tail_that_breaks_off_goes_on(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def publish() -> None:
        for one in (event(1), EventLogError("the events process has ended"), event(2)):
            platform.served.wait_until(lambda: platform.backend.tailing() == 1)
            platform.served.run(lambda one=one: platform.backend.publish("default/default", one))
            if isinstance(one, EventLogError):
                platform.served.wait_until(lambda: platform.backend.tailing() == 0)

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        assert platform.run("events", "tail", "--count", "2", "-o", "json") == 0
    finally:
        publisher.join()
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == ["1", "2"]
    broken, again = captured.err.splitlines()
    assert broken.startswith("The stream broke off: ")
    assert again == "The stream goes on; what came in between may be missing."


def test_an_unknown_broker_or_a_wrong_filter_is_said(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert platform.run("events", "tail", "--broker", "nothing") == 1
    assert "There is no broker 'default/nothing'; there are: default/default." in capsys.readouterr().err
    assert platform.run("events", "tail", "--filter", "type") == 1
    assert "ATTRIBUTE=PATTERN" in capsys.readouterr().err
