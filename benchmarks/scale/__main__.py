"""``python -m benchmarks.scale``: what large numbers cost the events process, in memory and in time.

A backlog of ``--events`` that waits and then is drained, ``--groups`` open groups that are left open over a
crash and then are closed or run out of time, one group of 10,000 parts, and groups within groups. Each on a
broker of its own, one after the other. The process is the real one; functions take no time. Written to
``build/bench/scale-<log>.json``; the exit status is 1 when a result is missing or is there twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.scale import scenarios
from benchmarks.scale.functions import Functions
from benchmarks.scale.rig import rig

BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"


async def _measure(chosen: argparse.Namespace, functions: Functions) -> dict[str, Any]:
    events = chosen.events
    sizes: dict[str, tuple[int, ...]] = {
        "backlog": (events, min(events, chosen.deliver or events)),
        "groups": (chosen.groups,),
        "large": (chosen.parts,),
        "nested": (chosen.nested,),
    }
    result: dict[str, Any] = {"log": chosen.log, "sync": chosen.sync}
    for name in chosen.only or sizes:
        with tempfile.TemporaryDirectory(prefix="torpor-scale-") as folder:
            async with rig(chosen.log, Path(folder), chosen.sync, functions) as it:
                print(f"{name} {sizes[name]} ...", file=sys.stderr)
                result[name] = await getattr(scenarios, name)(it, *sizes[name])
    return result


def _show(result: dict[str, Any]) -> None:
    for name, found in result.items():
        if not isinstance(found, dict):
            continue
        table = Table("what", "measured", title=f"{name} on {result['log']}")
        for what, value in found.items():
            table.add_row(
                what.replace("_", " "), f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
            )
        Console().print(table)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--log", choices=("jetstream", "kafka"), default="jetstream")
    parser.add_argument("--sync", choices=("always", "interval"), default="interval")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--deliver", type=int, help="how many of the events, else all")
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--parts", type=int, default=10_000, help="of the large group")
    parser.add_argument("--nested", type=int, default=50, help="groups, each of as many parts, in one group")
    parser.add_argument("--only", action="append", choices=("backlog", "groups", "large", "nested"))
    chosen = parser.parse_args()
    functions = Functions()
    try:
        result = uvloop.run(_measure(chosen, functions))
    finally:
        functions.close()
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / f"scale-{chosen.log}.json").write_text(json.dumps(result, indent=2) + "\n")
    _show(result)
    faults = [name for name, found in result.items() if isinstance(found, dict) and found.get("faults")]
    for name in faults:
        print(f"{name}: {result[name]['faults']} results are missing, or there twice", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
