"""Schedules on a real platform: fired once for each time, over restarts of its parts, and reloaded."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from tests.integration.local.conftest import until
from torpor.testing.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torpor.api.client import Client
    from torpor.spec.status import ScheduleStatus

CODE = """
import os
from pathlib import Path

from torpor import CloudEvent, function


@function
def record(event: CloudEvent) -> None:
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write(f"{event.get_id()} {event.get_data()}\\n")
"""
DECLARED = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {{name: record}}
spec:
  env: [{{name: RECORD, value: "{record}"}}]
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {{name: record}}
spec:
  filters: [{{exact: {{type: tick}}}}]
  subscriber: {{function: record}}
"""
SCHEDULE = """\
---
apiVersion: torpor.dev/v1alpha1
kind: Schedule
metadata: {name: ticks}
spec:
  cron: "* * * * * *"
  missed: run-all
  event: {type: tick, data: {n: 1}}
"""


def _one(client: Client) -> ScheduleStatus:
    [one] = client.schedules()
    return one


def _reached(ids: Callable[[], list[str]], number: int) -> bool:
    return len(set(ids())) >= number


def test_it_fires_once_each_second_whatever_is_killed(tmp_path: Path) -> None:
    folder, record = tmp_path / "functions", tmp_path / "record.txt"
    folder.mkdir()
    (folder / "main.py").write_text(CODE)
    (folder / "function.yaml").write_text(DECLARED.format(record=record) + SCHEDULE)

    def ids() -> list[str]:
        lines = record.read_text().splitlines() if record.exists() else []
        return [line.partition(" ")[0] for line in lines]

    with Running([folder], tmp_path / "run") as platform, platform.client() as client:
        until(lambda: len(set(ids())) >= 2, "two firings")
        assert record.read_text().splitlines()[0].endswith("{'n': 1}")
        for part in ("events", "nats"):
            wanted = len(set(ids())) + 3
            os.kill(next(one.pid or 0 for one in client.status().parts if one.name == part), signal.SIGKILL)
            until(partial(_reached, ids, wanted), "firings after a kill")
        assert _one(client).ready
        assert _one(client).missed == 0
        assert client.status().schedules == 1
        # A handler may run twice after a kill, for the very same event; none of the seconds was left out.
        seconds = sorted({one.rpartition("@")[2] for one in ids()})
        span = datetime.fromisoformat(seconds[-1]) - datetime.fromisoformat(seconds[0])
        assert len(seconds) == span.total_seconds() + 1
        (folder / "function.yaml").write_text(
            DECLARED.format(record=record) + SCHEDULE.replace("spec:", "spec:\n  suspend: true")
        )
        until(lambda: _one(client).suspended, "it rests")
        assert (_one(client).reason, _one(client).next) == ("suspended", None)
        (folder / "function.yaml").write_text(DECLARED.format(record=record))
        until(lambda: client.schedules() == [], "it is gone")
