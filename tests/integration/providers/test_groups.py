"""What a handler starts does not outlive its instance, however that ends."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from torpor.spec.models import Scaling

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "default/echo"
STARTING = """
    import signal, subprocess

    async def answer(path):
        if path == "/subprocess":
            return str(subprocess.Popen(["sleep", "300"]).pid)
        if path == "/fork":
            pid = os.fork()
            if pid == 0:
                while True:
                    signal.pause()
            return str(pid)
        return str(os.getpgid(0))
"""


@pytest.mark.parametrize("ending", ["drain", "kill", "template", "parent"])
@pytest.mark.parametrize("code", ["", "import socket\nCONNECTION = socket.socket()"])
def test_what_a_handler_starts_ends_with_its_instance(
    run: Callable[..., None], alive: Callable[[int], bool], code: str, ending: str
) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write(STARTING)
        (folder / "main.py").write_text((folder / "main.py").read_text() + code)
        await rig.apply(folder, scaling=Scaling(idle="zero"))
        await rig.scale(1)
        (instance,) = rig.provider.instances(KEY)
        assert int(await rig.call("/")) == instance.pid  # it leads a group of its own
        started = [int(await rig.call(path)) for path in ("/subprocess", "/fork")]
        assert all(map(alive, started))
        template = rig.provider.template_pid(KEY)
        if ending == "drain":
            await rig.scale(0)
        elif ending == "kill":
            os.kill(instance.pid, signal.SIGKILL)
        elif ending == "template" and template is not None:
            os.kill(template, signal.SIGKILL)
        else:
            os.kill(rig.provider.parent_pids()[0], signal.SIGKILL)
        await rig.until(lambda: not any(map(alive, started)))

    run(test)


def test_only_the_instance_itself_is_told_to_drain(
    run: Callable[..., None], alive: Callable[[int], bool]
) -> None:
    async def test(rig: Any) -> None:
        folder = rig.write(
            """
            import asyncio, subprocess
            from pathlib import Path

            async def answer(path):
                child = subprocess.Popen(["sleep", "300"])
                Path("child").write_text(str(child.pid))
                Path("entered").touch()
                while not Path("go").exists():
                    await asyncio.sleep(0.01)
                return str(child.poll())
            """
        )
        await rig.apply(folder)
        await rig.scale(1)
        (endpoint,) = rig.endpoints
        call = asyncio.create_task(rig.call())
        await rig.until((folder / "entered").exists)
        rig.provider.scale(KEY, 0)
        while await rig.status(endpoint, "/healthz/ready") == 200:
            await asyncio.sleep(0.005)
        (folder / "go").touch()
        assert await call == "None"  # its child runs on until the instance has ended
        child = int((folder / "child").read_text())
        await rig.until(lambda: not alive(child))

    run(test)
