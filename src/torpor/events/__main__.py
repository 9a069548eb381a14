"""``python -m torpor.events INGRESS_FD CONTROL_FD``: the events process, started by a platform.

Its sockets are inherited, bound and listening. Its configuration is one line of JSON on its standard input
(:class:`torpor.events.declaration.ServiceConfig`), where no other user sees it; when that input ends, so does
the process, since its platform is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import uvloop
from pydantic import ValidationError

from torpor.clock import SystemClock
from torpor.events.blob_keeper import blob_keeper
from torpor.events.brokers import Broker
from torpor.events.claims import BlobOptions
from torpor.events.declaration import ServiceConfig
from torpor.events.process import run
from torpor.events.service import Service, collect_seldom, connect
from torpor.logs import log_to_stderr


def main() -> int:
    """Run the process; returns its exit code."""
    if len(sys.argv) != 3 or not all(argument.isdigit() for argument in sys.argv[1:]):
        sys.stderr.write("usage: python -m torpor.events INGRESS_FD CONTROL_FD\n")
        return 2
    try:
        config = ServiceConfig.model_validate_json(sys.stdin.buffer.readline())
    except ValidationError as error:
        sys.stderr.write(f"wrong configuration on standard input: {error}\n")
        return 2
    log_to_stderr(config.log_level)
    ingress, control = (socket.socket(fileno=int(argument)) for argument in sys.argv[1:])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, ingress, control))
    return 0


async def _run(config: ServiceConfig, ingress: socket.socket, control: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    clock = SystemClock()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_reader(0, _look, ending.set)
    broker = Broker(config.broker_url, config.nats_token, config.kafka_options)
    log = await connect(broker, clock, ending)
    if log is None:
        return
    collect_seldom()
    blobs = None
    if config.blobs_url:
        keeper = blob_keeper(config.blobs_url, clock)
        blobs = BlobOptions(config.blobs_url, keeper, config.blobs_ttl_seconds, config.claim_check_bytes)
    service = Service(log, clock, blobs=blobs, callbacks_refused=config.callbacks_refused)
    await run(service, clock, ingress=ingress, control=control, stats_path=config.stats_path, ending=ending)


def _look(end: object) -> None:
    """Standard input is readable: at its end, the platform is gone."""
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        end()  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
