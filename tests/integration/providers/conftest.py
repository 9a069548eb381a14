"""A process provider with real processes and a data path that only remembers; each test writes functions."""

from __future__ import annotations

import asyncio
import os
import textwrap
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from torpor.clock import SystemClock
from torpor.providers.base import Revision
from torpor.providers.process.provider import ProcessProvider
from torpor.spec.models import Function, FunctionSpec, Metadata, Scaling, Source
from torpor.testing.publisher import MemoryPublisher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from torpor.endpoint import Endpoint
    from torpor.spec.status import LogLine

KEY = "default/echo"
PATIENCE_SECONDS = 60.0

ECHO = """
    import os, sys

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = (await answer(scope["path"])).encode()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    async def answer(path):
        return str(os.getpid())
"""


class Rig:
    """A provider, its publisher, and what instances wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.publisher = MemoryPublisher()
        self.lines: list[tuple[str, LogLine]] = []
        self.parent_news: list[str | None] = []
        self.revisions = 0
        self.provider = ProcessProvider(
            clock=SystemClock(),
            publisher=self.publisher,
            on_line=lambda key, line: self.lines.append((key, line)),
            cache_dir=folder / "cache",
            blobs_url=f"file://{folder}/blobs",
            on_parent=self.parent_news.append,
        )

    def write(self, code: str = "", *, name: str = "v1") -> Path:
        """A function's folder with the echo app and ``code`` after it."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(textwrap.dedent(ECHO) + textwrap.dedent(code))
        return folder

    async def apply(self, folder: Path, **spec: Any) -> None:
        """Apply the next revision, made of ``folder``."""
        self.revisions += 1
        source = Source(path=folder, handler="main:app", requirements=spec.pop("requirements", None))
        function = Function(
            metadata=Metadata(name="echo"),
            spec=FunctionSpec(source=source, scaling=spec.pop("scaling", Scaling()), **spec),
        )
        await self.provider.apply(Revision(f"echo-{self.revisions:05}", function))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return self.publisher.endpoints.get(KEY, ())

    async def scale(self, replicas: int) -> None:
        """Scale, and wait until it is so, for the data path too."""
        self.provider.scale(KEY, replicas)
        await self.until(lambda: len(self.endpoints) == replicas == len(self.provider.instances(KEY)))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for ``condition``; looks again after each turn in which something can have happened."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)

    async def call(self, path: str = "/", number: int = 0) -> str:
        """The answer of an instance."""
        url = f"http://{self.endpoints[number]}{path}"

        def get() -> str:
            with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(get)

    async def status(self, endpoint: Endpoint, path: str) -> int:
        """The status that ``endpoint`` answers with."""

        def get() -> int:
            try:
                with urllib.request.urlopen(f"http://{endpoint}{path}", timeout=PATIENCE_SECONDS) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        return await asyncio.to_thread(get)

    def texts(self) -> list[str]:
        return [line.text for _, line in self.lines]

    def pids(self) -> list[int]:
        """All processes of the provider."""
        template = self.provider.template_pid(KEY)
        instances = [one.pid for one in self.provider.instances(KEY) if one.pid is not None]
        return [*self.provider.parent_pids(), *([template] if template else []), *instances]


def is_alive(pid: int) -> bool:
    """Whether ``pid`` runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def alive() -> Callable[[int], bool]:
    return is_alive


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Rig], Awaitable[None]]], None]:
    """Runs a test with a rig, and checks that nothing of it is left."""
    everything: set[int] = set()

    async def with_rig(test: Callable[[Rig], Awaitable[None]]) -> None:
        rig = Rig(tmp_path)
        rig.provider.subscribe(lambda _: everything.update(rig.pids()))
        try:
            await test(rig)
        finally:
            everything.update(rig.pids())
            await rig.provider.close()
        await rig.until(lambda: not any(map(is_alive, everything)))

    return lambda test: asyncio.run(with_rig(test))
