"""What is asked of the platform while its processes are killed, and what has to have come of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from torpor.binding import WireEvent

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

CODE = Path(__file__).parent / "functions"
_STEPS_A_KEY = 25
_GROUP_SIZE = 10
_DECLARATION = """\
apiVersion: torpor.dev/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  source: {{path: "{code}", handler: "main:{name}"}}
  scaling: {{maxScale: {instances}, target: 16, window: 2s, scaleToZeroGracePeriod: 0s}}
---
apiVersion: torpor.dev/v1alpha1
kind: Trigger
metadata: {{name: {name}}}
spec:
  filters: [{{exact: {{type: {takes}}}}}]
  subscriber: {{function: {name}}}
  delivery: {{retry: 100, backoffPolicy: linear, backoffDelay: 20ms}}
  {how}
"""
_FUNCTIONS = (
    ("work", 2, "job.wanted", ""),
    ("split", 1, "group.wanted", ""),
    ("part", 2, "group.part", ""),
    ("join", 1, "group.part.done", "join: {timeout: 1h}"),
    ("step", 2, "step.wanted", "ordering: key"),
)


def declare(folder: Path) -> None:
    """Write down the functions and triggers."""
    documents = [
        _DECLARATION.format(name=name, code=CODE, instances=instances, takes=takes, how=how)
        for name, instances, takes, how in _FUNCTIONS
    ]
    (folder / "functions.yaml").write_text("---\n".join(documents), "utf-8")


@dataclass(slots=True)
class Workload:
    """Events of three kinds, mixed: jobs that fail at first, groups to split and join, steps in order."""

    jobs: dict[int, bool] = field(default_factory=dict)
    """Whether a job is poison, by number."""
    groups: dict[int, int] = field(default_factory=dict)
    """How many parts a group has, by number."""
    steps: Counter[str] = field(default_factory=Counter)
    """How many steps there are, by key."""
    events: list[WireEvent] = field(default_factory=list)

    @property
    def outcomes(self) -> int:
        """How many results and dead letters there have to be."""
        return len(self.jobs) + 2 * sum(self.groups.values()) + len(self.groups) + self.steps.total()


def workload(total: int, chance: random.Random) -> Workload:
    """Work that makes about ``total`` deliveries."""
    made = Workload()
    kinds = [*["job"] * 2, "step", "group"]
    while made.outcomes < total:
        _add(made, chance.choice(kinds), chance)
    return made


def _add(made: Workload, kind: str, chance: random.Random) -> None:
    if kind == "job":
        number = len(made.jobs)
        made.jobs[number] = poison = chance.random() < 0.02
        fails = chance.choice((0, 0, 0, 1, 2))
        made.events.append(_event("job", number, {"number": number, "poison": poison, "fails": fails}))
    elif kind == "step":
        key = f"k{made.steps.total() // _STEPS_A_KEY // 8 * 8 + chance.randrange(8)}"
        number = made.steps[key]
        made.steps[key] += 1
        made.events.append(
            _event("step", f"{key}-{number}", {"key": key, "number": number}, partitionkey=key)
        )
    else:
        number = len(made.groups)
        made.groups[number] = size = chance.randint(1, _GROUP_SIZE)
        made.events.append(_event("group", number, {"number": number, "size": size}))


def _event(kind: str, name: object, data: object, **attributes: str) -> WireEvent:
    own = {"specversion": "1.0", "id": f"{kind}-{name}", "source": "/chaos", "type": f"{kind}.wanted"}
    return WireEvent({**own, "datacontenttype": "application/json", **attributes}, orjson.dumps(data))


@dataclass(slots=True)
class _Seen:
    """What the log holds, by what was asked for."""

    jobs: Counter[int] = field(default_factory=Counter)
    parts: Counter[tuple[int, int]] = field(default_factory=Counter)
    groups: dict[int, list[list[int]]] = field(default_factory=dict)
    steps: dict[str, list[int]] = field(default_factory=dict)
    dead: Counter[str] = field(default_factory=Counter)


def _seen(stored: Iterable[WireEvent], dead: Iterable[WireEvent]) -> _Seen:
    seen = _Seen(dead=Counter(event.id for event in dead))
    for event in stored:
        data = orjson.loads(event.data or b"null")
        if event.type == "job.done":
            seen.jobs[data["number"]] += 1
        elif event.type == "group.part.done":
            seen.parts[data["group"], data["index"]] += 1
        elif event.type == "group.joined":
            seen.groups.setdefault(data["group"], []).append(data["indexes"])
        elif event.type == "step.done":
            seen.steps.setdefault(data["key"], []).append(data["number"])
    return seen


def faults(wanted: Workload, stored: Iterable[WireEvent], dead: Iterable[WireEvent]) -> Iterator[str]:
    """What is missing, there twice, or out of order in what the log holds, oldest first."""
    seen = _seen(stored, dead)
    for number, poison in wanted.jobs.items():
        done, died = seen.jobs[number], seen.dead.pop(f"job-{number}", 0)
        if (done, died) != (not poison, poison):
            yield f"job {number} (poison: {poison}) was done {done} times and has {died} dead letters"
    for number, size in wanted.groups.items():
        if (joined := seen.groups.get(number, [])) != [list(range(size))]:
            yield f"group {number} of {size} parts was joined as {joined}"
        for index in range(size):
            if (times := seen.parts[number, index]) != 1:
                yield f"part {index} of group {number} was done {times} times"
    for key, count in wanted.steps.items():
        if (order := seen.steps.get(key, [])) != list(range(count)):
            yield f"the {count} steps of {key} were done as {order}"
    for event_id, count in seen.dead.items():
        yield f"{event_id} has {count} dead letters, and should have none"
