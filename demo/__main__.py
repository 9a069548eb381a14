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
from demo.fan_out_act import FanOutAct
from demo.mail_act import MailAct
from demo.pictures import media_type
from demo.report import EventsReport, Report
from demo.stage import Laptop
from demo.view import View, table
from demo.watcher import Watcher
from torpor.clock import SystemClock
from torpor.errors import TorporError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractContextManager

    from demo.stage import Stage

_ROOT = Path(__file__).resolve().parent.parent
_FUNCTIONS = _ROOT / "functions"
_PHOTO = _FUNCTIONS / "images" / "photo" / "retina.jpg"
_ACT_SECONDS = 300.0
T = TypeVar("T")


@click.command()
@click.option("--image", type=click.Path(path_type=Path, dir_okay=False), default=_PHOTO, help="A picture.")
@click.option("--cluster", is_flag=True, help="In a Kubernetes, instead of on this machine.")
def main(image: Path, *, cluster: bool) -> None:
    """Run API gateway, fan-out and bulk mail on real parts, and write report.json and result.png."""
    view = View()
    build = _ROOT / "build" / ("demo-cluster" if cluster else "demo")
    try:
        report = _demonstrate(view, image.absolute(), build, cluster=cluster)
    except TorporError as error:
        view.console.print(f"The demo failed: {error}", style="red", markup=False)
        sys.exit(1)
    report.write(build / "report.json")
    view.console.print(table(report))
    view.console.print(f"\n{_shown(build / 'report.json')} and {_shown(build / 'result.png')} are written.")
    faults = report.faults()
    for fault in faults:
        view.console.print(f"does not hold: {fault}", style="red", markup=False)
    sys.exit(1 if faults else 0)


def _shown(path: Path) -> str:
    return str(path.relative_to(_ROOT))


def _demonstrate(view: View, image: Path, build: Path, *, cluster: bool) -> Report:
    media_type(image)  # a picture that can't be read is said before anything starts
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    with view, _stage(view, build, cluster=cluster) as stage:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(_play(view, stage, image, build / "result.png"))
        view.say("ending the platform")
        stage.end()
    report.processes_left = stage.left()
    return report


def _stage(view: View, build: Path, *, cluster: bool) -> AbstractContextManager[Stage]:
    if cluster:
        from demo.cluster import InCluster  # noqa: PLC0415 - brings what only tests have

        return InCluster(_FUNCTIONS, build, view.say)
    view.say("starting Envoy, NATS and the platform")
    return Laptop(_FUNCTIONS, build)


async def _play(view: View, stage: Stage, image: Path, result: Path) -> Report:
    """All acts, one after the other, then everything back to zero."""
    clock = SystemClock()
    watcher = Watcher(stage, clock)
    view.watch(watcher)
    view.say(f"up at {stage.url}; everything is at zero")
    watching = asyncio.create_task(watcher.run())
    api = await _beside(watching, ApiAct(stage.url, watcher, clock, view.say).run())
    fan_out = await _beside(watching, FanOutAct(stage, watcher, clock, view.say, image, result).run())
    messaging = await _beside(watching, MailAct(stage, clock, view.say).run())
    view.say("waiting for everything to go back to zero")
    await _beside(watching, watcher.until_zero())
    with stage.client() as client:
        brokers = await asyncio.to_thread(client.brokers)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return Report(
        api=api,
        fan_out=fan_out,
        messaging=messaging,
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
