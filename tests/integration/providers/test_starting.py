"""How instances are started: by fork where that is safe, with variables and descriptors of their own."""

from __future__ import annotations

import ast
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from torpor.errors import HandlerError
from torpor.providers.base import InstanceState
from torpor.providers.process.supervisor import MAX_STARTING

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "default/echo"


def test_instances_are_forked_from_a_template(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write("LOADED_IN = os.getpid()\nasync def answer(path): return str(LOADED_IN)"))
        assert rig.provider.state(KEY).start_method == "fork"
        assert rig.endpoints == ()
        await rig.scale(3)
        assert {await rig.call(number=number) for number in range(3)} == {str(rig.provider.template_pid(KEY))}
        instances = rig.provider.instances(KEY)
        assert len({instance.pid for instance in instances}) == 3
        assert all(instance.state is InstanceState.READY for instance in instances)
        assert all(0 < instance.memory_bytes < 100 * 2**20 for instance in instances)
        assert {instance.endpoint for instance in instances} == set(rig.endpoints)
        await rig.scale(1)
        await rig.scale(0)
        assert rig.provider.state(KEY).restarts == 0

    run(test)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, name='ticker').start()",
            "ticker",
        ),
        ("import socket\nCONNECTION = socket.socket()", "a socket"),
        ("import asyncio\nLOOP = asyncio.new_event_loop()", "an event loop"),
        ("FILE = open('log.txt', 'w')", "log.txt"),
        ("import subprocess\nCHILD = subprocess.Popen(['sleep', '30'])", "a process"),
    ],
)
def test_a_module_that_can_not_be_forked_is_imported_by_each_instance(
    run: Callable[..., None], code: str, why: str
) -> None:
    async def test(rig: Any) -> None:
        if "subprocess" in code:  # the instance's own child ends with it
            await rig.apply(rig.write(code + "\nimport atexit\natexit.register(CHILD.kill)"))
        else:
            await rig.apply(rig.write(code))
        method = rig.provider.state(KEY).start_method
        assert method.startswith("import: the module ")
        assert why in method
        assert rig.provider.template_pid(KEY) is None
        await rig.scale(2)
        assert {int(await rig.call(number=n)) for n in (0, 1)} == {
            one.pid for one in rig.provider.instances(KEY)
        }
        await rig.scale(0)

    run(test)


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("nothing_of_that_name()", ["nothing_of_that_name", "main.py"]),
        ("import sys\nprint('farewell', file=sys.stderr)\nos._exit(3)", ["exited with status 3", "farewell"]),
        ("import signal\nos.kill(os.getpid(), signal.SIGSEGV)", ["SIGSEGV"]),
        ("async def app(scope, receive, send):\n    raise RuntimeError('no database')", ["no database"]),
    ],
)
def test_a_revision_that_does_not_start_leaves_what_runs(
    run: Callable[..., None], code: str, texts: list[str]
) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        await rig.scale(1)
        before = await rig.call()
        with pytest.raises(HandlerError) as raised:
            await rig.apply(rig.write(code, name="v2"))
        for text in texts:
            assert text in str(raised.value)
        assert await rig.call() == before
        assert rig.provider.state(KEY).revision == "echo-00001"
        assert rig.provider.state(KEY).problem is None
        await rig.scale(2)

    if "no database" in code:  # only a lifespan that says so fails a start, not one that raises
        code = (
            "async def app(scope, receive, send):\n    await receive()\n"
            "    print('no database', file=sys.stderr)\n"
            "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
        )
    run(test)


def test_a_function_gets_its_own_variables_and_none_of_the_platforms_secrets(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_SECRET_KEY", "hidden")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "handed-through")

    async def test(rig: Any) -> None:
        code = (
            "AT_IMPORT = dict(os.environ)\nasync def answer(path): return repr((AT_IMPORT, dict(os.environ)))"
        )
        variables = ({"name": "COLOUR", "value": "red"}, {"name": "HOME", "value": "/elsewhere"})
        await rig.apply(rig.write(code), env=variables, container_concurrency=7, timeout_seconds=9)
        await rig.scale(1)
        at_import, now = ast.literal_eval(await rig.call())
        assert "CLOUD_SECRET_KEY" not in {*at_import, *now}
        assert now.items() >= at_import.items()
        (instance,) = rig.provider.instances(KEY)
        assert (
            now.items()
            >= {
                "PATH": os.environ["PATH"],
                "HOME": "/elsewhere",
                "COLOUR": "red",
                "OTEL_SERVICE_NAME": "handed-through",
                "PORT": str(instance.endpoint.port),
                "K_SERVICE": "echo",
                "K_REVISION": "echo-00001",
                "TORPOR_NAMESPACE": "default",
                "TORPOR_INSTANCE": instance.id,
                "TORPOR_CONTAINER_CONCURRENCY": "7",
                "TORPOR_TIMEOUT_SECONDS": "9.0",
                "TORPOR_BLOBS_URL": f"file://{rig.folder}/blobs",
            }.items()
        )

    run(test)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are read from /proc")
@pytest.mark.parametrize("code", ["", "import socket\nCONNECTION = socket.socket()"])
def test_an_instance_has_no_descriptor_of_another(run: Callable[..., None], code: str) -> None:
    listing = """
    def listing():
        found = {}
        for number in os.listdir("/proc/self/fd"):
            try:
                found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                pass
        return found

    async def answer(path): return repr((listing(), os.getcwd()))
    """

    async def test(rig: Any) -> None:
        folder = rig.write(listing)
        (folder / "main.py").write_text((folder / "main.py").read_text() + code)
        await rig.apply(folder)
        await rig.scale(3)
        seen = [ast.literal_eval(await rig.call(number=number)) for number in range(3)]
        sockets = [{name for name in found.values() if name.startswith("socket:")} for found, _ in seen]
        pipes = [{name for name in found.values() if name.startswith("pipe:")} for found, _ in seen]
        assert all(found[0] == "/dev/null" for found, _ in seen)
        assert sockets[0].isdisjoint(sockets[1] | sockets[2])
        # The lifeline of the process that forked them is all that they share.
        assert len(pipes[0] & pipes[1]) <= 1
        assert len(set.intersection(*pipes)) <= 1
        assert {place for _, place in seen} == {str(folder)}

    run(test)


def test_what_an_instance_writes_is_read_to_its_last_line(run: Callable[..., None]) -> None:
    code = """
    print("imported")

    async def answer(path):
        print("out", path)
        print("error", path, file=sys.stderr)
        if path == "/end":
            sys.stdout.write("no end of line")
            sys.stdout.flush()
            os._exit(9)
        return ""
    """

    async def test(rig: Any) -> None:
        await rig.apply(rig.write(code))
        await rig.scale(1)
        await rig.call("/x")
        await rig.until(lambda: {"imported", "out /x", "error /x"} <= set(rig.texts()))
        with pytest.raises(OSError, match=r"closed connection|reset"):
            await rig.call("/end")
        await rig.until(lambda: "no end of line" in rig.texts())
        stream = {line.text: line.stream for _, line in rig.lines}
        assert (stream["out /x"], stream["error /x"]) == ("stdout", "stderr")

    run(test)


def test_waking_is_measured(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        waits = []
        for _ in range(20):
            began = time.perf_counter()
            rig.provider.scale(KEY, 1)
            await rig.until(lambda: rig.endpoints)
            waits.append((time.perf_counter() - began) * 1000)
            await rig.scale(0)
        print(f"fork to ready: p50 {statistics.median(waits):.1f} ms, most {max(waits):.1f} ms")  # noqa: T201

    run(test)


def test_many_instances_start_a_few_at_a_time(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        most = 0

        def count(_: str) -> None:
            nonlocal most
            states = [one.state for one in rig.provider.instances(KEY)]
            most = max(most, states.count(InstanceState.STARTING))

        rig.provider.subscribe(count)
        await rig.scale(25)
        assert 1 < most <= MAX_STARTING
        await rig.scale(0)

    run(test)
