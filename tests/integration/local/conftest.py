"""Functions to run on a real platform, and waiting for what it does."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from torpor.events.kafka_server import install
from torpor.settings import PlatformSettings
from torpor.testing.running import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HELLO = """
import os
import sys

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def hello(name: str = "world") -> dict[str, object]:
    print(f"greeting {name}", flush=True)
    return {"greeting": f"Hello, {name}!", "pid": os.getpid()}
"""
QUICK = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  scaling: {maxScale: 3, target: 4, window: 1s, scaleToZeroGracePeriod: 0s}
"""


def until(condition: Callable[[], object], what: str) -> None:
    """Return once ``condition`` is true; fail the test if it never is."""
    nothing = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / 0.05)):
        if condition():
            return
        nothing.wait(0.05)
    pytest.fail(f"never happened: {what}")


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> str:
    """NATS, unless the test says otherwise."""
    name = str(getattr(request, "param", "nats"))
    if name == "kafka":
        asyncio.run(install(PlatformSettings.from_environment().cache_dir))
    return name


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A folder with one HTTP function that goes to zero after a second."""
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "main.py").write_text(HELLO)
    (folder / "function.yaml").write_text(QUICK)
    return folder
