"""What a process spends its processor time on: samples of its stack, sorted into the parts of the platform.

The kernel sends a signal for so much processor time of the process; whatever the event loop's thread is at
then counts for the first part that its stack, from the innermost frame outwards, has a place of. So time
within the C code of a library counts for who called it. What other threads take, such as those of Kafka's
client, is measured by itself.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_INTERVAL_SECONDS = 0.001
_OTHER = "other"
_THREADS = "client's threads"
# (end of the file's name, the function's name or "" for all of them) -> part
_PLACES: dict[tuple[str, str], str] = {
    ("torpor/events/recorder.py", ""): "record",
    ("torpor/events/records.py", ""): "record",
    ("torpor/events/courier.py", "acknowledge"): "ack",
    ("torpor/events/jetstream_consumer.py", "ack"): "ack",
    ("torpor/events/kafka_consumer.py", "ack"): "ack",
    ("torpor/events/kafka_stream.py", "_flush"): "ack",
    ("torpor/events/courier.py", "_publish"): "reply",
    ("torpor/events/courier.py", "publish"): "reply",
    ("torpor/events/subscription.py", "passes_by"): "filter",
    ("torpor/events/filters.py", ""): "filter",
    ("torpor/events/subscription.py", ""): "send",
    ("torpor/events/courier.py", ""): "send",
    ("torpor/events/http_sender.py", ""): "send",
    ("torpor/transport/client.py", ""): "send",
    ("torpor/transport/connection.py", ""): "send",
    ("torpor/transport/pool.py", ""): "send",
    ("torpor/events/jetstream_consumer.py", ""): "fetch",
    ("torpor/events/kafka_consumer.py", ""): "fetch",
    ("torpor/events/kafka_partition.py", ""): "fetch",
    ("torpor/events/kafka_wire.py", ""): "fetch",
    ("torpor/events/pump.py", ""): "fetch",
    ("nats/aio/client.py", "_read_loop"): "fetch",
    ("nats/aio/client.py", ""): "connection",
    ("nats/aio/subscription.py", ""): "connection",
    ("asyncio/base_events.py", ""): _OTHER,
}


class Sampler:
    """Counts while it is started; one a process, in its main thread."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._cpu = self._own = 0.0
        self._parts: dict[object, str | None] = {}

    def start(self) -> None:
        """Begin."""
        self._cpu, self._own = time.process_time(), time.thread_time()
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL_SECONDS, _INTERVAL_SECONDS)

    def stop(self) -> dict[str, float]:
        """End; processor time in seconds by part."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        own = time.thread_time() - self._own
        all_threads = time.process_time() - self._cpu
        total = sum(self._counts.values()) or 1
        parts = {part: own * count / total for part, count in self._counts.items()}
        return {**parts, _THREADS: max(0.0, all_threads - own)}

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            part = self._part(frame)
            if part is not None:
                self._counts[part] += 1
                return
            frame = frame.f_back
        self._counts[_OTHER] += 1

    def _part(self, frame: FrameType) -> str | None:
        code = frame.f_code
        if code not in self._parts:
            file = code.co_filename
            found = (
                part
                for (end, name), part in _PLACES.items()
                if file.endswith(end) and name in (code.co_name, "")
            )
            self._parts[code] = next(found, None)
        return self._parts[code]
