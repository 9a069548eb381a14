"""Object stores that run on this machine: one that speaks S3, built by Go, and Azure's own emulator, by npm.

Each has an empty bucket. What a client must be told is in the variables that the store's client reads.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import hmac
import os
import shutil
import uuid
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.cluster import shell
from tests.cluster.clusters import tool
from tests.cluster.settings import Settings
from torpor.children import end, tied
from torpor.endpoint import free_ports
from torpor.errors import StartError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

BUCKET = "blobs"
AZURITE = "3.35.0"
_START_SECONDS = 60
_STOP_SECONDS = 5
_INSTALL_SECONDS = 600


class ObjectServer:
    """A program that listens on a free port of this machine."""

    variables: dict[str, str]
    """What its clients read."""
    secret: str | None = None
    """Which of them is a key."""
    url: str
    """Of the bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        [self.port] = free_ports(1)
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it answers and has a bucket."""
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tied(*self._command()), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        async with asyncio.timeout(_START_SECONDS), httpx.AsyncClient() as client:
            while not await self._make_bucket(client):
                if self._process.returncode is not None:
                    raise StartError((self._folder / "log").read_text())
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """End it."""
        if self._process is not None:
            await end(self._process, _STOP_SECONDS)

    def _command(self) -> list[str]:
        raise NotImplementedError

    async def _make_bucket(self, client: httpx.AsyncClient) -> bool:
        raise NotImplementedError


class S3Server(ObjectServer):
    """The Versity S3 Gateway on a folder; ``host`` is the address at which clients reach this machine."""

    url = f"s3://{BUCKET}"
    secret: str | None = "AWS_SECRET_ACCESS_KEY"

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        super().__init__(folder)
        self._host = host
        self.variables = {
            "AWS_ENDPOINT": f"http://{host}:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "torpor",
            "AWS_SECRET_ACCESS_KEY": uuid.uuid4().hex,
        }
        for part in (f"buckets/{BUCKET}", "attributes"):  # not every file system keeps attributes of files
            (folder / part).mkdir(parents=True)

    def _command(self) -> list[str]:
        keys = ["--access", "torpor", "--secret", self.variables["AWS_SECRET_ACCESS_KEY"]]
        folders = ["--sidecar", str(self._folder / "attributes"), str(self._folder / "buckets")]
        program = str(tool(Settings.from_environment(), "versitygw"))
        return [program, "--quiet", "--port", f"{self._host}:{self.port}", *keys, "posix", *folders]

    async def _make_bucket(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(self.variables["AWS_ENDPOINT"])).status_code == 403
        except httpx.TransportError:
            return False


class AzureServer(ObjectServer):
    """Azurite, of which the name and the key of the account are published."""

    url = f"az://{BUCKET}"
    secret = "AZURE_STORAGE_ACCOUNT_KEY"
    _ACCOUNT = "devstoreaccount1"
    _KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.variables = {
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{self.port}/{self._ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",
            "AZURE_STORAGE_ACCOUNT_NAME": self._ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": self._KEY,
        }

    def _command(self) -> list[str]:
        program = azurite(Path("~/.cache/torpor").expanduser())
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self._folder)]
        return [
            shutil.which("node") or "/usr/bin/node",
            str(program),
            *where,
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
        ]

    async def _make_bucket(self, client: httpx.AsyncClient) -> bool:
        date, version = formatdate(usegmt=True), "2021-08-06"
        signed = f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:{version}\n"
        signed += f"/{self._ACCOUNT}/{self._ACCOUNT}/{BUCKET}\nrestype:container"
        mac = hmac.new(base64.b64decode(self._KEY), signed.encode(), hashlib.sha256).digest()
        headers = {
            "x-ms-date": date,
            "x-ms-version": version,
            "authorization": f"SharedKey {self._ACCOUNT}:{base64.b64encode(mac).decode()}",
        }
        url = f"{self.variables['AZURE_STORAGE_ENDPOINT']}/{BUCKET}?restype=container"
        try:
            return (await client.put(url, headers=headers)).status_code == 201
        except httpx.TransportError:
            return False


def azurite(cache: Path) -> Path:
    """Its program, installed by npm unless it is there."""
    folder = cache / f"azurite-{AZURITE}"
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several runs share the folder
        if not program.exists():
            shell.require({"npm": "npm", "node": "nodejs"})
            part = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            options = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error")
            shell.run(
                *("npm", "install", "--prefix", part, *options, f"azurite@{AZURITE}"),
                timeout_seconds=_INSTALL_SECONDS,
            )
            os.rename(part, folder)  # noqa: PTH104
    return program
