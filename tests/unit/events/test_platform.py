"""The embedded platform: what an author's tests stand on."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from torpor.errors import DeclarationError, HandlerError
from torpor.testing.client import CallError
from torpor.testing.platform import Platform

if TYPE_CHECKING:
    from pathlib import Path

    from torpor import CloudEvent

MAIN = """
    import os, time
    from torpor import CloudEvent, Context, function

    calls = []

    @function(emits="doubled")
    def double(data: dict, ctx: Context) -> dict:
        calls.append(ctx.attempt)
        if data["n"] < 0 and ctx.attempt <= int(os.environ["FAILURES"]):
            raise ValueError("not yet")
        return {"n": data["n"] * 2}

    @function(emits="part")
    def spread(event: CloudEvent):
        for number in range(event.get_data()["n"]):
            yield {"n": number}

    @function(emits="total")
    async def add(parts: list[dict]) -> dict:
        return {"n": sum(part["n"] for part in parts)}
"""
YAML = """
    apiVersion: torpor.dev/v1alpha1
    kind: Function
    metadata: {name: double}
    spec:
      source: {handler: "main:double"}
      env: [{name: FAILURES, value: "2"}]
    ---
    apiVersion: torpor.dev/v1alpha1
    kind: Trigger
    metadata: {name: double}
    spec:
      filters: [{any: [{exact: {type: number}}, {exact: {type: part}}]}]
      subscriber: {function: double}
      delivery: {retry: 2, backoffPolicy: linear, backoffDelay: 10s, jitterPercentage: 0}
    ---
    apiVersion: torpor.dev/v1alpha1
    kind: Function
    metadata: {name: spread}
    spec: {source: {handler: "main:spread"}}
    ---
    apiVersion: torpor.dev/v1alpha1
    kind: Trigger
    metadata: {name: spread}
    spec: {filters: [{exact: {type: many}}], subscriber: {function: spread}}
    ---
    apiVersion: torpor.dev/v1alpha1
    kind: Function
    metadata: {name: add}
    spec: {source: {handler: "main:add"}}
    ---
    apiVersion: torpor.dev/v1alpha1
    kind: Trigger
    metadata: {name: add}
    spec:
      filters: [{exact: {type: doubled}}, {not: {exact: {subject: alone}}}]
      subscriber: {function: add}
      join: {timeout: 60s}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(textwrap.dedent(MAIN))
    (tmp_path / "function.yaml").write_text(textwrap.dedent(YAML))
    return tmp_path


def _n(event: CloudEvent) -> int:
    data = event.get_data()
    assert isinstance(data, dict)
    return int(data["n"])


def test_events_of_two_producers_may_have_the_same_id(folder: Path) -> None:
    with Platform(folder) as platform:
        platform.send("many", {"n": 3}, id="1", source="/one")
        platform.send("many", {"n": 4}, id="1", source="/two")

        assert sorted(_n(event) for event in platform.events("total")) == [6, 12]
        assert platform.dead_letters() == []


def test_events_flow_until_nothing_is_left_to_do(folder: Path) -> None:
    with Platform(folder) as platform:
        sent = platform.send("many", {"n": 5}, subject="s")
        assert sent.get_attributes()["subject"] == "s"
        [total] = platform.events("total")
        assert total.get_data() == {"n": 20}
        assert [event.get_type() for event in platform.events()].count("doubled") == 5
        assert platform.failures == []
        assert platform.dead_letters() == []


def test_filters_look_at_attributes_by_expressions_and_into_data(folder: Path) -> None:
    yaml = folder / "function.yaml"
    old = "filters: [{any: [{exact: {type: number}}, {exact: {type: part}}]}]"
    new = "filters: [{sql: \"type = 'number' AND subject LIKE 'a%'\"}, {not: {exact: {data.n: '2'}}}]"
    yaml.write_text(yaml.read_text().replace(old, new))
    with Platform(folder) as platform:
        for n, subject in ((1, "ab"), (2, "ab"), (3, "b"), (4, "a")):
            platform.send("number", {"n": n}, subject=subject)
        platform.send("other", {"n": 5}, subject="a")
        assert [_n(event) for event in platform.events("doubled")] == [2, 8]


def test_retries_wait_for_the_clock(folder: Path) -> None:
    with Platform(folder) as platform:
        platform.send("number", {"n": -1}, fanoutid="g", fanoutindex="0", fanoutsize="1")
        assert platform.events("doubled") == []
        platform.advance(9.9)
        assert len(platform.failures) == 1
        platform.advance(0.2)
        assert len(platform.failures) == 2
        platform.advance(20)
        assert [event.get_data() for event in platform.events("total")] == [{"n": -2}]


def test_what_fails_for_good_becomes_a_dead_letter(folder: Path) -> None:
    yaml = folder / "function.yaml"
    yaml.write_text(yaml.read_text().replace('value: "2"', 'value: "9"'))
    with Platform(folder) as platform:
        platform.send("number", {"n": -1}, id="bad")
        platform.advance(60)
        [letter] = platform.dead_letters()
        assert letter.get_id() == "bad"
        assert letter.get_attributes()["torporattempts"] == "3"
        assert [str(failure) for failure in platform.failures] == ["not yet"] * 3


def test_an_incomplete_group_ends_with_its_time(folder: Path) -> None:
    with Platform(folder) as platform:
        platform.send("doubled", {"n": 1}, id="1", fanoutid="g", fanoutindex="0", fanoutsize="2")
        platform.advance(59)
        assert platform.dead_letters() == []
        platform.advance(2)
        assert [letter.get_id() for letter in platform.dead_letters()] == ["1"]


def test_a_malformed_event_is_refused(folder: Path) -> None:
    with Platform(folder) as platform, pytest.raises(CallError, match="attribute 'type' is empty"):
        platform.send("", {"n": 1})


def test_large_data_travels_as_a_blob(folder: Path) -> None:
    with Platform(folder) as platform:
        data = {"n": 1, "ballast": "x" * 500_000}
        platform.send("number", data, fanoutid="g", fanoutindex="0", fanoutsize="1")
        [event] = platform.events("number")
        assert event.get_data() is None
        assert len(platform.get_blob(event.get_attributes()["dataref"])) > 500_000
        assert [each.get_data() for each in platform.events("total")] == [{"n": 2}]
        reference = platform.put_blob(b"bytes", "text/plain")
        assert platform.get_blob(reference) == b"bytes"


def test_two_platforms_after_each_other_are_apart(folder: Path) -> None:
    for _ in range(2):
        with Platform(folder) as platform:
            platform.send("many", {"n": 2})
            assert len(platform.events("total")) == 1


def test_variables_that_contradict_are_said_to(folder: Path) -> None:
    yaml = folder / "function.yaml"
    other = 'spec: {source: {handler: "main:add"}, env: [{name: FAILURES, value: "7"}]}'
    yaml.write_text(yaml.read_text().replace('spec: {source: {handler: "main:add"}}', other))
    with pytest.raises(HandlerError, match="different values of FAILURES"), Platform(folder):
        pass


def test_a_wrong_declaration_is_said_to_be(folder: Path) -> None:
    (folder / "function.yaml").write_text("kind: Nothing")
    with pytest.raises(DeclarationError):
        Platform(folder)


def test_a_schedule_fires_as_the_clock_is_moved(tmp_path: Path) -> None:
    tmp_path.joinpath("main.py").write_text(textwrap.dedent(MAIN))
    schedule = """
    ---
    apiVersion: torpor.dev/v1alpha1
    kind: Schedule
    metadata: {name: nightly}
    spec: {cron: 30 2 * * *, timeZone: Europe/Berlin, event: {type: number, data: {n: 3}}}
    """
    tmp_path.joinpath("function.yaml").write_text(textwrap.dedent(YAML + schedule))
    with Platform(tmp_path) as platform:
        platform.advance(3600)
        assert platform.events() == []
        platform.advance(3600)
        assert [str(event.get_time()) for event in platform.events("number")] == ["2026-01-01 01:30:00+00:00"]
        assert [event.get_data() for event in platform.events("doubled")] == [{"n": 6}]
        platform.advance(86_400)
        assert [str(event.get_time()) for event in platform.events("number")] == ["2026-01-02 01:30:00+00:00"]


def test_a_handler_names_what_it_failed_with_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        textwrap.dedent("""
            from torpor import Failed, function

            seen = []

            @function
            def store(rows: list[dict]):
                again = {row["n"] for row in seen}
                seen.extend(rows)
                for index, row in enumerate(rows):
                    yield row if row["n"] % 2 == 0 or row["n"] in again else Failed([index])
        """)
    )
    (tmp_path / "function.yaml").write_text(
        textwrap.dedent("""
            apiVersion: torpor.dev/v1alpha1
            kind: Function
            metadata: {name: store}
            spec: {source: {handler: "main:store"}}
            ---
            apiVersion: torpor.dev/v1alpha1
            kind: Trigger
            metadata: {name: store}
            spec:
              filters: [{exact: {type: row}}]
              subscriber: {function: store}
              batch: {size: 4, wait: 1s}
        """)
    )
    with Platform(tmp_path) as platform:
        for number in range(4):
            platform.send("row", {"n": number})
        assert [_n(event) for event in platform.events("store.replied")] == [0, 2]
        platform.advance(10)
        assert sorted(_n(event) for event in platform.events("store.replied")) == [0, 1, 2, 3]
        assert platform.dead_letters() == []
