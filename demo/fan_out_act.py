"""Act two: a photograph is split, its tiles are resized on several instances at once, and joined again."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.errors import DemoError
from demo.pictures import largest_difference, load, media_type, one_shot
from demo.report import FanOutReport
from torpor.binding import WireEvent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from demo.stage import Stage
    from demo.watcher import Watcher
    from torpor.api.client import Client
    from torpor.clock import Clock

_WORKER = "resize"
_TIMEOUT_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class _Run:
    tiles: int
    seconds: float
    content: bytes


@dataclass(slots=True)
class FanOutAct:
    """Measures the act while it runs."""

    stage: Stage
    watcher: Watcher
    clock: Clock
    say: Callable[[str], None]
    image: Path
    result: Path

    async def run(self) -> FanOutReport:
        """Play it as declared, and then with one instance only, to see what several bring."""
        kind = media_type(self.image)
        self.watcher.forget_peaks()
        self.say(f"uploading {self.image.name}; it is split, resized and joined")
        several = await self._once(kind)
        instances = self.watcher.peak(_WORKER)
        self.result.write_bytes(several.content)
        picture = load(several.content)
        expected = await asyncio.to_thread(one_shot, self.image, picture.size)
        difference = largest_difference(picture, expected)
        self.say(
            f"{several.tiles} tiles on up to {instances} instances in {several.seconds:.1f} s; "
            "again with one instance only"
        )
        await self._allow_one_instance()
        single = await self._once(kind)
        return FanOutReport(
            tiles=several.tiles,
            max_instances=instances,
            max_abs_diff=difference,
            wall_seconds=round(several.seconds, 3),
            single_instance_seconds=round(single.seconds, 3),
        )

    async def _once(self, kind: str) -> _Run:
        """One picture through the functions, from the upload to the event that it is done."""
        await self.watcher.until_zero("split", _WORKER, "stitch")
        return await asyncio.to_thread(self._send_and_wait, kind)

    def _send_and_wait(self, kind: str) -> _Run:
        identity = str(uuid.uuid4())
        tiles = 0
        with self.stage.client() as client, client.tail(filters=["type=image.*"]) as events:
            started = self.clock.monotonic()
            with self.image.open("rb") as content:
                blob = client.put_blob(content, kind)
            attributes = {
                "specversion": "1.0",
                "id": identity,
                "source": "/demo",
                "type": "image.uploaded",
                "subject": self.image.name,
                "datacontenttype": kind,
                "dataref": blob.dataref,
            }
            client.send([WireEvent(attributes, None)])
            for event in events:
                if event.type == "image.tile":
                    tiles += 1
                elif event.type == "image.resized":
                    seconds = self.clock.monotonic() - started
                    return _Run(tiles, seconds, self._fetch(client, event))
                if self.clock.monotonic() - started > _TIMEOUT_SECONDS:
                    break
        raise DemoError(f"the picture was not joined within {_TIMEOUT_SECONDS:g} seconds")

    @staticmethod
    def _fetch(client: Client, event: WireEvent) -> bytes:
        reference = event.attributes.get("dataref")
        if reference is None:
            return event.data or b""
        return client.get_blob(reference.rpartition("/")[2])

    async def _allow_one_instance(self) -> None:
        """Change the declaration, as a person with an editor would, and wait until it holds."""

        def limit(spec: dict[str, Any]) -> None:
            spec["scaling"]["maxScale"] = 1

        await asyncio.to_thread(self.stage.change, _WORKER, limit)
        await self.watcher.until(
            f"{_WORKER} with one instance at most",
            lambda functions: functions[_WORKER].scaling.max_scale == 1,
            30.0,
        )
