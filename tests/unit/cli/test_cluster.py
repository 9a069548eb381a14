"""Commands in the context of a cluster: through an API server's service proxy, with a user's credentials."""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Response

from torpor import cli
from torpor.api.client import Client
from torpor.api.places import split
from torpor.binding import WireEvent
from torpor.testing.backend import function_status

if TYPE_CHECKING:
    from pathlib import Path

EVENT = WireEvent({"specversion": "1.0", "id": "1", "source": "/test", "type": "a.b"}, None)


@pytest.mark.parametrize("context", ["kube:prod", "kube:", "kube:.", "kube:prod/torpor", "kube:./torpor"])
def test_a_context_leads_to_the_platform_of_its_cluster(
    cluster: Any, capsys: pytest.CaptureFixture[str], context: str
) -> None:
    cluster.platform.backend.add(function_status("hello"))
    assert cli.run(["list", "--context", context, "-o", "json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["hello"]


def test_the_context_may_come_from_the_environment(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_CONTEXT", "kube:prod")
    assert cli.run(["list"]) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prod", ("prod", "torpor")),
        ("prod/x", ("prod", "x")),
        ("", ("", "torpor")),
        ("/x", ("", "x")),
        ("arn:aws:eks:eu:1:cluster/prod", ("arn:aws:eks:eu:1:cluster/prod", "torpor")),
        ("arn:aws:eks:eu:1:cluster/prod/x", ("arn:aws:eks:eu:1:cluster/prod", "x")),
    ],
)
def test_a_context_s_own_name_may_have_a_slash(text: str, expected: tuple[str, str]) -> None:
    assert split(text, ["prod", "arn:aws:eks:eu:1:cluster/prod"]) == expected


def test_every_read_goes_through_the_proxy(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    backend = cluster.platform.backend
    backend.add(function_status("hello", image="registry.example/hello:1", source="", handler=""))
    backend.write("default/hello", "line 1")
    for arguments in (["describe", "hello"], ["logs", "hello"], ["list", "triggers"], ["list", "brokers"]):
        assert cluster.run(*arguments) == 0
    shown = capsys.readouterr().out
    assert "Image:        registry.example/hello:1\n" in shown
    assert "line 1" in shown
    for word in ("Source", "Start method", "Declared in"):
        assert word not in shown


def test_streams_go_through_the_proxy(cluster: Any) -> None:
    backend, served = cluster.platform.backend, cluster.served
    backend.add(function_status("hello"))
    with Client("kube:prod") as client:
        with client.tail() as events:
            served.wait_until(lambda: backend.tailing() == 1)
            served.run(lambda: backend.publish("default/default", EVENT))
            assert next(events) == EVENT
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(next, client.logs("hello", tail=0, follow=True))
            served.wait_until(lambda: backend.following("default/hello") == 1)
            served.run(lambda: backend.write("default/hello", "later"))
            assert first.result(30).text == "later"


def test_functions_are_called_through_the_gateway_s_service(
    cluster: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    cluster.platform.answer = lambda: Response(b"hi")
    assert cluster.run("invoke", "hello.images", "--data", "1", "--path", "/a?b=c", "-H", "x-y: z") == 0
    assert capfdbinary.readouterr().out == b"hi"
    [(method, target, headers, body)] = cluster.platform.calls
    assert (method, target, body) == ("POST", "/function/hello.images/a?b=c", b"1")
    assert headers["x-y"] == "z"
    assert "authorization" not in headers
    assert cluster.run("events", "send", "a.b", "-n", "images") == 0
    assert cluster.platform.batches[0][0] == "/events/images/default"


@pytest.mark.parametrize("header", ["Authorization: Bearer x", "impersonate-user: y"])
def test_a_header_that_the_api_server_takes_for_itself_is_not_sent(
    cluster: Any, capsys: pytest.CaptureFixture[str], header: str
) -> None:
    assert cluster.run("invoke", "hello", "-H", header) == 2
    assert "the API server keeps the header" in capsys.readouterr().err
    assert cluster.platform.calls == []


def test_what_a_function_answers_is_never_taken_for_the_api_server_s(
    cluster: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    status = json.dumps({"kind": "Status", "code": 404, "message": "mine"}).encode()
    cluster.platform.answer = lambda: Response(status, 404, media_type="application/json")
    assert cluster.run("invoke", "hello") == 1
    assert capfdbinary.readouterr().out == status


def test_the_platform_s_own_problems_are_said_as_ever(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.run("describe", "hello") == 1
    assert "There is no function 'default/hello'." in capsys.readouterr().err


# --- what goes wrong on the way ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (
            ["list"],
            "you need the right to get 'services/proxy' of 'http:torpor-api:80' in namespace 'torpor'",
        ),
        (["logs", "x"], "you need the right to get 'services/proxy' of 'http:torpor-api:80'"),
        (["invoke", "x", "--data", "1"], "the right to create 'services/proxy' of 'http:torpor-gateway:80'"),
        (["events", "send", "x"], "the right to create 'services/proxy' of 'http:torpor-gateway:80'"),
        (["events", "tail"], "the right to get 'services/proxy' of 'http:torpor-api:80'"),
    ],
)
def test_a_right_that_is_missing_is_named(
    cluster: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], right: str
) -> None:
    cluster.api.forbids = lambda _, path: "/proxy/" in path
    assert cluster.run(*arguments) == 1
    said = capsys.readouterr().err
    assert right in said
    assert 'User "somebody" cannot' in said


def test_no_platform_is_said_with_what_to_do(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["list", "--context", "kube:a/b/elsewhere"]) == 1
    said = capsys.readouterr().err
    assert (
        "there is no platform in namespace 'elsewhere' of context 'a/b': it has no service 'torpor-api'"
        in said
    )
    assert "install Torpor's chart" in said


def test_credentials_that_are_refused_are_said_to_be(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.api.token = "another"
    assert cluster.run("list") == 1
    assert "context 'prod' does not know you" in capsys.readouterr().err


def test_an_api_server_that_is_away_is_said_to_be(cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        document = cluster.kubeconfig.read_text().replace(cluster.served.url, url)
        cluster.kubeconfig.write_text(document)
        assert cluster.run("list") == 1
    assert f"{url}, the API server of context 'prod', can't be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("context", "code", "words"),
    [
        ("kube:prid", 2, "there is no context 'prid'; did you mean 'prod'?"),
        ("kube:xyz", 2, "there is no context 'xyz'; there are 'a/b', 'prod'"),
        ("kube:prod/Torpor", 2, "'Torpor' is no namespace"),
        ("kube:prod/", 2, "'' is no namespace"),
    ],
)
def test_a_context_that_is_wrong_is_said_to_be(
    cluster: Any, capsys: pytest.CaptureFixture[str], context: str, code: int, words: str
) -> None:
    for arguments in (["list"], ["deploy"]):
        assert cli.run(["--context", context, *arguments]) == code
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 1, "names no context; name a kubeconfig by KUBECONFIG"),
        ("", 1, "is no kubeconfig"),
        ("{", 1, "is no kubeconfig"),
        ("[]", 1, "is no kubeconfig"),
        ("contexts: {}", 1, "names no context"),
        ("contexts: [{name: x, context: {cluster: y}}]", 2, "no context is current"),
        ("{contexts: [{name: x, context: {cluster: y}}], current-context: x}", 1, "leads to no cluster"),
    ],
)
def test_a_kubeconfig_that_is_wrong_is_said_to_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    code: int,
    words: str,
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert cli.run(["list", "--context", "kube:"]) == code
    assert words in capsys.readouterr().err


def plugin(cluster: Any, script: str) -> None:
    """Have the user's token come of a program."""
    document = json.loads(cluster.kubeconfig.read_text())
    user = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", script],
        "interactiveMode": "Never",
    }
    document["users"][0]["user"] = {"exec": user}
    cluster.kubeconfig.write_text(json.dumps(document))


def test_a_program_may_give_the_credentials(cluster: Any) -> None:
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "secret"},
    }
    plugin(cluster, f"print({json.dumps(credential)!r})")
    assert cluster.run("list") == 0


def test_a_program_that_gives_none_is_said_to_have_failed(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin(cluster, "import sys; sys.exit('log in first')")
    assert cluster.run("list") == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: there are no credentials for context 'prod': exec: process returned 1.")
    assert "log in first" in said


# --- doctor -----------------------------------------------------------------------------------------------


def test_the_doctor_looks_at_the_platform_and_not_at_this_machine(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster.run("doctor") == 0
    shown = capsys.readouterr().out
    assert "answers at context 'prod', namespace 'torpor'\n" in shown
    for own in ("nats-server", "disk", "open files"):
        assert own not in shown


def test_the_doctor_names_what_to_look_at_in_a_cluster(
    cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = cluster.platform.backend
    broken = backend.platform.parts[0].model_copy(update={"healthy": False, "detail": "is not ready"})
    backend.platform = backend.platform.model_copy(
        update={"parts": (broken,), "faults": ("Function n/f: x",)}
    )
    assert cluster.run("doctor") == 1
    shown = capsys.readouterr().out
    assert "See 'kubectl --context prod --namespace torpor describe pods'" in shown
    assert "Put it right and deploy it again" in shown
    assert "torpor up" not in shown


@pytest.mark.parametrize(
    ("forbidden", "words"),
    [(True, "Kubernetes decides who may reach the platform."), (False, "there is no platform in namespace")],
)
def test_the_doctor_says_why_a_platform_is_not_reached(
    cluster: Any, capsys: pytest.CaptureFixture[str], forbidden: bool, words: str
) -> None:
    cluster.api.services.clear()
    cluster.api.forbids = lambda *_: forbidden
    assert cluster.run("doctor") == 1
    shown = capsys.readouterr().out
    assert words in shown
    assert "torpor up" not in shown
