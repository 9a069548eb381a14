"""What must hold of a real process: how it ends, what it ends, and what it shows."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
HEAD = "import asyncio, threading, time\nfrom torpor import Context, CloudEvent, function\n"


def test_serves_events_and_shows_what_it_did(start: Any) -> None:
    code = HEAD + (
        "@function(emits='greeted')\n"
        "async def greet(data: dict, ctx: Context) -> dict:\n"
        "    ctx.logger.info('greeting %s', data['name'])\n"
        "    return {'greeting': f\"Hello, {data['name']}!\"}\n"
    )
    process = start(code, K_SERVICE="greeter", TORPOR_NAMESPACE="ns", K_REVISION="greeter-00001")
    headers = {**EVENT, "content-type": "application/json", "x-request-id": "r-1"}
    with contextlib.closing(process.connect()) as connection:
        connection.request("POST", "/", b'{"name":"Ada"}', headers)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b'{"greeting":"Hello, Ada!"}')
        assert response.headers["ce-source"] == "/ns/greeter"
        assert re.fullmatch(r"1\.[0-9a-f]{8}/0", response.headers["ce-id"])
    assert process.request("GET", "/healthz/live")[0] == 200
    assert process.request("GET", "/healthz/ready")[0] == 200
    text = process.request("GET", "/metrics")[1].decode()
    labels = 'function="greeter",namespace="ns"'
    assert f'torpor_invocations_total{{{labels},outcome="ok",revision="greeter-00001"}} 1.0' in text
    for phase in ("import", "build", "lifespan", "listen"):
        assert f'torpor_start_seconds{{{labels},phase="{phase}"' in text
    [memory] = [line for line in text.splitlines() if line.startswith("torpor_memory_bytes")]
    assert float(memory.split()[-1]) > 5_000_000
    process.signal()
    assert process.wait() == 0
    [line] = [line for line in process.lines if line["logger"] == "greeter"]
    assert (line["message"], line["request"], line["event"]) == ("greeting Ada", "r-1", "1")
    assert (line["function"], line["revision"]) == ("greeter", "greeter-00001")


# --- the end ----------------------------------------------------------------------------------------------


def test_a_drain_under_load_loses_nothing(start: Any) -> None:
    """As a proxy does it: connections are reused until they say close, and then no new one is made."""
    code = (
        HEAD
        + "@function\nasync def f(data: bytes) -> bytes:\n    await asyncio.sleep(0.002)\n    return data\n"
    )
    process = start(code)
    answered = threading.Semaphore(0)

    def caller() -> int:
        count = 0
        with contextlib.closing(process.connect()) as connection:
            while True:
                body = b"%d" % count
                connection.request("POST", "/", body, EVENT)
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, body)
                count += 1
                answered.release()
                if response.headers.get("connection") == "close":
                    return count

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        callers = [pool.submit(caller) for _ in range(16)]
        for _ in range(200):
            assert answered.acquire(timeout=60)
        process.signal()
        total = sum(future.result() for future in callers)
    assert total >= 200
    assert process.wait() == 0


def test_while_it_drains_it_serves_on_and_closes_no_idle_connection(start: Any) -> None:
    code = HEAD + "@function\nasync def f(data: bytes) -> bytes:\n    return data\n"
    process = start(code)
    with contextlib.closing(process.connect()) as idle:
        idle.request("POST", "/", b"1", EVENT)
        assert idle.getresponse().read() == b"1"
        process.signal()
        status = 200
        while status == 200:
            status, body = process.request("GET", "/healthz/ready")
        assert json.loads(body)["type"] == "https://torpor.dev/problems/draining"
        assert process.request("GET", "/healthz/live")[0] == 200
        assert process.request("POST", "/", b"2", EVENT) == (200, b"2")
        idle.request("POST", "/", b"3", EVENT)
        response = idle.getresponse()
        assert (response.read(), response.headers["connection"]) == (b"3", "close")
    assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_connections_it_ends_at_once(start: Any, number: Any) -> None:
    process = start(HEAD + "@function\ndef f(data: bytes): ...\n", TORPOR_DRAIN_SECONDS="600")
    process.signal(number)
    assert process.wait() == 0


def test_draining_is_bounded(start: Any) -> None:
    code = HEAD + "@function\nasync def f(data: bytes):\n    await asyncio.Event().wait()\n"
    process = start(code, TORPOR_DRAIN_SECONDS="0.5")
    with contextlib.closing(process.connect()) as connection:
        connection.request("POST", "/", b"x", EVENT)
        _until_in_flight(process)
        process.signal()
        response = connection.getresponse()
        assert response.status == 503
        assert json.loads(response.read())["type"] == "https://torpor.dev/problems/draining"
    assert process.wait() == 0


def test_a_second_signal_ends_it_at_once(start: Any) -> None:
    code = HEAD + "@function\nasync def f(data: bytes):\n    await asyncio.Event().wait()\n"
    process = start(code, TORPOR_DRAIN_SECONDS="600")
    with contextlib.closing(process.connect()) as connection:
        connection.request("POST", "/", b"x", EVENT)
        _until_in_flight(process)
        process.signal()
        while process.request("GET", "/healthz/ready")[0] == 200:
            continue
        process.signal()
        assert process.wait() == 0


def _until_in_flight(process: Any) -> None:
    while 'torpor_in_flight{function="f",namespace="default",revision=""} 1.0' not in (
        process.request("GET", "/metrics")[1].decode()
    ):
        continue


# --- calls that never return ------------------------------------------------------------------------------


def _timed_out(process: Any, body: bytes = b"x") -> None:
    status, answer = process.request("POST", "/", body, EVENT)
    assert (status, json.loads(answer)["type"]) == (504, "https://torpor.dev/problems/timed-out")


def test_a_python_loop_in_a_thread_is_ended_and_the_instance_goes_on(start: Any) -> None:
    code = HEAD + (
        "@function\ndef f(data: bytes) -> bytes:\n    while data == b'x':\n        pass\n    return data\n"
    )
    process = start(code, TORPOR_TIMEOUT_SECONDS="0.5", TORPOR_CONTAINER_CONCURRENCY="1")
    for _ in range(2):
        _timed_out(process)
    assert process.request("POST", "/", b"y", EVENT) == (200, b"y")
    process.signal()
    assert process.wait() == 0


def test_a_thread_blocked_outside_python_ends_the_instance(start: Any) -> None:
    code = HEAD + (
        "lock = threading.Lock()\nlock.acquire()\n"
        "@function\n"
        "def f(data: bytes) -> bytes:\n"
        "    if data == b'x':\n"
        "        lock.acquire()\n"
        "    time.sleep(0.2)\n"
        "    return data\n"
    )
    process = start(code, TORPOR_TIMEOUT_SECONDS="1")
    _timed_out(process)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        other = pool.submit(_served_until_gone, process)
        assert process.wait() == 70
        assert other.result() > 0, "others were served until the end"
    assert any("has to be replaced" in line["message"] for line in process.lines)


def _served_until_gone(process: Any) -> int:
    """How many calls were answered before connections were refused; none of them may break."""
    count = 0
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", process.port), timeout=60)
        except ConnectionError:
            return count
        with connection:
            connection.sendall(
                b"POST / HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\n"
                b"ce-type: t\r\ncontent-length: 1\r\n\r\ny"
            )
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                answer = b""
            if not answer:
                return count  # the listener closed with this one still in its queue
            assert answer.startswith(b"HTTP/1.1 200")
            count += 1


@pytest.mark.parametrize("body", ["while True: pass", "while True: time.sleep(0.01)"])
def test_an_async_handler_that_blocks_the_loop_is_ended(start: Any, body: Any) -> None:
    code = (
        HEAD
        + "@function\nasync def f(data: bytes) -> bytes:\n"
        + f"    if data == b'x':\n        {body}\n    return data\n"
    )
    process = start(code, TORPOR_TIMEOUT_SECONDS="0.5")
    _timed_out(process)
    assert process.request("POST", "/", b"y", EVENT) == (200, b"y")
    process.signal()
    assert process.wait() == 0


def test_an_async_handler_that_blocks_the_loop_outside_python_ends_the_instance(start: Any) -> None:
    code = (
        HEAD + "@function\nasync def f(data: bytes):\n    threading.Lock().acquire() and time.sleep(1000)\n"
    )
    process = start(code, TORPOR_TIMEOUT_SECONDS="0.5")
    with contextlib.closing(process.connect()) as connection:
        connection.request("POST", "/", b"x", EVENT)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            connection.getresponse()
    assert process.wait() == 70


def test_an_async_handler_that_refuses_to_be_cancelled_ends_the_instance(start: Any) -> None:
    code = HEAD + (
        "@function\n"
        "async def f(data: bytes):\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.sleep(1000)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
    )
    process = start(code, TORPOR_TIMEOUT_SECONDS="0.5")
    _timed_out(process)
    assert process.wait() == 70


# --- what goes wrong at the start -------------------------------------------------------------------------


def test_a_broken_module_is_told_with_its_line(start: Any) -> None:
    process = start("x = 1\nraise LookupError('gone')\n", ready=False)
    assert process.wait() == 1
    assert process.errors == ["Error: main.py:2: LookupError: gone\n"]


def test_a_module_that_is_being_imported_is_not_blamed_for_the_end(start: Any) -> None:
    process = start("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n", ready=False)
    assert process.wait() == 0
    assert process.errors == []


def test_an_app_that_fails_to_start_is_told(start: Any) -> None:
    code = (
        "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    raise LookupError('no database')\n    yield\n"
        "app = FastAPI(lifespan=lifespan)\n"
    )
    process = start(code, ready=False)
    assert process.wait() == 1
    assert any("failed to start" in line for line in process.errors)
    assert any("no database" in json.dumps(line) for line in process.lines)


def test_the_apps_start_and_end_are_the_instances(start: Any) -> None:
    code = (
        "import logging\nfrom contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n"
        "@asynccontextmanager\nasync def lifespan(app):\n"
        "    app.state.name = 'started'\n    yield\n    logging.getLogger('app').warning('ended')\n"
        "app = FastAPI(lifespan=lifespan)\n"
        "@app.get('/')\nasync def root():\n    return app.state.name\n"
    )
    process = start(code)
    assert process.request("GET", "/") == (200, b'"started"')
    process.signal()
    assert process.wait() == 0
    assert [line["message"] for line in process.lines if line["logger"] == "app"] == ["ended"]


# --- before the fork --------------------------------------------------------------------------------------


def test_what_is_prepared_can_be_forked_and_serves_at_once(tmp_path: Path) -> None:
    """A fork of a prepared process serves, more than once, and the parent has nothing open."""
    (tmp_path / "main.py").write_text(
        "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef root():\n    return 'hello'\n"
    )
    script = tmp_path / "fork.py"
    script.write_text(FORK)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hello", "hello"]


FORK = """
import http.client, os, signal, socket, sys, threading
from pathlib import Path
from torpor.runtime.prepare import prepare
from torpor.runtime.server import serve
from torpor.settings import RuntimeSettings

def sockets():
    links = []
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return [link for link in links if link.startswith(("socket:", "anon_inode:"))]

before = sockets()
prepared = prepare("main", Path(sys.argv[1]))
assert sockets() == before, sockets()
assert threading.active_count() == 1
for _ in range(2):
    listener = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        serve(prepared, RuntimeSettings(), listener)
        os._exit(0)
    connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=60)
    listener.close()
    connection.request("GET", "/")
    print(connection.getresponse().read().decode().strip('"'), flush=True)
    connection.close()
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_importing_the_runtime_imports_nothing_of_the_platform() -> None:
    code = (
        "import sys, torpor.runtime.server, torpor.cli.runtime\n"
        "names = ('nats', 'grpc', 'envoy', 'httpx', 'ruamel', 'rich', 'obstore', 'opentelemetry', 'fastapi',"
        "    'psutil')\n"
        "print([name for name in names if name in sys.modules])\n"
        "print([name for name in sys.modules if name.startswith('torpor.') and name.split('.')[1] in"
        " ('api', 'local', 'providers', 'gateway', 'events', 'scaling', 'transport', 'spec', 'testing')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


# --- any bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\nx",
        b"POST / HTTP/1.1\r\nhost: x\r\nce-id: \xff\xfe\r\ncontent-length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nce-id: 1\r\nx-request-id: \xff\xfe\r\ncontent-length: 0\r\n\r\n",
        b"POST /%ff%00 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\nce-specversion: 1.0\r\nce-id: a%0d%0ab\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_no_bytes_break_it(start: Any, sent: Any) -> None:
    process = start(HEAD + "@function\nasync def f(event: CloudEvent) -> CloudEvent:\n    return event\n")
    with socket.create_connection(("127.0.0.1", process.port), timeout=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
        assert answer == b"" or answer[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4"), answer
    assert process.request("POST", "/", b"1", {**EVENT, "content-type": "text/plain"}) == (200, b"1")
