"""What the pods of a function write, as one stream: the last lines of all of them, then each new one.

The kubelets keep the lines, and the Kubernetes API hands them out; nothing is kept here. It does not say
which were written to stderr, so that all are shown as stdout.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from torpor.clock import cancel
from torpor.controller.names import CONTAINER
from torpor.errors import ClusterError, ClusterMissingError, ClusterRefusedError, ClusterUnreachableError
from torpor.spec.status import LogLine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from torpor.clock import Clock
    from torpor.providers.kubernetes.kube import Kube
    from torpor.providers.kubernetes.resources import Object

MAX_FOLLOWED = 50
"""Containers that one reader follows at a time: one connection to the API server each."""
_MAX_LINE_CHARACTERS = 64 * 1024
_MAX_POD_BYTES = 8 * 1024 * 1024
_ASKED_AT_ONCE = 4
_QUEUED_LINES = 1000
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0
_MOST_FAILURES = 8
_NANOSECONDS = 1_000_000_000
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)(?: (.*))?\Z", re.DOTALL)


class Stamped(NamedTuple):
    """One line: when it was written, in nanoseconds since the epoch, and what it says."""

    at: int
    text: str


def parse(line: str) -> Stamped | None:
    """What a ``line`` with its time says; ``None`` for one that has none, such as a kubelet's own words."""
    match = _LINE.match(line)
    if match is None:
        return None
    seconds, fraction, zone, text = match.groups(default="")
    try:
        whole = datetime.fromisoformat(f"{seconds}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        return None
    nanoseconds = int(fraction.ljust(9, "0")[:9])
    return Stamped(int(whole.timestamp()) * _NANOSECONDS + nanoseconds, text[:_MAX_LINE_CHARACTERS])


@dataclass(eq=False, slots=True)
class _Reader:
    """One who follows: what came last from each pod, by its uid, and the containers that are read."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    queue: asyncio.Queue[LogLine | ClusterError] = field(
        default_factory=lambda: asyncio.Queue(maxsize=_QUEUED_LINES)
    )
    last: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    told_of_more: bool = False


class PodLogs:
    """Reads the logs of the pods that ``pods`` knows for a function's key."""

    def __init__(self, kube: Kube, clock: Clock, pods: Callable[[str], Sequence[Object]]) -> None:
        self._kube = kube
        self._clock = clock
        self._pods = pods
        self._readers: dict[str, set[_Reader]] = {}

    def changed(self, key: str) -> None:
        """The pods of the function ``key`` are others, or in another state."""
        for reader in self._readers.get(key, ()):
            reader.changed.set()

    def following(self, key: str) -> int:
        """How many follow the function ``key``."""
        return len(self._readers.get(key, ()))

    async def read(self, key: str, *, tail: int, follow: bool) -> AsyncGenerator[LogLine, None]:
        """The last ``tail`` lines of all pods by their times; with ``follow`` then each new one, as it comes.

        Raises :class:`~torpor.errors.ClusterError` when the logs may not be read, or can't be.
        """
        reader = _Reader()
        for line in await self._tail(key, tail, reader, remember=follow):
            yield line
        if not follow:
            return
        self._readers.setdefault(key, set()).add(reader)
        following = asyncio.create_task(self._follow(key, reader))
        try:
            while True:
                one = await reader.queue.get()
                if isinstance(one, ClusterError):
                    raise one
                yield one
        finally:
            self._readers[key].discard(reader)
            if not self._readers[key]:
                del self._readers[key]
            tasks = [following, *reader.tasks.values()]
            await cancel(*tasks)

    # --- what there is already ----------------------------------------------------------------------------

    async def _tail(self, key: str, tail: int, reader: _Reader, *, remember: bool) -> list[LogLine]:
        gate = asyncio.Semaphore(_ASKED_AT_ONCE)
        pods = [pod for pod in self._pods(key) if _container(pod) is not None]

        async def last(pod: Object) -> list[tuple[int, str, str]]:
            async with gate:
                # One line at least: it says from where to go on.
                lines = await self._lines(pod, max(tail, 1)) if tail or remember else []
            if lines and remember:
                reader.last[pod["metadata"]["uid"]] = lines[-1].at
            name = pod["metadata"]["name"]
            return [(line.at, name, line.text) for line in lines]

        found = [line for lines in await asyncio.gather(*map(last, pods)) for line in lines]
        found.sort(key=lambda line: line[0])
        return [_log_line(name, Stamped(at, text)) for at, name, text in (found[-tail:] if tail else ())]

    async def _lines(self, pod: Object, lines: int) -> list[Stamped]:
        metadata = pod["metadata"]
        try:
            found = await self._kube.logs(
                metadata["namespace"],
                metadata["name"],
                container=CONTAINER,
                lines=lines,
                timestamps=True,
                limit_bytes=_MAX_POD_BYTES,
            )
        except ClusterMissingError:  # it went meanwhile
            return []
        except ClusterRefusedError as error:
            if error.status == 400:  # its container has not begun to run
                return []
            raise
        # What is over the limit is cut off at the end, which is what was asked for.
        if lines > 1 and sum(len(line.encode()) + 1 for line in found) >= _MAX_POD_BYTES:
            return await self._lines(pod, max(lines // 4, 1))
        return [stamped for line in found if (stamped := parse(line)) is not None]

    # --- what comes -----------------------------------------------------------------------------------------

    async def _follow(self, key: str, reader: _Reader) -> None:
        """Have every container that runs, or has run, be read once, for as long as it is let."""
        while True:
            reader.changed.clear()
            pods = {container: pod for pod in self._pods(key) if (container := _container(pod)) is not None}
            for gone in [one for one, task in reader.tasks.items() if one not in pods and task.done()]:
                del reader.tasks[gone]
            for container, pod in pods.items():
                if container in reader.tasks:
                    continue
                if sum(not task.done() for task in reader.tasks.values()) >= MAX_FOLLOWED:
                    await self._tell_of_more(reader)
                    break
                work = self._pump(key, pod, container, reader)
                reader.tasks[container] = asyncio.create_task(work)
            await reader.changed.wait()

    async def _tell_of_more(self, reader: _Reader) -> None:
        if not reader.told_of_more:
            reader.told_of_more = True
            text = f"more than {MAX_FOLLOWED} instances write; those beyond are not shown until others end"
            await reader.queue.put(self._own_line(text))

    async def _pump(self, key: str, pod: Object, container: str, reader: _Reader) -> None:
        """Hand on what one container writes, until it ends; a connection that breaks is made again."""
        metadata, failures = pod["metadata"], 0
        while True:
            began = self._clock.monotonic()
            try:
                got = await self._pump_once(metadata, reader)
            except ClusterMissingError:
                return
            except ClusterRefusedError as error:
                if error.status != 400:  # not allowed: nobody's lines will come
                    await reader.queue.put(error)
                return
            except ClusterUnreachableError as error:
                got = self._clock.monotonic() - began >= _LONGEST_PAUSE_SECONDS
                trouble: ClusterError | None = error
            except ClusterError as error:
                got, trouble = False, error
            else:
                trouble = None
            failures = 0 if got else failures + 1
            if failures > _MOST_FAILURES:
                await reader.queue.put(
                    self._own_line(f"{metadata['name']} can't be read any more: {trouble}")
                )
                return
            pause_seconds = min(_FIRST_PAUSE_SECONDS * 2**failures, _LONGEST_PAUSE_SECONDS)
            await self._clock.sleep(pause_seconds)
            if trouble is None and not self._still_runs(key, container):
                reader.changed.set()  # there may be room for another now
                return

    async def _pump_once(self, metadata: Object, reader: _Reader) -> bool:
        """Hand on new lines until the connection ends; whether there were any."""
        uid, name, got = metadata["uid"], metadata["name"], False
        known = reader.last.get(uid)
        since = "" if known is None else _rfc3339(known)
        lines = self._kube.follow_logs(metadata["namespace"], name, container=CONTAINER, since=since)
        async with contextlib.aclosing(lines):
            async for line in lines:
                stamped = parse(line)
                if stamped is None or stamped.at <= reader.last.get(uid, -1):
                    continue
                await reader.queue.put(_log_line(name, stamped))
                reader.last[uid] = stamped.at
                got = True
        return got

    def _still_runs(self, key: str, container: str) -> bool:
        return any(_container(pod) == container and _runs(pod) for pod in self._pods(key))

    def _own_line(self, text: str) -> LogLine:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return LogLine(time=now, instance="torpor", stream="stderr", text=text)


def _log_line(instance: str, line: Stamped) -> LogLine:
    seconds, nanoseconds = divmod(line.at, _NANOSECONDS)
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
    return LogLine(time=time, instance=instance, stream="stdout", text=line.text)


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at // _NANOSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _container(pod: Object) -> str | None:
    """The container of the function that has lines: the one that runs, or that ran last."""
    status = _status(pod)
    state, last = status.get("state", {}), status.get("lastState", {})
    if "running" in state or "terminated" in state:
        return str(status.get("containerID") or pod["metadata"]["uid"])
    if "terminated" in last:
        return str(last["terminated"].get("containerID") or pod["metadata"]["uid"])
    return None


def _runs(pod: Object) -> bool:
    return "running" in _status(pod).get("state", {})


def _status(pod: Object) -> Object:
    for status in pod.get("status", {}).get("containerStatuses", ()):
        if status["name"] == CONTAINER:
            found: Object = status
            return found
    return {}
