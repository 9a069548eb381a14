"""The live view: what goes on, and how many instances of each function there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import RenderableType

    from demo.report import Report
    from demo.watcher import Watcher

_MOST_LINES = 9
_BARS = " ▁▂▃▄▅▆▇█"


class View:
    """Live while its block is entered; where stdout is no terminal, each line is printed once instead."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._lines: list[str] = []
        self._watcher: Watcher | None = None
        self._live = Live(
            get_renderable=self._render, console=self.console, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.__exit__(kind, error, traceback)

    def watch(self, watcher: Watcher) -> None:
        """Show what ``watcher`` sees from now on."""
        self._watcher = watcher

    def say(self, text: str) -> None:
        """Add a line."""
        self._lines.append(text)
        if not self.console.is_terminal:
            self.console.print(text)

    def _render(self) -> RenderableType:
        story = Text("\n".join(self._lines[-_MOST_LINES:]) or "setting up")
        parts: list[RenderableType] = [Panel(story, title="Torpor", title_align="left")]
        if self._watcher is not None:
            parts.append(self._instances(self._watcher))
        return Group(*parts)

    @staticmethod
    def _instances(watcher: Watcher) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("function", "instances", "requests", "state", "lately"):
            table.add_column(column)
        for name, one in sorted(watcher.functions.items()):
            ready = sum(instance.state == "ready" for instance in one.instances)
            dots = Text("●" * ready, style="green") + Text("○" * (len(one.instances) - ready), style="yellow")
            lately = "".join(
                _BARS[min(number * 2, len(_BARS) - 1)] for number in watcher.history.get(name, ())
            )
            table.add_row(name, dots, str(one.requests), Text(one.reason[:60]), Text(lately, style="cyan"))
        return Panel(table, title="instances", title_align="left")


def table(report: Report) -> Table:
    """What was measured."""
    shown = Table(title="Measured", title_justify="left", box=None, header_style="bold", pad_edge=False)
    shown.add_column("what")
    shown.add_column("value", justify="right")
    api, fan_out, events, mails = report.api, report.fan_out, report.events, report.messaging
    ratio = fan_out.single_instance_seconds / fan_out.wall_seconds if fan_out.wall_seconds else 0.0
    for what, value in (
        ("requests through the gateway", f"{api.requests}, {api.failed} failed"),
        ("woken from zero, p50 / p99", f"{api.cold_start_ms.p50:.0f} / {api.cold_start_ms.p99:.0f} ms"),
        ("warm request, p50 / p99", f"{api.warm_ms.p50:.1f} / {api.warm_ms.p99:.1f} ms"),
        ("times at zero and back", str(api.cycles_to_zero)),
        ("most instances of greeter", str(api.max_instances)),
        ("tiles of the picture", str(fan_out.tiles)),
        ("most instances of resize", str(fan_out.max_instances)),
        ("largest difference from one resize", f"{fan_out.max_abs_diff} grey levels"),
        ("split, resized and joined in", f"{fan_out.wall_seconds:.2f} s"),
        ("the same with one instance", f"{fan_out.single_instance_seconds:.2f} s ({ratio:.1f} times)"),
        ("mails sent, twice, lost", f"{mails.sent} of {mails.wanted}, {mails.duplicates}, {mails.lost}"),
        (
            "tried again / dead letters / replayed",
            f"{mails.retried} / {mails.dead_lettered} / {mails.replayed}",
        ),
        ("sent and mended in", f"{mails.wall_seconds:.1f} s"),
        ("events published / delivered", f"{events.published} / {events.delivered}"),
        ("delivered again / dead letters", f"{events.redelivered} / {events.dead_lettered}"),
        ("instances, processes left", f"{report.instances_at_end}, {report.processes_left}"),
    ):
        shown.add_row(what, value)
    return shown
