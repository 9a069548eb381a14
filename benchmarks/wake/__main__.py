"""``python -m benchmarks.wake``: from zero to the first answer, by fork and by a start of its own, in turns.

Both serve ``functions/greeter``: one is an instance of the process provider, forked from a template, the
other a process that imports everything itself (``torpor runtime``). Neither goes through the gateway. Written
to ``build/bench/wake.json``; the exit status is 1 when the fork is not several times faster.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from torpor.clock import SystemClock
from torpor.endpoint import Endpoint
from torpor.providers.base import Revision
from torpor.providers.process.provider import ProcessProvider
from torpor.spec.load import load
from torpor.testing.publisher import MemoryPublisher

ROOT = Path(__file__).resolve().parents[2]
GREETER = ROOT / "functions" / "greeter"
RESULT = ROOT / "build" / "bench" / "wake.json"
KEY = "default/greeter"
LEAST_FACTOR = 3.0


def _answered(endpoint: Endpoint) -> None:
    connection = http.client.HTTPConnection(*endpoint, timeout=30)
    connection.request("GET", "/?name=Ada")
    assert connection.getresponse().status == 200
    connection.close()


async def _until(condition: asyncio.Event) -> None:
    await condition.wait()
    condition.clear()


async def _forked(rounds: int, started_alone: list[float]) -> list[float]:
    changed = asyncio.Event()
    publisher = MemoryPublisher()
    with tempfile.TemporaryDirectory() as folder:
        provider = ProcessProvider(
            clock=SystemClock(),
            publisher=publisher,
            on_line=lambda key, line: None,
            cache_dir=Path(folder),
            blobs_url="",
        )
        provider.subscribe(lambda key: changed.set())
        await provider.apply(Revision("greeter-00001", load([GREETER]).functions[KEY]))
        seconds = []
        for _ in range(rounds):
            while provider.instances(KEY):
                await _until(changed)
            began = time.perf_counter()
            provider.scale(KEY, 1)
            while not publisher.endpoints.get(KEY):
                await _until(changed)
            await asyncio.to_thread(_answered, publisher.endpoints[KEY][0])
            seconds.append(time.perf_counter() - began)
            provider.scale(KEY, 0)
            started_alone.append(await asyncio.to_thread(_started_alone))
        await provider.close()
    return seconds


def _started_alone() -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.perf_counter()
    command = [sys.executable, "-m", "torpor.cli", "runtime", "main", "--folder", str(GREETER)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    _answered(Endpoint("127.0.0.1", port))
                    return time.perf_counter() - began
                except ConnectionRefusedError:
                    time.sleep(0.001)
        finally:
            process.kill()


def main() -> int:
    """Measure, show and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wake", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    alone: list[float] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        forked = runner.run(_forked(parser.parse_args().rounds, alone))
    table = Table("woken by", "p50 ms", "p90 ms", "max ms", title="From zero to the first answer")
    figures = {}
    for name, seconds in (("fork of a template", forked), ("a start of its own", alone)):
        ordered = sorted(1000 * one for one in seconds)
        p90 = ordered[int(len(ordered) * 0.9)]
        figures[name] = {"p50": statistics.median(ordered), "p90": p90, "max": ordered[-1]}
        table.add_row(name, *(f"{figure:.1f}" for figure in figures[name].values()))
    factor = figures["a start of its own"]["p50"] / figures["fork of a template"]["p50"]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"milliseconds": figures, "factor": factor}, indent=2) + "\n")
    console = Console()
    console.print(table)
    verdict = "holds" if factor >= LEAST_FACTOR else "FAILS"
    console.print(f"the fork is {factor:.1f} times faster; at least {LEAST_FACTOR:g}: {verdict}")
    return 0 if factor >= LEAST_FACTOR else 1


if __name__ == "__main__":
    sys.exit(main())
