"""Ends, wanted and unwanted: draining, replacement, back-off, and that nothing outlives its parent."""

from __future__ import annotations

import asyncio
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from torpor.errors import HandlerError
from torpor.providers.base import InstanceState
from torpor.providers.process import supervisor
from torpor.spec.models import Scaling

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "default/echo"
SLOW = """
    import asyncio
    from pathlib import Path

    async def answer(path):
        if path == "/slow":
            Path("entered").touch()
            while not Path("go").exists():
                await asyncio.sleep(0.01)
        return VERSION
"""


def test_an_instance_serves_until_the_data_path_has_let_go_of_it(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        await rig.scale(1)
        rig.publisher.open.clear()
        rig.provider.scale(KEY, 0)
        (instance,) = rig.provider.instances(KEY)
        assert instance.state is InstanceState.DRAINING
        assert int(await rig.call()) == instance.pid  # though it is to end
        assert rig.provider.ready(KEY) == 0
        rig.provider.scale(KEY, 1)  # one that ends does not come back: another is started
        await rig.until(lambda: rig.provider.ready(KEY) == 1)
        rig.publisher.open.set()
        await rig.until(lambda: len(rig.provider.instances(KEY)) == 1)
        assert int(await rig.call()) != instance.pid

    run(test)


def test_a_new_revision_takes_over_while_the_old_one_finishes(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        old = rig.write(SLOW + "    VERSION = 'old'\n")
        await rig.apply(old)
        await rig.scale(2)
        slow = asyncio.create_task(rig.call("/slow"))
        await rig.until((old / "entered").exists)
        await rig.apply(rig.write(SLOW + "    VERSION = 'new'\n", name="v2"))
        await rig.until(lambda: len(rig.provider.instances(KEY)) == 3 and len(rig.endpoints) == 2)
        assert {await rig.call(number=number) for number in (0, 1)} == {"new"}
        (draining,) = (one for one in rig.provider.instances(KEY) if one.state is InstanceState.DRAINING)
        assert draining.revision == "echo-00001"
        (old / "go").touch()
        assert await slow == "old"
        await rig.until(lambda: len(rig.provider.instances(KEY)) == 2)
        # At no time was less published than was desired.
        sizes = [len(endpoints) for _, endpoints in rig.publisher.history]
        assert all(size >= 2 for size in sizes[sizes.index(2) :])

    run(test)


def test_an_instance_that_does_not_end_is_killed(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "KILL_MARGIN_SECONDS", 0.1)

    async def test(rig: Any) -> None:
        await rig.apply(rig.write(), timeout_seconds=0.1)
        await rig.scale(1)
        (instance,) = rig.provider.instances(KEY)
        os.kill(instance.pid, signal.SIGSTOP)
        await rig.scale(0)

    run(test)


def test_an_instance_that_is_killed_is_replaced(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        await rig.scale(2)
        first, second = rig.provider.instances(KEY)
        os.kill(first.pid, signal.SIGKILL)
        await rig.until(lambda: first.endpoint not in rig.endpoints and len(rig.endpoints) == 2)
        assert rig.provider.state(KEY).restarts == 1
        assert second.id in {one.id for one in rig.provider.instances(KEY)}

    run(test)


@pytest.mark.parametrize("how", ["holds the interpreter's lock", "is stopped"])
def test_an_instance_that_hangs_is_replaced(run: Callable[..., None], how: str) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write(
            """
            import re

            async def answer(path):
                if path == "/hang":
                    re.match(r"(a+)+$", "a" * 40 + "b")
                return str(os.getpid())
            """
        )
        await rig.apply(folder, timeout_seconds=1.0)
        await rig.scale(1)
        (instance,) = rig.provider.instances(KEY)
        call = None
        if how == "is stopped":
            os.kill(instance.pid, signal.SIGSTOP)
        else:
            call = asyncio.create_task(rig.call("/hang"))
        await rig.until(lambda: rig.endpoints and instance.endpoint not in rig.endpoints)
        await rig.until(lambda: len(rig.provider.instances(KEY)) == 1)
        assert rig.provider.state(KEY).restarts == 1
        assert int(await rig.call()) != instance.pid
        if call is not None:
            with pytest.raises((OSError, http.client.HTTPException)):
                await call

    run(test)


def test_a_function_that_keeps_dying_at_its_start_has_a_problem_until_it_starts(
    run: Callable[..., None],
) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write(
            """
            serving = app

            async def app(scope, receive, send):
                if scope["type"] == "lifespan" and os.path.exists("broken"):
                    print("the disk is full", file=sys.stderr)
                    os._exit(4)
                await serving(scope, receive, send)
            """
        )
        await rig.apply(folder)
        (folder / "broken").touch()
        rig.provider.scale(KEY, 1)
        await rig.until(lambda: rig.provider.state(KEY).problem)
        problem = rig.provider.state(KEY).problem
        assert "exited with status 4" in problem
        assert "the disk is full" in problem
        assert rig.provider.state(KEY).restarts >= 2
        (folder / "broken").unlink()
        await rig.until(lambda: rig.endpoints)
        assert rig.provider.state(KEY).problem is None

    run(test)


@pytest.mark.parametrize("victim", ["template", "parent"])
@pytest.mark.parametrize("code", ["", "import socket\nCONNECTION = socket.socket()"])
def test_what_forked_an_instance_ends_and_takes_it_along_and_all_comes_back(
    run: Callable[..., None], victim: str, code: str
) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write()
        (folder / "main.py").write_text((folder / "main.py").read_text() + code)
        await rig.apply(folder)
        await rig.scale(2)
        before = rig.provider.instances(KEY)
        template = rig.provider.template_pid(KEY)
        pid = template if victim == "template" and template else rig.provider.parent_pids()[0]
        os.kill(pid, signal.SIGKILL)
        old = {one.endpoint for one in before}
        await rig.until(lambda: len(rig.endpoints) == 2 and old.isdisjoint(rig.endpoints))
        assert await rig.call()
        assert rig.provider.state(KEY).restarts == 2
        assert pid not in rig.pids()
        again = "it was killed by SIGKILL and is started again as soon as a function needs it"
        assert rig.parent_news == ([] if pid == template else [again, None])

    run(test)


def test_a_parent_that_is_told_to_end_is_no_news(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        await rig.provider.close()
        await rig.until(lambda: not rig.provider.parent_pids())
        assert rig.parent_news == []

    run(test)


def test_a_template_that_is_killed_at_rest_comes_back(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        pid = rig.provider.template_pid(KEY)
        os.kill(pid, signal.SIGKILL)
        await rig.until(lambda: rig.provider.template_pid(KEY) not in (None, pid))
        await rig.scale(1)

    run(test)


def test_a_module_that_broke_at_rest_is_a_problem_and_recovers(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write()
        await rig.apply(folder, scaling=Scaling(idle="zero"))
        await rig.until(lambda: rig.provider.template_pid(KEY) is None)
        working = (folder / "main.py").read_text()
        (folder / "main.py").write_text("nothing_of_that_name()")
        rig.provider.scale(KEY, 1)
        await rig.until(lambda: rig.provider.state(KEY).problem)
        assert "nothing_of_that_name" in rig.provider.state(KEY).problem
        (folder / "main.py").write_text(working)
        await rig.until(lambda: rig.endpoints)
        assert rig.provider.state(KEY).problem is None

    run(test)


def test_a_function_at_zero_keeps_no_process_of_its_own(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write(), scaling=Scaling(parked_for_seconds=1.0))
        assert rig.provider.template_pid(KEY) is not None
        await rig.until(lambda: rig.provider.template_pid(KEY) is None)
        await rig.scale(1)
        assert rig.provider.template_pid(KEY) is not None

    run(test)


def test_removing_a_function_ends_its_processes(
    run: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    async def test(rig: Any) -> None:
        await rig.apply(rig.write())
        await rig.scale(2)
        pids = {*rig.pids()} - {*rig.provider.parent_pids()}
        await rig.provider.remove(KEY)
        await rig.until(lambda: not any(map(alive, pids)))
        assert rig.endpoints == ()
        assert rig.provider.state(KEY) is None
        assert list(rig.provider.instances(KEY)) == []
        await rig.provider.remove(KEY)

    run(test)


def test_closing_is_bounded_and_ends_what_is_being_started(run: Callable[..., None], tmp_path: Path) -> None:
    async def test(rig: Any) -> None:
        code = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(600)"
        applying = asyncio.create_task(rig.apply(rig.write(code)))
        await rig.until((tmp_path / "v1" / "importing").exists)
        rig.provider._close_seconds = 0.1
        await rig.provider.close()
        with pytest.raises(Exception, match=r"ended|closed|killed|imported"):
            await applying

    run(test)


PLATFORM = """
    import asyncio, json, pathlib, sys
    from torpor.clock import SystemClock
    from torpor.providers.base import Revision
    from torpor.providers.process.provider import ProcessProvider
    from torpor.spec.models import Function, FunctionSpec, Metadata, Source
    from torpor.testing.publisher import MemoryPublisher

    KEY = "default/echo"

    async def main(folder):
        provider = ProcessProvider(
            clock=SystemClock(), publisher=MemoryPublisher(), on_line=lambda key, line: None,
            cache_dir=folder / "cache", blobs_url="",
        )
        spec = FunctionSpec(source=Source(path=folder, handler="main:app"))
        await provider.apply(Revision("echo-00001", Function(metadata=Metadata(name="echo"), spec=spec)))
        provider.scale(KEY, 2)
        while provider.ready(KEY) < 2 or len(provider.instances(KEY)) > 2:
            await asyncio.sleep(0.01)
        pids = [one.pid for one in provider.instances(KEY)]
        template = provider.template_pid(KEY)
        print(json.dumps([*pids, *provider.parent_pids(), *([template] if template else [])]), flush=True)
        await asyncio.Event().wait()

    asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


@pytest.mark.parametrize("code", ["", "import socket\nCONNECTION = socket.socket()"])
def test_nothing_outlives_a_platform_that_is_killed(
    run: Callable[..., None], alive: Callable[[int], bool], code: str
) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write()
        (folder / "main.py").write_text((folder / "main.py").read_text() + code)
        platform = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PLATFORM), str(folder)], stdout=subprocess.PIPE
        )
        with platform:
            try:
                assert platform.stdout is not None
                pids = json.loads(await asyncio.to_thread(platform.stdout.readline))
                assert len(pids) == (3 if code else 4)
                assert all(map(alive, pids))
            finally:
                platform.kill()
        await rig.until(lambda: not any(map(alive, pids)))

    run(test)


def test_a_function_that_is_removed_and_comes_back_is_published(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write()
        await rig.apply(folder)
        await rig.scale(1)
        rig.publisher.open.clear()
        removing = asyncio.create_task(rig.provider.remove(KEY))
        await rig.until(lambda: rig.provider.state(KEY) is None)
        applying = asyncio.create_task(rig.apply(folder))
        rig.publisher.open.set()
        await asyncio.gather(removing, applying)
        await rig.scale(1)
        assert await rig.call()

    run(test)


def test_a_template_or_parent_that_does_not_answer_is_replaced(run: Callable[..., None]) -> None:
    async def test(rig: Any) -> None:
        rig.provider._around = dataclasses.replace(rig.provider._around, start_seconds=1.0)
        await rig.apply(rig.write())
        template, (parent,) = rig.provider.template_pid(KEY), rig.provider.parent_pids()
        os.kill(template, signal.SIGSTOP)
        await rig.scale(1)
        assert rig.provider.template_pid(KEY) not in (None, template)
        old = rig.endpoints
        os.kill(parent, signal.SIGSTOP)
        os.kill(rig.provider.template_pid(KEY), signal.SIGKILL)
        await rig.until(lambda: len(rig.endpoints) == 1 and rig.endpoints != old)
        assert rig.provider.parent_pids() not in ([], [parent])

    run(test)


def test_a_module_that_never_ends_its_import_is_told_and_ended(
    run: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    async def test(rig: Any) -> None:
        rig.provider._around = dataclasses.replace(rig.provider._around, start_seconds=1.0)
        folder = rig.write(
            "import pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)"
        )
        with pytest.raises(HandlerError, match="was not done after 1 s"):
            await rig.apply(folder)
        pid = int((folder / "pid").read_text())
        await rig.until(lambda: not alive(pid))

    run(test)
