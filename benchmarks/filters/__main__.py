"""``python -m benchmarks.filters``: matches a second of each dialect, beside what one would write by hand.

Each filter and a function in plain Python that says the same judge the same events, in turns: half of the
events match. The ratio is what counts: how much of the speed of code by hand a filter reaches. Written to
``build/bench/filters.json``; the exit status is 1 when a filter judges wrongly, or is slower than
``LEAST_RATIO`` of code by hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from torpor.binding import WireEvent
from torpor.events.filters import Matcher
from torpor.spec.models import Filter

RESULT = Path(__file__).resolve().parents[2] / "build" / "bench" / "filters.json"
LEAST_RATIO = 0.05
EVENTS = [
    WireEvent(
        {
            "specversion": "1.0",
            "id": str(number),
            "source": "/shop/7",
            "type": "com.example.order.made" if number % 2 else "com.example.bill.sent",
            "subject": "big" if number % 2 else "small",
            "hop": "5" if number % 2 else "15",
            "time": "2026-01-01T00:00:00Z",
            "datacontenttype": "application/json",
        },
        orjson.dumps({"order": {"country": "de" if number % 2 else "fr", "items": [{"sku": "a"}] * 3}}),
    )
    for number in range(1000)
]
Predicate = Callable[[WireEvent], bool]


def _any(event: WireEvent) -> bool:
    attributes = event.attributes
    return attributes.get("subject") == "big" or attributes.get("source", "").endswith("/wholesale")


def _type_and_subject(event: WireEvent) -> bool:
    return event.attributes["type"] == "com.example.order.made" and event.attributes.get("subject") == "big"


CASES: list[tuple[str, Filter, Predicate]] = [
    (
        "exact",
        Filter(exact={"type": "com.example.order.made"}),
        lambda event: event.attributes["type"] == "com.example.order.made",
    ),
    (
        "prefix",
        Filter(prefix={"type": "com.example.order."}),
        lambda event: event.attributes["type"].startswith("com.example.order."),
    ),
    ("suffix", Filter(suffix={"type": ".made"}), lambda event: event.attributes["type"].endswith(".made")),
    (
        "any",
        Filter(any=(Filter(exact={"subject": "big"}), Filter(suffix={"source": "/wholesale"}))),
        _any,
    ),
    (
        "not",
        Filter(not_=Filter(exact={"subject": "small"})),
        lambda event: event.attributes.get("subject") != "small",
    ),
    (
        "exact, data",
        Filter(exact={"data.order.country": "de"}),
        lambda event: bool(orjson.loads(event.data or b"null")["order"]["country"] == "de"),
    ),
    (
        "sql, =",
        Filter(sql="type = 'com.example.order.made'"),
        lambda event: event.attributes["type"] == "com.example.order.made",
    ),
    (
        "sql, AND",
        Filter(sql="type = 'com.example.order.made' AND subject = 'big'"),
        _type_and_subject,
    ),
    (
        "sql, LIKE",
        Filter(sql="type LIKE 'com.example.order.%'"),
        lambda event: event.attributes["type"].startswith("com.example.order."),
    ),
    (
        "sql, IN",
        Filter(sql="subject IN ('big', 'huge')"),
        lambda event: event.attributes.get("subject") in ("big", "huge"),
    ),
    (
        "sql, numbers",
        Filter(sql="INT(hop) < 10 AND INT(hop) + 1 > 0"),
        lambda event: int(event.attributes["hop"]) < 10 and int(event.attributes["hop"]) + 1 > 0,
    ),
]


def _seconds(predicate: Predicate) -> float:
    began = time.process_time()
    for event in EVENTS:
        predicate(event)
    return time.process_time() - began


def _measured(item: Filter, by_hand: Predicate, rounds: int) -> dict[str, float]:
    matcher = Matcher([item]).matches
    assert [matcher(event) for event in EVENTS] == [by_hand(event) for event in EVENTS]
    pairs = [(_seconds(matcher), _seconds(by_hand)) for _ in range(rounds)]
    own, hand = (len(EVENTS) / statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return {"per_second": own, "by_hand_per_second": hand, "ratio": own / hand}


def main() -> int:
    """Measure, show and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    figures = {name: _measured(item, by_hand, rounds) for name, item, by_hand in CASES}
    table = Table("dialect", "matches a second", "by hand", "ratio", title="Filters, by processor time")
    for name, one in figures.items():
        table.add_row(
            name, f"{one['per_second']:,.0f}", f"{one['by_hand_per_second']:,.0f}", f"{one['ratio']:.2f}"
        )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")
    least = min(one["ratio"] for one in figures.values())
    console = Console()
    console.print(table)
    verdict = "holds" if least >= LEAST_RATIO else "FAILS"
    console.print(f"the slowest reaches {least:.2f} of code by hand; at least {LEAST_RATIO:g}: {verdict}")
    return 0 if least >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
