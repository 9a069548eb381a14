"""``make demo``: plays the acts, measures them, and fails when what is promised does not hold."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import uvloop

from demo.api_act import ApiAct
from demo.errors import DemoError
from demo.fan_out_act import FanOutAct, copied
from demo.pictures import media_type
from demo.report import EventsReport, Report
from demo.view import View, table
from demo.watcher import Watcher
from torpor.clock import SystemClock
from torpor.errors import TorporError
from torpor.testing.running import Running

if TYPE_CHECKING:
    from collections.abc import Awaitable

_ROOT = Path(__file__).resolve().parent.parent
_FUNCTIONS = _ROOT / "functions"
_PHOTO = _FUNCTIONS / "images" / "photo" / "retina.jpg"
_BUILD = _ROOT / "build" / "demo"
_ACT_SECONDS = 300.0
T = TypeVar("T")


@click.command()
@click.option("--image", type=click.Path(path_type=Path, dir_okay=False), default=_PHOTO, help="A picture.")
def main(image: Path) -> None:
    """Run the API gateway and the fan-out on real parts, and write report.json and result.png."""
    view = View()
    try:
        report = _demonstrate(view, image.absolute())
    except TorporError as error:
        view.console.print(f"The demo failed: {error}", style="red", markup=False)
        sys.exit(1)
    report.write(_BUILD / "report.json")
    view.console.print(table(report))
    view.console.print(f"\n{_shown(_BUILD / 'report.json')} and {_shown(_BUILD / 'result.png')} are written.")
    faults = report.faults()
    for fault in faults:
        view.console.print(f"does not hold: {fault}", style="red", markup=False)
    sys.exit(1 if faults else 0)


def _shown(path: Path) -> str:
    return str(path.relative_to(_ROOT))


def _demonstrate(view: View, image: Path) -> Report:
    media_type(image)  # a picture that can't be read is said before anything starts
    shutil.rmtree(_BUILD, ignore_errors=True)
    _BUILD.mkdir(parents=True)
    images = copied(_FUNCTIONS / "images", _BUILD / "images")
    with view:
        view.say("starting Envoy, NATS and the platform")
        with Running([_FUNCTIONS / "greeter", images], _BUILD / "platform") as platform:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(_play(view, platform, images, image))
            view.say("ending the platform")
            code = platform.stop()
            if code != 0:
                raise DemoError(f"torpor up ended with exit code {code}")
    report.processes_left = len(platform.census.left())
    return report


async def _play(view: View, platform: Running, images: Path, image: Path) -> Report:
    """All acts, one after the other, then everything back to zero."""
    clock = SystemClock()
    watcher = Watcher(platform, clock)
    view.watch(watcher)
    view.say(f"up at {platform.url}; everything is at zero")
    watching = asyncio.create_task(watcher.run())
    api = await _beside(watching, ApiAct(platform.url, watcher, clock, view.say).run())
    fan_out_act = FanOutAct(platform, watcher, clock, view.say, images, image, _BUILD / "result.png")
    fan_out = await _beside(watching, fan_out_act.run())
    view.say("waiting for everything to go back to zero")
    await _beside(watching, watcher.until_zero())
    with platform.client() as client:
        brokers = await asyncio.to_thread(client.brokers)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return Report(
        api=api,
        fan_out=fan_out,
        events=EventsReport(
            published=sum(one.published for one in brokers),
            delivered=sum(one.delivered for one in brokers),
            redelivered=sum(one.redelivered for one in brokers),
            dead_lettered=sum(one.dead_lettered for one in brokers),
        ),
        instances_at_end=watcher.instances(),
        processes_left=0,  # counted when the platform has ended
    )


async def _beside(watching: asyncio.Task[None], act: Awaitable[T]) -> T:
    """What ``act`` returns; ends with the watcher's error when that comes first."""
    acting = asyncio.ensure_future(act)
    try:
        async with asyncio.timeout(_ACT_SECONDS):
            await asyncio.wait([acting, watching], return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise DemoError(f"an act took more than {_ACT_SECONDS:g} seconds") from None
    finally:
        if not acting.done():
            acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)
    if watching.done() and acting.cancelled():
        watching.result()
    return acting.result()


if __name__ == "__main__":
    main()
